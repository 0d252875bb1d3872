"""Tasks that contain their failures, so that a failure ends one session and not the process.

Tasks of sessions run in the task group of the bridge, and a task that raises there ends the group:
a bug that one client meets would end the process for all. So tasks of sessions are started through
`contain`: a failure is logged, and the session is closed, since its state is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger("mcpbridge.bridge")

Spawn = Callable[..., object]
"""`TaskGroup.start_soon` of the bridge: starts a task that outlives the request."""

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
