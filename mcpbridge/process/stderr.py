"""What a child writes to stderr: always drained, logged line by line, its end remembered.

An undrained pipe stops the child after 64 KiB. A child that writes without end must not fill the
log either, so the log gets so much a second and then the number of lines it did not get.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mcpbridge.rules.access.principals import NOTHING, Secrets
from mcpbridge.wire.lines import LineSplitter, OverlongLine

log = logging.getLogger("mcpbridge.child")

_READ_BYTES = 1 << 16
_LINE_BYTES = 8 << 10
_LOG_BYTES_PER_S = 64 << 10
_TAIL_LINES = 20
_LAST_READS = 4
"""Reads at the end of a child; a pipe holds 64 KiB on most systems.

A process that escaped the child may go on writing, so that the pipe is never empty: reading until
it is would hold the event loop.
"""


class StderrDrain:
    """Reads one child's stderr from `open` to its end; keeps the last lines."""

    def __init__(self, fd: int, pid: int, hidden: Secrets = NOTHING) -> None:
        """Make it.

        Args:
            fd: Where to read.
            pid: Whose it is.
            hidden: What no log may show, though the child writes it.
        """
        self._fd = fd
        self._hidden = hidden
        self._pid = pid
        self._loop = asyncio.get_running_loop()
        self._splitter = LineSplitter(_LINE_BYTES)
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self._allowance = _LOG_BYTES_PER_S
        self._refilled_at = self._loop.time()
        self._unlogged = 0

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._tail)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Drain until the block ends, then what is there at that moment."""
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._readable)
        try:
            yield
        finally:
            self.finish()
            os.close(self._fd)

    def finish(self) -> None:
        """Drain what is already readable, the unfinished last line included, then stop reading."""
        for _ in range(_LAST_READS):
            if not self._readable():
                break
        self._loop.remove_reader(self._fd)
        self._take(self._splitter.end())
        self._tell_unlogged()

    def _readable(self) -> bool:
        try:
            chunk = os.read(self._fd, _READ_BYTES)
        except OSError:
            return False
        if not chunk:
            self._loop.remove_reader(self._fd)
            return False
        self._take(self._splitter.feed(chunk))
        return True

    def _take(self, lines: list[bytes | OverlongLine]) -> None:
        for line in lines:
            raw = line.head if isinstance(line, OverlongLine) else line
            text = self._hidden.redact(raw.decode("utf-8", "backslashreplace"))
            self._tail.append(text)
            if self._affords(len(raw)):
                log.info("child.stderr", extra={"pid": self._pid, "line": text})
            else:
                self._unlogged += 1

    def _affords(self, size: int) -> bool:
        now = self._loop.time()
        if now - self._refilled_at >= 1:
            self._allowance, self._refilled_at = _LOG_BYTES_PER_S, now
            self._tell_unlogged()
        self._allowance -= size
        return self._allowance >= 0

    def _tell_unlogged(self) -> None:
        if self._unlogged:
            extra = {"pid": self._pid, "lines": self._unlogged}
            log.warning("child.stderr_suppressed", extra=extra)
            self._unlogged = 0
