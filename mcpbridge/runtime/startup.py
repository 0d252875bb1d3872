"""What must be so before anything else happens: signals held, descriptors taken, memory left be.

Reading settings and importing the program takes some tenths of a second. A signal in that time
would kill a process that has promised to end with 0, or, as process 1 of a container, be lost:
the kernel drops what process 1 has no handler for. So they are held until the handlers stand.

A process may be started with its stdin, stdout or stderr closed. Whatever is opened next gets the
number, and what is meant for a log or a terminal would be written into somebody's connection.

What is imported stays as long as the process. With its usual thresholds the collector would look
through it sixty times, and find next to nothing.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress

HEARD = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has the first two
)
"""Every signal the program takes; each would end it otherwise."""
_COLLECT_AFTER = 20_000
"""Objects made and not freed before the collector looks for cycles among them."""


def hold_signals() -> None:
    """Keep the signals that the program takes pending; they cannot be lost from here on."""
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def release_signals() -> None:
    """Deliver what was held and all that follows."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def occupy_descriptors() -> None:
    """Open the first three descriptors on nothing, where they are closed."""
    fd = -1
    with suppress(OSError):
        while fd <= 2:
            # The lowest free number is what it gets.
            fd = os.open(os.devnull, os.O_RDWR)
        os.close(fd)


def collect_seldom() -> None:
    """Have the collector look for cycles less often, for as long as the process lives.

    Start-up makes 60,000 objects and leaves 700 in cycles; calls make many and next to no cycles.
    """
    gc.set_threshold(_COLLECT_AFTER)
