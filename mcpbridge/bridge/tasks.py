"""Tasks that contain their failures: what goes wrong with one session stays with it.

The work of sessions runs beside that of the bridge, in one task group, and a task that fails
there ends the group: a bug that one client meets would end the program for all. So the work of
sessions is run here: a failure is logged, and the session is closed, since its state is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger("mcpbridge.bridge")

Spawn = Callable[..., object]
"""`TaskGroup.start_soon` of the bridge: work that outlives the request that began it."""

Owner = TypeVar("Owner")


def contain(spawn: Spawn, owner: type[Owner], failed: Callable[[Owner], None]) -> Spawn:
    """Return a `spawn` whose tasks log what they raise and raise nothing themselves.

    Args:
        spawn: Starts a task.
        owner: The class whose objects tasks work for.
        failed: Called with each `owner` among a failed task's arguments, its `self` included.
    """

    async def run(work: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            await work(*args)
        except Exception:
            task = getattr(work, "__qualname__", repr(work))
            log.exception("task.failed", extra={"task": task})
            for each in (*args, getattr(work, "__self__", None)):
                if isinstance(each, owner):
                    failed(each)

    return lambda work, *args: spawn(run, work, *args)
