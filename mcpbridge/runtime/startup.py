"""Prepares the process: holds signals, occupies descriptors, tunes how memory is freed.

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
import sys
from contextlib import suppress

HEARD = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)  # Windows has the first two and the last one
)
"""Every signal that the program handles; without a handler each would end it."""
_COLLECT_AFTER = 100_000
"""Objects made and not freed before the collector looks for cycles: more than a start makes."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Options of `mallopt`, from glibc's malloc.h."""
_KEPT_BYTES = 1 << 24
"""Free memory that stays with the process for the next message."""
_MAPPED_BYTES = 1 << 25
"""A block of this size is mapped apart, and unmapped at once; glibc allows no larger figure."""


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


def keep_freed_memory() -> bool:
    """Keep up to `_KEPT_BYTES` of freed memory for later messages; return whether this took effect.

    By default glibc returns memory after every call of 1 MB, and the kernel fills each page with
    zeros when it comes back: a fifth of the processor time of such a call.
    """
    if sys.platform != "linux":
        return False
    import ctypes  # only here: it costs some milliseconds

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    # Once one of the two is set, glibc does not adapt the other one any more. On 32 bits it refuses
    # this size, and everything stays as it was.
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )
