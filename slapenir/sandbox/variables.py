"""The environment variables by which programs are told what to trust: one table for all.

Where each is documented: OpenSSL's SSL_CTX_load_verify_locations(3) and Go's crypto/x509
(SSL_CERT_FILE, SSL_CERT_DIR), requests, curl(1), pip, git-config(1), Cargo's book, the AWS CLI,
gRPC's environment_variables.md, Nix, npm's config, gcloud's core/custom_ca_certs_file, httplib2's
certs.py, ``mix hex.config``, Node's command-line options, Deno's environment variables, wget(1).
"""

from __future__ import annotations

# Each names one file that takes the place of the program's own list of CAs.
REPLACING = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    # An npm whose configuration names a cafile does not read NODE_EXTRA_CA_CERTS.
    "npm_config_cafile",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "HTTPLIB2_CA_CERTS",
    "HEX_CACERTS_PATH",
)

# Each names one file that is added to the program's own list.
ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")

CA_VARIABLES = (*REPLACING, *ADDING)

# What has one value everywhere.  Node reads proxy variables only when it is told to.
FIXED = {"NODE_USE_ENV_PROXY": "1"}


def ca_variables(bundle: str, ours: str) -> dict[str, str]:
    """Return the variables: ``bundle`` holds every CA to trust, ``ours`` at least the gateway's."""
    return {**dict.fromkeys(REPLACING, bundle), **dict.fromkeys(ADDING, ours), **FIXED}
