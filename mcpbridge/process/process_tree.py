"""Everything below the bridge: its children, what escaped from them, and whom it inherits.

A child leads a process group, and what it starts belongs to it and ends with it. A process may
leave the group, by a session of its own (`setsid`, as every daemon does); it is then a stray. Its
child's end is to be its own end as well, so strays are found in two ways:

- While its parents live it hangs below the child in the tree of processes. That tree is looked at
  before a child is stopped.
- A process whose parent ended goes to the nearest ancestor that inherits orphans, and that is the
  bridge: by its wish (`linux.inherit_orphans`), or as process 1. Where it comes from, its own
  environment tells: each child is given a mark there, a variable that all it starts inherit.

One that has lost its parent and its environment as well is taken for nobody's while there is any
child that may need it, and is ended with the last. Process 1 leaves it alone: it also inherits
what an operator has started in its container.

What is a parent must also wait for its dead, else they use up the process ids. The statuses of
children are left to those who started them, by their pids; every other dead process is taken here.

Whom the bridge had below it when it began, it leaves alone: a wrapper's, and the reaper.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Iterable

import anyio

from mcpbridge.process.linux import (
    children_of,
    descendants_of,
    environment_of,
    forbid_cores,
    inherit_orphans,
    prefer_for_oom,
    stat_of,
)
from mcpbridge.process.memory import OomWatch
from mcpbridge.process.reaper import Reaper

log = logging.getLogger("mcpbridge.process")

LOOK_EVERY_S = 1.0
_LAST_LOOKS_S = 0.02
_KILL_WAIT_S = 1.0
"""How long the killed may take; only one that the kernel holds takes longer."""

_NONE = b""

MARK = "_MCPBRIDGE_CHILD"
"""The variable that tells whose a process is."""

Stray = tuple[int, int]
"""A process by its pid and the time of its start, which together name one for ever."""


class ProcessTree:
    """The processes below this one; one for the process, made before the first child."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper = reaper
        self._children: dict[int, bytes] = {}
        """The mark of each, as it stands in an environment."""
        self._orphans: dict[Stray, bytes | None] = {}
        """The mark of each, None for one that has none."""
        self._count = itertools.count(1)
        self._first = os.getpid() == 1
        self._not_ours = set(children_of(os.getpid()))
        self._oom = OomWatch()

    @property
    def children(self) -> list[int]:
        """The pids of the children there are."""
        return sorted(self._children)

    def open(self) -> None:
        """Inherit orphans from now on, where the system lets us; and leave no core behind.

        A core holds what passed through, a child's as well as ours, and is as large as either.
        """
        if not self._first:
            inherit_orphans()
        forbid_cores()

    def new_mark(self) -> str:
        """The mark of the next child; no other process ever has had it."""
        return f"{self._reaper.token}.{next(self._count)}"

    def took_in(self, pid: int, mark: str) -> None:
        """A child was started: its status is its starter's, and it must not outlive the bridge."""
        self._children[pid] = f"{MARK}={mark}".encode()
        self._reaper.watch(pid)
        prefer_for_oom(pid)

    def let_go(self, pid: int) -> None:
        """A child, its group and its strays are gone."""
        self._children.pop(pid, None)
        self._reaper.forget(pid)

    def memory_ran_out(self) -> bool:
        """Whether the kernel has killed for want of memory since the last time it was asked."""
        return self._oom.rose()

    def escaped_from(self, pid: int) -> set[Stray]:
        """Who hangs below a child in the tree and has left its group."""
        found = ((each, stat_of(each)) for each in descendants_of(pid))
        return {(each, stat.started) for each, stat in found if stat and stat.group != pid}

    def left_by(self, pid: int, known: Iterable[Stray]) -> set[Stray]:
        """Who lives on outside of the group of a child that has ended.

        Args:
            pid: The child.
            known: What was seen below it while it lived.
        """
        self._look()
        marks = {self._children[pid]}
        if len(self._children) == 1 and not self._first:
            marks.add(_NONE)
        strays = {stray for stray in known if _lives(stray)}
        strays |= {stray for stray, mark in self._orphans.items() if (mark or _NONE) in marks}
        if strays:
            pids = sorted(each for each, _ in strays)
            log.info("child.escaped_processes", extra={"pid": pid, "strays": pids})
        return strays

    async def until_gone(self, strays: Iterable[Stray]) -> None:
        """Wait until all of them have ended; whoever calls it bounds it."""
        while self._any_left(strays):  # noqa: ASYNC110 - no event tells of a foreign process
            await anyio.sleep(_LAST_LOOKS_S)

    async def kill(self, strays: set[Stray]) -> None:
        """End them by SIGKILL, with all that is below them."""
        with anyio.move_on_after(_KILL_WAIT_S):
            while self._any_left(strays):
                for stray in list(strays):
                    strays |= _below(stray)
                send(strays, signal.SIGKILL)
                await anyio.sleep(_LAST_LOOKS_S)

    async def run(self) -> None:
        """Look after orphans until cancelled: take the dead, end those whose child has ended."""
        while True:
            # Not at SIGCHLD: it belongs to the event loop, and several of them may come as one.
            await anyio.sleep(LOOK_EVERY_S)
            self._look()
            marks = {None, *self._children.values()}
            late = [stray for stray, mark in self._orphans.items() if mark not in marks]
            send(late, signal.SIGKILL)

    def _look(self) -> None:
        """Take the dead, and note who has come and gone."""
        seen: dict[Stray, bytes | None] = {}
        for pid in children_of(os.getpid()):
            if pid in self._children or pid in self._not_ours or pid == self._reaper.pid:
                continue
            stat = stat_of(pid)
            if stat is None:
                continue
            if not stat.lives:
                self._reap(pid)
            elif stat.group not in self._children:
                stray = (pid, stat.started)
                known = stray in self._orphans
                seen[stray] = self._orphans[stray] if known else self._mark_of(pid, stat.session)
        self._orphans = seen

    def _mark_of(self, pid: int, session: int) -> bytes | None:
        ours = f"{MARK}={self._reaper.token}.".encode()
        marks = (entry for entry in environment_of(pid) if entry.startswith(ours))
        return next(marks, None) or self._children.get(session)

    def _any_left(self, strays: Iterable[Stray]) -> bool:
        self._look()
        return any(_lives(stray) for stray in strays)

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
            log.debug("orphan.reaped", extra={"pid": pid})


def send(strays: Iterable[Stray], number: signal.Signals) -> None:
    """Send a signal to those who live."""
    for stray in strays:
        if _lives(stray):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(stray[0], number)


def _lives(stray: Stray) -> bool:
    stat = stat_of(stray[0])
    return stat is not None and stat.lives and stat.started == stray[1]


def _below(stray: Stray) -> set[Stray]:
    found = ((each, stat_of(each)) for each in descendants_of(stray[0]))
    return {(each, stat.started) for each, stat in found if stat is not None}
