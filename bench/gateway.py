"""The gateway as a contender: 100 credentials, audit and access logs on, one injected a request."""

from __future__ import annotations

import secrets

from bench.contenders import HOST, Bed, Running, Unavailable
from tests.support.gateway import Credential, Gateway, GatewayFailed, Rule

CREDENTIALS = 100
SECRET_BYTES = 36


def start_slapenir(bed: Bed) -> Running:
    """Start ``twistd slapenir``; the first credential belongs to the benchmark's origin."""
    credentials = [
        Credential(
            id=f"bench-{number}",
            secret="sk-" + secrets.token_urlsafe(SECRET_BYTES),
            hosts=(HOST,) if number == 0 else (f"host-{number}.example.test",),
            inject=('{ header = "Authorization", scheme = "Bearer" }',),
            placeholder="DUMMY_BENCH" if number == 0 else None,
        )
        for number in range(CREDENTIALS)
    ]
    rules = [Rule(id="bench", hosts=(HOST,), ports=(bed.origin_port,), credentials=("bench-0",))]
    gateway = Gateway(
        directory=bed.subdirectory("slapenir"),
        credentials=credentials,
        rules=rules,
        hosts={HOST: bed.origin_port},
        origin_ca=bed.ca.ca_file,
    )
    try:
        gateway.start()
    except GatewayFailed as error:
        gateway.stop()
        raise Unavailable(str(error)) from None
    return Running(
        "slapenir", gateway.process, gateway.port, gateway.ca_file, "DUMMY_BENCH", gateway.stop
    )
