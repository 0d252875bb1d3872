"""Ending a process together with everything it started.

A child leads a process group of its own, so that `npx` and the `node` below it end together. The
group is named by the pid we started, remembered: while any member lives the kernel gives that
number to nobody else, and when none does the signal finds nobody.
"""

from __future__ import annotations

import os
import signal

import anyio

from mcpbridge.process.linux import group_lives

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


async def group_ends(leader_pid: int) -> None:
    """Wait until nobody in a group lives; whoever calls it bounds it.

    Nothing tells when a process that is not our child ends, so this looks now and then.
    """
    while _lives(leader_pid):  # noqa: ASYNC110 - no event tells of a foreign process
        await anyio.sleep(_LOOK_EVERY_S)


def _lives(leader_pid: int) -> bool:
    try:
        os.killpg(leader_pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Somebody is there, but it may be dead: whoever has not waited for it must not hold us up.
    return group_lives(leader_pid) is not False
