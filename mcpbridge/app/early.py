"""Signals that come before there is anybody to hear them.

Reading settings and importing the program takes some tenths of a second. A signal in that time
would kill a process that has promised to end with 0, or, as process 1 of a container, be lost:
the kernel drops what process 1 has no handler for. So they are held until the handlers stand.
"""

from __future__ import annotations

import signal

_HELD = (signal.SIGTERM, signal.SIGINT)


def hold_signals() -> None:
    """Keep the signals that end the program pending; they cannot be lost from here on."""
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release_signals() -> None:
    """Deliver what was held and all that follows."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
