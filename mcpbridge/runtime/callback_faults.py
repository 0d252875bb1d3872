"""Ends the program at a bug in a callback of the event loop.

The failure of a task is raised where the task is awaited. A callback is not awaited: asyncio
reports what it raised and goes on, and the pipe or timer that it served stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from traceback import walk_tb
from typing import Any


async def raise_callback_faults() -> None:
    """Run until a callback of mcpbridge fails in the running loop, and raise what it raised.

    Failures in callbacks of libraries are reported as without this, and so is whatever else
    asyncio reports.

    Raises:
        Exception: A callback raised it.
    """
    loop = asyncio.get_running_loop()
    failures: list[Exception] = []
    failed = asyncio.Event()

    def hear(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        # Of callbacks alone the context names the handle; not so of tasks and transports.
        if "handle" in context and isinstance(error, Exception) and _is_ours(error):
            failures.append(error)
            failed.set()
        else:
            loop.default_exception_handler(dict(context))

    loop.set_exception_handler(hear)
    try:
        await failed.wait()
        raise failures[0]
    finally:
        loop.set_exception_handler(None)


def _is_ours(error: Exception) -> bool:
    """Return whether code of mcpbridge ran when it was raised."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(name.partition(".")[0] == "mcpbridge" for name in names)
