"""Tracks all processes below the bridge: children, processes that escaped them, and orphans.

A child leads a process group; the processes that it starts belong to the group and end with it. A
process may leave the group by starting a new session (`setsid`, as every daemon does); it has then
escaped. It must end when its child ends, so escaped processes are found in two ways:

- While its parents live it is below the child in the tree of processes. The bridge reads that tree
  before it stops a child.
- A process whose parent ended goes to the nearest ancestor that adopts orphans, and that is the
  bridge: because it asked (`linux.inherit_orphans`), or as process 1. The environment of the orphan
  shows its origin: each child gets a mark there, a variable that all its descendants inherit.

An orphan that has cleared its environment has an unknown owner while any child may need it, and is
ended with the last child. As process 1 the bridge leaves it alone: there it also adopts what an
operator has started in the container.

A parent must also wait for its zombies, or they use up the process ids. The statuses of children
are left to the tasks that started them, by their pids; all other zombies are reaped here.

Processes that were below the bridge at its start are left alone: those of a wrapper, and the
reaper.

Each process costs a file of `/proc` or two, 13 us each, and a server may leave thousands, so these
files are read in worker threads. What is found is applied by the loop's thread alone: it starts
children and registers them without a pause between, so a child that died at once is never taken for
an orphan, whose zombie is reaped here.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Collection, Iterable

import anyio

from mcpbridge.process.linux import (
    Stat,
    children_of,
    descendants_of,
    environment_of,
    forbid_cores,
    inherit_orphans,
    off_loop,
    prefer_for_oom,
    stat_of,
)
from mcpbridge.process.memory import OomWatch
from mcpbridge.process.reaper import Reaper
from mcpbridge.process.spawn import HAS_GROUPS, KILL

log = logging.getLogger("mcpbridge.process")

LOOK_EVERY_S = 1.0
_LAST_LOOKS_S = 0.02
_KILL_WAIT_S = 1.0
"""Seconds to wait for killed processes; only one blocked in the kernel takes longer."""

_LIMITED = (
    "this system has no process groups and no signals: a server that does not end with its stdin is"
    " terminated, and what left it cannot be found"
)
_NONE = b""

MARK = "_MCPBRIDGE_CHILD"
"""The variable that names the child that a process belongs to."""

EscapedProcess = tuple[int, int]
"""A process by its pid and start time, which together identify it uniquely."""
Found = tuple[int, Stat, bytes | None]
"""A process, its line of the process table, and the mark in its environment if it was read."""


class ProcessTree:
    """The processes below this one; a single object, made before the first child."""

    def __init__(self, reaper: Reaper, *, mounted: bool = False) -> None:
        """Make it.

        Args:
            reaper: Ends the children if this process is killed.
            mounted: The process is another program's, with children that are not ours: only
                what is seen below our own children is looked after. Neither `open` nor `run`
                may be called then, since they look after the whole process.
        """
        self._reaper = reaper
        self._mounted = mounted
        self._children: dict[int, bytes] = {}
        """The mark of each child, as in an environment."""
        self._orphans: dict[EscapedProcess, bytes | None] = {}
        """The mark of each orphan; None if it has none."""
        self._count = itertools.count(1)
        self._first = os.getpid() == 1
        self._not_ours = set(children_of(os.getpid()))
        self._oom = OomWatch()
        self._looking = anyio.Lock()
        self._leaving: set[int] = set()
        """Children that have ended and whose group and escaped processes are being ended."""

    @property
    def children(self) -> list[int]:
        """The pids of the running children."""
        return sorted(self._children)

    def open(self) -> None:
        """Adopt orphans from now on, if the system allows it, and disable core dumps.

        A core dump contains the traffic, and is as large as the process: a child's and the
        bridge's.
        """
        if not self._first:
            inherit_orphans()
        forbid_cores()
        if not HAS_GROUPS:
            log.info("process_tree.limited", extra={"problem": _LIMITED})

    def new_mark(self) -> str:
        """Return the mark of the next child, which no other process has ever had."""
        return f"{self._reaper.token}.{next(self._count)}"

    def took_in(self, pid: int, mark: str) -> None:
        """Register a started child, which must not outlive the bridge; its starter waits for it."""
        self._children[pid] = f"{MARK}={mark}".encode()
        self._reaper.watch(pid)
        prefer_for_oom(pid)

    def let_go(self, pid: int) -> None:
        """Remove a child whose group and escaped processes have ended."""
        self._children.pop(pid, None)
        self._leaving.discard(pid)
        self._reaper.forget(pid)

    def memory_ran_out(self) -> bool:
        """Return whether the kernel killed a process for memory since the last call."""
        return self._oom.rose()

    async def escaped_from(self, pid: int) -> set[EscapedProcess]:
        """Return the descendants of a child that have left its group."""
        return await off_loop(_escaped_from, pid)

    async def left_by(self, pid: int, known: Iterable[EscapedProcess]) -> set[EscapedProcess]:
        """Return the processes outside of the group of a child that outlive it.

        Args:
            pid: Pid of the child.
            known: Escaped processes that were seen below it while it lived.
        """
        escaped = await off_loop(_living, list(known))
        await self._look()
        # From here on without a pause: the table is that of the look.
        marks = {self._children[pid]}
        self._leaving.add(pid)
        # Several may end at once: the last to come here takes what may be any child's.
        if self._children.keys() <= self._leaving and not self._first:
            marks.add(_NONE)
        escaped |= {process for process, mark in self._orphans.items() if (mark or _NONE) in marks}
        if escaped:
            pids = sorted(each for each, _ in escaped)
            log.info("child.escaped_processes", extra={"pid": pid, "escaped": pids})
        return escaped

    async def until_gone(self, escaped: Iterable[EscapedProcess]) -> None:
        """Wait until all these processes have ended; the caller bounds the wait."""
        while await self._any_left(escaped):  # noqa: ASYNC110 - the system reports no such event
            await anyio.sleep(_LAST_LOOKS_S)

    async def kill(self, escaped: set[EscapedProcess]) -> None:
        """Kill processes with SIGKILL, including all their descendants."""
        with anyio.move_on_after(_KILL_WAIT_S):
            while await self._any_left(escaped):
                # In each round: a process may start others until it is dead.
                escaped |= await off_loop(_below, list(escaped))
                await send(escaped, KILL)
                await anyio.sleep(_LAST_LOOKS_S)

    async def run(self) -> None:
        """Reap zombies and kill orphans whose child has ended, until cancelled."""
        while True:
            # Not at SIGCHLD: the event loop owns it, and several signals may be merged into one.
            await anyio.sleep(LOOK_EVERY_S)
            await self._look()
            marks = {None, *self._children.values()}
            late = [process for process, mark in self._orphans.items() if mark not in marks]
            await send(late, KILL)

    async def _look(self) -> None:
        """Reap zombies, and update the table of orphans."""
        if self._mounted:
            return
        # One at a time: an older look must not replace the table of a newer one.
        async with self._looking:
            ours = f"{MARK}={self._reaper.token}.".encode()
            spared = {*self._not_ours, self._reaper.pid or 0}
            known, children = frozenset(self._orphans), frozenset(self._children)
            found = await off_loop(_below_us, spared, children, known, ours)
            self._apply(found)

    def _apply(self, found: Iterable[Found]) -> None:
        seen: dict[EscapedProcess, bytes | None] = {}
        for pid, stat, mark in found:
            # A child may have been started since.
            if pid in self._children:
                continue
            process = (pid, stat.started)
            if not stat.lives:
                self._reap(pid)
            elif stat.group not in self._children:
                before = self._orphans.get(process)
                seen[process] = before or mark or self._children.get(stat.session)
        self._orphans = seen

    async def _any_left(self, processes: Iterable[EscapedProcess]) -> bool:
        await self._look()
        return bool(await off_loop(_living, list(processes)))

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            # Only this pid: `waitpid(-1)` would take the statuses that the children's own tasks
            # wait for.
            os.waitpid(pid, os.WNOHANG)
            log.debug("orphan.reaped", extra={"pid": pid})


async def send(processes: Iterable[EscapedProcess], number: signal.Signals) -> None:
    """Send a signal to those of these processes that still live."""
    if targets := list(processes):
        await off_loop(_send, targets, number)


def _send(processes: Iterable[EscapedProcess], number: signal.Signals) -> None:
    for process in processes:
        if _lives(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process[0], number)


def _below_us(
    spared: Collection[int],
    children: Collection[int],
    known: Collection[EscapedProcess],
    ours: bytes,
) -> list[Found]:
    """Return the orphans that this process has inherited, zombies included.

    Args:
        spared: Pids that are not looked at.
        children: Pids of the children, whose groups end with them.
        known: Orphans whose environment is not read again.
        ours: How the entry begins that marks an environment.
    """
    found: list[Found] = []
    for pid in children_of(os.getpid()):
        if pid in spared or pid in children or (stat := stat_of(pid)) is None:
            continue
        if stat.lives and stat.group in children:
            continue
        mark = None
        if stat.lives and (pid, stat.started) not in known:
            marks = (entry for entry in environment_of(pid) if entry.startswith(ours))
            mark = next(marks, None)
        found.append((pid, stat, mark))
    return found


def _escaped_from(pid: int) -> set[EscapedProcess]:
    found = ((each, stat_of(each)) for each in descendants_of(pid))
    return {(each, stat.started) for each, stat in found if stat and stat.group != pid}


def _living(processes: Iterable[EscapedProcess]) -> set[EscapedProcess]:
    return {process for process in processes if _lives(process)}


def _lives(process: EscapedProcess) -> bool:
    stat = stat_of(process[0])
    return stat is not None and stat.lives and stat.started == process[1]


def _below(processes: Iterable[EscapedProcess]) -> set[EscapedProcess]:
    pids = (each for process in processes for each in descendants_of(process[0]))
    found = ((each, stat_of(each)) for each in pids)
    return {(each, stat.started) for each, stat in found if stat is not None}
