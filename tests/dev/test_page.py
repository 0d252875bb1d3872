"""The parts of the page that need no server."""

from __future__ import annotations

from anyio import to_thread

from mcpbridge.dev.page.page import RingSink
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.ring import Ring


def frame(seq: int) -> Frame:
    """A frame."""
    return Frame("s", "demo", seq, 0, Direction.STDERR, text="x")


async def test_a_frame_of_another_thread_is_read_in_the_loop() -> None:
    """A reader that waits for it wakes up."""
    ring = Ring()
    sink = RingSink(ring)
    sink.put(frame(1), None)
    reader = ring.reader(1)
    await to_thread.run_sync(sink.put, frame(2), None)
    assert [each.seq for each in (await reader.read()).frames] == [2]
