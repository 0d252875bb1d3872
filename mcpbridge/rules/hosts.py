"""Which Host and Origin may in, before a body is read or a child is woken.

A web page in the user's browser can reach a loopback port, by a name of its own that resolves
to 127.0.0.1 (DNS rebinding) or by a plain cross-site POST. The first shows in Host, the second
in Origin. Programs send no Origin; browsers cannot leave it out.

Source: MCP 2025-11-25, Transports, Security Warning (an Origin that is present and not allowed
is answered 403); RFC 9110, 15.5.20 (421).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
MAX_HOST_CHARACTERS = 300
"""A domain name has at most 253; the answers for a few hundred such are kept."""
_CLUSTER_SUFFIXES = (".svc", ".cluster.local")
_HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?)\]|([0-9A-Za-z._~!$&'()*+;=%-]+))(?::([0-9]{0,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class HostRules(msgspec.Struct, frozen=True):
    """What the listener is bound to, and what the operator allows besides."""

    loopback: bool
    """Bound to loopback only: nothing but loopback names is expected."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names, without port; `*.example.org` for all below."""
    allowed_origins: tuple[str, ...] = ()
    """Origins `scheme://host[:port]`, or `*`."""


def host_allowed(host: str | None, rules: HostRules) -> bool:
    """Whether a Host header may be served; a missing one (HTTP/1.0) may."""
    return host is None or (len(host) <= MAX_HOST_CHARACTERS and _allowed(host, rules))


@functools.lru_cache(maxsize=256)
def _allowed(host: str, rules: HostRules) -> bool:
    name = host_name(host)
    if name is None:
        return False
    if name in LOOPBACK_NAMES or _listed(name, rules.allowed_hosts):
        return True
    if rules.loopback:
        return False
    return "." not in name or name.endswith(_CLUSTER_SUFFIXES) or _is_address(name)


def host_pattern(text: str) -> str:
    """An entry for `HostRules.allowed_hosts`, lower case and without brackets.

    Raises:
        ValueError: No Host could ever match it; the text completes a sentence about the value.
    """
    if text == "*":
        return text
    stars, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    if ":" in name and _HOST.fullmatch(name) and not name.endswith("]"):
        raise ValueError("has a port; give the name alone, every port is meant")
    plain = host_name(f"[{name}]" if ":" in name and not name.endswith("]") else name)
    if plain is None or "*" in plain:
        raise ValueError("is no host name; write mcp.example.org or *.example.org")
    return stars + plain


def origin_allowed(origin: str | None, rules: HostRules) -> bool:
    """Whether an Origin header may be served.

    Absent: yes, it is no browser. On a loopback listener a page of this machine's own
    (`http://localhost:5173`) may; `null` and every other origin must be listed.
    """
    if origin is None or "*" in rules.allowed_origins or origin in rules.allowed_origins:
        return True
    wanted = _normal_origin(origin)
    if wanted is None:
        return False
    if wanted in {_normal_origin(allowed) for allowed in rules.allowed_origins}:
        return True
    return rules.loopback and wanted[0] in _DEFAULT_PORTS and wanted[1] in LOOPBACK_NAMES


def host_name(host: str) -> str | None:
    """The name in a Host header, lower case, without port and brackets; None if malformed.

    Source: RFC 3986, 3.2.2 and 3.2.3. `urlsplit` reads `[::1]evil.example` and `local<TAB>host`
    as loopback names in some releases of Python.
    """
    match = _HOST.fullmatch(host)
    if match is None or int(match[3] or 0) > 0xFFFF:
        return None
    if match[1] is not None:
        return match[1].lower() if _is_address(match[1]) and ":" in match[1] else None
    return match[2].lower().rstrip(".") or None


def _normal_origin(origin: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(origin.strip())
        port = parts.port
    except ValueError:
        return None
    name = host_name(parts.netloc)
    if not parts.scheme or name is None or parts.path not in ("", "/"):
        return None
    return parts.scheme, name, port or _DEFAULT_PORTS.get(parts.scheme)


def _listed(name: str, patterns: Sequence[str]) -> bool:
    for pattern in (allowed.lower() for allowed in patterns):
        if pattern == name or pattern == "*":
            return True
        if pattern.startswith("*.") and name.endswith(pattern[1:]):
            return True
    return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
