"""What every test of a real client asserts, in one place."""

from __future__ import annotations

import shutil
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.scene import Ran, Scene, shared_scene
from tests.support.git_origin import basic_password
from tests.support.llm_origin import credential_seen
from tests.support.origin import Request
from tests.support.traces import traces


def need(tool: str) -> str:
    """Return the path of a program, or skip the test and name it."""
    path = shutil.which(tool)
    if path is None:
        raise SkipTest(f"{tool} is not installed")
    return path


def need_module(name: str) -> None:
    """Skip the test when a Python package is missing, and name it."""
    try:
        __import__(name)
    except ImportError:
        raise SkipTest(f"the Python package {name} is not installed") from None


class ClientCase(SynchronousTestCase):
    """A test with the shared gateway; remembers what the origins had seen before it began."""

    def setUp(self) -> None:
        self.scene: Scene = shared_scene()
        self._seen = {host: len(one.requests) for host, one in self.scene.origins.items()}
        self._records = len(self.scene.gateway.records())

    def requests(self, host: str) -> list[Request]:
        """Return what this origin was asked during this test."""
        return self.scene.origins[host].requests[self._seen[host] :]

    def records(self) -> list[dict[str, Any]]:
        """Return the audit and access records written during this test."""
        return self.scene.gateway.records()[self._records :]

    def assert_swapped(self, ran: Ran, credential: str, host: str) -> None:
        """The client succeeded, the origin saw the real key, and the client never did."""
        secret = self.scene.credentials[credential].secret
        self.assertEqual(ran.status, 0, ran.output.decode("utf-8", "replace"))
        received = self.requests(host)
        self.assertTrue(received, "the origin was never asked")
        for request in received:
            self.assertIn(secret, (credential_seen(request).decode(), basic_password(request)))
        self.assert_clean(ran.output)
        self.assert_clean(self.scene.gateway.written())

    def assert_clean(self, data: bytes) -> None:
        """No credential of the gateway is in ``data``, in any plain form."""
        for one in self.scene.credentials.values():
            self.assertEqual(traces(data, one.secret), [], f"{one.id} leaked")
