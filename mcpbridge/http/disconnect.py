"""How the code that serves a request learns that its client has left.

An ASGI server tells it to the caller of `receive`, which takes a task for each open stream, of some
KiB. `HttpConnection` knows it without a task and gives a `Disconnect` with the request's scope;
under any other server `ReceivedDisconnect` asks `receive`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive
from uvicorn.protocols.http.flow_control import FlowControl


class Disconnect:
    """The end of one connection, and the callback for it."""

    __slots__ = ("_flow", "_idle", "_listener", "_over")

    def __init__(self, flow: FlowControl | None = None) -> None:
        """Make the object for a new connection.

        Args:
            flow: The connection's flow control: its end is noticed only while it is read.
        """
        self._flow = flow
        self._listener: Callable[[], None] | None = None
        self._over = False
        self._idle: Callable[[], bool] | None = None

    def may_end(self, idle: Callable[[], bool] | None) -> None:
        """Let the connection end early for another client while `idle` returns True; None: never.

        It carries a stream on which a client only listens.
        """
        self._idle = idle

    @property
    def idle(self) -> bool:
        """Whether the connection may end early now: see `may_end`."""
        return self._idle is not None and self._idle()

    def watch(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when the client disconnects, now if it has; one at a time."""
        self._listener = listener
        if self._over:
            listener()
        elif self._flow is not None:
            self._flow.resume_reading()

    def cut(self) -> None:
        """End the connection at once, so that the client knows that its response broke off."""
        if self._flow is not None:
            self._flow._transport.abort()

    def ignore(self) -> None:
        """Drop the listener: the request is served."""
        self._listener = None

    def happen(self) -> None:
        """Record that the client has disconnected, and call the listener."""
        self._over = True
        # Taken first, so that it is called once however often the end is reported.
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()


class ReceivedDisconnect(Disconnect):
    """The end of one request as any ASGI server tells it: by `http.disconnect`.

    To be watched when the body has been read: a task takes all further events of the request.
    """

    __slots__ = ("_receive", "_task")

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    def watch(self, listener: Callable[[], None]) -> None:
        """Call the listener when the client has left."""
        super().watch(listener)
        if not self._over and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._wait())
            self._task.add_done_callback(self._waited)

    def ignore(self) -> None:
        """Forget the listener, and receive no more."""
        super().ignore()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _waited(self, task: asyncio.Task[None]) -> None:
        # A server that fails to receive has lost its client too; `exception` marks it as seen.
        if not task.cancelled():
            task.exception()
            self.happen()
