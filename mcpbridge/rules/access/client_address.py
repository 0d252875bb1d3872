"""The address of a client behind reverse proxies that the operator trusts: `--trusted-proxy`.

Any client can send `X-Forwarded-For`. Its last entry is the work of the peer that sent the request,
so it counts only if that peer is trusted; the entry before it only if the last one names a trusted
proxy too, and so on. What stands before the first address that is not trusted is a client's claim.

Source: RFC 7239; nginx, ngx_http_realip_module, `real_ip_recursive`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from mcpbridge.rules.access.hosts import share_of

UNIX = "unix"
"""As `--trusted-proxy`: the programs that connect to a unix socket, which have no address."""
MAX_HOPS = 32
"""Most entries that are read; a client may send thousands, in front of those of its proxies."""
_MAX_CHARACTERS = 64
"""Longest entry: an IPv6 address in brackets with a zone and a port has fewer."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # nosec B105 # a token of HTTP
_PAIR = rf'[ \t]*({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")[ \t]*(;|,|\Z)'
_PORT = r":(?:[0-9]{1,5}|_[0-9A-Za-z._-]+)\Z"


def trusted_proxy(text: str) -> Network | None:
    """Return the network that a value of `--trusted-proxy` names; None for unix sockets.

    Raises:
        ValueError: It names none; the text completes a sentence about the value.
    """
    if text == UNIX:
        return None
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        remedy = "write an address or a network, as in 10.0.0.0/8 or fd00::/8, or unix"
        raise ValueError(f"is not a network; {remedy}") from None
    if not found.prefixlen:
        raise ValueError("trusts every client; write the networks of your proxies alone")
    first, _, length = text.partition("/")
    if length and ipaddress.ip_address(first) != found.network_address:
        raise ValueError(f"has bits behind its prefix; write {found}")
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is not None and found.prefixlen >= 96:
        return ipaddress.ip_network((int(mapped), found.prefixlen - 96))
    return found


class TrustedProxies:
    """The peers that may name the client that they speak for."""

    def __init__(self, networks: Iterable[Network | None]) -> None:
        """Set up the rule.

        Args:
            networks: What `trusted_proxy` has returned for each value of the setting.
        """
        networks = tuple(networks)
        self._networks = tuple(each for each in networks if each is not None)
        self._unix = None in networks

    def trusts(self, peer: str | None) -> bool:
        """Return whether a peer may name its client; None: it is connected to a unix socket."""
        if peer is None:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in each for each in self._networks)

    def share_of(self, peer: str | None, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the share of the client that sent a request: see `hosts.share_of`.

        Args:
            peer: The address that the request came from; None for a unix socket.
            headers: All headers of the request, names in lower case.
        """
        found = peer or ""
        if self.trusts(peer):
            for entry in _entries(headers):
                if _address(entry) is None:
                    break
                found = entry
                if not self.trusts(entry):
                    break
        return share_of(found)


def _entries(headers: Sequence[tuple[bytes, bytes]]) -> Iterable[str]:
    """Return the addresses in the headers for forwarding, the last hop first.

    Empty if `Forwarded` and `X-Forwarded-For` disagree: a proxy sets one of them and may pass the
    other on as the client sent it, and nothing says which.
    """
    plain = [value for name, value in headers if name == b"x-forwarded-for"]
    standard = [value for name, value in headers if name == b"forwarded"]
    hops = [_bare(each) for each in b",".join(plain).decode("latin-1").rsplit(",", MAX_HOPS)]
    hops = hops[-MAX_HOPS:][::-1]
    if not standard:
        return hops
    named = _forwarded(b",".join(standard).decode("latin-1"))
    return named if not plain or named[:1] == hops[:1] else ()


def _forwarded(text: str) -> list[str]:
    """Return the `for` of each element of `Forwarded`, the last first; empty if malformed."""
    found, position, element = list[str](), 0, ""
    while position < len(text):
        pair = re.compile(_PAIR).match(text, position)
        if pair is None or len(found) > MAX_HOPS:
            return []
        name, value, end = pair.groups()
        if name.lower() == "for":
            element = _bare(value.strip('"'))
        position = pair.end()
        if end != ";":
            found.append(element)
            element = ""
    return found[::-1]


def _bare(entry: str) -> str:
    """Return the address of an entry without port and brackets."""
    entry = entry.strip(" \t")
    if len(entry) > _MAX_CHARACTERS:
        return ""
    if entry.startswith("["):
        address, _, port = entry[1:].partition("]")
        return address if not port or re.match(_PORT, port) else ""
    return re.sub(_PORT, "", entry) if entry.count(":") == 1 else entry


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, an IPv4 address in IPv6 form as IPv4; None if it is not one."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
