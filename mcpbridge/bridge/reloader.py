"""Replaces the server's processes on request, because the program has changed: a reload.

| child | is replaced |
|---|---|
| spare, or left behind by its client | first it ends; another starts after the others |
| shared | by one that starts now and takes over once it is ready; the old one finishes its calls |
| of one session | the same, but it takes over after the shared one |
| of one call of 2026-07-28 at a time | it takes no further call |

If the shared child cannot be started, nothing else is touched: everything would be started from the
same program, and what runs serves on. Children of sessions start beside it, so that their clients
do not wait for two starts in turn: as many as there are further processors, but at least one, and
no more than `--max-children` leaves places for. The others start after it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import anyio
import msgspec

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.children.supervisor import StartFailure
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import SessionStarter
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.initialize import ServerProfile

log = logging.getLogger("mcpbridge.bridge")

_QUIET_S = 0.3
"""Seconds without a further request after which a reload begins, if one has begun just before."""
_LONGEST_S = 2.5
"""Seconds from the beginning of a reload after which the next one waits for no quiet."""
_BESIDE = max(1, (os.cpu_count() or 1) - 1)
"""Children of sessions that start beside the shared one: more would only make it start later."""


class Reload(msgspec.Struct, frozen=True):
    """A record of one reload."""

    because: str
    """What asked for it, for people: `server.py`."""
    at: float
    """When it began, in seconds since 1970."""
    seconds: float
    """How long it took."""
    pid: int | None = None
    """The shared process that serves now; None if it is behind a connection, or none serves."""
    problem: str | None = None
    """Why the processes before serve on; None if they were replaced."""
    last_words: tuple[str, ...] = ()
    """The end of what the new process wrote to stderr, if it could not be started."""
    changed: tuple[str, ...] = ()
    """The capabilities that are new, gone or different."""
    sessions: int = 0
    """Number of sessions whose own processes were replaced."""
    failed_sessions: int = 0
    """Number of sessions whose own processes could not be replaced."""


class Owner(Protocol):
    """An owner of children: a tenant."""

    eras: EraSupervisors
    """Keeps the shared children."""
    session_starter: SessionStarter
    """Gives sessions their own children."""
    warm_pool: WarmPool
    """Has the children of calls of 2026-07-28."""
    sessions: dict[Session, None]
    """The open sessions."""


class Reloader:
    """A reloader of the server's processes; owned by the bridge."""

    def __init__(
        self,
        child_pool: ChildPool,
        tenants: Callable[[], Iterable[Owner]],
        spawn: Spawn,
        finish_s: float,
    ) -> None:
        """Make a reloader.

        Args:
            child_pool: Has the spare children.
            tenants: Returns the tenants whose children are replaced.
            spawn: Starts a task of the bridge, which outlives the request for a reload.
            finish_s: Seconds that a replaced child has to finish its calls; 0: no limit.
        """
        self._child_pool = child_pool
        self._tenants = tenants
        self._spawn = spawn
        self._finish_s = finish_s or None
        self._asked_at = self._began_at = -math.inf
        self._because = ""
        self._asked = anyio.Event()
        """Set by each request; made when a reload begins."""
        self._waiting: list[asyncio.Future[Reload]] = []
        self._runs = False
        self.last: Reload | None = None
        """The last reload; None before the first."""

    async def reload(self, because: str) -> Reload:
        """Replace all of the server's processes by ones that start after this request.

        Requests that follow each other closely have one reload together. One that has begun is
        broken off and begins again: it may have read the program before it was changed.

        Args:
            because: What asks for it, for the log and the record.
        """
        outcome: asyncio.Future[Reload] = asyncio.get_running_loop().create_future()
        self._waiting.append(outcome)
        self._because, self._asked_at = because, anyio.current_time()
        self._asked.set()
        if not self._runs:
            self._runs = True
            self._spawn(self._run)
        return await outcome

    async def _run(self) -> None:
        asked: list[asyncio.Future[Reload]] = []
        try:
            while self._waiting:
                await self._until_quiet()
                self._asked, self._began_at = anyio.Event(), anyio.current_time()
                # Those who ask from now on have the next reload.
                asked, self._waiting = self._waiting, []
                record = await self._unless_outdated()
                if record is None:
                    self._waiting = [*asked, *self._waiting]
                else:
                    self.last = record
                    _tell(asked, record)
        finally:
            self._runs = False
            # Left over if the process is about to end, or after a fault, which the log has.
            left, self._waiting = [*asked, *self._waiting], []
            _tell(left, Reload(self._because, time.time(), 0.0, problem="it was broken off"))

    async def _until_quiet(self) -> None:
        latest = self._began_at + _LONGEST_S
        while True:
            # Each further request makes it longer.
            left_s = min(latest, self._asked_at + _QUIET_S) - anyio.current_time()
            if left_s <= 0:
                return
            await anyio.sleep(left_s)

    async def _unless_outdated(self) -> Reload | None:
        """Do a reload; return None if a further request has made it outdated before its end."""
        record = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._leave_if_outdated, tasks.cancel_scope)
            record = await self._all_replaced(self._because)
            tasks.cancel_scope.cancel()
        return record

    async def _leave_if_outdated(self, scope: anyio.CancelScope) -> None:
        await self._asked.wait()
        await self._until_quiet()
        scope.cancel()

    async def _all_replaced(self, because: str) -> Reload:
        at, began = time.time(), anyio.current_time()
        counts = _Counts()
        failure: StartFailure | None = None
        changed: set[str] = set()
        with self._child_pool.without_spares():
            for tenant in self._tenants():
                before = tenant.eras.primary.profile
                failure = await self._replaced(tenant, counts)
                if failure is not None:
                    break
                changed |= _changes(before, tenant.eras.primary.profile)
        record = Reload(
            because,
            at,
            anyio.current_time() - began,
            self._pid(),
            failure.fault.message if failure is not None else None,
            failure.report.last_words if failure is not None and failure.report is not None else (),
            tuple(sorted(changed)),
            counts.replaced,
            counts.failed,
        )
        _log(record)
        return record

    async def _replaced(self, tenant: Owner, counts: _Counts) -> StartFailure | None:
        """Replace all children of one tenant; return why its shared one could not be."""
        starter = tenant.session_starter
        while (lease := starter.give_up_left_behind()) is not None:
            self._child_pool.release(lease)
        may_serve, beside = anyio.Event(), self._beside(tenant)
        async with anyio.create_task_group() as tasks:

            def replace(sessions: Iterable[Session]) -> None:
                for session in sessions:
                    tasks.start_soon(self._replaced_in, tenant, session, may_serve, counts)

            def shared_serves() -> None:
                may_serve.set()
                # With those that have been opened since: their children may be of the old program.
                replace([session for session in tenant.sessions if session not in beside])

            replace(beside)
            failure = await tenant.eras.reload(shared_serves)
            if failure is None:
                tenant.warm_pool.renew()
            elif not may_serve.is_set():
                # What starts for sessions would fail too, or must not serve.
                tasks.cancel_scope.cancel()
        return failure

    def _beside(self, tenant: Owner) -> list[Session]:
        """Return the sessions whose children start beside the shared one, the last used first."""
        own = [each for each in tenant.sessions if tenant.session_starter.has_own(each)]
        own.sort(key=lambda session: session.last_used, reverse=True)
        return own[: min(_BESIDE, self._child_pool.free_places)]

    async def _replaced_in(
        self, tenant: Owner, session: Session, may_serve: anyio.Event, counts: _Counts
    ) -> None:
        try:
            done = await tenant.session_starter.reload(session, self._finish_s, may_serve)
        except Unavailable as error:
            # If the shared child fails too the whole reload has, and this is cancelled.
            await may_serve.wait()
            counts.add(failed=1)
            log.warning("session.reload_failed", extra={"reason": error.fault.reason})
        else:
            counts.add(replaced=done)

    def _pid(self) -> int | None:
        leases = (tenant.eras.primary.usable for tenant in self._tenants())
        return next((lease.child.pid for lease in leases if lease is not None), None)


def _tell(asked: Iterable[asyncio.Future[Reload]], record: Reload) -> None:
    for outcome in asked:
        if not outcome.done():
            outcome.set_result(record)


class _Counts:
    """Counts of the sessions with own children in one reload."""

    def __init__(self) -> None:
        self.replaced = 0
        self.failed = 0

    def add(self, *, replaced: int = 0, failed: int = 0) -> None:
        """Count sessions whose children were replaced, or could not be."""
        self.replaced += replaced
        self.failed += failed


def _changes(before: ServerProfile | None, after: ServerProfile | None) -> set[str]:
    """Return the names of the capabilities that differ; empty if there was no child before."""
    if before is None or after is None:
        return set()
    one, other = before.capabilities, after.capabilities
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def _log(record: Reload) -> None:
    seconds = round(record.seconds, 3)
    if record.problem is not None:
        extra: dict[str, object] = {
            "because": record.because,
            "problem": record.problem,
            "serves": "the process before" if record.pid is not None else "none",
            "seconds": seconds,
        }
        if record.last_words:
            extra["last_words"] = list(record.last_words)
        log.warning("server.reload_failed", extra=extra)
        return
    extra = {"because": record.because, "pid": record.pid, "seconds": seconds}
    if record.sessions or record.failed_sessions:
        extra["sessions"] = record.sessions
    log.info("server.reloaded", extra=extra)
    if record.changed:
        remedy = "a client that remembers initialize must connect again"
        extra = {"capabilities": ", ".join(record.changed), "remedy": remedy}
        log.warning("server.capabilities_changed", extra=extra)
