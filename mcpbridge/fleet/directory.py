"""The servers of one process by name, and how they follow the entries of their file.

| entry | its server |
|---|---|
| as before | is left alone, unless it has failed: then it is started again |
| new | is started |
| changed in what is started | its processes are replaced, as by a reload; its sessions stay |
| the same, and that fails | goes on, while another server tries the entry until it is repaired |
| changed otherwise | another one starts beside it and takes its place once it is ready |
| changed, and the other one fails | goes on |
| changed, and cannot be served | goes on |
| gone | its calls finish, then its sessions and processes end |

A server that takes the place of another one does not know its sessions: their clients are answered
that the session is unknown and begin again, as MCP has it. So one that has become ready is only
served if the server before it cannot adopt the entry even then: it may speak another era.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from mcpbridge.fleet.member import NOW, DrainTimes, Member, P, Status
from mcpbridge.telemetry.logs import SERVER

log = logging.getLogger("mcpbridge.fleet")

E = TypeVar("E")

_WELL = ("ready", "idle")


class Unusable(msgspec.Struct, frozen=True):
    """An entry that cannot be served."""

    reason: str
    """Field, problem and remedy, as one line."""


class Changes(msgspec.Struct, frozen=True):
    """What became of the servers when their entries were read again, by name."""

    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    unchanged: list[str] = []


class _Slot(Generic[E, P]):
    """One name of the directory: its entry, and the servers that were made from it."""

    def __init__(
        self,
        name: str,
        start: Callable[[E], Member[P]],
        spawn: Callable[..., object],
        times: DrainTimes,
    ) -> None:
        self._name = name
        self._start = start
        self._spawn = spawn
        self._times = times
        self._entry: E | Unusable | None = None
        self._member: Member[P] | None = None
        self._next: Member[P] | None = None
        """A server that takes the place of the member once it is ready."""
        self._problem = ""
        """Why the entry as it is now is not served; empty if it is."""
        self._change = anyio.CancelScope()
        """What puts the entry into force."""

    @property
    def member(self) -> Member[P] | None:
        """The server that takes calls; None if there is none."""
        if self._next is not None and (self._member is None or not self._member.serves):
            return self._next
        return self._member

    def status(self) -> Status:
        """Return the state of the server that takes calls, or why there is none."""
        member = self.member
        if member is None:
            return Status("failed", self._problem)
        status = member.status()
        problem = self._problem
        if self._next is not None and self._next is not member:
            # It may be tried for as long as its program is not repaired.
            problem = self._next.last_failure
        if not problem:
            return status
        reason = f"the server before the last change still serves: {problem}"
        return Status(status.state, reason, status.pid)

    def follow(self, entry: E | Unusable) -> bool:
        """Serve this entry from now on; return whether that changes anything."""
        failed = self._next is None and (self._member is None or not self._member.serves)
        if entry == self._entry and not failed:
            return False
        changed = entry != self._entry
        self._entry = entry
        self.keep()
        if self._next is not None:
            self._next.leave(NOW)
            self._next = None
        if isinstance(entry, Unusable):
            self._problem = entry.reason
            return changed
        self._problem = ""
        if failed:
            before, self._member = self._member, self._start(entry)
            if before is not None:
                before.leave(NOW)
        else:
            self._change = anyio.CancelScope()
            self._spawn(self._put_into_force, entry, self._change)
        return True

    def keep(self) -> None:
        """Leave the server that takes calls in its place, whatever was to take it."""
        self._change.cancel()

    def end(self) -> None:
        """End its servers."""
        self.keep()
        for member, times in ((self._next, NOW), (self._member, self._times)):
            if member is not None:
                member.leave(times)

    async def _put_into_force(self, entry: E, change: anyio.CancelScope) -> None:
        SERVER.set(self._name)
        with change:
            # A scope ends the task at its next wait only.
            if change.cancel_called or await self._adopted(entry) or change.cancel_called:
                return
            candidate = self._next = self._start(entry)
            ready = await candidate.settled()
            adopted = ready and await self._adopted(entry)
            if not change.cancel_called:
                self._next = None
                self._decide(candidate, ready=ready, adopted=adopted)

    async def _adopted(self, entry: E) -> bool:
        """Return whether the server that takes calls serves this entry now."""
        member = self._member
        if member is None or not member.serves or member.leaving:
            return False
        adopt = member.adopting(entry)
        return adopt is not None and await adopt()

    def _decide(self, candidate: Member[P], *, ready: bool, adopted: bool) -> None:
        """Serve a candidate that has started or failed, unless the server before is better."""
        before = self._member
        if adopted:
            candidate.leave(NOW)
        elif ready or before is None or not before.serves:
            self._member = candidate
            if before is not None:
                before.leave(self._times)
            log.info("server.replaced", extra={"pid": candidate.status().pid})
        else:
            self._problem = candidate.status().reason
            candidate.leave(NOW)
            log.error("server.replace_failed", extra={"problem": self._problem})


class Directory(Generic[E, P]):
    """A directory of the servers of a process; alive within `running`."""

    def __init__(self, make: Callable[[E], Member[P]], times: DrainTimes) -> None:
        """Make an empty directory.

        Args:
            make: Makes a server from its entry; the directory runs it.
            times: How long the calls of a server that is removed or replaced may take.
        """
        self._make = make
        self._times = times
        self._slots: dict[str, _Slot[E, P]] = {}
        self._running: set[Member[P]] = set()
        self._default: str | None = None
        self._ending = False
        self._tasks: TaskGroup

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def names(self) -> list[str]:
        """The names of all servers, those that cannot be served included."""
        return list(self._slots)

    @property
    def default(self) -> str | None:
        """The name of the server that is served without one; None if there is none."""
        return self._default

    @property
    def members(self) -> Iterator[Member[P]]:
        """The servers that take calls."""
        for slot in list(self._slots.values()):
            if slot.member is not None:
                yield slot.member

    @property
    def ready(self) -> bool:
        """Whether a server is ready: one that has failed must not take the others' traffic away."""
        return not self._ending and any(each.bridge.readiness.ready for each in self.members)

    @property
    def started(self) -> bool:
        """Whether a server has been ready once."""
        return any(each.bridge.readiness.started for each in self.members)

    @property
    def serving(self) -> bool:
        """Whether requests are taken: the process does not end, and a server has not failed."""
        return not self._ending and any(each.serves for each in self.members)

    @property
    def ending(self) -> bool:
        """Whether the process is about to end."""
        return self._ending

    @property
    def blockers(self) -> Mapping[str, str]:
        """What is missing: each server that is not ready, with its state."""
        if self._ending:
            return {"draining": "shutting down"}
        states = ((name, slot.status()) for name, slot in self._slots.items())
        return {name: status.state for name, status in states if status.state not in _WELL}

    def find(self, name: str) -> Member[P] | None:
        """Return the server of this name that takes calls; None if there is none."""
        slot = self._slots.get(name)
        return slot.member if slot is not None else None

    def status(self, name: str) -> Status | None:
        """Return the state of the server of this name; None if the name is unknown."""
        slot = self._slots.get(name)
        return slot.status() if slot is not None else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the servers until the block ends."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def follow(self, entries: Mapping[str, E | Unusable], default: str | None) -> Changes:
        """Serve these entries from now on; return what that changes.

        Args:
            entries: All entries, by name.
            default: The name of the server that is served without one.
        """
        changes = Changes([], [], [], [])
        for name in [name for name in self._slots if name not in entries]:
            self._slots.pop(name).end()
            changes.removed.append(name)
        for name, entry in entries.items():
            slot = self._slots.get(name)
            if slot is None:
                slot = _Slot(name, self._start, self._tasks.start_soon, self._times)
                self._slots[name] = slot
                slot.follow(entry)
                changes.added.append(name)
            else:
                (changes.changed if slot.follow(entry) else changes.unchanged).append(name)
        self._default = default
        return changes

    def refuse_traffic(self) -> None:
        """Have probes say that the process ends; everything is still served."""
        self._ending = True
        for slot in self._slots.values():
            # A server that started from now on would not be drained.
            slot.keep()

    async def drain(self, times: DrainTimes) -> bool:
        """End all servers; return whether calls were left at the cutoff.

        Servers that were removed or replaced before have until the cutoff for their calls.
        """
        left: list[bool] = []

        async def end(member: Member[P]) -> None:
            SERVER.set(member.name)
            if member.leaving:
                with anyio.move_on_after(times.deadlines.cutoff_s):
                    await member.ended.wait()
                member.bridge.drain.cut_short()
                await member.ended.wait()
            else:
                left.append(await member.drain(times))

        async with anyio.create_task_group() as ends:
            for member in list(self._running):
                ends.start_soon(end, member)
        return any(left)

    def cut_short(self) -> None:
        """Go to the cutoff of the drain now: a further signal has come."""
        for member in list(self._running):
            member.bridge.drain.cut_short()

    def kill_children(self) -> None:
        """Kill all processes of all servers."""
        for member in list(self._running):
            member.bridge.kill_children()

    def running_members(self) -> Collection[Member[P]]:
        """Return all servers that run: those that take calls, that start and that end."""
        return list(self._running)

    def _start(self, entry: E) -> Member[P]:
        member = self._make(entry)
        self._running.add(member)
        self._tasks.start_soon(self._run, member)
        return member

    async def _run(self, member: Member[P]) -> None:
        try:
            await member.run()
        finally:
            self._running.discard(member)
