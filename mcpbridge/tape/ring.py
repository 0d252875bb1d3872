"""A bounded ring of the latest frames, and readers that each follow it at their own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio
import msgspec

from mcpbridge.errors import BridgeError
from mcpbridge.tape.frame import Frame, bytes_of, shortened
from mcpbridge.tape.redaction import Redactor

MOST_FRAMES = 10_000
MOST_BYTES = 32 << 20
MOST_FRAME_BYTES = 256 << 10
"""A longer message keeps its beginning and its size."""
HEAD_BYTES = 4 << 10
MOST_READERS = 4
_AT_ONCE = 500
_BYTES_AT_ONCE = 1 << 20
"""Most frames and bytes of one read, so that no reader holds the event loop or much memory."""


class TooManyReaders(BridgeError):
    """All readers of a ring are taken."""

    def __str__(self) -> str:
        return f"{MOST_READERS} readers follow the tape already (the limit)"


class Read(msgspec.Struct, frozen=True):
    """What a reader gets at once."""

    frames: Sequence[Frame]
    redactors: Sequence[Redactor | None]
    """What removes the secrets of each frame; None: it is shown as it is."""
    lost: int
    """Frames between the last ones and these, which had left the ring before they were read."""
    position: int
    """The number of the first of these frames: as many have been put before it."""


class Ring:
    """The latest frames, within a number and a size; owned by one event loop."""

    def __init__(self, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        """Make an empty ring."""
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[tuple[Frame, int, Redactor | None]] = deque()
        self._first = 0
        """How many frames have left the ring."""
        self.held = 0
        """Bytes of the frames."""
        self._readers: list[RingReader] = []

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def end(self) -> int:
        """How many frames have ever been put."""
        return self._first + len(self._frames)

    def put(self, frame: Frame, redactor: Redactor | None = None) -> None:
        """Add a frame, with its secrets; the oldest ones leave the ring if it is full.

        Args:
            frame: The frame.
            redactor: Knows its secrets; readers get it with the frame.
        """
        size = bytes_of(frame)
        if size > MOST_FRAME_BYTES:
            frame = shortened(frame, MOST_FRAME_BYTES, HEAD_BYTES)
            size = bytes_of(frame)
        self._frames.append((frame, size, redactor))
        self.held += size
        while len(self._frames) > self._most_frames or self.held > self._most_bytes:
            _, left, _ = self._frames.popleft()
            self.held -= left
            self._first += 1
        for reader in self._readers:
            reader.wake()

    def reader(self, position: int = 0) -> RingReader:
        """Return a reader; the caller closes it.

        Args:
            position: Where it begins; by default with the oldest frame, of which none is lost.

        Raises:
            TooManyReaders: All are taken.
        """
        if len(self._readers) >= MOST_READERS:
            raise TooManyReaders
        reader = RingReader(self, min(position, self.end) or self._first)
        self._readers.append(reader)
        return reader

    def leave(self, reader: RingReader) -> None:
        """Forget a reader."""
        if reader in self._readers:
            self._readers.remove(reader)

    def since(self, position: int) -> Read:
        """Return frames from a position on: at most 500, and about 1 MiB."""
        lost = max(0, self._first - position)
        skipped = max(0, position - self._first)
        frames: list[Frame] = []
        redactors: list[Redactor | None] = []
        total = 0
        # By number: a slice of a deque walks from its beginning, as `islice` would.
        for number in range(skipped, min(len(self._frames), skipped + _AT_ONCE)):
            frame, size, redactor = self._frames[number]
            total += size
            if total > _BYTES_AT_ONCE and frames:
                break
            frames.append(frame)
            redactors.append(redactor)
        return Read(frames, redactors, lost, position + lost)


class RingReader:
    """One follower of a ring; what it does not read in time is lost to it, and counted."""

    def __init__(self, ring: Ring, position: int) -> None:
        """Make a reader; use `Ring.reader`."""
        self._ring = ring
        self._position = position
        self._news = anyio.Event()

    @property
    def at_end(self) -> bool:
        """Whether it has read all frames."""
        return self._position >= self._ring.end

    async def read(self) -> Read:
        """Wait for frames and return them, oldest first; if cancelled, none is taken."""
        while self.at_end:
            self._news = anyio.Event()
            await self._news.wait()
        found = self._ring.since(self._position)
        self._position = found.position + len(found.frames)
        return found

    def wake(self) -> None:
        """Let `read` look again."""
        self._news.set()

    def close(self) -> None:
        """Give the place to another reader."""
        self._ring.leave(self)
