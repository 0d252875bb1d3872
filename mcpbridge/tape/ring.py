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
"""Most frames of one read, so that no reader holds the event loop."""


class TooManyReaders(BridgeError):
    """All readers of a ring are taken."""

    def __str__(self) -> str:
        return f"{MOST_READERS} readers follow the tape already (the limit)"


class Read(msgspec.Struct, frozen=True):
    """What a reader gets at once."""

    frames: Sequence[Frame]
    lost: int
    """Frames between the last ones and these, which had left the ring before they were read."""


class Ring:
    """The latest frames, within a number and a size; owned by one event loop."""

    def __init__(self, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        """Make an empty ring."""
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[tuple[Frame, int]] = deque()
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
        """Add a frame, with its secrets; the oldest ones leave the ring if it is full."""
        size = bytes_of(frame)
        if size > MOST_FRAME_BYTES:
            frame = shortened(frame, MOST_FRAME_BYTES, HEAD_BYTES)
            size = bytes_of(frame)
        self._frames.append((frame, size))
        self.held += size
        while len(self._frames) > self._most_frames or self.held > self._most_bytes:
            _, left = self._frames.popleft()
            self.held -= left
            self._first += 1
        for reader in self._readers:
            reader.wake()

    def reader(self) -> RingReader:
        """Return a reader that begins with the oldest frame; the caller closes it.

        Raises:
            TooManyReaders: All are taken.
        """
        if len(self._readers) >= MOST_READERS:
            raise TooManyReaders
        reader = RingReader(self, self._first)
        self._readers.append(reader)
        return reader

    def leave(self, reader: RingReader) -> None:
        """Forget a reader."""
        if reader in self._readers:
            self._readers.remove(reader)

    def since(self, position: int) -> tuple[Sequence[Frame], int]:
        """Return at most 500 frames from a position on, and how many before them are lost."""
        lost = max(0, self._first - position)
        skipped = max(0, position - self._first)
        count = min(len(self._frames) - skipped, _AT_ONCE)
        # By number: a slice of a deque walks from its beginning, as `islice` would.
        return [self._frames[skipped + each][0] for each in range(count)], lost


class RingReader:
    """One follower of a ring; what it does not read in time is lost to it, and counted."""

    def __init__(self, ring: Ring, position: int) -> None:
        """Make a reader; use `Ring.reader`."""
        self._ring = ring
        self._position = position
        self._news = anyio.Event()

    async def read(self) -> Read:
        """Wait for frames and return them, at most 500, oldest first."""
        while self._position >= self._ring.end:
            self._news = anyio.Event()
            await self._news.wait()
        frames, lost = self._ring.since(self._position)
        self._position += lost + len(frames)
        return Read(frames, lost)

    def wake(self) -> None:
        """Let `read` look again."""
        self._news.set()

    def close(self) -> None:
        """Give the place to another reader."""
        self._ring.leave(self)
