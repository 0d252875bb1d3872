"""What goes wrong with one session stays with it.

The work of sessions runs beside that of the bridge, in one group of tasks, and a task that fails
there ends the group: a bug that one client meets would end the program for all. So theirs is run
here: it is logged, and its session is closed, since nothing is known of its state any more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from mcpbridge.bridge.outbox import Spawn
from mcpbridge.bridge.session import Session

log = logging.getLogger("mcpbridge.bridge")


def contained(spawn: Spawn, failed: Callable[[Session], None]) -> Spawn:
    """Run work with `spawn`, and let nothing it raises get any further.

    Args:
        spawn: Starts a task.
        failed: Told of the session that the work was for, where its arguments name it.
    """

    async def run(work: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            await work(*args)
        except Exception:
            task = getattr(work, "__qualname__", repr(work))
            log.exception("task.failed", extra={"task": task})
            for each in (*args, getattr(work, "__self__", None)):
                if isinstance(each, Session):
                    failed(each)

    return lambda work, *args: spawn(run, work, *args)
