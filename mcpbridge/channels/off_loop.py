"""Long texts are read in a worker thread, so that the event loop goes on meanwhile.

Reading 1 MiB takes up to 12 ms. One text is read at a time: with several, the loop would have to
share the interpreter with as many threads. Most of a reading is calls into native code of a few
milliseconds each, between which the loop gets its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

LONG_BYTES = 1 << 18
"""Shorter texts are read on the loop: in 3 ms at most, and to change threads takes time too."""

T = TypeVar("T")
_limiter: RunVar[CapacityLimiter] = RunVar("mcpbridge.channels.off_loop")


async def read_off_loop(read: Callable[[bytes], T], text: bytes) -> T:
    """Return `read(text)`, called in a worker thread if the text is long; raises what it raises.

    Texts that one task reads one after the other keep their order.
    """
    if len(text) < LONG_BYTES:
        return read(text)
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(1)
        _limiter.set(limiter)
    return await to_thread.run_sync(read, text, limiter=limiter)
