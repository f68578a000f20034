"""The public prefixes of well-known tokens: what says whose token it is and nothing more."""

from __future__ import annotations

_PREFIXES = (
    b"sk-ant-api03-",
    b"sk-ant-admin01-",
    b"sk-ant-oat01-",
    b"sk-ant-",
    b"sk-proj-",
    b"sk-svcacct-",
    b"sk-admin-",
    b"sk-or-v1-",
    b"sk-",
    b"sk_live_",
    b"sk_test_",
    b"rk_live_",
    b"rk_test_",
    b"whsec_",
    b"ghp_",
    b"gho_",
    b"ghu_",
    b"ghs_",
    b"ghr_",
    b"github_pat_",
    b"glpat-",
    b"gldt-",
    b"glrt-",
    b"xoxb-",
    b"xoxp-",
    b"xoxa-",
    b"xoxe-",
    b"xoxs-",
    b"xapp-",
    b"AKIA",
    b"ASIA",
    b"AIza",
    b"ya29.",
    b"hf_",
    b"npm_",
    b"pypi-",
    b"dop_v1_",
    b"dckr_pat_",
    b"shpat_",
    b"SG.",
    b"gsk_",
    b"r8_",
    b"pplx-",
    b"xai-",
    b"nvapi-",
    b"tvly-",
    b"lin_api_",
    b"ntn_",
    b"hvs.",
)

PREFIXES: tuple[bytes, ...] = tuple(sorted(_PREFIXES, key=len, reverse=True))


def public_prefix(secret: bytes) -> bytes:
    """Return the longest known prefix that the secret begins with, or nothing."""
    for prefix in PREFIXES:
        if secret.startswith(prefix):
            return prefix
    return b""
