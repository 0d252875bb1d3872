"""Reads long texts in a worker thread, so that the event loop continues.

Reading 1 MiB takes up to 12 ms. One text is read at a time: with several, the loop would share the
interpreter with that many threads. Most of a read is calls into native code of a few milliseconds
each, between which the loop gets its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

LONG_BYTES = 1 << 18
"""Shorter texts are read on the loop in at most 3 ms; changing threads takes time too."""

T = TypeVar("T")
_limiter: RunVar[CapacityLimiter] = RunVar("mcpbridge.channels.off_loop")


async def read_off_loop(read: Callable[[bytes], T], text: bytes) -> T:
    """Return `read(text)`, called in a worker thread if the text is long; raise what it raises.

    Texts that one task reads in succession keep their order.
    """
    if len(text) < LONG_BYTES:
        return read(text)
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(1)
        _limiter.set(limiter)
    return await to_thread.run_sync(read, text, limiter=limiter)
