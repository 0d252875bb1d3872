"""The latest frames, and readers that follow them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.tape.frame import Direction, Frame, bytes_of
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.ring import HEAD_BYTES, MOST_FRAME_BYTES, MOST_READERS, Ring, TooManyReaders
from mcpbridge.wire.messages import Result, encode


def frame(seq: int, size: int = 0) -> Frame:
    """A frame with a text of some length."""
    return Frame("s", "demo", seq, 0, Direction.STDERR, text="x" * size)


async def test_a_reader_gets_what_is_there_and_what_comes() -> None:
    """In order, each once."""
    ring = Ring()
    ring.put(frame(1))
    reader = ring.reader()
    assert [each.seq for each in (await reader.read()).frames] == [1]
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)  # the reader waits
    ring.put(frame(2))
    found = await reading
    assert ([each.seq for each in found.frames], found.lost) == ([2], 0)


async def test_a_slow_reader_is_told_how_many_frames_it_lost() -> None:
    """Another one loses none."""
    ring = Ring(most_frames=3)
    slow, fast = ring.reader(), ring.reader()
    for seq in range(10):
        ring.put(frame(seq))
        assert (await fast.read()).lost == 0
    found = await slow.read()
    assert ([each.seq for each in found.frames], found.lost) == ([7, 8, 9], 7)


async def test_no_more_than_four_follow() -> None:
    """One that leaves makes room."""
    ring = Ring()
    readers = [ring.reader() for _ in range(MOST_READERS)]
    with pytest.raises(TooManyReaders, match="4 readers"):
        ring.reader()
    readers[0].close()
    readers[0].close()
    ring.reader()


async def test_many_frames_come_in_several_reads() -> None:
    """No reader holds the event loop."""
    ring = Ring()
    for seq in range(1200):
        ring.put(frame(seq))
    reader = ring.reader()
    reads = [await reader.read() for _ in range(3)]
    assert [len(each.frames) for each in reads] == [500, 500, 200]
    assert [each.seq for read in reads for each in read.frames] == list(range(1200))


async def test_a_read_is_bounded_in_bytes() -> None:
    """The rest comes with the next read; a frame is never left out for its length."""
    ring = Ring()
    for seq in range(10):
        ring.put(frame(seq, 200 << 10))
    reader = ring.reader()
    reads = [await reader.read() for _ in range(2)]
    assert [[each.seq for each in read.frames] for read in reads] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]
    assert [read.position for read in reads] == [0, 5]


async def test_a_reader_goes_on_where_another_one_left() -> None:
    """By its position; one that this ring has never reached means its end."""
    ring = Ring(most_frames=3)
    for seq in range(6):
        ring.put(frame(seq))
    for position, seqs, lost in ((5, [5], 0), (4, [4, 5], 0), (2, [3, 4, 5], 1)):
        reader = ring.reader(position)
        found = await reader.read()
        assert ([each.seq for each in found.frames], found.lost) == (seqs, lost)
        reader.close()
    beyond = ring.reader(99)
    ring.put(frame(6))
    assert [each.seq for each in (await beyond.read()).frames] == [6]


def test_frames_come_with_what_removes_their_secrets() -> None:
    """Each with that of the child that it has."""
    ring, one = Ring(), Redactor(["sesame"])
    ring.put(frame(1), one)
    ring.put(frame(2))
    assert ring.since(0).redactors == [one, None]


def test_a_long_message_keeps_its_beginning_and_its_size() -> None:
    """And no more."""
    ring = Ring()
    message = Result(b"1", b'"' + b"y" * MOST_FRAME_BYTES + b'"')
    ring.put(Frame("s", "demo", 1, 0, Direction.FROM_SERVER, message))
    (found,) = ring.since(0).frames
    assert found.message is None
    assert found.size == len(encode(message))
    assert found.text == encode(message)[:HEAD_BYTES].decode()
    assert ring.held < 2 * HEAD_BYTES


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(1, 20), st.integers(300, 3000))
def test_it_stays_within_its_bounds(sizes: list[int], most: int, most_bytes: int) -> None:
    """By number and by bytes, and holds the latest."""
    ring = Ring(most, most_bytes)
    for seq, size in enumerate(sizes):
        ring.put(frame(seq, size))
        found = ring.since(0)
        frames, lost = found.frames, found.lost
        assert len(ring) == len(frames) <= most
        assert ring.held == sum(map(bytes_of, frames)) <= most_bytes
        assert lost + len(frames) == ring.end == seq + 1
        assert [each.seq for each in frames] == list(range(lost, seq + 1))
