"""One session with a remote server over Streamable HTTP.

Source: MCP 2025-03-26 to 2026-07-28, Transports, Streamable HTTP.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import anyio
import httpx
import msgspec
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from mcpbridge.channels.off_loop import read_off_loop
from mcpbridge.errors import WireError
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.remote_http import BOTH, Event, RemoteHttp, media_type
from mcpbridge.reverse.session.request_headers import routing_headers, speaks_modern
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.modern_checks import Annotations
from mcpbridge.wire.headers import EVENT_STREAM, JSON, is_session_id
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    Result,
    canonical_id,
    decode,
    decode_batch,
    encode,
    is_batch,
    text_of,
)

log = logging.getLogger("mcpbridge.reverse")

_POST_S = 10.0
_CLOSE_S = 1.0
_NO_ENDPOINT = (404, 405)
"""Statuses of an address at which no POST is served, whatever the body says."""
_NO_POST = (*_NO_ENDPOINT, 501)
"""The same, and that of servers of files."""
_ADDRESS_HINT = "is this the address of an MCP endpoint, such as http://HOST:PORT/mcp?"
_MOST_RESUMPTIONS = 10
_MOST_WAIT_S = 30.0
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 2.0
"""Seconds between attempts to open a stream again."""

Emit = Callable[["RemoteSession", Message], Awaitable[None]]
"""Takes each request and notification of the server."""


class RemoteSession(Protocol):
    """One session with the remote server, over either transport."""

    async def call(self, request: Request) -> Reply:
        """Send a request and return its answer.

        Raises:
            Unavailable: No answer; the fault says whether the call may have been executed.
        """

    async def send(self, message: Message) -> None:
        """Send a notification or an answer; raise Unavailable if it is not accepted."""

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Read the standalone stream.

        Raises:
            SessionLost: The server has ended the session.
        """

    async def close(self) -> None:
        """End the session at the server, in bounded time."""

    @property
    def shows_loss(self) -> bool:
        """Whether a server that restarted refuses requests of the session it has lost."""


class _Cursor(msgspec.Struct):
    """How far a stream has been read."""

    event_id: str = ""
    wait_s: float = 1.0

    def note(self, event: Event) -> None:
        """Take the position and the wait that an event names."""
        self.event_id = event.id or self.event_id
        if event.retry_ms is not None:
            self.wait_s = min(event.retry_ms / 1000, _MOST_WAIT_S)


class StreamableSession:
    """A session over Streamable HTTP, begun by the first request; without one it has no id."""

    def __init__(self, http: RemoteHttp, emit: Emit, annotations: Annotations) -> None:
        self._http = http
        self._emit = functools.partial(emit, self)
        self._annotations = annotations
        self._session_id = ""
        self._revision = ""

    @property
    def shows_loss(self) -> bool:
        """Whether the session has an id."""
        return self._session_id != ""

    async def call(self, request: Request) -> Reply:
        """Send a request and return its answer; see `RemoteSession`."""
        cursor = _Cursor()
        async with self._http.exchange("POST", self._head(request), encode(request)) as response:
            if not response.is_success:
                return await self._refusal(response, request)
            reply = await self._reply_in(response, request, cursor)
            if request.method == INITIALIZE and isinstance(reply, Result):
                self._begin(response, reply)
        for _ in range(_MOST_RESUMPTIONS):
            if reply is not None:
                return reply
            await anyio.sleep(cursor.wait_s)
            reply = await self._resumed(request, cursor)
        if reply is None:
            raise faults.broken(self._http.remote.name, "its stream kept ending")
        return reply

    def _begin(self, response: httpx.Response, reply: Result) -> None:
        session_id = response.headers.get("mcp-session-id", "")
        if session_id and not is_session_id(session_id):
            raise faults.malformed(self._http.remote.name, "its Mcp-Session-Id")
        self._session_id = session_id
        try:
            self._revision = text_of(member(reply.result, "protocolVersion")) or ""
        except WireError:
            self._revision = ""

    def _head(self, message: Message | None, accept: str = BOTH) -> Mapping[str, str]:
        headers = {"accept": accept}
        if message is not None:
            headers["content-type"] = JSON
        modern = isinstance(message, Request | Notification) and speaks_modern(message)
        if modern:
            assert isinstance(message, Request | Notification)
            return {**headers, **routing_headers(message, self._annotations)}
        if self._session_id:
            headers["mcp-session-id"] = self._session_id
        if self._revision:
            headers["mcp-protocol-version"] = self._revision
        return headers

    async def _refusal(self, response: httpx.Response, request: Request | None) -> Failure:
        """Return the JSON-RPC error of an HTTP error, or raise what it means."""
        status, name = response.status_code, self._http.remote.name
        body, failure = await self._http.error_in(response)
        # Deployed servers answer a session that they do not know with 404 or, against the
        # specification, with 400 and a text about it.
        unknown = status == 404 or (status == 400 and b"session" in body.lower())
        if self._session_id and unknown and not (request and speaks_modern(request)):
            raise faults.session_lost(name)
        if status == 401:
            hint = self._http.remote.refused_hint
            raise faults.refused(name, status, response.reason_phrase, hint)
        own = Failure(request.id, failure.error, failure.extra) if failure and request else None
        if own is None or (request and request.method == INITIALIZE and status in _NO_ENDPOINT):
            hint = _ADDRESS_HINT if own is None and status in _NO_POST else ""
            raise faults.refused(name, status, response.reason_phrase, hint, own)
        return own

    async def _reply_in(
        self, response: httpx.Response, request: Request, cursor: _Cursor
    ) -> Reply | None:
        """Return the answer in a response; None if its stream ended and can be resumed."""
        name, kind = self._http.remote.name, media_type(response)
        if kind == JSON:
            body = await self._http.whole(response)
            reply = await self._answer_among(await self._messages(body), request)
            if reply is None:
                raise faults.malformed(name, "it has no answer")
            return reply
        if kind != EVENT_STREAM:
            raise faults.malformed(name, f"{response.status_code} with Content-Type {kind!r}")
        try:
            async for event in self._http.events(response):
                cursor.note(event)
                reply = await self._answer_among(await self._messages(event.data), request)
                if reply is not None:
                    return reply
        except httpx.TransportError:
            if not cursor.event_id:
                raise
        if not cursor.event_id:
            raise faults.broken(name, "its stream ended")
        return None

    async def _resumed(self, request: Request, cursor: _Cursor) -> Reply | None:
        headers = {**self._head(None, EVENT_STREAM), "last-event-id": cursor.event_id}
        name = self._http.remote.name
        try:
            async with self._http.exchange("GET", headers) as response:
                if not response.is_success:
                    raise faults.broken(name, f"{response.status_code} for the rest of its stream")
                return await self._reply_in(response, request, cursor)
        except Unavailable as failed:
            # The request itself was sent before.
            if failed.fault.executed == "no":
                raise faults.broken(name, str(failed)) from failed
            raise

    async def _messages(self, text: bytes) -> list[Message]:
        if not text.strip():
            return []
        try:
            if is_batch(text):
                return await read_off_loop(decode_batch, text)
            return [await read_off_loop(decode, text)]
        except WireError as error:
            raise faults.malformed(self._http.remote.name, str(error)) from error

    async def _answer_among(self, messages: list[Message], request: Request) -> Reply | None:
        """Return the answer to a request, and pass on all that comes before it."""
        for message in messages:
            if isinstance(message, Reply) and _answers(message, request):
                return message
            await self._pass_on(message)
        return None

    async def _pass_on(self, message: Message) -> None:
        if isinstance(message, Request | Notification):
            await self._emit(message)
        else:
            log.debug("connect.dropped", extra={"what": "an answer to no request"})

    async def send(self, message: Message) -> None:
        """Send a notification or an answer; see `RemoteSession`."""
        with anyio.move_on_after(_POST_S) as limit:
            async with self._http.exchange(
                "POST", self._head(message), encode(message)
            ) as response:
                if not response.is_success:
                    await self._refusal(response, None)
        if limit.cancelled_caught:
            raise faults.overdue(_POST_S, "for a notification")

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Read the standalone stream, again and again; return if the server offers none."""
        task_status.started()
        cursor, wait_s = _Cursor(), FIRST_WAIT_S
        while True:
            try:
                if not await self._listened(cursor):
                    return
                wait_s = max(FIRST_WAIT_S, min(cursor.wait_s, LONGEST_WAIT_S))
            except faults.SessionLost:
                raise
            except Unavailable as failed:
                if not self._session_id:
                    # Without an id the server cannot say that it has forgotten the session.
                    raise faults.session_lost(self._http.remote.name) from failed
                log.debug("connect.stream_broken", extra={"problem": str(failed)})
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            await anyio.sleep(wait_s)

    async def _listened(self, cursor: _Cursor) -> bool:
        """Read the standalone stream to its end; return False if the server has none."""
        headers = dict(self._head(None, EVENT_STREAM))
        if cursor.event_id:
            headers["last-event-id"] = cursor.event_id
        async with self._http.exchange("GET", headers) as response:
            if response.status_code in (502, 503, 504):
                raise faults.refused(self._http.remote.name, response.status_code, "")
            if response.status_code == 405 or (response.is_success and not _is_stream(response)):
                return False
            if not response.is_success:
                try:
                    await self._refusal(response, None)
                except faults.RemoteRefused:
                    return False
            async for event in self._http.events(response):
                cursor.note(event)
                for message in await self._messages(event.data):
                    await self._pass_on(message)
        return True

    async def close(self) -> None:
        """End the session at the server."""
        if not self._session_id:
            return
        with anyio.move_on_after(_CLOSE_S, shield=True):
            try:
                async with self._http.exchange("DELETE", self._head(None)):
                    return
            except Unavailable as failed:
                log.debug("connect.not_closed", extra={"problem": str(failed)})


def _answers(reply: Reply, request: Request) -> bool:
    return reply.id is not None and canonical_id(reply.id) == canonical_id(request.id)


def _is_stream(response: httpx.Response) -> bool:
    return media_type(response) == EVENT_STREAM
