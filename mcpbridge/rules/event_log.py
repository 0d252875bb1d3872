"""The bounded record of one stream: live delivery and replay are the same read.

What a child says is appended once, by whoever hears it. Readers keep a cursor and ask for what
came after it; the log keeps no record of readers, so one that stops reading costs nobody
anything but the window. When the window is full the oldest entries that may be shed go first;
an answer and a question of the child may not, since somebody waits for them.

Source: MCP 2025-11-25, Transports, Resumability and Redelivery.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import msgspec

from mcpbridge.errors import CursorLost

STANDALONE = 0
"""The number of a session's stream of what belongs to no request; the others count from 1."""
START = 0
"""The cursor of a reader that has seen nothing. A cursor is the number of the last entry read."""


class Window(msgspec.Struct, frozen=True):
    """How much of a stream is kept."""

    entries: int = 1000
    max_bytes: int = 1 << 20


class LogEntry(msgspec.Struct, frozen=True):
    """One message of a stream."""

    number: int
    """From 1, without gaps in the order of appending."""
    payload: bytes
    sheddable: bool


class EventId(msgspec.Struct, frozen=True):
    """The id of an event: which session's, which stream's, which entry."""

    tag: str
    """A random word of the session's: an id of another session is seen to be foreign."""
    stream: int
    number: int

    @property
    def prefix(self) -> bytes:
        """What the ids of all events of the stream begin with."""
        return b"%b-%d-" % (self.tag.encode(), self.stream)


_EVENT_ID = re.compile(r"([0-9a-f]{1,16})-(\d{1,15})-(\d{1,15})\Z", re.ASCII)


def read_event_id(text: str) -> EventId | None:
    """The event id in a `Last-Event-ID` header; None for one that this program never wrote."""
    match = _EVENT_ID.match(text)
    return EventId(match[1], int(match[2]), int(match[3])) if match is not None else None


class EventLog:
    """Everything said on one stream, oldest first; owned by the stream's exchange or session."""

    __slots__ = ("_entries", "_last", "_shed", "_size", "_window", "closed")

    def __init__(self, window: Window) -> None:
        self._window = window
        # A list and no deque, whose first block takes 600 bytes: most streams hold next to nothing.
        self._entries: list[LogEntry] = []
        self._size = 0
        self._last = START
        self._shed = 0
        self.closed = False
        """Nothing will be appended any more."""

    @property
    def last(self) -> int:
        """The cursor of a reader that has seen everything."""
        return self._last

    @property
    def size(self) -> int:
        """Bytes of the payloads kept."""
        return self._size

    @property
    def shed(self) -> int:
        """Entries dropped because the window was full."""
        return self._shed

    def append(self, payload: bytes, *, sheddable: bool) -> None:
        """Add a message at the end; may shed old ones."""
        assert not self.closed, "append to a closed log"
        self._last += 1
        self._entries.append(LogEntry(self._last, payload, sheddable))
        self._size += len(payload)
        if len(self._entries) > self._window.entries or self._size > self._window.max_bytes:
            self._shrink()

    def after(self, cursor: int, *, strict: bool = True) -> Sequence[LogEntry]:
        """Entries appended after a cursor, oldest first; empty when the reader is up to date.

        Costs O(entries returned), so a reader who keeps up pays nothing for what is kept.

        Args:
            cursor: Number of the last entry the reader has; `START` for none.
            strict: Refuse to skip over shed entries.

        Raises:
            CursorLost: `strict`, and an entry after `cursor` was shed.
        """
        if cursor >= self._last:
            return ()
        newer = itertools.takewhile(lambda entry: entry.number > cursor, reversed(self._entries))
        found = list(newer)[::-1]
        if strict and len(found) != self._last - cursor:
            raise CursorLost(cursor + 1, found[0].number if found else self._last + 1)
        return found

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True

    def discard(self, number: int) -> None:
        """Forget one entry: it is not true any more and must reach nobody."""
        kept = [entry for entry in self._entries if entry.number != number]
        self._size -= sum(len(e.payload) for e in self._entries if e.number == number)
        self._entries = kept

    def trim(self, cursor: int) -> None:
        """Forget entries up to and including a cursor: read, and nobody may resume before it."""
        read = list(itertools.takewhile(lambda entry: entry.number <= cursor, self._entries))
        self._size -= sum(len(entry.payload) for entry in read)
        del self._entries[: len(read)]

    def _shrink(self) -> None:
        kept: list[LogEntry] = []
        entries = iter(self._entries)
        count, size = len(self._entries), self._size
        for entry in entries:
            over = count > self._window.entries or size > self._window.max_bytes
            if not over:
                kept.append(entry)
                break
            if entry.sheddable and entry.number != self._last:
                count -= 1
                size -= len(entry.payload)
                self._shed += 1
            else:
                kept.append(entry)
        self._entries = [*kept, *entries]
        self._size = size
