"""The transport of 2024-11-05: one event stream down, POSTs to a second path up.

A client opens `/sse`; the first event names the path for its messages, with a key that nobody can
guess; everything the server says comes on that stream; closing it ends the session. Any handshake
revision may be negotiated over it.

Source: MCP 2024-11-05, Transports, HTTP with SSE. That the URI is relative is the deployed SDKs'
rule: they resolve it against the stream's and refuse another origin.
"""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import parse_qs

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import new_session_id
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import BodyLimits, id_of, judge_long_body
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import EventStream, farewell, refusal_of, send_empty, send_refusal
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable
from mcpbridge.rules.mcp.admission import (
    Admitted,
    Opening,
    Refusal,
    admit_batch,
    admit_message,
    echoing,
    refuse,
    session_gone,
)
from mcpbridge.settings import setting
from mcpbridge.wire.messages import Failure, Message, Notification, Request, encode

SSE_PATH = "/sse"
MESSAGES_PATH = "/messages"

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*\Z")


@dataclasses.dataclass(frozen=True, slots=True)
class ProxySettings:
    """What a reverse proxy in front of the bridge does to paths."""

    root_path: str = setting(
        "",
        "--root-path",
        "Prefix under which a reverse proxy publishes the bridge, as in /tools/git; an"
        " X-Forwarded-Prefix header of the proxy says it too.",
        group="Listening",
        metavar="PREFIX",
    )


@dataclasses.dataclass(slots=True)
class _Connection:
    """One open event stream and, once its client has initialized, its session."""

    stream: Stream
    principal: Principal
    session: Session | None = None

    def open(self, bridge: Bridge, opening: Opening) -> None:
        """Open its session; raises Unavailable if none is opened now."""
        self.session, _ = bridge.open(opening, self.principal, streams=True, one_stream=self.stream)


class SseTransport:
    """Serves one bridge to clients of the transport of 2024-11-05."""

    def __init__(
        self,
        bridge: Bridge,
        keepalive: KeepAlive,
        settings: ProxySettings,
        limits: BodyLimits,
        access: AccessControl | None = None,
    ) -> None:
        self._bridge = bridge
        self._keepalive = keepalive
        self._root_path = settings.root_path.rstrip("/")
        self._limits = limits
        self._access = access or AccessControl()
        self._connections: dict[str, _Connection] = {}

    async def connect(self, http_request: HttpRequest) -> None:
        """Open the stream; its end is the end of the session."""
        if not http_request.head.accepts.stream:
            await self._refuse(
                http_request, refuse(406, INVALID_REQUEST, "Accept must allow text/event-stream")
            )
            return
        key = new_session_id()
        try:
            with (
                self._bridge.one_stream(http_request.head.principal) as stream,
                stream.attach() as reader,
            ):
                self._connections[key] = _Connection(stream, http_request.head.principal)
                endpoint = f"{self._prefix(http_request)}{MESSAGES_PATH}?session_id={key}"
                # With it comes a framework, which few bridges need: their clients are newer.
                from sse_starlette.event import ServerSentEvent

                greeting = ServerSentEvent(endpoint, event="endpoint", sep="\n").encode()
                with self._keepalive.watching(reader, http_request.head.principal):
                    response = EventStream(reader, farewell(self._bridge.drain), greeting)
                    await response.serve(http_request)
        except Unavailable as error:
            await self._refuse(http_request, refusal_of(error, None))
        finally:
            ended = self._connections.pop(key, None)
            if ended is not None and ended.session is not None:
                self._bridge.close(ended.session, why="disconnected")

    async def post(self, http_request: HttpRequest) -> None:
        """Take a message; what answers it comes on the stream."""
        body = await read_body(http_request, self._limits.max_bytes)
        depth = self._limits.max_depth
        content: Message | list[Message] | Refusal
        if isinstance(body, Refusal):
            content = body
        else:
            content = await judge_long_body(http_request.head, body, depth)
        connection = self._named(http_request)
        if not isinstance(content, Refusal) and isinstance(connection, _Connection):
            connection = self._access.admits(http_request.head.principal, content) or connection
        if isinstance(content, Refusal) or isinstance(connection, Refusal):
            refusal = content if isinstance(content, Refusal) else connection
            assert isinstance(refusal, Refusal)
            await self._refuse(http_request, echoing(refusal, id_of(content)))
            return
        revision = connection.session.revision if connection.session is not None else None
        admitted: Opening | Admitted | Refusal
        if isinstance(content, list):
            admitted = admit_batch(content, revision)
        else:
            admitted = admit_message(content, revision, require_session=True)
        if isinstance(admitted, Refusal):
            await self._refuse(http_request, admitted)
            return
        if isinstance(admitted, Opening):
            self._open(connection, admitted)
        elif connection.session is not None:
            for message in admitted.messages:
                _serve(connection.session, message)
        await send_empty(http_request.send, 202, farewell(self._bridge.drain))

    def _open(self, connection: _Connection, opening: Opening) -> None:
        try:
            connection.open(self._bridge, opening)
        except Unavailable as error:
            # The client listens on its stream only, whatever the POST is answered.
            failure = Failure(opening.request.id, error.fault.error())
            connection.stream.answer(encode(failure))

    def _named(self, http_request: HttpRequest) -> _Connection | Refusal:
        query = parse_qs(http_request.scope["query_string"].decode("latin-1"))
        keys = query.get("session_id", [])
        if len(keys) != 1:
            return refuse(400, INVALID_REQUEST, "session_id is missing: begin with GET /sse")
        connection = self._connections.get(keys[0])
        # The last events of an ended session may still be on their way to a slow reader.
        if connection is None or connection.stream.log.closed:
            return session_gone()
        return (
            connection
            if connection.principal.key == http_request.head.principal.key
            else session_gone()
        )

    def _prefix(self, http_request: HttpRequest) -> str:
        prefix = (http_request.head.get(b"x-forwarded-prefix") or "").rstrip("/")
        # Anything else could send the client's messages to another place than this one.
        return prefix if prefix and _PREFIX.match(prefix) else self._root_path

    async def _refuse(self, http_request: HttpRequest, refusal: Refusal) -> None:
        await send_refusal(http_request.send, refusal, farewell(self._bridge.drain))


def _serve(session: Session, message: Message) -> None:
    match message:
        case Request():
            session.call(message, streams=True)
        case Notification():
            session.tell(message)
        case _:
            session.answer(message)
