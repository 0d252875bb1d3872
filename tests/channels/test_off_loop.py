"""Long texts are read in a thread that leaves the interpreter to the event loop."""

from __future__ import annotations

import sys
import threading

import pytest

from mcpbridge.channels.off_loop import LONG_BYTES, PLAIN_BYTES, pause, read_off_loop
from tests.bridge.playbook import bounded


def where(text: bytes) -> tuple[str, float]:
    """The thread that reads, and how long it may keep the interpreter, in seconds."""
    pause()
    return threading.current_thread().name, sys.getswitchinterval()


@bounded
async def test_a_long_text_is_read_in_a_thread_that_gives_way_soon() -> None:
    """Only during the read: afterwards the interpreter's own interval holds again."""
    before = sys.getswitchinterval()
    name, interval = await read_off_loop(where, b"[" * LONG_BYTES)
    assert name != threading.current_thread().name
    assert interval < before == sys.getswitchinterval()
    assert await read_off_loop(where, b"short") == (threading.current_thread().name, before)


@bounded
async def test_a_failing_read_raises_in_its_caller_and_leaves_the_interval() -> None:
    """As a short text does, on the loop."""
    before = sys.getswitchinterval()
    for text in (b"x", b"x" * LONG_BYTES, b"[" * LONG_BYTES):
        with pytest.raises(ZeroDivisionError):
            await read_off_loop(lambda text: 1 // 0, text)
    assert sys.getswitchinterval() == before


@bounded
@pytest.mark.parametrize(
    ("text", "aside"),
    [
        pytest.param(b'"%b"' % (b"x" * LONG_BYTES), False, id="a string"),
        pytest.param(b'"%b"' % (b"x" * PLAIN_BYTES), True, id="a string of over 1 MiB"),
        pytest.param(b"[%b1]" % (b"1," * (LONG_BYTES // 2)), False, id="an array of numbers"),
        pytest.param(b"[%b1]" % (b"[]," * (LONG_BYTES // 3)), True, id="many arrays"),
        pytest.param(b"[%b1]" % (b"{}," * (LONG_BYTES // 3)), True, id="many objects"),
        pytest.param(b"[%b1]" % (b"1,\n" * (LONG_BYTES // 3)), True, id="line feeds"),
        pytest.param(b"[%b1]" % (b"1,\r" * (LONG_BYTES // 3)), True, id="carriage returns"),
    ],
)
async def test_a_text_that_is_read_in_little_time_stays_on_the_loop(
    text: bytes, aside: bool
) -> None:
    """Up to 1 MiB with few arrays and objects, on one line."""
    name, _ = await read_off_loop(where, text)
    assert (name != threading.current_thread().name) == aside
