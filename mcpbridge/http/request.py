"""One HTTP request on its way in: its head, read once, and where to read and write."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.http.disconnect import Disconnect
from mcpbridge.rules.access.hosts import share_of
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.mcp.admission import Names
from mcpbridge.rules.mcp.modern_checks import RoutingHeaders
from mcpbridge.wire.headers import Acceptable, acceptable

BEGUN = "mcpbridge.begun"
"""Where a scope holds a call that the connection has begun already; see `http.server.fast_path`."""
CALLED = "mcpbridge.called"
"""Where a scope says that the request was a call; see `http.server.fast_path`."""
DEPARTURE = "mcpbridge.departure"
"""Where a scope holds how to learn that the client has left; see `http.disconnect`."""
PRINCIPAL = "mcpbridge.principal"
"""Where a scope holds whose request it is; nowhere before `http.auth.access` has found it out."""

_LISTS = (b"accept", b"content-encoding")
"""Headers that are lists, of those that are read here."""


@dataclasses.dataclass(slots=True)
class RequestHead:
    """What stands before a request's body, as the rules see it."""

    method: str
    path: str
    raw: Sequence[tuple[bytes, bytes]]
    """The headers as they came, names in lower case."""
    values: dict[bytes, bytes]
    """Their values by name; of a repeated header the last, but all of those that are lists."""
    names: Names
    """What it says of its session and revision."""
    accepts: Acceptable
    """Which forms of an answer the client takes."""
    scope: Scope
    """All that the server library says of the request."""
    _routing: RoutingHeaders | None = dataclasses.field(default=None, init=False)

    @classmethod
    def in_scope(cls, scope: MutableMapping[str, Any]) -> RequestHead:
        """The head of the request with this ASGI scope."""
        return cls(*_parts(scope))

    @property
    def principal(self) -> Principal:
        """Whose request it is; there once `http.auth.access` has let it in."""
        found: Principal = self.scope[PRINCIPAL]
        return found

    @property
    def peer(self) -> str:
        """The address that the connection comes from, as shares count it; empty if it has none."""
        client = self.scope.get("client")
        return share_of(client[0]) if client else ""

    def routing(self, read: Callable[[RequestHead], RoutingHeaders]) -> RoutingHeaders:
        """Return what it says of the body: read once for all requests under this head."""
        if self._routing is None:
            self._routing = read(self)
        return self._routing

    def get(self, name: bytes) -> str | None:
        """One header's value as text, or None."""
        value = self.values.get(name)
        return None if value is None else _text(value)


@dataclasses.dataclass(slots=True)
class HttpRequest(RequestHead):
    """A request as the faces see it; lives as long as its response."""

    receive: Receive
    send: Send

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> HttpRequest:
        """The request behind an ASGI call."""
        return cls(*_parts(scope), receive, send)

    @property
    def disconnect(self) -> Disconnect:
        """How to learn that its client has left."""
        found: Disconnect = self.scope[DEPARTURE]
        return found

    def called(self) -> None:
        """Note that it is a call: its client may send more of them under the same head."""
        self.scope[CALLED] = True

    @property
    def begun(self) -> Callable[[HttpRequest], Awaitable[None]] | None:
        """Finishes the call that the connection has begun already, if it has."""
        found: Callable[[HttpRequest], Awaitable[None]] | None = self.scope.get(BEGUN)
        return found


def _parts(
    scope: MutableMapping[str, Any],
) -> tuple[str, str, Sequence[tuple[bytes, bytes]], dict[bytes, bytes], Names, Acceptable, Scope]:
    raw: Sequence[tuple[bytes, bytes]] = scope["headers"]
    values = dict(raw)
    if len(values) < len(raw):
        _join(raw, values)
    # Some clients send a header whose value they do not have.
    names = Names(
        _text(values.get(b"mcp-session-id")) or None,
        _text(values.get(b"mcp-protocol-version")) or None,
    )
    accepts = acceptable(_text(values.get(b"accept")))
    return scope["method"], scope["path"], raw, values, names, accepts, scope


def _join(raw: Sequence[tuple[bytes, bytes]], values: dict[bytes, bytes]) -> None:
    """Make one list of what stands in several lines of a header that is a list (RFC 9110, 5.3)."""
    for name in _LISTS:
        if name in values:
            values[name] = b", ".join(value for each, value in raw if each == name)


def _text(value: bytes | None) -> str | None:
    # Not every parser takes off the blanks after a value (RFC 9110, 5.5).
    return None if value is None else value.decode("latin-1").strip(" \t")


class StartedCall(msgspec.Struct):
    """A call that was begun without a response."""

    exchange: Exchange
    principal: Principal
    """Whose it is."""
    finish: Callable[[HttpRequest], Awaitable[None]]
    """Answers it as an HTTP request."""
    abandon: Callable[[], None] | None = None
    """Its client has left; None where the call goes on all the same."""
