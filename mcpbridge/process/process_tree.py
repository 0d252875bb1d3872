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
"""Seconds to wait for killed processes; only one blocked in the kernel takes longer."""

_NONE = b""

MARK = "_MCPBRIDGE_CHILD"
"""The variable that names the child that a process belongs to."""

EscapedProcess = tuple[int, int]
"""A process by its pid and start time, which together identify it uniquely."""


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
        self._reaper.forget(pid)

    def memory_ran_out(self) -> bool:
        """Return whether the kernel killed a process for memory since the last call."""
        return self._oom.rose()

    def escaped_from(self, pid: int) -> set[EscapedProcess]:
        """Return the descendants of a child that have left its group."""
        found = ((each, stat_of(each)) for each in descendants_of(pid))
        return {(each, stat.started) for each, stat in found if stat and stat.group != pid}

    def left_by(self, pid: int, known: Iterable[EscapedProcess]) -> set[EscapedProcess]:
        """Return the processes outside of the group of a child that outlive it.

        Args:
            pid: Pid of the child.
            known: Escaped processes that were seen below it while it lived.
        """
        self._look()
        marks = {self._children[pid]}
        if len(self._children) == 1 and not self._first:
            marks.add(_NONE)
        escaped = {process for process in known if _lives(process)}
        escaped |= {process for process, mark in self._orphans.items() if (mark or _NONE) in marks}
        if escaped:
            pids = sorted(each for each, _ in escaped)
            log.info("child.escaped_processes", extra={"pid": pid, "escaped": pids})
        return escaped

    async def until_gone(self, escaped: Iterable[EscapedProcess]) -> None:
        """Wait until all these processes have ended; the caller bounds the wait."""
        while self._any_left(escaped):  # noqa: ASYNC110 - the system reports no such event
            await anyio.sleep(_LAST_LOOKS_S)

    async def kill(self, escaped: set[EscapedProcess]) -> None:
        """Kill processes with SIGKILL, including all their descendants."""
        with anyio.move_on_after(_KILL_WAIT_S):
            while self._any_left(escaped):
                # In each round: a process may start others until it is dead.
                for process in list(escaped):
                    escaped |= _below(process)
                send(escaped, signal.SIGKILL)
                await anyio.sleep(_LAST_LOOKS_S)

    async def run(self) -> None:
        """Reap zombies and kill orphans whose child has ended, until cancelled."""
        while True:
            # Not at SIGCHLD: the event loop owns it, and several signals may be merged into one.
            await anyio.sleep(LOOK_EVERY_S)
            self._look()
            marks = {None, *self._children.values()}
            late = [process for process, mark in self._orphans.items() if mark not in marks]
            send(late, signal.SIGKILL)

    def _look(self) -> None:
        """Reap zombies, and update the table of orphans."""
        if self._mounted:
            return
        seen: dict[EscapedProcess, bytes | None] = {}
        for pid in children_of(os.getpid()):
            if pid in self._children or pid in self._not_ours or pid == self._reaper.pid:
                continue
            stat = stat_of(pid)
            # It ended between the two reads.
            if stat is None:
                continue
            if not stat.lives:
                self._reap(pid)
            elif stat.group not in self._children:
                process = (pid, stat.started)
                known = process in self._orphans
                seen[process] = (
                    self._orphans[process] if known else self._mark_of(pid, stat.session)
                )
        self._orphans = seen

    def _mark_of(self, pid: int, session: int) -> bytes | None:
        ours = f"{MARK}={self._reaper.token}.".encode()
        marks = (entry for entry in environment_of(pid) if entry.startswith(ours))
        return next(marks, None) or self._children.get(session)

    def _any_left(self, escaped: Iterable[EscapedProcess]) -> bool:
        self._look()
        return any(_lives(process) for process in escaped)

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            # Only this pid: `waitpid(-1)` would take the statuses that the children's own tasks
            # wait for.
            os.waitpid(pid, os.WNOHANG)
            log.debug("orphan.reaped", extra={"pid": pid})


def send(escaped: Iterable[EscapedProcess], number: signal.Signals) -> None:
    """Send a signal to the processes that still live."""
    for process in escaped:
        if _lives(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process[0], number)


def _lives(process: EscapedProcess) -> bool:
    stat = stat_of(process[0])
    return stat is not None and stat.lives and stat.started == process[1]


def _below(process: EscapedProcess) -> set[EscapedProcess]:
    found = ((each, stat_of(each)) for each in descendants_of(process[0]))
    return {(each, stat.started) for each, stat in found if stat is not None}
