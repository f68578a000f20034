# `make` prints what there is.  Everything happens inside this directory: the virtual environment is
# .venv, the first configuration .run, results go to build.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
RUN_DIR = .run
IDENTITY = sandbox
T = tests

SETUP = setup.cfg pyproject.toml constraints.txt .ci/environment
TEST_TOOLS = curl:curl wget:wget git:git node:nodejs npm:npm openssl:openssl systemd-analyze:systemd \
	certutil:libnss3-tools nft:nftables iptables:iptables ip:iproute2 bwrap:bubblewrap \
	dig:bind9-dnsutils chromium:chromium \
	debootstrap:debootstrap buildah:buildah podman:podman runc:runc
BENCH_TOOLS = openssl:openssl squid:squid-openssl

.DEFAULT_GOAL = help
.PHONY: help run demo test lint format docs bench clean

help: ## Print this text
	@echo "SLAPENIR: an egress firewall for AI-agent sandboxes."
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo
	@echo "make test T=tests.wire runs one part; PYTHON=python3.12 chooses the interpreter"
	@echo "of a new .venv (make clean removes the old one)."

$(VENV)/.run: $(SETUP)
	@.ci/environment $(PYTHON) $(VENV) ""
	@touch $@

$(VENV)/.test: $(SETUP)
	@.ci/environment $(PYTHON) $(VENV) test,docs
	@touch $@ $(VENV)/.run

$(RUN_DIR)/slapenir.toml: | $(VENV)/.run
	@$(BIN)/slapenir init $(RUN_DIR)

run: $(VENV)/.run $(RUN_DIR)/slapenir.toml ## Run the gateway on loopback (first CA and config in .run)
	@$(BIN)/slapenir check $(RUN_DIR)/slapenir.toml
	@echo
	@echo "Put an agent behind the gateway: paste this into another shell."
	@echo
	@$(BIN)/slapenir env $(RUN_DIR)/slapenir.toml --identity $(IDENTITY)
	@echo
	@echo "Ctrl-C stops the gateway."
	@exec $(BIN)/twistd -n --pidfile= slapenir --config $(RUN_DIR)/slapenir.toml

demo: $(VENV)/.run ## Show one credential swapped and redacted, against a local origin
	@$(BIN)/python demo/run.py

test: $(VENV)/.test ## Run every test (as root it installs the tools that tests need)
	@.ci/packages $(TEST_TOOLS) || echo "The tests that need them will be skipped and say so."
	@.ci/go-tools || true
	@$(BIN)/python -m twisted.trial $(T)

lint: $(VENV)/.test ## Check style, layout and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict slapenir twisted/plugins/*.py

format: $(VENV)/.test ## Rewrite the layout of every Python file
	$(BIN)/ruff format .

docs: $(VENV)/.test ## Build the documentation into build/docs, warnings as errors
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

bench: $(VENV)/.test ## Measure CPU beside a relay, squid and mitmproxy; writes build/bench.json
	@.ci/packages $(BENCH_TOOLS) || echo "A contender that is not there is reported as absent."
	@$(BIN)/python bench/run.py

clean: ## Remove the virtual environment and results; .run with its CA stays
	rm -rf $(VENV) build _trial_temp* .mypy_cache .ruff_cache .hypothesis
