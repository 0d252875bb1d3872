"""Splits a byte stream into lines, in bounded memory and linear time.

Lines end at the byte 0x0A and nowhere else: U+2028 and its like are legal inside JSON strings.
The search for the next line end starts where the last one stopped, so a line of 100 MB that
arrives in 64 KiB pieces costs its length, not its square.

Source: MCP, Transports, stdio: messages are delimited by newlines.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from mcpbridge.wire.buffer import Gathered

BOM = b"\xef\xbb\xbf"
KEPT_BYTES = 4096
"""Bytes kept of each end of a line over the limit, to read its id."""
_BLANKS = b" \t\r"


class OverlongLine(msgspec.Struct, frozen=True):
    """A line that exceeded the limit: its length and both its ends."""

    size: int
    head: bytes
    tail: bytes

    def __len__(self) -> int:
        return self.size


class LongLine:
    """A line as the pieces in which it came, so that they are joined off the event loop."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, pieces: Gathered) -> None:
        """Take a line over.

        Args:
            pieces: The line; its maker uses it no more.
        """
        self._pieces = pieces
        self._size = pieces.size

    def __len__(self) -> int:
        return self._size

    def joined(self) -> bytes:
        """Return the line, once; empty if it is blank."""
        return _trimmed(self._pieces.take())


Line = bytes | OverlongLine
Other = TypeVar("Other")
"""What else a splitter returns."""


class _Splitter(Generic[Other]):
    """A splitter of byte chunks into lines; owned by one reader.

    A line over the limit is skipped to its end in constant memory and returned as `OverlongLine`.
    Blank lines are dropped; a trailing CR and a leading byte-order mark are removed.
    """

    def __init__(self, max_line_bytes: int, *, indented: bool = False) -> None:
        """Make a splitter.

        Args:
            max_line_bytes: A longer line is returned as `OverlongLine`.
            indented: Keep the spaces that lines begin with, since they are text for people.
        """
        self._max = max_line_bytes
        self._indented = indented
        self._held = Gathered()
        self._skipped = 0
        self._head = b""

    @property
    def skipping(self) -> int:
        """Bytes seen of a line that is over the limit and has not ended; 0 otherwise."""
        return self._skipped

    def feed(self, chunk: bytes) -> list[Line | Other]:
        """Return the lines that end in this chunk, oldest first."""
        # A slice is compared: `endswith` takes more instructions.
        if not self._held.size and not self._skipped and chunk[-1:] == b"\n":
            return self._whole_lines(chunk)
        end = chunk.find(b"\n")
        if end < 0:
            self._hold(chunk)
            return []
        first = self._ended(chunk[:end])
        lines: list[Line | Other] = [first] if first else []
        last = chunk.rfind(b"\n")
        if last > end:
            lines += self._whole_lines(chunk[end + 1 : last + 1])
        self._hold(chunk[last + 1 :])
        return lines

    def end(self) -> list[Line | Other]:
        """Return the last line if the stream ended without a line end."""
        return self.feed(b"\n") if self._held.size or self._skipped else []

    def _whole_lines(self, chunk: bytes) -> list[Line | Other]:
        # Nearly every read holds whole lines only; then nothing is copied into the buffer.
        lines: list[Line | Other] = []
        for raw in chunk[:-1].split(b"\n"):
            line = self._finished(raw)
            if line:
                lines.append(line)
        return lines

    def _ended(self, rest: bytes) -> Line | Other:
        if not self._held.size:
            return self._finished(rest)
        self._held.add(rest)
        if not self._skipped:
            if self._held.size <= self._max:
                return self._gathered()
            self._skip()
        raw = self._held.take()
        line = OverlongLine(self._skipped + len(raw), self._head, raw[-KEPT_BYTES:])
        self._skipped, self._head = 0, b""
        return line

    def _gathered(self) -> Line | Other:
        """Return a line that has come in pieces, and hold nothing any more."""
        return self._finished(self._held.take())

    def _hold(self, chunk: bytes) -> None:
        self._held.add(chunk)
        if self._held.size > (KEPT_BYTES if self._skipped else self._max):
            self._skip()

    def _finished(self, raw: bytes) -> Line:
        if len(raw) > self._max:
            return OverlongLine(len(raw), raw[:KEPT_BYTES], raw[-KEPT_BYTES:])
        if self._indented:
            return raw.removeprefix(BOM).rstrip(_BLANKS)
        return _trimmed(raw)

    def _skip(self) -> None:
        if not self._skipped:
            self._head = self._held.first(KEPT_BYTES)
        self._skipped += self._held.keep_last(min(KEPT_BYTES, self._held.size))


class LineSplitter(_Splitter[bytes]):
    """A splitter whose lines are all joined at once."""


class LongLineSplitter(_Splitter[LongLine]):
    """A splitter that leaves it to its reader to join long lines that came in pieces."""

    def __init__(self, max_line_bytes: int, long_bytes: int) -> None:
        """Make a splitter.

        Args:
            max_line_bytes: A longer line is returned as `OverlongLine`.
            long_bytes: A line of at least this size is returned as `LongLine`.
        """
        super().__init__(max_line_bytes)
        self._long = long_bytes

    def _gathered(self) -> Line | LongLine:
        if self._held.size < self._long:
            return super()._gathered()
        held, self._held = self._held, Gathered()
        return LongLine(held)


def _trimmed(raw: bytes) -> bytes:
    return raw.removeprefix(BOM).strip(_BLANKS)


def encode_line(message: bytes) -> bytes:
    """Return a message as exactly one line.

    `mcpbridge.wire.messages.decode` has removed raw line ends, so this only appends one.
    """
    return message + b"\n"
