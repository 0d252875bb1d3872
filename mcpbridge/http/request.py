"""One HTTP request: its head, read once, and the ASGI callables to read and write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.http.disconnect import Disconnect, ReceivedDisconnect
from mcpbridge.rules.access.client_address import TrustedProxies
from mcpbridge.rules.access.hosts import share_of
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.mcp.admission import Names, Refusal
from mcpbridge.rules.mcp.modern_checks import RoutingHeaders
from mcpbridge.wire.headers import Acceptable, acceptable

DISCONNECT = "mcpbridge.disconnect"
"""Key of a scope: the `Disconnect` of its connection."""
HEAD = "mcpbridge.head"
"""Key of a scope: the head, once a call under it was accepted; the connection may remember it."""
PARSED_HEAD = "mcpbridge.parsed_head"
"""Key of a scope: the head, once it has been read for the checks before the routes."""
REFUSAL = "mcpbridge.refusal"
"""Key of a scope: why the request was refused, for `http.refusals`."""
UNSENT = "mcpbridge.unsent"
"""Key of a scope: the account of what its connection has yet to send."""
STARTED = "mcpbridge.started"
"""Key of a scope: finishes a request that the connection has handled already."""


class HeadVerdict(msgspec.Struct, frozen=True):
    """The result of the rules on the head of a POST, independent of its body."""

    refusal: Refusal | None
    """Why no body is served under this head; None if one may be."""
    legacy_refusal: Refusal | None
    """Why no body of a legacy revision is served under this head; None if one may be."""
    names_modern: bool
    """Whether `MCP-Protocol-Version` names a modern revision."""


_LISTS = (b"accept", b"content-encoding")
"""Headers read by the bridge whose values are lists."""


class RequestHead:
    """The head of a request, as the rules see it.

    It outlives its request if the connection remembers it for further requests under the same
    bytes; its cached verdicts then apply to them too.
    """

    __slots__ = (
        "_peer",
        "_routing",
        "_verdict",
        "accepts",
        "caller",
        "client",
        "method",
        "names",
        "passed_lines",
        "path",
        "principal",
        "raw",
        "streams",
        "values",
    )
    streams: bool
    """Whether an event stream may answer a call: `Acceptable.streams`, read once for all calls."""
    principal: Principal
    """The caller; not set before `http.auth.access` has admitted the request."""
    caller: bytes
    """Its `Principal.share_key`; empty before."""
    passed_lines: bytes | None
    """The lines that another replica gets of it, written once for all calls; None before."""

    def __init__(
        self,
        method: str,
        path: str,
        raw: Sequence[tuple[bytes, bytes]],
        values: dict[bytes, bytes],
        names: Names,
        accepts: Acceptable,
        client: tuple[str, int] | None,
    ) -> None:
        """Make it.

        Args:
            method: The method.
            path: The path, decoded.
            raw: The headers as they came, names in lower case.
            values: The values by name; of a repeated header the last, but lists joined.
            names: The session id and the revision that it names.
            accepts: The forms of a response that the client accepts.
            client: The client's address and port; None for a unix socket.
        """
        self.method = method
        self.path = path
        self.raw = raw
        self.values = values
        self.names = names
        self.accepts = accepts
        self.streams = accepts.streams
        self.client = client
        self.caller = b""
        self.passed_lines = None
        self._peer: str | None = None
        self._verdict: HeadVerdict | None = None
        self._routing: RoutingHeaders | None = None

    @classmethod
    def in_scope(cls, scope: MutableMapping[str, Any]) -> RequestHead:
        """Read the head of the request with this ASGI scope."""
        raw: Sequence[tuple[bytes, bytes]] = scope["headers"]
        values = dict(raw)
        # Only a head with a repeated header pays for the join.
        if len(values) < len(raw):
            _join(raw, values)
        # Some clients send these headers with an empty value.
        names = Names(
            _text(values.get(b"mcp-session-id")) or None,
            _text(values.get(b"mcp-protocol-version")) or None,
        )
        accepts = acceptable(_text(values.get(b"accept")))
        return cls(scope["method"], scope["path"], raw, values, names, accepts, scope.get("client"))

    def admit(self, principal: Principal) -> None:
        """Set the principal of the request."""
        self.principal, self.caller = principal, principal.share_key

    def verdict(self, judge: Callable[[RequestHead], HeadVerdict]) -> HeadVerdict:
        """Return the result of `judge`, which is called once for all requests under this head."""
        if self._verdict is None:
            self._verdict = judge(self)
        return self._verdict

    def keep_lines(self, lines: bytes) -> None:
        """Keep the lines that another replica gets, for all requests under this head."""
        self.passed_lines = lines

    @property
    def peer(self) -> str:
        """The client's address as limits for each address count it; empty for a unix socket."""
        if self._peer is None:
            self._peer = share_of(self.client[0]) if self.client else ""
        return self._peer

    def find_peer(self, trusted: TrustedProxies) -> None:
        """Take the client's address from the headers of a trusted proxy, if one sent them."""
        self._peer = trusted.share_of(self.client[0] if self.client else None, self.raw)

    def routing(self, read: Callable[[RequestHead], RoutingHeaders]) -> RoutingHeaders:
        """Return the result of `read`, which is called once for all requests under this head."""
        if self._routing is None:
            self._routing = read(self)
        return self._routing

    def get(self, name: bytes) -> str | None:
        """Return the value of a header as text; None if it is missing."""
        value = self.values.get(name)
        return None if value is None else value.decode("latin-1").strip(" \t")  # as `_text` does


class HttpRequest(msgspec.Struct):
    """A request with its ASGI callables; lives as long as its response."""

    head: RequestHead
    scope: Scope
    """The ASGI scope."""
    receive: Receive
    send: Send

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> HttpRequest:
        """Return the request of an ASGI call."""
        head = scope.get(HEAD) or scope.get(PARSED_HEAD) or RequestHead.in_scope(scope)
        return cls(head, scope, receive, send)

    @property
    def disconnect(self) -> Disconnect:
        """The end of its connection, to be called back for it; of any ASGI server."""
        found: Disconnect | None = self.scope.get(DISCONNECT)
        if found is None:
            found = self.scope[DISCONNECT] = ReceivedDisconnect(self.receive)
        return found

    @property
    def unsent(self) -> Account:
        """The account of what its connection has yet to send; of any ASGI server."""
        found: Account | None = self.scope.get(UNSENT)
        return found if found is not None else Account()

    @property
    def started(self) -> Callable[[HttpRequest], Awaitable[None]] | None:
        """Finishes the request, if the connection has handled it already; else None."""
        found: Callable[[HttpRequest], Awaitable[None]] | None = self.scope.get(STARTED)
        return found

    @property
    def refusal(self) -> Refusal | None:
        """Why it was refused; None if it was not."""
        found: Refusal | None = self.scope.get(REFUSAL)
        return found

    def refused(self, refusal: Refusal) -> None:
        """Record why the request is refused; the caller answers it."""
        self.scope[REFUSAL] = refusal

    def pass_head_on(self) -> None:
        """Let what serves the request next find its head in the scope."""
        self.scope[PARSED_HEAD] = self.head

    def remember_head(self) -> None:
        """Mark the head so that the connection remembers it for the client's further calls."""
        self.scope[HEAD] = self.head


def route_path(scope: MutableMapping[str, Any]) -> str:
    """Return the path of a request below the place where the application is mounted (ASGI)."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        return path[len(root_path) :]
    return path


def _join(raw: Sequence[tuple[bytes, bytes]], values: dict[bytes, bytes]) -> None:
    """Join the lines of a repeated header whose value is a list (RFC 9110, 5.3)."""
    for name in _LISTS:
        if name in values:
            values[name] = b", ".join(value for each, value in raw if each == name)


def _text(value: bytes | None) -> str | None:
    # Not every parser removes the blanks after a value (RFC 9110, 5.5).
    return None if value is None else value.decode("latin-1").strip(" \t")


class StartedCall(msgspec.Struct):
    """A request that was accepted and whose answer has not come yet."""

    finish: Callable[[HttpRequest], Awaitable[None]]
    """Waits for the answer and sends it as the response to an HTTP request."""
    exchange: Exchange | None = None
    """The call, if one JSON answer may complete it; None: only `finish` can answer."""
    abandon: Callable[[], None] | None = None
    """Cancels the call if the client has disconnected; None if the call goes on then."""
