"""Defines what the bridge needs of a child: a process it started or a connection it made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mcpbridge.channels.channel import Channel
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.faults import Exit


class Child(Protocol):
    """One server process, here or behind a connection; it has ended when `run` returns."""

    @property
    def channel(self) -> Channel:
        """The channel to the child; set when `run` reports that it has started."""

    @property
    def pid(self) -> int | None:
        """The process id; None if the process runs elsewhere."""

    @property
    def secrets(self) -> Secrets:
        """Values that it may write and no log may show."""

    @property
    def gone(self) -> anyio.Event:
        """Set when the child has ended, by itself or by `stop`; `how` is set before."""

    @property
    def how(self) -> Exit | None:
        """The end of the child; an `Exit` without code and signal if it is unknown."""

    @property
    def exited(self) -> anyio.Event:
        """Set when all its processes have ended; `report` is set before."""

    @property
    def report(self) -> ExitReport | None:
        """The end of the child, with the last lines of its stderr."""

    def probed(self, method: str) -> AbstractContextManager[None]:
        """Log at level debug what it writes about this method until the block ends."""

    def stop(self, grace_s: float = 5.0) -> None:
        """Begin to stop it, first politely, within about twice `grace_s` seconds; do not wait."""

    def kill(self) -> None:
        """Kill it at once."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the child and wait until all its processes have ended.

        Raises:
            SpawnError: It could not be started or reached.
        """


MakeChild = Callable[[], Child]
"""Makes a child that has not been started, of the one kind that a bridge has."""
