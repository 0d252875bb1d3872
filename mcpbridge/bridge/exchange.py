"""One client request and everything that answers it.

Its stream gets what the child says about the request, in the child's order, and last its one
final answer. Whoever serves the request over HTTP reads it from there; nobody has to: a client of
the handshake era may go away without cancelling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcpbridge.bridge.mux import Mux
from mcpbridge.bridge.stream import Stream
from mcpbridge.rules.eventlog import Window
from mcpbridge.rules.faults import Fault
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, encode


class Exchange(Stream):
    """From the moment a request is accepted until its one final answer.

    It is finished exactly once, by whichever comes first: the child's answer, its death, the
    client's cancellation, the end of the session or of the bridge. What comes later is ignored.
    """

    def __init__(
        self,
        request: Request,
        ended: Callable[[Exchange], None],
        window: Window,
        *,
        streams: bool,
    ) -> None:
        super().__init__(window)
        self.request = request
        self.streams = streams
        """The client reads event streams, so that more than the answer can reach it."""
        self.reply: Reply | None = None
        self.fault: Fault | None = None
        """Why the bridge answered in the child's place, if it did."""
        self.refused = False
        """It was the bridge that turned the request away: no session or child was there yet."""
        self.mux: Mux | None = None
        self.number: int | None = None
        """The request's id on the child's pipe; None until it is sent."""
        self._ended = ended
        self._first: asyncio.Future[None] | None = None

    def progressed(self, notification: Notification) -> None:
        """Progress of this very request."""
        self.tell(encode(notification), sheddable=True)

    def tell(self, payload: bytes, *, sheddable: bool) -> None:
        """Something that belongs to this request and is not its answer."""
        if self.reply is None and self.streams:
            self.append(payload, sheddable=sheddable)
            self._something_came()

    def answered(self, reply: Reply) -> None:
        """The final answer."""
        if self.reply is not None:
            return
        self.reply = reply
        self.append(encode(reply), sheddable=False)
        self.close()
        self._something_came()
        self._ended(self)

    def fail(self, fault: Fault) -> None:
        """The bridge answers in the child's place."""
        if self.reply is None:
            self.fault = fault
            self.answered(Failure(self.request.id, fault.error()))

    async def first(self, within_s: float) -> None:
        """Wait until anything has come, for at most so many seconds."""
        if self.log.last:
            return
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        timer = loop.call_later(within_s, self._something_came)
        await self._first
        timer.cancel()

    async def finished(self) -> None:
        """Wait for the final answer; bounded by what bounds the call itself."""
        with self.attach() as reader:
            while await reader.read() is not None:
                pass

    def _something_came(self) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
