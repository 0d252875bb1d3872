"""An event log that readers can wait on.

Any number of readers may be attached; a new message goes to the newest of them, so that it
appears on exactly one connection. The older ones stay open and silent, and take over when the
newest leaves: a deployed client reconnects without end if the bridge closes them.

Source: MCP 2025-11-25, Transports, Multiple Connections 2, Resumability and Redelivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mcpbridge.rules.event_log import START, EventId, EventLog, LogEntry, Window
from mcpbridge.rules.homes.record import StreamRecord
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Text, whole


class Stream:
    """A bounded log and its readers; ends with the last of the answers that it waits for."""

    __slots__ = (
        "_answers_due",
        "_delivered",
        "_first_id",
        "_meters",
        "_pending_keys",
        "_readers",
        "log",
    )

    def __init__(
        self,
        window: Window,
        meters: Meters,
        *,
        answers_due: int | None = None,
        first_id: EventId | None = None,
        charge: Callable[[int], None] | None = None,
        after: int = START,
    ) -> None:
        """Begin a stream.

        Args:
            window: How many events and bytes it keeps.
            meters: Count the notifications that are dropped.
            answers_due: Number of answers after which it closes itself; None: only `close` ends it.
            first_id: The id of its position before the first event; its events then have ids and
                stay in the window after delivery. None: events go once they are delivered.
            charge: See `EventLog`.
            after: The number of the event before its first one, if it goes on with one of another
                replica.
        """
        self.log = EventLog(window, charge, after)
        self._meters = meters
        self._answers_due = answers_due
        self._first_id = first_id
        self._delivered = after
        self._readers: list[Reader] = []
        self._pending_keys: set[str] | None = None
        """None until the first key: most streams have no key, and an open one should be small."""

    @property
    def attached(self) -> bool:
        """Whether a reader is attached."""
        return bool(self._readers)

    @property
    def delivered(self) -> int:
        """The number of the last event that readers have taken."""
        return self._delivered

    @property
    def number(self) -> int | None:
        """Its number in its session; None if its events have no ids."""
        return self._first_id.stream if self._first_id is not None else None

    @property
    def id_prefix(self) -> bytes | None:
        """The part of its events' ids before their number; None if they have no ids."""
        return self._first_id.prefix if self._first_id is not None else None

    @property
    def record(self) -> StreamRecord | None:
        """What another replica must know to resume it; None if nothing can be resumed."""
        first, tail = self._first_id, self.log.tail
        if first is None or not tail:
            return None
        payloads = tuple(whole(entry.payload) for entry in tail)
        return StreamRecord(first.tag, first.stream, tail[0].number - 1, payloads, first.call)

    def append(self, payload: Text, *, sheddable: bool, key: str | None = None) -> int:
        """Add a message for the reader that is attached, or for the next one.

        Args:
            payload: The message.
            sheddable: Whether it may be dropped when the window is full.
            key: The message is left out if one with the same key has not been taken yet.

        Returns:
            The number of the newest event.
        """
        if key is not None and self._pending_keys and key in self._pending_keys:
            self._meters.count("coalesced_notification")
            return self.log.last
        shed = self.log.shed
        self.log.append(payload, sheddable=sheddable)
        if self.log.shed > shed:
            self._meters.count("shed_notification", self.log.shed - shed)
            # The message that was dropped may have been the one that stood for others of its key.
            self._pending_keys = None
        if key is not None:
            self._pending_keys = self._pending_keys or set()
            self._pending_keys.add(key)
        # The newest alone: the others would find nothing in `take`.
        if self._readers:
            self._readers[-1].wake()
        return self.log.last

    def answer(self, payload: Text) -> None:
        """Add an answer; the last one that is due ends the stream."""
        self.append(payload, sheddable=False)
        if self._answers_due is not None:
            self._answers_due -= 1
            if self._answers_due <= 0:
                self.close()

    def close(self) -> None:
        """End the stream; readers take what is left and end."""
        if not self.log.closed:
            self.log.close()
            for reader in self._readers:
                reader.wake()

    def shed_delivered(self) -> int:
        """Forget the events that readers have taken; return how many bytes that were."""
        before = self.log.held
        self.log.trim(self._delivered)
        return before - self.log.held

    def cut(self) -> None:
        """Close it and forget what no reader has taken; for a client that takes too little."""
        self.log.clear()
        self._delivered = self.log.last
        self.close()
        self.dismiss()

    def dismiss(self) -> None:
        """End every connection that reads; the stream itself goes on."""
        for reader in self._readers:
            reader.leave()

    def seek(self, cursor: int) -> None:
        """Move the read position to `cursor`, even if later events were already delivered.

        Raises:
            CursorLost: Events after `cursor` have been dropped.
        """
        # Only for its check: it raises CursorLost.
        self.log.after(cursor)
        self._delivered = min(cursor, self.log.last)

    def attach(self) -> Reader:
        """Return a reader that goes on where the last one stopped; use it in a `with` block."""
        return Reader(self)

    def enter(self, reader: Reader) -> None:
        """Make this reader the one that gets new messages."""
        self._readers.append(reader)

    def leave(self, reader: Reader) -> None:
        """Remove a reader; new messages go to the newest of the others."""
        self._readers.remove(reader)
        # The one before may have been silent for long: what came since waits for it.
        if self._readers:
            self._readers[-1].wake()

    def pending(self, reader: Reader) -> Sequence[LogEntry]:
        """Return what this reader must deliver now: nothing while a newer one is attached."""
        if self._readers[-1] is not reader:
            return ()
        return self.log.after(self._delivered, strict=False)

    def take(self, reader: Reader) -> Sequence[LogEntry]:
        """Return what is pending for this reader, and move the read position behind it."""
        entries = self.pending(reader)
        if entries:
            self._delivered = entries[-1].number
            self._pending_keys = None
            if self._first_id is None:
                # Events without ids cannot be asked for again, so they need not be kept.
                self.log.trim(self._delivered)
        return entries


class Reader:
    """A connection that delivers a stream; made by `Stream.attach`."""

    __slots__ = ("_carried", "_nudged", "_waiter", "leaving", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._carried = 0
        """Bytes that were taken last and are being sent: the client may read slowly."""
        self._waiter: asyncio.Future[None] | None = None
        self._nudged = False
        self.leaving = False
        """Whether this connection ends, even if the stream goes on."""

    def __enter__(self) -> Reader:
        self.stream.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.leave(self)
        if self._carried:
            self._carry(0)

    async def read(self) -> Sequence[LogEntry] | None:
        """Return the next entries; an empty sequence after `nudge`; None at the end.

        The call says that those returned last have been sent.
        """
        if self._carried:
            self._carry(0)
        while True:
            if self.leaving:
                return None
            entries = self.stream.take(self)
            if entries:
                self._carry(sum([len(entry.payload) for entry in entries]))
                return entries
            if self.stream.log.closed:
                return None
            if self._nudged:
                self._nudged = False
                return ()
            # Nothing runs between the checks above and this line, so no wake-up is lost.
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _carry(self, size: int) -> None:
        self.stream.log.charge(size - self._carried)
        self._carried = size

    @property
    def waiting(self) -> bool:
        """Whether `read` returns entries without waiting."""
        return not self.leaving and bool(self.stream.pending(self))

    @property
    def over(self) -> bool:
        """Whether the stream has ended and readers have taken all of it."""
        return self.stream.log.closed and self.stream.delivered == self.stream.log.last

    def nudge(self) -> None:
        """Make `read` return an empty sequence, so that its caller can send a keepalive."""
        self._nudged = True
        self.wake()

    def leave(self) -> None:
        """Make `read` return None: this connection ends."""
        self.leaving = True
        self.wake()

    def wake(self) -> None:
        """Let `read` look again."""
        # Done already: several messages came in one turn, or the task that waits was cancelled.
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
