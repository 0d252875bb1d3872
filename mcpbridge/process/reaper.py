"""Nothing outlives a bridge that was killed: the process that sees to that, from the bridge's side.

A bridge that is killed by SIGKILL can end nobody. Its children find their stdin at its end, which
ends most of them; this is for the others. Ways weighed, with what they cost on 2 shared cores:

- The parent-death signal. It has to be set between fork and exec; Python can only by running
  code there (`preexec_fn`), which makes `fork` of `vfork`: 2.1 ms instead of 0.14 ms of our CPU
  for a child of a bridge of 60 MiB, and unsafe beside threads. A shim that sets it and executes
  the server delays each start by 15 ms, `setpriv` is not everywhere. And it reaches the child
  alone: the `node` below an `npx` lives on.
- A fork of the bridge as keeper: 0.4 ms, but its 6 MiB of pages become its own as the bridge
  changes its copies, and it must be made before anything else is.
- A program of its own (`_reaper`), told of groups by a pipe that ends with the bridge: 2.6 MiB of
  its own, 10 ms of CPU once, beside the start. It ends groups and what left them, on macOS too.

So that one. It is in a session of its own, holds no descriptor of ours but that pipe, and has none
of our environment. As process 1 none is needed: the kernel ends a process space with it. Nor has
a program that was frozen into one file an interpreter to run it with; those live in containers.

Whoever has left its group, and its parent too, is found by the mark in its environment (see
`process_tree`), on Linux. Beyond its reach is who has also cleared that; a container ends it, or
systemd.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("mcpbridge.process")

_PROGRAM = Path(__file__).with_name("_reaper.py")
_NEEDS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""What an interpreter may need of the environment to start at all."""
_END_S = 1.0


class Reaper:
    """The bridge's end of the pipe to its keeper; made by `kept`."""

    def __init__(self, process: subprocess.Popen[bytes] | None, token: str) -> None:
        self._process = process
        self.token = token
        """What the marks of all children of this bridge begin with."""
        self.pid = process.pid if process is not None else None
        """Its pid; None where there is none."""

    def watch(self, leader_pid: int) -> None:
        """This process leads a group that must not outlive the bridge."""
        self._tell(b"+%d\n" % leader_pid)

    def forget(self, pid: int) -> None:
        """That one has ended, and with it the group it led."""
        self._tell(b"-%d\n" % pid)

    def _tell(self, line: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            # A few bytes to a reader that does nothing else: it never fills the pipe, or is dead.
            os.write(self._process.stdin.fileno(), line)
        except OSError as error:
            log.warning("reaper.lost", extra={"pid": self.pid, "problem": str(error)})
            self._process.stdin.close()
            self._process.poll()
            self._process = None

    def close(self) -> None:
        """The bridge ends by itself: so does its keeper."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        # Where it has somebody left to end it takes a little longer, and needs nobody for that.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)


@contextmanager
def kept(env: Mapping[str, str] | None) -> Iterator[Reaper]:
    """Have a keeper within the block, where one is of use and can be had.

    Args:
        env: The children's environment, from which the interpreter's own variables are taken; None
            where no children are started here.
    """
    token = secrets.token_hex(8)
    reaper = Reaper(_started(env, token) if env is not None else None, token)
    try:
        yield reaper
    finally:
        reaper.close()


def _started(env: Mapping[str, str], token: str) -> subprocess.Popen[bytes] | None:
    frozen = getattr(sys, "frozen", False) or not sys.executable or not _PROGRAM.is_file()
    if sys.platform == "win32" or os.getpid() == 1 or frozen:
        return None
    with suppress(OSError):
        process = subprocess.Popen(  # nosec B603 # our own program, by our own interpreter
            [sys.executable, "-S", "-s", "-P", str(_PROGRAM), token],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: env[name] for name in _NEEDS if name in env},
            cwd="/",
            start_new_session=True,
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process
    log.warning("reaper.lost", extra={"problem": "could not be started"})
    return None
