"""An event log that readers can wait on.

Any number of readers may be attached; what is new goes to the newest of them, so that every
message appears on exactly one connection. The older ones stay open and silent, and take over when
the newest leaves: closing them would make a deployed client reconnect for ever.

Source: MCP 2025-11-25, Transports, Multiple Connections 2, Resumability and Redelivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mcpbridge.rules.event_log import START, EventId, EventLog, LogEntry, Window
from mcpbridge.telemetry.metrics import Meters


class Stream:
    """A bounded log and its readers; ends when all the answers it waits for are there."""

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
    ) -> None:
        """Begin a stream.

        Args:
            window: How much of it is kept.
            meters: Counts what is shed.
            answers_due: It closes itself after so many answers; None: only `close` ends it.
            first_id: The id of its position before the first event. With one its events have
                ids and stay in the window after delivery; without they go when delivered.
        """
        self.log = EventLog(window)
        self._meters = meters
        self._answers_due = answers_due
        self._first_id = first_id
        self._delivered = START
        self._readers: list[Reader] = []
        self._pending_keys: set[str] | None = None
        """Made with the first key: most streams have none, and an open one is to be small."""

    @property
    def attached(self) -> bool:
        """Somebody reads."""
        return bool(self._readers)

    @property
    def delivered(self) -> int:
        """The cursor of what readers have taken."""
        return self._delivered

    @property
    def number(self) -> int | None:
        """Its number in its session; None where its events have no ids."""
        return self._first_id.stream if self._first_id is not None else None

    @property
    def id_prefix(self) -> bytes | None:
        """What stands before their numbers in the ids of its events; None where they have none."""
        return self._first_id.prefix if self._first_id is not None else None

    def append(self, payload: bytes, *, sheddable: bool, key: str | None = None) -> int:
        """Add a message for whoever reads now or next.

        Args:
            payload: The message.
            sheddable: It may go when the window is full.
            key: Another with the same key that nobody has taken yet makes this one superfluous.

        Returns:
            Its number.
        """
        if key is not None and self._pending_keys and key in self._pending_keys:
            self._meters.count("coalesced_notification")
            return self.log.last
        shed = self.log.shed
        self.log.append(payload, sheddable=sheddable)
        if self.log.shed > shed:
            self._meters.count("shed_notification", self.log.shed - shed)
            # What was shed may be the one that makes others superfluous.
            self._pending_keys = None
        if key is not None:
            self._pending_keys = self._pending_keys or set()
            self._pending_keys.add(key)
        if self._readers:
            self._readers[-1].wake()
        return self.log.last

    def answer(self, payload: bytes) -> None:
        """Add an answer; the last one that is due ends the stream."""
        self.append(payload, sheddable=False)
        if self._answers_due is not None:
            self._answers_due -= 1
            if self._answers_due <= 0:
                self.close()

    def close(self) -> None:
        """Nothing more will come; readers take what is left and end."""
        if not self.log.closed:
            self.log.close()
            for reader in self._readers:
                reader.wake()

    def dismiss(self) -> None:
        """End every connection that reads; the stream itself goes on."""
        for reader in self._readers:
            reader.leave()

    def seek(self, cursor: int) -> None:
        """Let the next reader begin after a cursor, delivered before or not.

        Raises:
            CursorLost: What came after it is no longer there.
        """
        self.log.after(cursor)
        self._delivered = min(cursor, self.log.last)

    def attach(self) -> Reader:
        """Read from where the last reader stopped, in a `with` block and until it ends."""
        return Reader(self)

    def enter(self, reader: Reader) -> None:
        """What is new goes to this reader from now on."""
        self._readers.append(reader)

    def leave(self, reader: Reader) -> None:
        """It goes to the one before."""
        self._readers.remove(reader)
        if self._readers:
            self._readers[-1].wake()

    def take(self, reader: Reader) -> Sequence[LogEntry]:
        """What this reader has to deliver now: nothing while a newer one is attached."""
        if self._readers[-1] is not reader:
            return ()
        entries = self.log.after(self._delivered, strict=False)
        if entries:
            self._delivered = entries[-1].number
            self._pending_keys = None
            if self._first_id is None:
                self.log.trim(self._delivered)
        return entries


class Reader:
    """One connection that delivers a stream; made by `Stream.attach`."""

    __slots__ = ("_nudged", "_waiter", "leaving", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._waiter: asyncio.Future[None] | None = None
        self._nudged = False
        self.leaving = False
        """This connection is over, whatever the stream does."""

    def __enter__(self) -> Reader:
        self.stream.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.leave(self)

    async def read(self) -> Sequence[LogEntry] | None:
        """The next entries, at least one; an empty sequence after a nudge; None at the end."""
        while True:
            if self.leaving:
                return None
            entries = self.stream.take(self)
            if entries:
                return entries
            if self.stream.log.closed:
                return None
            if self._nudged:
                self._nudged = False
                return ()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    @property
    def over(self) -> bool:
        """Nothing will follow what was read."""
        return self.stream.log.closed and self.stream.delivered == self.stream.log.last

    def nudge(self) -> None:
        """Let `read` return with nothing, so that its caller can show a sign of life."""
        self._nudged = True
        self.wake()

    def leave(self) -> None:
        """End this connection."""
        self.leaving = True
        self.wake()

    def wake(self) -> None:
        """Let `read` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
