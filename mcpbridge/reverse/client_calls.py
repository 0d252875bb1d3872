"""The requests of one client that a remote server has in flight, and what else the client sends.

Requests go out at once, each in its own task. Notifications and answers go out one after the other,
and `notifications/initialized` before any later request: a server may refuse what comes earlier.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import anyio
import msgspec
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge.errors import WireError
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.request_headers import speaks_modern
from mcpbridge.rules.faults import INVALID_REQUEST, Fault, error_object
from mcpbridge.rules.mcp.correlator import cancelled_id
from mcpbridge.rules.mcp.methods import CANCELLED, INITIALIZED
from mcpbridge.wire.messages import Failure, Message, Notification, Reply, Request, canonical_id

log = logging.getLogger("mcpbridge.reverse")

_INITIALIZED_S = 5.0
_QUEUED = 64

Deliver = Callable[[Message], Coroutine[Any, Any, None]]


class RemoteServerClient(Protocol):
    """A way to a remote server for one client; works within `run`."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled."""

    async def answer(self, request: Request) -> Reply:
        """Return the answer to a request: the server's, or an error of mcpbridge."""

    async def send(self, message: Notification | Reply) -> None:
        """Pass on a notification or an answer of the client."""


class CallLimits(msgspec.Struct, frozen=True):
    """How many requests of the client may be in flight; None: any number."""

    max_calls: int | None = None
    max_call_bytes: int | None = None


class ClientCalls:
    """The requests of one client that are in flight; works within `run`."""

    def __init__(
        self, remote: RemoteServerClient, deliver: Deliver, limits: CallLimits | None = None
    ) -> None:
        """Make it.

        Args:
            remote: The way to the server.
            deliver: Gives the client an answer.
            limits: How many requests may be in flight; None: any number.
        """
        self._remote = remote
        self._deliver = deliver
        self._limits = limits or CallLimits()
        self._in_flight: dict[bytes, tuple[anyio.CancelScope, Request]] = {}
        self._bytes = 0
        self._idle = anyio.Event()
        self._queue_empty = anyio.Event()
        self._tasks: TaskGroup
        self._queue, self._queued = anyio.create_memory_object_stream[Notification | Reply](_QUEUED)

    def __len__(self) -> int:
        return len(self._in_flight)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Pass on what the client sends, until cancelled; then end the session at the server."""
        with self._queue, self._queued:
            async with anyio.create_task_group() as self._tasks:
                await self._tasks.start(self._remote.run)
                self._tasks.start_soon(self._pass_on)
                task_status.started()
                await anyio.sleep_forever()

    async def finish(self) -> None:
        """Wait until no request is in flight and all else has been sent; take no more."""
        while self._in_flight:
            self._idle = anyio.Event()
            await self._idle.wait()
        self._queue.close()
        await self._queue_empty.wait()

    async def _pass_on(self) -> None:
        async for message in self._queued:
            await self._remote.send(message)
        self._queue_empty.set()

    async def take(self, message: Message) -> None:
        """Take a message of the client."""
        if isinstance(message, Request):
            await self._begin(message)
        elif isinstance(message, Reply):
            await self._queue.send(message)
        elif message.method == CANCELLED:
            await self._cancel(message)
        elif message.method == INITIALIZED:
            with anyio.move_on_after(_INITIALIZED_S):
                await self._remote.send(message)
        else:
            await self._queue.send(message)

    async def _begin(self, request: Request) -> None:
        key = canonical_id(request.id)
        if key in self._in_flight:
            error = error_object(INVALID_REQUEST, "a request with this id is in flight")
            await self._deliver(Failure(request.id, error))
            return
        fault = self._over_limit(request)
        if fault is not None:
            log.warning("connect.request_refused", extra={"problem": fault.message})
            await self._deliver(Failure(request.id, fault.error()))
            return
        self._in_flight[key] = anyio.CancelScope(), request
        self._bytes += len(request.params or b"")
        self._tasks.start_soon(self._call, key, request)

    def _over_limit(self, request: Request) -> Fault | None:
        most, most_bytes = self._limits.max_calls, self._limits.max_call_bytes
        if most is not None and len(self._in_flight) >= most:
            return faults.over_capacity(f"{most} requests are in flight (--max-calls)")
        if most_bytes is not None and self._bytes + len(request.params or b"") > most_bytes:
            text = f"the requests in flight exceed {most_bytes} bytes (--max-call-bytes)"
            return faults.over_capacity(text)
        return None

    async def _call(self, key: bytes, request: Request) -> None:
        scope, _ = self._in_flight[key]
        try:
            with scope:
                reply = await self._remote.answer(request)
            if not scope.cancelled_caught:
                await self._deliver(reply)
        finally:
            del self._in_flight[key]
            self._bytes -= len(request.params or b"")
            if not self._in_flight:
                self._idle.set()

    async def _cancel(self, notification: Notification) -> None:
        """Stop waiting for a request; in the legacy revisions the server learns it by a message."""
        try:
            request_id = cancelled_id(notification)
        except WireError:
            return
        found = self._in_flight.get(canonical_id(request_id or b""))
        if found is None:
            return
        scope, request = found
        if not speaks_modern(request):
            await self._queue.send(notification)
        scope.cancel()
