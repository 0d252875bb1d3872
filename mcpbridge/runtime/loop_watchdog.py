"""Detects a stalled event loop, and logs where it is stuck.

All calls stall with it, and no task can report that; so a thread asks the loop for a sign of life
each second. If none comes within a second it logs the stack of the loop's thread. If none comes
within `EXITS_AFTER_S` it ends the process, so that the platform starts another one: the same loop
serves SIGTERM, the probes and every deadline.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec

from mcpbridge.runtime.exit_status import EXIT_INTERNAL

log = logging.getLogger("mcpbridge.app")

STALLED_AFTER_S = 1.0
EXITS_AFTER_S = 30.0
"""Longer than any turn of the loop, and than a busy machine delays a process."""
_LATE_S = 0.5
"""If the thread itself was woken this late, the process was stopped, or the machine slept or is
overloaded. Then the state of the loop is unknown."""
_FRAMES = 30


class LoopWatchdog:
    """A thread that watches the running event loop."""

    def __init__(
        self, stalled_after_s: float = STALLED_AFTER_S, exits_after_s: float = EXITS_AFTER_S
    ) -> None:
        self._period_s = stalled_after_s
        self._exits_after_s = exits_after_s
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._alive = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running loop until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()

    def _watch(self) -> None:
        while not self._ended.is_set():
            # Before the loop is asked: its answer may come at once.
            self._alive.clear()
            # Closed: the program is over.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._alive.set)
            asked_at = time.monotonic()
            self._ended.wait(self._period_s)
            late_s = time.monotonic() - asked_at - self._period_s
            if not self._alive.is_set() and not self._ended.is_set() and late_s < _LATE_S:
                self._tell(asked_at)

    def _tell(self, asked_at: float) -> None:
        # No other way shows what another thread does while it holds the loop.
        frame = sys._current_frames().get(self._loop_thread)
        stack = [line.rstrip() for line in traceback.format_stack(frame, _FRAMES)] if frame else []
        self._log(logging.WARNING, "loop.stalled", {"stack": stack})
        stalled_s = self._period_s
        while True:
            waited_at = time.monotonic()
            if self._alive.wait(self._period_s):
                break
            if self._ended.is_set():
                return
            # While the process was stopped or not scheduled, the loop could not run either.
            if time.monotonic() - waited_at - self._period_s < _LATE_S:
                stalled_s += self._period_s
            if stalled_s >= self._exits_after_s:
                self._log(logging.CRITICAL, "loop.stuck", {"after_s": round(stalled_s, 3)})
                os._exit(EXIT_INTERNAL)
        # Since the request: up to a period may have passed before it.
        resumed_after_s = round(time.monotonic() - asked_at, 3)
        self._log(logging.WARNING, "loop.resumed", {"after_s": resumed_after_s})

    def _log(self, level: int, event: str, extra: Mapping[str, object]) -> None:
        """Log an event, and wait at most one period for it."""
        # The loop may be stuck in a write to an unread log while it holds the log's lock.
        writer = threading.Thread(
            target=log.log, args=(level, event), kwargs={"extra": extra}, daemon=True
        )
        writer.start()
        writer.join(self._period_s)


def has_uvloop() -> bool:
    """Return whether the faster event loop is installed; neither Windows nor PyPy has one."""
    return find_spec("uvloop") is not None
