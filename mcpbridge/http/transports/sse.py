"""The transport of 2024-11-05: one event stream down, POSTs to a second path up.

A client opens `/sse`; the first event names the path for its messages, with an unguessable key; all
messages to the client come on that stream; closing it ends the session. Any legacy revision may be
negotiated over it. A connection that has not initialized is served as Streamable HTTP serves
requests without a session.

Source: MCP 2024-11-05, Transports, HTTP with SSE. The path is relative because deployed SDKs
resolve it against the stream's URL and refuse another origin.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from urllib.parse import parse_qs, quote

import msgspec

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import new_session_id
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.bridge.tenant import Tenant
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import BodyLimits, id_of, judge_long_body
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import EventStream, refusal_of, refusing, send_empty
from mcpbridge.rules.access.client_address import Network, trusted_proxy
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable
from mcpbridge.rules.mcp.admission import (
    Admitted,
    Opening,
    Reason,
    Refusal,
    admit_batch,
    admit_message,
    echoing,
    handshake_required,
    refuse,
    session_gone,
)
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.modern_checks import is_modern, not_served
from mcpbridge.rules.mcp.request_meta import claimed_version
from mcpbridge.settings import SettingsSection, setting
from mcpbridge.wire.messages import Failure, Message, Notification, Request, encode

SSE_PATH = "/sse"
MESSAGES_PATH = "/messages"

_PREFIX = r"(?:/[A-Za-z0-9._~-]+)*\Z"


class ProxySettings(SettingsSection, frozen=True):
    """Settings of a reverse proxy in front of the bridge."""

    root_path: str = setting(
        "",
        "--root-path",
        "Prefix under which a reverse proxy publishes the bridge, like /tools/git; its header"
        " X-Forwarded-Prefix takes precedence.",
        group="Listening",
        metavar="PREFIX",
    )
    trusted: tuple[Network | None, ...] = setting(
        (),
        "--trusted-proxy",
        "Network of reverse proxies that may name the client, by X-Forwarded-For or Forwarded;"
        " `unix`: whatever connects to a unix socket. Without it all clients of a proxy share what"
        " is scarce as one. May be repeated.",
        group="Limits",
        metavar="CIDR|unix",
        repeatable=True,
        parse=trusted_proxy,
    )


class _Connection(msgspec.Struct):
    """An open event stream and, once its client has initialized, its session."""

    stream: Stream
    principal: Principal
    session: Session | None = None

    @property
    def open_still(self) -> bool:
        """Whether its stream still takes messages."""
        return not self.stream.log.closed

    def open(self, bridge: Bridge, opening: Opening) -> None:
        """Open its session; raise Unavailable if none can be opened now."""
        self.session, _ = bridge.open(opening, self.principal, streams=True, one_stream=self.stream)


class SseTransport:
    """A transport for clients of HTTP+SSE, the transport of 2024-11-05."""

    def __init__(
        self,
        bridge: Bridge,
        keepalive: KeepAlive,
        settings: ProxySettings,
        limits: BodyLimits,
        below: str = "",
        access: AccessControl | None = None,
        new_key: Callable[[Principal], str] | None = None,
    ) -> None:
        self._new_key = new_key
        self._bridge = bridge
        self._keepalive = keepalive
        self._root_path = settings.root_path.rstrip("/")
        self.stream_path = below + SSE_PATH
        self.messages_path = below + MESSAGES_PATH
        self._limits = limits
        self._access = access or AccessControl()
        self._connections: dict[str, _Connection] = {}

    async def connect(self, http_request: HttpRequest) -> None:
        """Serve the stream of a client until it ends, then end the session."""
        if not http_request.head.accepts.stream:
            await self._refuse(
                http_request, refuse(406, INVALID_REQUEST, "Accept must allow text/event-stream")
            )
            return
        key = new_session_id()
        if self._new_key is not None:
            key = self._new_key(http_request.head.principal)
        try:
            with (
                self._bridge.one_stream(http_request.head.principal) as stream,
                stream.attach() as reader,
            ):
                # In the table before its endpoint is sent: the client may post as soon as it has
                # read it.
                connection = _Connection(stream, http_request.head.principal)
                self._connections[key] = connection
                idle = functools.partial(_only_listens, self._bridge, connection)
                http_request.disconnect.may_end(idle)
                endpoint = f"{self._prefix(http_request)}{self.messages_path}?session_id={key}"
                # Imported at first use, since it loads a framework that most bridges do not need.
                from sse_starlette.event import ServerSentEvent

                preamble = ServerSentEvent(endpoint, event="endpoint", sep="\n").encode()
                with self._keepalive.watching(reader, http_request.head.principal):
                    response = EventStream(reader, preamble=preamble)
                    await response.serve(http_request)
        except Unavailable as error:
            await self._refuse(http_request, refusal_of(error, None))
        finally:
            http_request.disconnect.may_end(None)
            ended = self._connections.pop(key, None)
            if ended is not None and ended.session is not None:
                self._bridge.close(ended.session, why="disconnected")
            # Calls without a session: no other stream could bring their answers.
            elif ended is not None:
                self._bridge.hang_up(ended.stream, ended.principal)

    def holds(self, key: str) -> bool:
        """Return whether the stream with this key is here."""
        return key in self._connections

    async def post(self, http_request: HttpRequest) -> None:
        """Take a message; its answer comes on the stream, and so do errors.

        On any other status than 202 deployed clients end, or wait for an answer without a limit.
        """
        body = await read_body(http_request, self._limits.max_bytes)
        depth = self._limits.max_depth
        content: Message | list[Message] | Refusal
        if isinstance(body, Refusal):
            content = body
        else:
            # It waits for the thread that reads bodies, and is charged to its call after that.
            with self._bridge.budget.holding(len(body)):
                content = await judge_long_body(http_request.head, body, depth)
        # After the body: the stream may have ended while it was read.
        connection = self._named(http_request)
        if isinstance(content, Refusal) or isinstance(connection, Refusal):
            refusal = content if isinstance(content, Refusal) else connection
            assert isinstance(refusal, Refusal)
            await self._refuse(http_request, echoing(refusal, id_of(content)))
            return
        found = self._access.admits(http_request.head.principal, content)
        found = found or self._take(connection, content)
        # A challenge goes to the HTTP client, which can log in and send the message again.
        if found is not None and (found.challenge or not _tell(connection, content, found)):
            await self._refuse(http_request, echoing(found, id_of(content)))
            return
        if found is not None:
            http_request.refused(found)
        await send_empty(http_request.send, 202)

    def _take(self, connection: _Connection, content: Message | list[Message]) -> Refusal | None:
        """Serve a message or batch; return the refusal if it may not be served now."""
        session = connection.session
        admitted: Opening | Admitted | Refusal
        if isinstance(content, list):
            admitted = admit_batch(content, session.revision if session is not None else None)
        elif session is not None:
            admitted = admit_message(content, session.revision, require_session=True)
        else:
            admitted = self._admit_outside(content)
        if isinstance(admitted, Refusal):
            return admitted
        if isinstance(admitted, Opening):
            self._open(connection, admitted)
            return None
        for message in admitted.messages:
            if session is not None:
                _serve(session, connection, message)
            else:
                self._serve_outside(connection, message)
        return None

    def _admit_outside(self, message: Message) -> Opening | Admitted | Refusal:
        """Apply the rules on messages to one of a connection without a session.

        Clients may send `server/discover` first. This transport does not serve 2026-07-28, so that
        they fall back to `initialize`.
        """
        opens = isinstance(message, Request) and message.method == INITIALIZE
        strict = self._bridge.session_settings.require_session and not opens
        if isinstance(message, Request) and is_modern(message, claimed_version(message), None):
            return not_served()
        if strict:
            return handshake_required() if isinstance(message, Request) else Admitted(())
        if not isinstance(message, Request):
            return Admitted((message,))
        return admit_message(message, None, require_session=False)

    def _serve_outside(self, connection: _Connection, message: Message) -> None:
        """Serve a message as Streamable HTTP serves one without a session.

        Clients that reconnect on their own go on without another `initialize`.
        """
        try:
            tenant = self._bridge.tenant_of(connection.principal)
            calls = tenant.sessionless_nowait()
        except Unavailable as error:
            _tell(connection, message, refusal_of(error, None))
            return
        if calls is None:
            # The POST must not wait: deployed clients end it after 5 s.
            tenant.context.spawn(_serve_when_known, tenant, connection, message)
        else:
            _serve(calls, connection, message)

    def _open(self, connection: _Connection, opening: Opening) -> None:
        try:
            connection.open(self._bridge, opening)
        except Unavailable as error:
            _tell(connection, opening.request, refusal_of(error, None))

    def _named(self, http_request: HttpRequest) -> _Connection | Refusal:
        query = parse_qs(http_request.scope["query_string"].decode("latin-1"))
        keys = query.get("session_id", [])
        if len(keys) != 1:
            problem = "session_id is missing: begin with GET /sse"
            return refuse(400, INVALID_REQUEST, problem, reason=Reason.SESSION_MISSING)
        connection = self._connections.get(keys[0])
        # The stream of an ended session may stay open until a slow client has read its last events.
        if connection is None or not connection.open_still:
            return session_gone()
        return (
            connection
            if connection.principal.key == http_request.head.principal.key
            else session_gone()
        )

    def _prefix(self, http_request: HttpRequest) -> str:
        """Return what stands before the paths of this application, as its client sees them."""
        prefix = (http_request.head.get(b"x-forwarded-prefix") or "").rstrip("/")
        # Another form, like `//host`, would send the client's messages to another server.
        if not prefix or not re.match(_PREFIX, prefix):
            prefix = self._root_path
        mounted = http_request.scope.get("root_path", "").rstrip("/")
        if not mounted or mounted == self._root_path:
            return prefix
        # One slash: two would begin the name of another host.
        mounted = "/" + quote(mounted.lstrip("/"))
        # Some programs are told the proxy's prefix themselves, and it is in their root path then.
        return mounted if f"{mounted}/".startswith(f"{prefix}/") else prefix + mounted

    async def _refuse(self, http_request: HttpRequest, refusal: Refusal) -> None:
        await refusing(refusal).finish(http_request)


def _only_listens(bridge: Bridge, connection: _Connection) -> bool:
    """Return whether no call waits for its answer on a connection's stream."""
    session = connection.session
    if session is not None:
        return not session.in_flight
    return not bridge.awaits(connection.stream, connection.principal)


def _serve(
    conversation: Session | SessionlessCalls, connection: _Connection, message: Message
) -> None:
    match message:
        case Request():
            caller = connection.principal.share_key
            conversation.call(message, streams=True, stream=connection.stream, caller=caller)
        case Notification():
            conversation.tell(message)
        case _:
            conversation.answer(message)


async def _serve_when_known(tenant: Tenant, connection: _Connection, message: Message) -> None:
    """Serve a message without a session, as soon as the server's eras are known."""
    try:
        calls = await tenant.sessionless()
    except Unavailable as error:
        _tell(connection, message, refusal_of(error, None))
        return
    # The client may have left while the eras were not known.
    if connection.open_still:
        _serve(calls, connection, message)


def _tell(connection: _Connection, content: Message | list[Message], refusal: Refusal) -> bool:
    """Answer the requests in a body with an error, on the stream; return whether there are any."""
    messages = content if isinstance(content, list) else [content]
    requests = [message for message in messages if isinstance(message, Request)]
    for request in requests:
        if connection.open_still:
            connection.stream.answer(encode(Failure(request.id, refusal.error)))
    return bool(requests)
