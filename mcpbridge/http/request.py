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
from mcpbridge.rules.mcp.admission import Names, Refusal
from mcpbridge.rules.mcp.modern_checks import RoutingHeaders
from mcpbridge.wire.headers import Acceptable, acceptable

DISCONNECT = "mcpbridge.disconnect"
"""Key of a scope: how to learn that the client has left; see `http.disconnect`."""
HEAD = "mcpbridge.head"
"""Key of a scope: the head of a call, once it has passed; more calls may come under it."""
STARTED = "mcpbridge.started"
"""Key of a scope: finishes a request that the connection has had handled already."""


class HeadVerdict(msgspec.Struct, frozen=True):
    """What the rules make of the head of a POST, whatever its body."""

    refusal: Refusal | None
    """Why no body is served under it."""
    legacy_refusal: Refusal | None
    """Why no body of a legacy revision is served under it."""
    names_modern: bool
    """`MCP-Protocol-Version` names a modern revision."""


_LISTS = (b"accept", b"content-encoding")
"""Headers that are lists, of those that are read here."""


@dataclasses.dataclass(slots=True)
class RequestHead:
    """What stands before a request's body, as the rules see it.

    It outlives its request if the connection remembers it for those that come under the same head;
    what was found out about it once then holds for them too.
    """

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
    client: tuple[str, int] | None
    """The address that the connection comes from, if it has one."""
    principal: Principal = dataclasses.field(init=False, repr=False, compare=False)
    """Whose request it is; there is none before `http.auth.access` has let it in."""
    _verdict: HeadVerdict | None = dataclasses.field(default=None, init=False)
    _routing: RoutingHeaders | None = dataclasses.field(default=None, init=False)

    @classmethod
    def in_scope(cls, scope: MutableMapping[str, Any]) -> RequestHead:
        """Read the head of the request with this ASGI scope."""
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
        return cls(scope["method"], scope["path"], raw, values, names, accepts, scope.get("client"))

    def admit(self, principal: Principal) -> None:
        """Remember whose request it is."""
        self.principal = principal

    def verdict(self, judge: Callable[[RequestHead], HeadVerdict]) -> HeadVerdict:
        """Return what the rules make of it: judged once for all requests under this head."""
        if self._verdict is None:
            self._verdict = judge(self)
        return self._verdict

    @property
    def peer(self) -> str:
        """The address that the connection comes from, as shares count it; empty if it has none."""
        return share_of(self.client[0]) if self.client else ""

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
class HttpRequest:
    """One request and the way back to its client; lives as long as its response."""

    head: RequestHead
    scope: Scope
    """All that the server library says of the request."""
    receive: Receive
    send: Send

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> HttpRequest:
        """The request behind an ASGI call."""
        head = scope.get(HEAD) or RequestHead.in_scope(scope)
        return cls(head, scope, receive, send)

    @property
    def disconnect(self) -> Disconnect:
        """How to learn that its client has left."""
        found: Disconnect = self.scope[DISCONNECT]
        return found

    @property
    def started(self) -> Callable[[HttpRequest], Awaitable[None]] | None:
        """Finishes the request, if the connection has had it handled already."""
        found: Callable[[HttpRequest], Awaitable[None]] | None = self.scope.get(STARTED)
        return found

    def remember_head(self) -> None:
        """Let the connection remember the head: its client may send more calls under it."""
        self.scope[HEAD] = self.head


def _join(raw: Sequence[tuple[bytes, bytes]], values: dict[bytes, bytes]) -> None:
    """Make one list of what stands in several lines of a header that is a list (RFC 9110, 5.3)."""
    for name in _LISTS:
        if name in values:
            values[name] = b", ".join(value for each, value in raw if each == name)


def _text(value: bytes | None) -> str | None:
    # Not every parser takes off the blanks after a value (RFC 9110, 5.5).
    return None if value is None else value.decode("latin-1").strip(" \t")


class StartedCall(msgspec.Struct):
    """A request that was accepted and whose answer is still to come."""

    finish: Callable[[HttpRequest], Awaitable[None]]
    """Answers it as an HTTP request."""
    exchange: Exchange | None = None
    """The call, if a single JSON answer may be all that comes of it; None: only `finish` knows."""
    abandon: Callable[[], None] | None = None
    """Tells the bridge that the client has left; None if the call goes on all the same."""
