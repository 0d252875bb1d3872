"""Which request heads can be read in two ways and are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SINGLE = (
    b"host",
    b"origin",
    b"content-type",
    b"content-length",
    b"mcp-session-id",
)
"""Headers that decide who may call what: if one is repeated, two programs may each use another.

Authorization (401) and the routing headers (-32020) are refused with their own codes elsewhere.
"""

_ABSOLUTE = rb"(?i)https?://([^/?#]+)/"


def ambiguity(
    method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]
) -> str | None:
    """Return why a request head can be read in two ways; None if it cannot.

    A proxy in front may have read it the other way. The connection must end then: a further
    response on it could reach the wrong client.

    Args:
        method: As sent.
        target: The request target: a path, or a URL whose authority is the Host header's.
        version: The version of HTTP, like `1.1`.
        headers: Names in lower case.

    Source:
        RFC 9112, 3.2, 6.1 and 11.2.
    """
    names = dict(headers)
    repeated = None
    if len(names) < len(headers):
        every = [name for name, _ in headers]
        repeated = next((name for name in _SINGLE if every.count(name) > 1), None)
    codings: list[bytes] = []
    if b"transfer-encoding" in names:
        codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if version not in ("1.0", "1.1"):
        return f"HTTP/{version} is not served on this connection (expected HTTP/1.1)"
    if repeated is not None:
        return f"the header {repeated.decode()} is repeated"
    if method == b"CONNECT" or not _names_host(target, headers):
        return "the request target is neither a path nor a URL of the header host"
    if version == "1.1" and b"host" not in names:
        return "the header host is missing"
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return "invalid transfer-encoding (expected chunked)"
    return None


def _names_host(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether the target is a path, or a URL with a path on the host of the Host header."""
    if target.startswith(b"/"):
        return True
    found = re.match(_ABSOLUTE, target)
    host = next((value for name, value in headers if name == b"host"), None)
    return found is not None and host is not None and found[1].lower() == host.lower()
