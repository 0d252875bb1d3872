"""Prepares the process: holds signals, occupies descriptors, tunes the garbage collector.

Reading settings and importing the program takes some tenths of a second. A signal in that time
would kill a process that has promised to end with 0, or, as process 1 of a container, be lost: the
kernel drops signals without a handler for process 1. So they are held until the handlers are set.

A process may be started with its stdin, stdout or stderr closed. The next descriptor opened would
get the number, and output for a log or a terminal would be written into a client's connection.

Imported modules stay as long as the process. With its default thresholds the garbage collector
would scan them sixty times at start-up and find next to nothing, so it scans nothing until the
program serves and sets others.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress

HEARD = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)  # Windows has the first two and the last one
)
"""Every signal that the program handles; without a handler each would end it."""
_COLLECT_AFTER = 100_000
"""Objects made and not freed before the collector looks for cycles: more than a start makes."""


def hold_signals() -> None:
    """Block the handled signals; from here on they stay pending and cannot be lost."""
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def release_signals() -> None:
    """Unblock the signals held by `hold_signals`; pending ones are delivered now."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def occupy_descriptors() -> None:
    """Open those of the first three descriptors that are closed on the null device."""
    fd = -1
    with suppress(OSError):
        while fd <= 2:
            # `open` returns the lowest free number.
            fd = os.open(os.devnull, os.O_RDWR)
        os.close(fd)


def collect_seldom() -> None:
    """Keep the collector from looking for cycles while the program starts.

    Start-up makes 60,000 objects and leaves 700 in cycles; calls make many and next to no cycles.
    """
    gc.set_threshold(_COLLECT_AFTER)
