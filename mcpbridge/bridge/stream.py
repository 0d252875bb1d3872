"""An event log that readers can wait on.

Any number of readers may be attached; what is new goes to the newest of them, so that every
message appears on exactly one connection. The older ones stay open and silent, and take over when
the newest leaves: closing them would make a deployed client reconnect for ever.

Source: MCP 2025-11-25, Transports, Multiple Connections 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mcpbridge.rules.eventlog import START, Entry, EventLog, Window


class Stream:
    """A bounded log and its readers; owned by an exchange or a session, which closes it."""

    def __init__(self, window: Window) -> None:
        self.log = EventLog(window)
        self._delivered = START
        self._readers: list[Reader] = []

    @property
    def attached(self) -> bool:
        """Somebody reads."""
        return bool(self._readers)

    def append(self, payload: bytes, *, sheddable: bool) -> None:
        """Add a message for whoever reads now or next."""
        self.log.append(payload, sheddable=sheddable)
        if self._readers:
            self._readers[-1].wake()

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

    @contextmanager
    def attach(self) -> Iterator[Reader]:
        """Read from where the last reader stopped, until the block ends."""
        reader = Reader(self)
        self._readers.append(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)
            if self._readers:
                self._readers[-1].wake()

    def take(self, reader: Reader) -> Sequence[Entry]:
        """What this reader has to deliver now: nothing while a newer one is attached."""
        if self._readers[-1] is not reader:
            return ()
        entries = self.log.after(self._delivered, strict=False)
        if entries:
            self._delivered = entries[-1].number
            self.log.trim(self._delivered)
        return entries


class Reader:
    """One connection that delivers a stream; made by `Stream.attach`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiter: asyncio.Future[None] | None = None
        self._nudged = False
        self.leaving = False
        """This connection is over, whatever the stream does."""

    async def read(self) -> Sequence[Entry] | None:
        """The next entries, at least one; an empty sequence after a nudge; None at the end."""
        while True:
            if self.leaving:
                return None
            entries = self._stream.take(self)
            if entries:
                return entries
            if self._stream.log.closed:
                return None
            if self._nudged:
                self._nudged = False
                return ()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

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
