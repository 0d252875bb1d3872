"""Records one stream within bounds: live delivery and replay read the same record.

Each message of a child is appended once, by its receiver. Readers keep a cursor and ask for the
entries after it; the log keeps no record of readers, so one that stops reading costs nothing but
the window. When the window is full, the oldest entries that may be shed go first; an answer or a
server request may not, since a peer waits for it.

Source: MCP 2025-11-25, Transports, Resumability and Redelivery.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Sequence

import msgspec

from mcpbridge.errors import CursorLost
from mcpbridge.rules.access.shares import MESSAGE_BYTES
from mcpbridge.wire.messages import Text, is_request_id

STANDALONE = 0
"""Number of a session's stream for messages outside of any request; others count from 1."""
START = 0
"""The cursor of a reader that has seen nothing. A cursor is the number of the last entry read."""


class Window(msgspec.Struct, frozen=True):
    """Bounds on the entries that a stream keeps."""

    entries: int = 1000
    max_bytes: int = 1 << 20


class LogEntry(msgspec.Struct, frozen=True):
    """One message of a stream."""

    number: int
    """From 1, without gaps in the order of appending."""
    payload: Text
    sheddable: bool


class EventId(msgspec.Struct, frozen=True):
    """The id of an event: its session, its stream and its entry."""

    tag: str
    """A random word of the session, by which an id of another session is recognized."""
    stream: int
    number: int
    call: bytes | None = None
    """The JSON-RPC id of the call that the stream answers, as JSON: with it another replica can
    answer a client whose call was lost. None: it is not named."""

    @property
    def prefix(self) -> bytes:
        """The common prefix of the ids of all events of the stream."""
        prefix = b"%b-%d-" % (self.tag.encode(), self.stream)
        if self.call is None or len(self.call) > _MAX_CALL_BYTES:
            return prefix
        # Hyphens separate the parts.
        return prefix + base64.urlsafe_b64encode(self.call).rstrip(b"=").replace(b"-", b".") + b"-"


_MAX_CALL_BYTES = 48
"""Longest id of a call that is named: an event id is sent with each event. A UUID has 38."""
_EVENT_ID = r"(?a)([0-9a-f]{1,16})-(\d{1,15})-(?:([A-Za-z0-9_.]{2,64})-)?(\d{1,15})\Z"


def read_event_id(text: str) -> EventId | None:
    """Parse a `Last-Event-ID` header; None if this program cannot have written it."""
    match = re.match(_EVENT_ID, text)
    if match is None:
        return None
    call = _call_in(match[3]) if match[3] is not None else None
    if call is None and match[3] is not None:
        return None
    return EventId(match[1], int(match[2]), int(match[4]), call)


def _call_in(text: str) -> bytes | None:
    """Return the id of a call in an event id; None if it is not one: a client may send any text."""
    data = text.replace(".", "-").encode()
    try:
        raw = base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
        if not is_request_id(raw):
            return None
        if raw[:1] == b'"':
            msgspec.json.decode(raw, type=str)
    except (ValueError, msgspec.MsgspecError):
        return None
    # Neither in another spelling, nor with blanks behind it.
    written = base64.urlsafe_b64encode(raw).rstrip(b"=")
    return raw if written == data and raw == raw.rstrip() else None


class EventLog:
    """All messages of one stream, oldest first; owned by the stream's exchange or session."""

    __slots__ = ("_charge", "_entries", "_firm", "_last", "_shed", "_size", "_window", "closed")

    def __init__(
        self, window: Window, charge: Callable[[int], None] | None = None, last: int = START
    ) -> None:
        """Begin an empty log.

        Args:
            window: How much of it is kept.
            charge: Told how many bytes are kept more, or fewer; None: they are not counted.
            last: The number of the entry before the first one that is appended here.
        """
        self._window = window
        self._charge = charge
        # A list and no deque, whose first block takes 600 bytes: most streams hold next to nothing.
        self._entries: list[LogEntry] = []
        self._size = 0
        self._firm = 0
        """Bytes of the payloads that may not be shed. They leave the window to the others: a large
        answer would else take the progress before it, for which its reader had no turn yet.
        """
        self._last = last
        self._shed = 0
        self.closed = False
        """Whether the stream has ended, so that nothing more is appended."""

    @property
    def last(self) -> int:
        """The cursor of a reader that has seen everything."""
        return self._last

    @property
    def size(self) -> int:
        """Bytes of the payloads kept."""
        return self._size

    @property
    def held(self) -> int:
        """Bytes that are charged for the entries: their payloads, and `MESSAGE_BYTES` for each."""
        return self._size + MESSAGE_BYTES * len(self._entries)

    @property
    def shed(self) -> int:
        """Entries dropped because the window was full."""
        return self._shed

    def append(self, payload: Text, *, sheddable: bool) -> None:
        """Append a message; may shed old ones."""
        assert not self.closed, "append to a closed log"
        self._last += 1
        self._entries.append(LogEntry(self._last, payload, sheddable))
        self._size += len(payload)
        if not sheddable:
            self._firm += len(payload)
        if self._charge is not None:
            self._charge(len(payload) + MESSAGE_BYTES)
        if self._is_over(len(self._entries), self._size):
            self._shrink()

    def after(self, cursor: int, *, strict: bool = True) -> Sequence[LogEntry]:
        """Return the entries after a cursor, oldest first; empty if the reader is up to date.

        Costs O(entries returned), so a reader that keeps up does not pay for older entries.

        Args:
            cursor: Number of the last entry that the reader has; `START` for none.
            strict: Do not skip shed entries.

        Raises:
            CursorLost: `strict`, and an entry after `cursor` was shed.
        """
        if cursor >= self._last:
            return ()
        found: list[LogEntry] = []
        for entry in reversed(self._entries):
            if entry.number > cursor:
                found.append(entry)
            else:
                break
        found.reverse()
        if strict and len(found) != self._last - cursor:
            raise CursorLost(cursor + 1, found[0].number if found else self._last + 1)
        return found

    @property
    def tail(self) -> Sequence[LogEntry]:
        """The newest entries, as many as are kept without a gap; oldest first."""
        found: list[LogEntry] = []
        for entry in reversed(self._entries):
            if entry.number != self._last - len(found):
                break
            found.append(entry)
        return found[::-1]

    def close(self) -> None:
        """End the stream; nothing more is appended."""
        self.closed = True

    def discard(self, number: int) -> None:
        """Forget one entry: it is no longer true and must not be delivered."""
        kept = [entry for entry in self._entries if entry.number != number]
        self._keep(kept, sum(len(entry.payload) for entry in kept))

    def trim(self, cursor: int) -> None:
        """Forget the entries up to and including a cursor, which no reader will resume before."""
        read = list(itertools.takewhile(lambda entry: entry.number <= cursor, self._entries))
        size = self._size - sum(len(entry.payload) for entry in read)
        self._keep(self._entries[len(read) :], size)

    def clear(self) -> None:
        """Forget all entries, also those that may not be shed: the reader is given up."""
        self._keep([], 0)

    def charge(self, change: int) -> None:
        """Count bytes of entries that were taken and are being sent."""
        if self._charge is not None:
            self._charge(change)

    def _keep(self, entries: list[LogEntry], size: int) -> None:
        before = self.held
        self._entries, self._size = entries, size
        self._firm = sum(len(entry.payload) for entry in entries if not entry.sheddable)
        if self._charge is not None:
            self._charge(self.held - before)

    def __del__(self) -> None:
        # A log that is dropped with entries in it lets their bytes go at this moment.
        if self._entries and self._charge is not None:
            self._charge(-self.held)

    def _is_over(self, count: int, size: int) -> bool:
        return count > self._window.entries or size - self._firm > self._window.max_bytes

    def _shrink(self) -> None:
        kept: list[LogEntry] = []
        entries = iter(self._entries)
        count, size = len(self._entries), self._size
        for entry in entries:
            if not self._is_over(count, size):
                kept.append(entry)
                break
            if entry.sheddable and entry.number != self._last:
                count -= 1
                size -= len(entry.payload)
                self._shed += 1
            else:
                kept.append(entry)
        self._keep([*kept, *entries], size)
