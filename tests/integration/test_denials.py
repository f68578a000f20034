"""What the running gateway refuses, what it says, and that nothing reached an origin."""

from __future__ import annotations

import json
from http.client import HTTPResponse
from typing import Any

from tests.integration.agent import answer, connect, dial, request, tunnel
from tests.integration.case import ClientCase
from tests.integration.scene import API, OPENAI


class TestDenials(ClientCase):
    """Each refusal is a readable answer and one audit record; each has a neighbour that passes."""

    def test_an_unnamed_host_is_refused_before_it_is_looked_up(self) -> None:
        """T038, T240: deny is the default, and a name nobody may reach is not resolved."""
        with dial(self.scene.gateway) as conn:
            self._assert_refused(connect(conn, "elsewhere.example.test:443"), "no_rule")
        self._assert_one_denial("no_rule")

    def test_another_port_is_refused(self) -> None:
        """T029: a rule's ports are all there is."""
        with dial(self.scene.gateway) as conn:
            self._assert_refused(connect(conn, f"{API}:22"), "no_rule")
        with tunnel(self.scene.gateway, API) as conn:
            conn.sendall(request(self.scene.gateway, API, "GET", "/"))
            self.assertEqual(answer(conn).status, 200)

    def test_plain_http_to_an_https_rule_is_refused(self) -> None:
        """T181, T230, T238: a rule without scheme means https, and plain HTTP has no bypass."""
        gateway = self.scene.gateway
        target = f"http://{API}:{gateway.hosts[API]}/v1/x"
        bearer = f"Authorization: Bearer {self.scene.environment['API_KEY']}"
        with dial(gateway) as conn:
            conn.sendall(request(gateway, API, "GET", target, bearer))
            self.assertEqual(answer(conn).status, 403)
        self.assertEqual(self.requests(API), [])

    def test_a_placeholder_for_another_host_is_a_honeytoken(self) -> None:
        """T162, T163: this host is allowed, but not for this credential."""
        self._assert_honeytoken(OPENAI, "GET", "/v1/x", "Authorization: Bearer {API_KEY}")

    def test_a_placeholder_outside_its_surface_is_a_honeytoken(self) -> None:
        """T165, T166: the credential belongs into Authorization and nowhere else."""
        self._assert_honeytoken(API, "GET", "/v1/x?key={API_KEY}")
        self._assert_honeytoken(API, "GET", "/v1/x", "X-Api-Key: {API_KEY}")
        self._assert_honeytoken(API, "GET", "/v1/x", "User-Agent: agent {API_KEY}")

    def test_a_real_secret_is_not_sent_out(self) -> None:
        """T188: an agent that learnt a secret elsewhere cannot send it, here not even to its host.

        The record names the credential and never shows it.
        """
        secret = self.scene.credentials["api"].secret
        with tunnel(self.scene.gateway, API) as conn:
            conn.sendall(request(self.scene.gateway, API, "GET", "/v1/x", f"X-Note: {secret}"))
            self._assert_refused(answer(conn), "secret_in_request")
        self.assertEqual(self.requests(API), [])
        self.assert_clean(self.scene.gateway.written())

    def test_the_gateway_does_not_reach_itself(self) -> None:
        """T031: neither its listener nor its admin endpoint, by address."""
        gateway = self.scene.gateway
        for port in (gateway.port, gateway.admin_port):
            with dial(gateway) as conn:
                self.assertEqual(connect(conn, f"127.0.0.1:{port}").status, 403)

    def _assert_honeytoken(self, host: str, method: str, target: str, *lines: str) -> None:
        gateway, values = self.scene.gateway, self.scene.environment
        before = len(self.requests(host))
        with tunnel(gateway, host) as conn:
            filled = [line.format(**values) for line in lines]
            conn.sendall(request(gateway, host, method, target.format(**values), *filled))
            self._assert_refused(answer(conn), "honeytoken")
        self.assertEqual(len(self.requests(host)), before)
        findings = [one for one in self.records() if one.get("reason") == "honeytoken"]
        self.assertIn("api", json.dumps(findings[-1]))

    def _assert_refused(self, response: HTTPResponse, reason: str) -> None:
        body: dict[str, Any] = json.loads(response.read(int(response.headers["Content-Length"])))
        self.assertEqual(response.status, 403)
        self.assertEqual((body["decision"], body["reason"]), ("deny", reason))
        self.assertIs(body["retry"], False)
        self.assertIn("deny", response.headers["X-Slapenir-Decision"])

    def _assert_one_denial(self, reason: str) -> None:
        records = [one for one in self.records() if one.get("action") == "deny"]
        self.assertEqual([one["reason"] for one in records], [reason])
