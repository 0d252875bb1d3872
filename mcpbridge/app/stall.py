"""Sees the event loop stand still, and says where.

All calls stand still with it, and no task can tell of that; so a thread asks the loop for a sign
of life each second. Where none comes within a second it logs what the loop's thread is doing.
Nothing is ended: `/livez` is served by the same loop, so a platform that asks sees a loop that
stands still for longer than its probe allows.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

log = logging.getLogger("mcpbridge.app")

STALLED_AFTER_S = 1.0
_LATE_S = 0.5
"""A thread that itself was woken so late was not running: the process was stopped, or the machine
slept or is overloaded. Then nothing is known of the loop."""
_FRAMES = 30


class StallWatch:
    """The thread and what it has seen."""

    def __init__(self, stalled_after_s: float = STALLED_AFTER_S) -> None:
        self._period_s = stalled_after_s
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
        frame = sys._current_frames().get(self._loop_thread)
        stack = [line.rstrip() for line in traceback.format_stack(frame, _FRAMES)] if frame else []
        log.warning("loop.stalled", extra={"stack": stack})
        while not self._alive.wait(self._period_s):
            if self._ended.is_set():
                return
        # As of the question: up to a period may have passed before it.
        log.warning("loop.resumed", extra={"after_s": round(time.monotonic() - asked_at, 3)})
