"""Process 1 inherits whatever loses its parent, and must take the statuses that nobody asks for.

A server that starts programs and ends before them leaves them to process 1 of its container; each
becomes a zombie at its end, and enough of them use up the container's process ids.

Whoever waits for "any child" may take the status of a server from under those who started it and
wait for it by its pid. They do so within one turn of the event loop after its end, so a process
that is found dead twice, a look apart, is nobody's but ours.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import anyio

log = logging.getLogger("mcpbridge.process")

LOOK_EVERY_S = 1.0


async def reap_orphans() -> None:
    """Take the statuses of dead processes that were left to this one, until cancelled.

    Does nothing where the system does not list a process's children (only Linux does).
    """
    seen: set[int] = set()
    while True:
        dead = _dead_children()
        for pid in dead & seen:
            _reap(pid)
        seen = dead
        # Not at SIGCHLD: it belongs to the event loop, and several of them may come as one.
        await anyio.sleep(LOOK_EVERY_S)


def _dead_children() -> set[int]:
    """Children that have ended and that nobody has waited for."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_bytes()
    except OSError:
        return set()
    return {int(pid) for pid in listed.split() if _is_dead(int(pid))}


def _is_dead(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The name, in parentheses, may hold anything; the state stands behind it.
    return status.rpartition(b") ")[2].startswith(b"Z")


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
    log.debug("orphan.reaped", extra={"pid": pid})
