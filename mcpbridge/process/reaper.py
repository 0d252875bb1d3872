"""The bridge's side of the reaper, the program that ends children of a bridge that was killed.

A bridge killed by SIGKILL cannot stop its children. They see the end of their stdin, which ends
most of them; the reaper ends the others. Alternatives, with their cost on 2 shared cores:

- The parent-death signal. It must be set between fork and exec, which Python can do only by running
  code there (`preexec_fn`), which turns `vfork` into `fork`: 2.1 ms in place of 0.14 ms of CPU for
  a
    child of a bridge of 60 MiB, and unsafe beside threads. A wrapper that sets it and executes the
    server delays each start by 15 ms, and `setpriv` is not installed everywhere. And it reaches
    only the child: the `node` below an `npx` survives.
- A fork of the bridge as reaper: 0.4 ms, but its 6 MiB of pages are copied as the bridge changes
  them, and it must be made before anything else.
- A separate program (`_reaper`) that reads the groups from a pipe that ends with the bridge: 2.6
MiB
  of memory and once 10 ms of CPU, during the start. It ends groups and what left them, on macOS
  too.

The last one was chosen. It runs in a separate session, holds only that pipe of the bridge's
descriptors, and has none of its environment. As process 1 the bridge needs none: the kernel ends
its pid namespace with it. A frozen single-file program has no interpreter to run it with; those
run in containers.

A process that has left its group and lost its parent is found on Linux by the mark in its
environment (see `process_tree`). One that has also cleared its environment is out of reach; a
container or systemd ends it.
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
"""Variables that an interpreter may need in order to start."""
_END_S = 1.0


class Reaper:
    """The bridge's end of the pipe to the reaper; made by `kept`."""

    def __init__(self, process: subprocess.Popen[bytes] | None, token: str) -> None:
        self._process = process
        self.token = token
        """Common prefix of the marks of all children of this bridge."""
        self.pid = process.pid if process is not None else None
        """Pid of the reaper; None if there is none."""

    def watch(self, leader_pid: int) -> None:
        """Add a group, by its leader, that must not outlive the bridge."""
        self._tell(b"+%d\n" % leader_pid)

    def forget(self, pid: int) -> None:
        """Remove a group that has ended, by its leader."""
        self._tell(b"-%d\n" % pid)

    def _tell(self, line: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            # A few bytes to a reader that does nothing else: the pipe is never full, or broken.
            os.write(self._process.stdin.fileno(), line)
        except OSError as error:
            log.warning("reaper.lost", extra={"pid": self.pid, "problem": str(error)})
            self._process.stdin.close()
            self._process.poll()
            self._process = None

    def close(self) -> None:
        """End the reaper, since the bridge ends by itself."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        # If it still has processes to end, it takes longer, and finishes without the bridge.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)


@contextmanager
def kept(env: Mapping[str, str] | None) -> Iterator[Reaper]:
    """Run a reaper within the block, if one is useful and possible.

    Args:
        env: The children's environment, from which the interpreter's own variables are taken; None
            if no children are started here.
    """
    token = secrets.token_hex(8)
    reaper = Reaper(_started(env, token) if env is not None else None, token)
    try:
        yield reaper
    finally:
        reaper.close()


def _started(env: Mapping[str, str], token: str) -> subprocess.Popen[bytes] | None:
    frozen = getattr(sys, "frozen", False) or not sys.executable or not _PROGRAM.is_file()
    # Without fork, on Windows, a job object ends the children.
    if not hasattr(os, "fork") or os.getpid() == 1 or frozen:
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
        # If the reaper does not read, as when it is stopped, a full pipe must not block the bridge.
        os.set_blocking(process.stdin.fileno(), False)
        return process
    log.warning("reaper.lost", extra={"problem": "could not be started"})
    return None
