"""What a connection can show for who its client is; policy/identities.py says whose it is.

Evidence is only ever made by the edge and by the session from what was verified: names of a
certificate whose chain was checked, the address of a peer, the user id the kernel gave, the
digest of a token.  Nothing that a header says is evidence.
"""

from __future__ import annotations

import attrs


@attrs.frozen(slots=True)
class CertificateNames:
    """The names in a verified certificate, as they are written: nothing is folded or trimmed.

    ``spiffe`` holds every URI name, ``dns`` every DNS name, ``common`` every common name.
    """

    spiffe: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    common: tuple[str, ...] = ()


@attrs.frozen(slots=True)
class Evidence:
    """What is known about one client; a part that the listener does not ask for is left out.

    ``source`` is an IP address; ``token`` is ``sha256:`` and 64 hex digits.  The token itself is
    never kept.
    """

    certificate: CertificateNames | None = None
    source: str = ""
    unix_uid: int | None = None
    token: str = ""
