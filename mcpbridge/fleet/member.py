"""One server of a directory: its bridge, from its start to its end."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

import anyio
import msgspec

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.drain import DrainSteps
from mcpbridge.bridge.readiness import REMOTE
from mcpbridge.rules.faults import UNREACHABLE
from mcpbridge.rules.supervision.shutdown_times import ShutdownTimes
from mcpbridge.telemetry.logs import SERVER

log = logging.getLogger("mcpbridge.fleet")

P = TypeVar("P")
Task = Callable[[], Coroutine[Any, Any, None]]
Adopt = Callable[[], Coroutine[Any, Any, bool]]
"""Puts a changed entry into force, and returns whether it is served now."""


def _adopts_none(entry: object) -> Adopt | None:
    """Return None: another server has to take the place of this one."""
    return None


class Status(msgspec.Struct, frozen=True):
    """The state of one server, for people and programs that watch it."""

    state: str
    """`starting`, `ready`, `idle`, `restarting`, `unreachable`, `failed` or `draining`."""
    reason: str = ""
    """Why it is not ready, or what is wrong though it serves; else empty."""
    pid: int | None = None
    """Id of the process that its clients share; None if there is none."""


class DrainTimes(msgspec.Struct, frozen=True):
    """How long the end of a server may take."""

    deadlines: ShutdownTimes
    lame_duck_s: float = 0.0
    """Seconds in which everything is still served."""


NOW = DrainTimes(ShutdownTimes(cutoff_s=0.0, children_s=4.0, longest_step_s=2.0))
"""Calls in flight get their error at once."""


class Member(Generic[P]):
    """A server that serves, or did until `leave`; `P` is what its clients reach it by."""

    def __init__(
        self,
        name: str,
        bridge: Bridge,
        paths: P,
        tasks: Sequence[Task],
        why_failed: Callable[[], str],
        remark: Callable[[], str] = str,
        adopting: Callable[[Any], Adopt | None] = _adopts_none,
    ) -> None:
        """Make a member; `run` starts its processes.

        Args:
            name: Its name in the directory.
            bridge: Its bridge.
            paths: What leads to it.
            tasks: What runs beside the bridge, until that ends.
            why_failed: Returns the cause of its last failure, as one line.
            remark: Returns what is wrong though it serves, as one line; empty if nothing is.
            adopting: Returns what puts a changed entry into force while sessions stay; None if
                another server has to take its place.
        """
        self.adopting = adopting
        self.name = name
        self.bridge = bridge
        self.paths = paths
        self._tasks = tasks
        self._why_failed = why_failed
        self._remark = remark
        self._leaving = anyio.Event()
        self._times = NOW
        self._crashed = ""
        self._settled = anyio.Event()
        self.ended = anyio.Event()
        """Set when its sessions and processes have ended."""

    @property
    def serves(self) -> bool:
        """Whether it takes calls: its processes may be starting, but it has not failed."""
        return not self._crashed and self.bridge.readiness.serving

    @property
    def leaving(self) -> bool:
        """Whether it was told to end, or has ended."""
        return self._leaving.is_set()

    @property
    def last_failure(self) -> str:
        """The cause of its last failed start or end, as one line; empty if there was none."""
        return self._why_failed()

    def status(self) -> Status:
        """Return its state."""
        blockers = self.bridge.readiness.blockers
        lease = self.bridge.eras.primary.usable
        pid = lease.child.pid if lease is not None else None
        if self._crashed:
            return Status("failed", self._crashed)
        if self.leaving or self.bridge.drain.ending:
            return Status("draining", "it ends", pid)
        if "given_up" in blockers:
            return Status("failed", self._why_failed())
        if self.bridge.eras.resting:
            return Status("idle", "the next call starts it")
        if not blockers:
            return Status("ready", self._remark(), pid)
        if REMOTE in blockers or blockers.get("child") == UNREACHABLE:
            problem = self.bridge.readiness.problem(REMOTE) or self._why_failed()
            return Status("unreachable", problem)
        started = self.bridge.readiness.started or blockers.get("child") != "starting"
        return Status("restarting" if started else "starting", self._why_failed() or "starting")

    def leave(self, times: DrainTimes) -> None:
        """End it: calls in flight finish within the times, then its sessions and processes end."""
        self._times = times
        self._leaving.set()

    async def settled(self) -> bool:
        """Wait until it is ready, or has failed or left; return whether it is ready."""
        await self._settled.wait()
        return self.serves and not self.leaving

    async def run(self) -> None:
        """Serve until `leave`; a bug that ends its tasks ends no other server."""
        SERVER.set(self.name)
        try:
            async with anyio.create_task_group() as tasks:
                async with self.bridge.running():
                    for task in (*self._tasks, self._settle):
                        tasks.start_soon(task)
                    await self._leaving.wait()
                    await self._drain()
                # After the bridge: its end has to wait for the server's processes.
                tasks.cancel_scope.cancel()
        except Exception:
            log.exception("server.crashed")
            self._crashed = "a fault of mcpbridge ended it; the log says more"
        finally:
            self._settled.set()
            self._leaving.set()
            self.ended.set()

    async def drain(self, times: DrainTimes) -> bool:
        """Let calls in flight finish, then end sessions and processes; return whether any is left.

        For the end of the process: `run` goes on until `leave`.
        """
        bridge = self.bridge
        steps = DrainSteps(
            functools.partial(bridge.readiness.block, "draining", "shutting down"),
            bridge.end_idle_streams,
            bridge.cut_off,
            lambda last_bytes_s: None,  # the listeners go on, or end after all servers
        )
        return await bridge.drain.run(steps, times.deadlines, lame_duck_s=times.lame_duck_s)

    async def _drain(self) -> None:
        if not self.bridge.drain.ending:
            await self.drain(self._times)

    async def _settle(self) -> None:
        eras = self.bridge.eras
        if eras.lazy:
            self._settled.set()
            return
        async with anyio.create_task_group() as either:

            async def settle_after(wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
                await wait()
                self._settled.set()
                either.cancel_scope.cancel()

            either.start_soon(settle_after, eras.first_lease)
            either.start_soon(settle_after, eras.gave_up.wait)
