"""Runs `mcpbridge` in an interpreter that lacks what Python lacks on Windows.

    python tests/support/without_posix.py WORDS

The modules cannot be imported, the names are gone from `os`, `signal` and `socket`, and the event
loop watches no descriptors. What it cannot show: how Windows itself does what is left, as to start
and to end a process, and its files.
"""

from __future__ import annotations

import asyncio
import functools
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable
from types import ModuleType

MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")
NAMES: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("O_CLOEXEC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fork", "geteuid"),
        *("getpgid", "getuid", "killpg", "mkfifo", "pidfd_open", "set_blocking"),
        *("setsid", "sysconf", "writev"),
    ),
    signal: (
        *("SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pthread_sigmask"),
        *("SIGCHLD", "setitimer"),
    ),
    socket: ("AF_UNIX",),
}


def remove() -> None:
    """Take it all away from this process."""
    # The loop wakes itself by a pair, which Windows makes in another way.
    pair = functools.partial(socket.socketpair, socket.AF_UNIX)
    setattr(socket, "socketpair", pair)  # noqa: B010 - mypy knows better what it may be
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment] # the import then fails
    for module, names in NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for name in ("add_reader", "add_writer"):
        setattr(asyncio.SelectorEventLoop, name, _refuses(name))


def _refuses(name: str) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise NotImplementedError(f"no {name}, as on the event loop of Windows")

    return refuse


if __name__ == "__main__":
    remove()
    sys.path[0] = os.getcwd()
    runpy.run_module("mcpbridge", run_name="__main__")
