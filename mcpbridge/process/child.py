"""What the bridge needs of a child, be it a process it started or a connection it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mcpbridge.channels.channel import Channel
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.faults import Exit


class Child(Protocol):
    """One server process, here or behind a connection; gone when `run` returns."""

    @property
    def channel(self) -> Channel:
        """Its messages; there from the moment `run` reports that it has started."""

    @property
    def pid(self) -> int | None:
        """The process here; None where it runs elsewhere."""

    @property
    def secrets(self) -> Secrets:
        """What it may write and no log may show."""

    @property
    def gone(self) -> anyio.Event:
        """Set when it has ended by itself or was ended; `how` stands from then on."""

    @property
    def how(self) -> Exit | None:
        """How it ended; an `Exit` without code and signal where nobody can know."""

    @property
    def exited(self) -> anyio.Event:
        """Set when nothing of it is left and `report` stands."""

    @property
    def report(self) -> ExitReport | None:
        """How it ended, with its last words."""

    def stop(self, grace_s: float = 5.0) -> None:
        """Begin to end it, politely and then less so, within about twice so many seconds."""

    def kill(self) -> None:
        """End it this instant."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start it and stay until nothing of it is left.

        Raises:
            SpawnError: It could not be started, or not be reached.
        """


MakeChild = Callable[[], Child]
"""A child that has not been started, of the one kind that a bridge has."""
