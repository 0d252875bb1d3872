"""Opens the page in a browser, by a process that is not below mcpbridge.

mcpbridge adopts the orphans of its descendants and ends those that no server owns, and a browser
that is started becomes an orphan soon. So the process that starts it leaves before mcpbridge adopts
any: it is started at once, its parent ends, and it waits for the address on a pipe. On Windows,
where no orphan is adopted, it does not leave.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mcpbridge.errors import ConfigError

_PROGRAM = """
import os, signal, sys, webbrowser
if hasattr(os, "fork"):
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # mcpbridge holds them until it can hear them
url = sys.stdin.readline().strip()
if url:
    webbrowser.open(url)
"""
_START_S = 10.0


class Opener:
    """The end of a pipe to a process that opens one address; made by `opener`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def open(self, url: str) -> None:
        """Have the address opened; returns at once, whatever becomes of it."""
        with suppress(OSError):
            os.write(self._fd, url.encode() + b"\n")


@contextmanager
def opener() -> Iterator[Opener]:
    """Run a process that opens an address, until it has done so or the block ends.

    Raises:
        ConfigError: It cannot be started.
    """
    reading, writing = os.pipe()
    try:
        _start(reading)
        yield Opener(writing)
    finally:
        os.close(writing)


def _start(reading: int) -> None:
    try:
        starting = subprocess.Popen(  # nosec B603 # our own program, by our own interpreter
            [sys.executable, "-c", _PROGRAM],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if hasattr(os, "fork"):
            _wait(starting)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError("--open", "", f"no browser can be started: {error}") from error
    finally:
        os.close(reading)


def _wait(starting: subprocess.Popen[bytes]) -> None:
    """Wait until the process that waits for the address has left its parent."""
    try:
        status = starting.wait(_START_S)
    except subprocess.TimeoutExpired:
        starting.kill()
        starting.wait()
        raise
    if status:
        raise subprocess.CalledProcessError(status, starting.args)
