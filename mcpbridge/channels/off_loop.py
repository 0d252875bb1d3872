"""Reads long texts in a worker thread, so that the event loop continues.

Reading 1 MiB takes up to 30 ms. One text is read at a time: with several, the loop would share the
interpreter with that many threads. Most of a read is calls into native code of a few milliseconds
each, between which the loop gets its turn; msgspec's pass over 16 MB of deep nesting takes 70 ms.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sized
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from mcpbridge.wire.json_object import is_plain

LONG_BYTES = 1 << 18
"""Shorter texts are read on the loop in a few milliseconds; changing threads takes time too."""
PLAIN_BYTES = 1 << 20
"""Plain texts up to this size as well: in a thread, which takes the interpreter from the loop again
and again, the reads of a call of 1 MB cost twice the processor time."""

_PAUSE_S = 0.003
_SWITCH_S = 0.0005
"""Seconds after which a thread that computes gives the interpreter to one that waits for it, during
a read. With CPython's 5 ms a request, which takes the loop about ten turns, waits 50 ms in all."""

T = TypeVar("T")
Text = TypeVar("Text", bound=Sized)
_limiter: RunVar[CapacityLimiter] = RunVar("mcpbridge.channels.off_loop")


async def read_off_loop(read: Callable[[Text], T], text: Text) -> T:
    """Return `read(text)`, called in a worker thread if that takes long; raise what it raises.

    Texts that one task reads in succession keep their order.
    """
    size = len(text)
    if size < LONG_BYTES:
        return read(text)
    if size <= PLAIN_BYTES and isinstance(text, bytes) and is_plain(text):
        return read(text)
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(1)
        _limiter.set(limiter)
    return await to_thread.run_sync(_read_aside, read, text, limiter=limiter)


def _read_aside(read: Callable[[Text], T], text: Text) -> T:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        return read(text)
    finally:
        sys.setswitchinterval(before)


def pause() -> None:
    """Let the loop have the interpreter between two native passes over a long text.

    A request takes several turns of the loop. After each of them the loop gives the interpreter
    away, and would wait for a whole further pass; in this time it takes all of them.
    """
    if is_aside():
        time.sleep(_PAUSE_S)


def is_aside() -> bool:
    """Return whether this thread is one that reads long texts."""
    return threading.current_thread() is not threading.main_thread()
