"""Delivers the signals that the program handles, each once."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio

from mcpbridge.runtime.startup import HEARD, release_signals


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
