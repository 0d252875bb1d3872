"""Delivers the signals that the program handles, each once, and counts the orders to end."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import anyio

from mcpbridge.runtime.startup import HEARD, release_signals

ONE_ORDER_S = 0.5
"""Seconds within which further signals belong to the same order to end."""


class EndOrders:
    """Counts the orders to end among the signals that are received.

    One order may be two signals: GNU `timeout` signals its command and then the whole process
    group, and a supervisor may do so where a terminal does. A second order cuts calls short, so the
    repetition of the first one must not count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none.

        Args:
            clock: Returns the seconds since some moment.
        """
        self._clock = clock
        self._counted_at = 0.0
        self.count = 0
        """Number of orders so far."""

    def received(self) -> int | None:
        """Count a signal; return the number of its order, or None if it repeats the last one."""
        now = self._clock()
        # Measured from the signal that was counted, so that a stream of signals counts as several.
        if self.count and now - self._counted_at < ONE_ORDER_S:
            return None
        self._counted_at = now
        self.count += 1
        return self.count


@contextmanager
def heard_signals() -> Iterator[AsyncIterator[signal.Signals]]:
    """Receive the signals of `runtime.startup.HEARD` from now on, held ones first.

    A signal that is already ignored stays ignored: that is how `nohup` works.

    This does not use the event loop's handlers: if two signals come at nearly the same time, uvloop
    calls the handler of the second twice, and a second order to end means to end at once.
    """
    loop = asyncio.get_running_loop()
    send, receive = anyio.create_memory_object_stream[signal.Signals](math.inf)

    def deliver(number: int, _: object) -> None:
        loop.call_soon_threadsafe(send.send_nowait, signal.Signals(number))

    taken = [each for each in HEARD if signal.getsignal(each) is not signal.SIG_IGN]
    with send, receive:
        before = {each: signal.signal(each, deliver) for each in taken}
        release_signals()
        try:
            yield receive
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
