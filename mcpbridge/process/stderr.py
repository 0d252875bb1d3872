"""Drains a child's stderr: logs it line by line and keeps its end.

An undrained pipe stops the child after 64 KiB. A child that writes without end must not fill the
log, so the log gets a limited number of bytes and lines per second, and then the number of lines
that were left out.

Some servers, above all those of the official Python SDK, answer a method that they do not know with
hundreds of lines on stderr. What a child writes about the bridge's own probe is logged at debug.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mcpbridge.channels.threaded_files import FileCalls, ThreadedFiles, Watch
from mcpbridge.rules.access.principals import NOTHING, Secrets
from mcpbridge.wire.lines import Line, LineSplitter, OverlongLine

log = logging.getLogger("mcpbridge.child")

_READ_BYTES = 1 << 14
_LINE_BYTES = 8 << 10
_LOG_BYTES_PER_S = 64 << 10
_LOG_LINES_PER_S = 1000
_TURN_LINES = 100
"""Lines logged in one turn of the loop, which takes some 4 ms."""
_LAST_LINES = 400
"""Lines logged at the end of a child, in one turn: more than a traceback has."""
_TAIL_LINES = 20
_LAST_READS = 16
"""Reads at the end of a child; a pipe holds 64 KiB on most systems.

A process that escaped the child may continue to write, so that the pipe is never empty: reading
until it is empty would block the event loop.
"""


class StderrDrain:
    """A reader of one child's stderr from `open` to its end; keeps the last lines."""

    def __init__(
        self, fd: int, pid: int, hidden: Secrets = NOTHING, threads: ThreadedFiles | None = None
    ) -> None:
        """Make a drain.

        Args:
            fd: Descriptor to read from.
            pid: The child's pid.
            hidden: Values that the log must not show, though the child writes them.
            threads: Read the descriptor; None: the event loop watches it.
        """
        self._fd = fd
        self._hidden = hidden
        self._pid = pid
        self._loop = asyncio.get_running_loop()
        self._os: FileCalls = os if threads is None else threads
        self._watch: Watch = self._loop if threads is None else threads
        self._splitter = LineSplitter(_LINE_BYTES, indented=True)
        self._lines: deque[tuple[int, Line]] = deque()
        """Read but not yet logged, each with its level; nothing is read while there are any."""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._bytes_left = _LOG_BYTES_PER_S
        self._lines_left = _LOG_LINES_PER_S
        self._refilled_at = self._loop.time()
        self._unlogged = 0
        self._level = logging.INFO
        self._probe = b""
        """What the bridge asks in order to find out what the server speaks; empty: nothing."""
        self._about_probe = 0
        """How many lines the child wrote about it."""
        self.ended = asyncio.Event()
        """Set when there is no more to read."""
        self._finished = False

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._tail)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Drain until the block ends, then what is readable at that moment."""
        self._os.set_blocking(self._fd, False)
        self._watch.add_reader(self._fd, self._readable)
        try:
            yield
        finally:
            self.finish()
            self._os.close(self._fd)

    @contextmanager
    def probed(self, method: str) -> Iterator[None]:
        """Log at level debug what the child writes about this method until the block ends."""
        self._probe = method.encode()
        try:
            yield
        finally:
            # The child wrote its lines before it answered, but this pipe may be read after the
            # other one: read what is there while the lines still count as being about the probe.
            for _ in range(_LAST_READS):
                if self._finished or self.ended.is_set() or not self._read():
                    break
            self._level, self._probe = logging.INFO, b""
            if self._about_probe:
                extra = {"pid": self._pid, "method": method, "lines": self._about_probe}
                log.info("child.stderr_about_probe", extra=extra)
            self._about_probe = 0
            self._log_in_turns()

    def finish(self) -> None:
        """Drain what is already readable, the unfinished last line included, then stop reading."""
        # Before the last reads: a turn of `_go_on` that is due must not read from a closed
        # descriptor.
        self._finished = True
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self._watch.remove_reader(self._fd)
        self._take(self._splitter.end())
        self._log_some(_LAST_LINES)
        self._suppress()
        self._tell_unlogged()

    def _readable(self) -> None:
        self._read()
        self._log_in_turns()

    def _log_in_turns(self) -> None:
        self._log_some()
        if self._lines:
            # Back-pressure for a turn: at most `_TURN_LINES` lines are logged at once, so that
            # calls go on.
            self._watch.remove_reader(self._fd)
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Log what the last turn had no time for, and resume reading when all is logged."""
        if self._finished:
            return
        self._log_some()
        if self._lines:
            self._loop.call_soon(self._go_on)
        elif not self.ended.is_set():
            self._watch.add_reader(self._fd, self._readable)

    def _read(self) -> bool:
        """Read once; return whether there was anything."""
        try:
            chunk = self._os.read(self._fd, _READ_BYTES)
        except OSError:
            return False
        if not chunk:
            self.ended.set()
            self._watch.remove_reader(self._fd)
            return False
        if self._probe and self._probe in chunk:
            self._level = logging.DEBUG
        self._take(self._splitter.feed(chunk))
        return True

    def _take(self, lines: list[Line]) -> None:
        self._lines += [(self._level, line) for line in lines]
        if self._level == logging.DEBUG:
            self._about_probe += len(lines)

    def _log_some(self, most: int = _TURN_LINES) -> None:
        """Log the lines that one turn has time for; count those that the log does not get."""
        for _ in range(min(len(self._lines), most)):
            level, line = self._lines[0]
            raw = line.head if isinstance(line, OverlongLine) else line
            if not self._affords(len(raw)):
                self._suppress()
                return
            self._lines.popleft()
            text = self._remembered(raw)
            log.log(level, "child.stderr", extra={"pid": self._pid, "line": text})

    def _suppress(self) -> None:
        """Log none of the lines that were read; keep the last ones."""
        self._unlogged += len(self._lines)
        for _, line in list(self._lines)[-_TAIL_LINES:]:
            self._remembered(line.head if isinstance(line, OverlongLine) else line)
        self._lines.clear()

    def _remembered(self, raw: bytes) -> str:
        text = self._hidden.redact(raw.decode("utf-8", "backslashreplace"))
        self._tail.append(text)
        return text

    def _affords(self, size: int) -> bool:
        now = self._loop.time()
        if now - self._refilled_at >= 1:
            self._bytes_left, self._lines_left = _LOG_BYTES_PER_S, _LOG_LINES_PER_S
            self._refilled_at = now
            self._tell_unlogged()
        self._bytes_left -= size
        self._lines_left -= 1
        return self._bytes_left >= 0 and self._lines_left >= 0

    def _tell_unlogged(self) -> None:
        if self._unlogged:
            extra = {"pid": self._pid, "lines": self._unlogged}
            log.warning("child.stderr_suppressed", extra=extra)
            self._unlogged = 0
