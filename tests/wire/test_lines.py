"""Lines out of a byte stream, whatever the pieces it comes in."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable
from typing import SupportsIndex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcpbridge.wire.lines import (
    BOM,
    KEPT_BYTES,
    Line,
    LineSplitter,
    LongLine,
    LongLineSplitter,
    OverlongLine,
    encode_line,
)


def split(chunks: Iterable[bytes], limit: int = 1000) -> list[Line]:
    """All the lines of a stream that comes in these chunks and ends."""
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    lines += splitter.end()
    assert splitter.end() == []
    assert splitter.skipping == 0
    return lines


def bytewise(data: bytes) -> list[bytes]:
    """The bytes one at a time."""
    return [data[i : i + 1] for i in range(len(data))]


CASES: list[tuple[bytes, list[bytes]]] = [
    (b"", []),
    (b"\n", []),
    (b"\n\n \t\r\n\n", []),
    (b"a\n", [b"a"]),
    (b"a\nb\n", [b"a", b"b"]),
    (b"a\r\nb\r\n", [b"a", b"b"]),
    (b"a\r\r\n", [b"a"]),
    (b"a\rb\n", [b"a\rb"]),
    (b"  {} \t\n", [b"{}"]),
    (b"\xef\xbb\xbfa\n", [b"a"]),
    (b"\xef\xbb\xbf\r\na\n", [b"a"]),
    (b"a\n\xef\xbb\xbfb\n", [b"a", b"b"]),
    (b"no end", [b"no end"]),
    (b"a\nno end", [b"a", b"no end"]),
    (b"a\n\r", [b"a"]),
    ("\u2028\u2029\u0085\n".encode(), ["\u2028\u2029\u0085".encode()]),
    (b"a\x0bb\x0cc\x1cd\x1ee\n", [b"a\x0bb\x0cc\x1cd\x1ee"]),
    (b"\xff\xfe\n", [b"\xff\xfe"]),
    (b"a\x00b\n", [b"a\x00b"]),
]


@pytest.mark.parametrize(("data", "lines"), CASES)
def test_lines_end_at_lf_and_nowhere_else(data: bytes, lines: list[bytes]) -> None:
    """A stream is cut at LF alone, whole or byte by byte; CR, BOM and blanks are taken off."""
    assert split([data]) == lines
    assert split(bytewise(data)) == lines
    assert split([data, b"\ntrailing\n"]) == [*lines, b"trailing"]


_bytes = st.binary(max_size=40) | st.text("ab\r\n \ufeff\u2028", max_size=40).map(str.encode)


@given(_bytes, st.lists(st.integers(0, 40), max_size=6), st.integers(1, 12))
@example(b"abc\n", [3], 3)
@example(b"abcd\n", [3, 4], 3)
def test_the_pieces_of_a_stream_do_not_matter(data: bytes, cuts: list[int], limit: int) -> None:
    """Whatever the chunks and the limit, the lines are those of the whole stream."""
    edges = [0, *sorted(cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert b"".join(chunks) == data
    assert split(chunks, limit) == split([data], limit) == split(bytewise(data), limit)


@pytest.mark.parametrize("limit", [1, 10, KEPT_BYTES - 1, KEPT_BYTES, 3 * KEPT_BYTES])
@pytest.mark.parametrize("step", [1, 7, 4000, 1 << 16])
def test_the_limit_is_exact(limit: int, step: int) -> None:
    """A line of the limit passes, one byte more does not, whatever the chunks."""
    data = b"x" * limit + b"\n" + b"y" * (limit + 1) + b"\nz\n"
    kept = min(limit + 1, KEPT_BYTES)
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    assert split(chunks, limit) == [
        b"x" * limit,
        OverlongLine(limit + 1, b"y" * kept, b"y" * kept),
        b"z",
    ]


@pytest.mark.parametrize("step", [1, 100, KEPT_BYTES, 1 << 16])
@pytest.mark.parametrize("ended", [True, False])
def test_an_overlong_line_is_told_by_its_ends(step: int, ended: bool) -> None:
    """What is left of an overlong line is its length and both ends; its neighbours pass."""
    body = b"".join(b"%07d." % i for i in range(4000))
    data = b"before\n" + body + (b"\nafter\n" if ended else b"")
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    told = OverlongLine(len(body), body[:KEPT_BYTES], body[-KEPT_BYTES:])
    expected: list[Line] = [b"before", told, b"after"] if ended else [b"before", told]
    assert split(chunks, 5000) == expected


def test_skipping_tells_how_much_was_thrown_away() -> None:
    """While a line is over the limit the bytes of it that are gone are told, then none again."""
    splitter = LineSplitter(KEPT_BYTES)
    assert splitter.feed(b"x" * KEPT_BYTES) == []
    assert splitter.skipping == 0
    assert splitter.feed(b"x" * 100) == []
    assert splitter.skipping == 100
    assert splitter.feed(b"\n") == [
        OverlongLine(KEPT_BYTES + 100, b"x" * KEPT_BYTES, b"x" * KEPT_BYTES)
    ]
    assert splitter.skipping == 0


@pytest.mark.parametrize("step", [1, 100, 5000])
def test_a_long_line_in_pieces_is_left_to_its_reader(step: int) -> None:
    """Its reader joins it, without what belongs to no line; its neighbours are lines as ever."""
    body = BOM + b" " + b"x" * 20_000 + b" \r"
    data = b"before\n" + body + b"\n" + b" " * 20_000 + b"\nafter\n"
    splitter = LongLineSplitter(1 << 20, 10_000)
    chunks = (data[i : i + step] for i in range(0, len(data), step))
    before, line, blank, after = (each for chunk in chunks for each in splitter.feed(chunk))
    assert (before, after) == (b"before", b"after")
    assert isinstance(line, LongLine)
    assert isinstance(blank, LongLine)
    assert (len(line), len(blank)) == (len(body), 20_000)
    assert line.joined() == b"x" * 20_000
    assert blank.joined() == b""
    assert splitter.skipping == 0


def test_a_line_over_the_limit_is_skipped_though_longer_lines_are_left_to_their_reader() -> None:
    """The limit comes before the size from which on a line is long."""
    splitter = LongLineSplitter(15_000, 10_000)
    assert splitter.feed(b"x" * 14_000) == []
    told = OverlongLine(16_000, b"x" * KEPT_BYTES, b"x" * KEPT_BYTES)
    assert splitter.feed(b"x" * 2000 + b"\n") == [told]


def test_an_overlong_line_takes_constant_memory() -> None:
    """A line of 64 MB is skipped in the memory of a few chunks."""
    splitter, chunk, count = LineSplitter(100_000), b"x" * (1 << 16), 1000
    tracemalloc.start()
    try:
        assert all(splitter.feed(chunk) == [] for _ in range(count))
        (line,) = splitter.feed(b"\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(line, OverlongLine)
    assert line.size == count * len(chunk)
    assert peak < 1_000_000


@pytest.mark.parametrize("step", [1, 100, 4095, 4096, 1 << 16])
@pytest.mark.parametrize("gap", [0, 5000])
def test_a_line_takes_its_length_whatever_the_pieces(step: int, gap: int) -> None:
    """What is held of a line that is not whole yet is little more than its bytes.

    A list of a million pieces of one byte each would take forty times as much.
    """
    splitter, size = LineSplitter(1 << 20), 400_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fed = 0
        while fed < size:
            fed += len(b"x" * step)
            assert splitter.feed(b"x" * step) == []
            if gap and fed < size:
                fed += gap
                assert splitter.feed(b"x" * gap) == []
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert splitter.feed(b"\n") == [b"x" * fed]
    assert held < 1.3 * fed + 10_000


class CountedBytes(bytes):
    """A piece of a stream that counts how many bytes of all pieces are searched for a line end."""

    work = 0

    def find(
        self,
        sub: object,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        /,
    ) -> int:
        """As of `bytes`, counting the bytes up to the hit."""
        found = super().find(sub, start, end)  # type: ignore[arg-type]  # what it is given
        CountedBytes.work += (found if found >= 0 else len(self)) - int(start or 0) + 1
        return found


@pytest.mark.parametrize("step", [1, 100, 1 << 16])
@pytest.mark.parametrize("limit", [1000, 1 << 20])
@pytest.mark.parametrize("line_bytes", [3, 20_000])
def test_a_line_costs_its_length(step: int, limit: int, line_bytes: int) -> None:
    """Whatever the pieces, each byte is searched for a line end once, and moved a few times."""
    splitter = LineSplitter(limit)
    CountedBytes.work = 0
    data = (b"x" * line_bytes + b"\n") * (20_000 // line_bytes)
    calls = 0
    for i in range(0, len(data), step):
        # No chunk ends with a line end, so that none takes the way of whole lines.
        splitter.feed(CountedBytes(data[i : i + step].rstrip(b"\n")))
        splitter.feed(CountedBytes(b"\n\x00" if data[i : i + step].endswith(b"\n") else b""))
        calls += 2
    assert 0 < CountedBytes.work <= len(data) + 2 * calls


_clean = st.binary(min_size=1, max_size=20).filter(
    lambda raw: b"\n" not in raw and raw == raw.strip(b" \t\r") and not raw.startswith(BOM)
)


@given(st.lists(_clean))
def test_an_encoded_line_is_read_back(messages: list[bytes]) -> None:
    """What is written as lines is read as the same lines."""
    stream = b"".join(encode_line(message) for message in messages)
    assert stream.count(b"\n") == len(messages)
    assert split([stream]) == split(bytewise(stream)) == messages
