"""One session with a remote server over the transport of 2024-11-05: a stream down, POSTs up.

Source: MCP 2024-11-05, Transports, HTTP with SSE.
"""

from __future__ import annotations

import functools
import logging

import anyio
import httpx
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from mcpbridge.channels.off_loop import read_off_loop
from mcpbridge.errors import WireError
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.remote_http import RemoteHttp, media_type, same_origin
from mcpbridge.reverse.session.streamable_session import Emit
from mcpbridge.rules.faults import Unavailable
from mcpbridge.wire.headers import EVENT_STREAM, JSON
from mcpbridge.wire.messages import Message, Reply, Request, canonical_id, decode, encode

log = logging.getLogger("mcpbridge.reverse")

_ENDPOINT_S = 5.0
_POST_S = 10.0


class _Waiting:
    """A request that was sent, until its answer comes or the stream ends."""

    def __init__(self) -> None:
        self.settled = anyio.Event()
        self.reply: Reply | None = None

    def settle(self, reply: Reply | None) -> None:
        """Take the answer; None if none will come."""
        self.reply = reply
        self.settled.set()


class SseSession:
    """A session over HTTP+SSE; it is its stream, so `run` begins and ends it."""

    def __init__(self, http: RemoteHttp, emit: Emit) -> None:
        self._http = http
        self._emit = functools.partial(emit, self)
        self._endpoint: httpx.URL | None = None
        self._waiting: dict[bytes, _Waiting] = {}

    @property
    def shows_loss(self) -> bool:
        """True: the end of the stream is the end of the session."""
        return True

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Open the stream and read it; started when the server has named the endpoint."""
        name = self._http.remote.name
        try:
            async with self._http.exchange("GET", {"accept": EVENT_STREAM}) as response:
                if not response.is_success or media_type(response) != EVENT_STREAM:
                    raise faults.refused(name, response.status_code, response.reason_phrase)
                await self._read(response, task_status)
        except Unavailable as failed:
            if self._endpoint is None:
                raise
            raise faults.session_lost(name) from failed
        finally:
            self._endpoint = None
            for waiting in self._waiting.values():
                waiting.settle(None)
        raise faults.session_lost(name)

    async def _read(self, response: httpx.Response, task_status: TaskStatus[None]) -> None:
        name = self._http.remote.name
        with anyio.CancelScope(deadline=anyio.current_time() + _ENDPOINT_S) as until_endpoint:
            async for event in self._http.events(response):
                if event.name == "endpoint":
                    self._endpoint = self._place(event.data)
                    until_endpoint.deadline = float("inf")
                    task_status.started()
                elif event.data:
                    await self._take(event.data)
        if self._endpoint is None:
            raise faults.malformed(name, "its stream does not begin with an endpoint event")

    def _place(self, data: bytes) -> httpx.URL:
        name = self._http.remote.name
        try:
            place = self._http.url.join(data.decode())
        except httpx.InvalidURL as error:
            raise faults.malformed(name, f"its endpoint event: {error}") from error
        if not same_origin(place, self._http.url):
            raise faults.malformed(name, "its endpoint event names another origin")
        return place

    async def _take(self, data: bytes) -> None:
        try:
            message = await read_off_loop(decode, data)
        except WireError as error:
            log.warning("connect.malformed", extra={"problem": str(error)})
            return
        if not isinstance(message, Reply):
            await self._emit(message)
            return
        key = canonical_id(message.id or b"null")
        if key in self._waiting:
            self._waiting[key].settle(message)

    async def call(self, request: Request) -> Reply:
        """Send a request and return its answer; see `RemoteSession`."""
        key, waiting = canonical_id(request.id), _Waiting()
        self._waiting[key] = waiting
        try:
            await self.send(request)
            await waiting.settled.wait()
        finally:
            del self._waiting[key]
        if waiting.reply is None:
            raise faults.broken(self._http.remote.name, "its stream ended")
        return waiting.reply

    async def send(self, message: Message) -> None:
        """POST a message to the endpoint; see `RemoteSession`."""
        name = self._http.remote.name
        if self._endpoint is None:
            raise faults.session_lost(name)
        headers = {"accept": JSON, "content-type": JSON}
        with anyio.move_on_after(_POST_S) as limit:
            body = encode(message)
            async with self._http.exchange("POST", headers, body, self._endpoint) as response:
                if response.status_code == 404:
                    raise faults.session_lost(name)
                if not response.is_success:
                    raise faults.refused(name, response.status_code, response.reason_phrase)
        if limit.cancelled_caught:
            raise faults.overdue(_POST_S, "for a message to be accepted")

    async def close(self) -> None:
        """Do nothing: the session ends with its stream."""
