"""Children of these tests: started for real, and gone when the test ends, whatever became of it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import ExitReport, SubprocessChild
from mcpbridge.wire.messages import Message

CHILDREN = Path(__file__).parent.parent / "children"
PipedChild = SubprocessChild[PipeChannel]
WITHIN_S = 20.0
"""Bound of every wait; generous, as only a fault ever uses it up."""


def spec(name: str, *words: str) -> ChildSpec:
    """How to start one of the programs in `tests/children`."""
    argv = (sys.executable, "-S", str(CHILDREN / f"{name}.py"), *words)
    return ChildSpec(argv, dict(os.environ))


def piped(command: ChildSpec) -> PipedChild:
    """A child as the bridge makes it, not started yet."""
    return SubprocessChild(command, functools.partial(PipeChannel, limits=PipeLimits()))


@asynccontextmanager
async def living(command: ChildSpec) -> AsyncIterator[PipedChild]:
    """A child that runs; killed at the end of the block if it still does."""
    child = piped(command)
    async with anyio.create_task_group() as tasks:
        await tasks.start(child.run)
        try:
            yield child
        finally:
            child.kill()


async def next_message(child: PipedChild) -> Message:
    """The one message that the child says next."""
    with anyio.fail_after(WITHIN_S):
        (message,) = await child.channel.receive()
    assert isinstance(message, Message)
    return message


async def ended(child: PipedChild) -> ExitReport:
    """Its report, once it is gone."""
    with anyio.fail_after(WITHIN_S):
        await child.exited.wait()
    assert child.report is not None
    return child.report


async def gone(pid: int) -> None:
    """Wait until a process that is not ours has ended; there is no event for it."""
    with anyio.fail_after(WITHIN_S):
        while _lives(pid):  # noqa: ASYNC110 - no event of a foreign process
            await anyio.sleep(0.01)  # looks again


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The name before the state may hold anything; the dead may not have been waited for yet.
    return stat.rpartition(")")[2].split()[0] not in "ZX"
