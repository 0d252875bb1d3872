"""Long texts are read in a thread that leaves the interpreter to the event loop."""

from __future__ import annotations

import sys
import threading

import pytest

from mcpbridge.channels.off_loop import LONG_BYTES, pause, read_off_loop
from tests.bridge.playbook import bounded


def where(text: bytes) -> tuple[str, float]:
    """The thread that reads, and how long it may keep the interpreter, in seconds."""
    pause()
    return threading.current_thread().name, sys.getswitchinterval()


@bounded
async def test_a_long_text_is_read_in_a_thread_that_gives_way_soon() -> None:
    """Only during the read: afterwards the interpreter's own interval holds again."""
    before = sys.getswitchinterval()
    name, interval = await read_off_loop(where, bytes(LONG_BYTES))
    assert name != threading.current_thread().name
    assert interval < before == sys.getswitchinterval()
    assert await read_off_loop(where, b"short") == (threading.current_thread().name, before)


@bounded
async def test_a_failing_read_raises_in_its_caller_and_leaves_the_interval() -> None:
    """As a short text does, on the loop."""
    before = sys.getswitchinterval()
    for size in (1, LONG_BYTES):
        with pytest.raises(ZeroDivisionError):
            await read_off_loop(lambda text: 1 // 0, bytes(size))
    assert sys.getswitchinterval() == before
