"""Checks Host and Origin before a body is read or a child is started.

A web page in the user's browser can reach a loopback port: by a host name of the attacker that
resolves to 127.0.0.1 (DNS rebinding), by a plain cross-site POST, or as the address of an image.
The first shows in Host, the second in Origin, the third in Fetch Metadata, since browsers omit
Origin from a GET whose answer no script can read. Programs send neither; browsers cannot omit them.

That a page may send a request does not mean that it may read the answer: see `readable_by`.

Source: MCP 2025-11-25, Transports, Security Warning (an Origin that is present and not allowed
is answered 403); RFC 9110, 15.5.20 (421); W3C, Fetch Metadata Request Headers.
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
"""A domain name has at most 253; some hundred such names are cached."""
MAX_ORIGIN_CHARACTERS = 320
"""A host, a port and a scheme."""
MAX_SHOWN = 200
"""Most characters of what a client sent that are repeated."""
_CLUSTER_SUFFIXES = (".svc", ".cluster.local")
_PRIVATE_SUFFIX = ".internal"
"""Reserved for private use: no public name ends with it. ICANN, resolution 2024.07.29.06."""
_OWN_HOST = r"host\.[a-z0-9-]+\.internal"
"""The name that a container has for its host: `host.docker.internal` and the like."""
_SERVICES = r"([a-z0-9-]+)\.(svc\..+)"
"""The first entry of a pod's search list: `default.svc.cluster.local`."""
_HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?)\]|([0-9A-Za-z._~!$&'()*+;=%-]+))(?::([0-9]{0,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
ANY_ORIGIN = "*"
OPAQUE_ORIGIN = "null"
"""The origin of sandboxed frames and pages from files; any page can have it."""


class HostRules(msgspec.Struct, frozen=True):
    """The kind of listener, and the hosts and origins that the operator allows."""

    loopback: bool
    """Bound to loopback only: only loopback names are expected."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names, without port; `*.example.org` for all names below."""
    allowed_origins: tuple[str, ...] = ()
    """Origins `scheme://host[:port]`, as `origin_pattern` writes them; `null`; or `*`."""
    search: tuple[str, ...] = ()
    """The search list of a pod, from `search_list`; empty outside of a cluster."""


def shown(value: str) -> str:
    """Return what a client sent for a log or an answer: printable ASCII, of bounded length."""
    cut = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "..."
    return cut if cut.isascii() and cut.isprintable() else cut.encode("unicode_escape").decode()


def host_allowed(host: str | None, rules: HostRules) -> bool:
    """Return whether a Host header may be served; a missing one (HTTP/1.0) may."""
    return host is None or (len(host) <= MAX_HOST_CHARACTERS and _allowed(host, rules))


@functools.lru_cache(maxsize=256)
def _allowed(host: str, rules: HostRules) -> bool:
    name = host_name(host)
    if name is None:
        return False
    if name in LOOPBACK_NAMES or _listed(name, rules.allowed_hosts):
        return True
    if rules.loopback:
        # A container reaches a listener on the host's loopback by this name through its engine.
        return re.fullmatch(_OWN_HOST, name) is not None
    return is_cluster_name(name) or _is_address(name) or _is_private(name, rules.search)


def is_cluster_name(name: str) -> bool:
    """Return whether a host name resolves only inside a cluster or a container network."""
    return ("." not in name and ":" not in name) or name.endswith(_CLUSTER_SUFFIXES)


def search_list(resolv_conf: str) -> tuple[str, ...]:
    """Return the domains that a resolver appends to a name; the last `search` line counts.

    Source: resolv.conf(5).
    """
    found: tuple[str, ...] = ()
    for line in resolv_conf.splitlines():
        words = line.split()
        if words and words[0] in ("search", "domain"):
            found = tuple(word.lower().rstrip(".") for word in words[1:])
    return found


def _is_private(name: str, search: Sequence[str]) -> bool:
    """Return whether a name resolves only on a private network: `*.internal`, a pod's services.

    A name of two words, such as `mcpbridge.default`, is served only if the second one is the pod's
    namespace, which a service shares with its pods: any other such name could be a public one.
    """
    if name.endswith(_PRIVATE_SUFFIX):
        return True
    for match in filter(None, map(re.compile(_SERVICES).fullmatch, search)):
        namespace, services = match.groups()
        first, _, rest = name.partition(".")
        if name.endswith(f".{services}") or (first and rest == namespace):
            return True
    return False


def host_pattern(text: str) -> str:
    """Return an entry for `HostRules.allowed_hosts`, lower case and without brackets.

    Raises:
        ValueError: No Host header can match it; the text completes a sentence about the value.
    """
    if text == "*":
        return text
    stars, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    if ":" in name and _HOST.fullmatch(name) and not name.endswith("]"):
        raise ValueError("has a port; give the name without it; every port matches")
    plain = host_name(f"[{name}]" if ":" in name and not name.endswith("]") else name)
    if plain is None or "*" in plain:
        raise ValueError("is not a host name; write mcp.example.org or *.example.org")
    return stars + plain


def origin_allowed(origin: str | None, rules: HostRules) -> bool:
    """Return whether an Origin header may be served.

    An absent one may: the client is not a browser. On a loopback listener the pages of this
    machine (`http://localhost:5173`) may; `null` and every other origin must be listed.
    """
    if origin is None or ANY_ORIGIN in rules.allowed_origins:
        return True
    return len(origin) <= MAX_ORIGIN_CHARACTERS and _origin_allowed(origin, rules)


def readable_by(origin: str, rules: HostRules) -> str | None:
    """Return the value of `Access-Control-Allow-Origin` for this Origin.

    None if its page may not read answers: only listed origins may. A page of this machine that is
    served because the listener is on loopback is not listed.
    """
    if ANY_ORIGIN in rules.allowed_origins:
        return ANY_ORIGIN
    if not rules.allowed_origins or len(origin) > MAX_ORIGIN_CHARACTERS:
        return None
    return origin if _origin_listed(origin, rules.allowed_origins) else None


@functools.lru_cache(maxsize=256)
def share_of(address: str) -> str:
    """Return the key of one peer's share: an IPv4 address, or the /64 network of an IPv6 one.

    A home or a machine has at least such a network and may use any address in it.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:MAX_HOST_CHARACTERS]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found), 64), strict=False))
    return str(found)


def fetch_allowed(site: str | None, destination: str | None) -> bool:
    """Return whether a request without Origin may be served, by `Sec-Fetch-Site` and `-Dest`.

    A page of another site may not use an answer as an image, script or frame; the user may follow a
    link to one.
    """
    return site != "cross-site" or destination == "document"


def origin_pattern(text: str) -> str:
    """Return an entry for `HostRules.allowed_origins`, as browsers write it.

    Raises:
        ValueError: No Origin header can match it; the text completes a sentence about the value.
    """
    if text in (ANY_ORIGIN, OPAQUE_ORIGIN):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    plain = _normal_origin(text)
    if plain is None or "*" in plain[1] or parts.query or parts.fragment:
        raise ValueError("is not an origin; write it in full, as in https://app.example.org:8443")
    scheme, name, port = plain
    host = f"[{name}]" if ":" in name else name
    usual = port is None or port == _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}" if usual else f"{scheme}://{host}:{port}"


@functools.lru_cache(maxsize=256)
def _origin_allowed(origin: str, rules: HostRules) -> bool:
    if _origin_listed(origin, rules.allowed_origins):
        return True
    wanted = _normal_origin(origin)
    if wanted is None:
        return False
    return rules.loopback and wanted[0] in _DEFAULT_PORTS and wanted[1] in LOOPBACK_NAMES


@functools.lru_cache(maxsize=256)
def _origin_listed(origin: str, listed: Sequence[str]) -> bool:
    if origin in listed:
        return True
    wanted = _normal_origin(origin)
    return wanted is not None and wanted in {_normal_origin(each) for each in listed}


def host_name(host: str) -> str | None:
    """Return the name in a Host header, lower case, without port and brackets; None if malformed.

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
