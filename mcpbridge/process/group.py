"""Ending a process together with everything it started.

A child leads a process group of its own, so that `npx` and the `node` below it end together. The
group is named by the pid we started, remembered: while any member lives the kernel gives that
number to nobody else, and when none does the signal finds nobody.
"""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

_LOOK_EVERY_S = 0.05


def signal_group(leader_pid: int, number: signal.Signals) -> bool:
    """Send a signal to all of a group; False where nobody is left in it."""
    try:
        os.killpg(leader_pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Zombies of another user, or macOS for a group of zombies: nobody left to be reached.
        return False
    return True


async def end_group(leader_pid: int, grace_s: float) -> None:
    """End what outlived the leader of a group: SIGTERM, then SIGKILL after `grace_s` seconds.

    Nothing tells when a process that is not our child ends, so this looks now and then.
    """
    if not signal_group(leader_pid, signal.SIGTERM):
        return
    with anyio.move_on_after(grace_s):
        while _is_alive(leader_pid):  # noqa: ASYNC110 - no event tells of a foreign process
            await anyio.sleep(_LOOK_EVERY_S)
        return
    signal_group(leader_pid, signal.SIGKILL)


def _is_alive(leader_pid: int) -> bool:
    if os.getpid() == 1:
        # We inherit what lost its parent, and it stays in its group until it is waited for.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-leader_pid, os.WNOHANG) != (0, 0):
                pass
    try:
        os.killpg(leader_pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
