"""Puts a changed entry into force in a server that runs, so that its sessions stay."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.tenant import ChildMakers
from mcpbridge.fleet.member import Adopt
from mcpbridge.process.child import Child
from mcpbridge.rules.access.principals import Secrets

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)


class ChildSwitch:
    """A switch between makers of children: those that are in force make the next child."""

    def __init__(self) -> None:
        self._in_force: ChildMakers

    @property
    def in_force(self) -> ChildMakers:
        """The makers in force; set by `through` and `turn`."""
        return self._in_force

    def through(self, makers: ChildMakers) -> ChildMakers:
        """Put these into force; return makers that ask those in force at the time."""
        self._in_force = makers
        return ChildMakers(self._plain, self._with_env if makers.with_env is not None else None)

    def turn(self, makers: ChildMakers) -> None:
        """Put these into force: they make each child from now on."""
        self._in_force = makers

    def _plain(self) -> Child:
        return self._in_force.plain()

    def _with_env(self, hidden: Secrets) -> Child:
        assert self._in_force.with_env is not None
        return self._in_force.with_env(hidden)


class Beside(Protocol):
    """What runs beside a server, as its entry has it."""

    async def run(self) -> None:
        """Work until cancelled."""

    def remark(self) -> str:
        """Return what is wrong though the server serves, as one line; empty if nothing is."""


class EntryParts(Protocol[E_contra]):
    """What is made from an entry."""

    def keeps_sessions(self, before: E_contra, after: E_contra) -> bool:
        """Return whether sessions can stay when one entry takes the place of the other."""

    def makers(self, before: E_contra, after: E_contra) -> ChildMakers | None:
        """Return what makes children of the changed entry; None if the old ones are as good."""

    def beside(self, entry: E_contra) -> Beside | None:
        """Return what runs beside its server; None if nothing does."""


class ServedEntry(Generic[E]):
    """The entry that a server is made from, and how another one takes its place."""

    def __init__(
        self, entry: E, parts: EntryParts[E], bridge: Bridge, switch: ChildSwitch, because: str
    ) -> None:
        """Make it; `run` is a task of the server.

        Args:
            entry: The entry that the server was made from.
            parts: Makes what depends on the entry.
            bridge: The bridge of the server.
            switch: Makes its children.
            because: What asks for the reload, for the log: `its entry in mcp.json`.
        """
        self.entry = entry
        """The entry in force."""
        self._parts = parts
        self._bridge = bridge
        self._switch = switch
        self._good = switch.in_force
        """The makers of the entry in force."""
        self._because = because
        self._failed = False
        """Whether the last reload for an entry failed."""
        self._beside: Beside | None = parts.beside(entry)
        self._scope = anyio.CancelScope()
        """What runs beside the server; another one with each entry."""
        self._tasks: TaskGroup | None = None

    def remark(self) -> str:
        """Return what is wrong though the server serves, as one line; empty if nothing is."""
        return self._beside.remark() if self._beside is not None else ""

    async def run(self) -> None:
        """Run what runs beside the server, and put entries into force, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._run_beside()
            # Entries may come for as long as the server runs.
            await anyio.sleep_forever()

    def adopting(self, entry: E) -> Adopt | None:
        """Return what puts an entry into force; None if sessions cannot stay: see `Member`."""
        if self._tasks is None or not self._parts.keeps_sessions(self.entry, entry):
            return None
        tasks = self._tasks

        async def adopt() -> bool:
            outcome: list[bool] = []
            decided = anyio.Event()

            async def decide() -> None:
                try:
                    outcome.append(await self._adopted(entry))
                finally:
                    decided.set()

            # As a task of the server: who asks may leave, but a failed reload must be undone.
            tasks.start_soon(decide)
            await decided.wait()
            return bool(outcome) and outcome[0]

        return adopt

    async def _adopted(self, entry: E) -> bool:
        makers = self._parts.makers(self.entry, entry)
        if makers is None and self._failed:
            # The entry in force has come back. A reload that succeeds ends the report of the other.
            makers = self._good
        if makers is not None:
            self._switch.turn(makers)
            record = await self._bridge.reloader.reload(self._because)
            if self._switch.in_force is not makers:
                # A later entry is on its way: this reload was broken off for it.
                return False
            self._failed = record.problem is not None
            if self._failed:
                self._switch.turn(self._good)
                return False
            self._good = makers
        self.entry = entry
        self._scope.cancel()
        self._beside = self._parts.beside(entry)
        self._run_beside()
        return True

    def _run_beside(self) -> None:
        if self._beside is None or self._tasks is None:
            return
        beside, scope = self._beside, anyio.CancelScope()
        self._scope = scope

        async def run() -> None:
            with scope:
                await beside.run()

        self._tasks.start_soon(run)
