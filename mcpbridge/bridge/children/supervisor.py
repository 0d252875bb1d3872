"""Keeps the shared child running: starts it, shakes hands, watches, backs off, gives up.

It stands here and not with the processes because a child counts as up only after its handshake,
and that takes a mux.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import Exit, Fault, Unavailable, child_exited, draining
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.supervision.restart import Record, RestartPolicy, after_exit

log = logging.getLogger("mcpbridge.bridge")

_EXITED = ("child_exited", "child_oom")
"""The reasons of faults that a process which ended by itself causes."""


class Starting(msgspec.Struct, frozen=True):
    """A child will be there soon; whoever needs it waits."""


class Ready(msgspec.Struct, frozen=True):
    """A child is there and has had its handshake."""

    lease: Lease


class _Life(msgspec.Struct, frozen=True):
    """One child's life, from its start to its end."""

    up_s: float
    """How long it was ready, in seconds."""
    failed: Fault | None = None
    """Why it never became ready; None if it did."""


class Failed(msgspec.Struct, frozen=True):
    """The last start failed; whoever needs a child now is told so at once."""

    fault: Fault


State = Starting | Ready | Failed
Introduce = Callable[[Lease], Awaitable[ServerProfile]]


Prepare = Callable[[Lease], Awaitable[None]]
Settle = Callable[[Lease, Lease], Awaitable[None]]
"""Given the child before and the one that serves now."""
CannotStart = Callable[[], Awaitable[bool]]
"""Asked after the first start ended by itself: whether another one would end the same way."""


class Supervisor:
    """Keeps one handshaken child running for all sessions that share it."""

    def __init__(
        self,
        child_pool: ChildSource,
        policy: RestartPolicy,
        introduce: Introduce,
        finish_s: float = 0,
        awaits: str = INITIALIZE,
    ) -> None:
        """Make a supervisor.

        Args:
            child_pool: Starts children.
            policy: When to start again, and when to give up.
            introduce: Asks a fresh child what it is; it is up when that has an answer.
            finish_s: How long one whose place is taken may finish its calls; 0: no limit.
            awaits: The request that `introduce` sends, for the log.
        """
        self._child_pool = child_pool
        self._readiness = Readiness()
        self._policy = policy
        self._introduce = introduce
        self._finish_s = finish_s or None
        self._awaits = awaits
        self._changed = anyio.Event()
        self._retired = anyio.Event()
        self._worn = anyio.Event()
        self.state: State = Starting()
        self._prepare: Prepare = _nothing
        self._settle: Settle = _nothing_more
        self.gave_up = anyio.Event()
        """No further start will be tried; `last_report` says how the last child ended."""
        self.start_failure: Fault | None = None
        """Why the last start failed; None if it succeeded."""
        self.last_report: ExitReport | None = None
        self.start_s: float | None = None
        """How long the last successful start took, handshake included."""

    @property
    def usable(self) -> Lease | None:
        """The child, if it is ready at this moment."""
        state = self.state
        return state.lease if isinstance(state, Ready) and not state.lease.mux.shut else None

    async def lease(self) -> Lease:
        """The child, as soon as it is ready.

        Raises:
            Unavailable: It cannot be started at present.
        """
        while True:
            match self.state:
                case Ready(lease) if not lease.mux.shut:
                    return lease
                case Failed(fault):
                    raise Unavailable(fault)
            await self._changed.wait()

    async def settled(self) -> bool:
        """Wait until a start has succeeded or failed; whether it succeeded."""
        while isinstance(self.state, Starting):
            await self._changed.wait()
        return isinstance(self.state, Ready)

    async def moved(self) -> None:
        """Wait until the state is another."""
        await self._changed.wait()

    def replace(self, lease: Lease) -> None:
        """Let another child take over as soon as there is one, if this is the one that serves."""
        if isinstance(self.state, Ready) and self.state.lease is lease:
            self._worn.set()

    def retire(self) -> None:
        """All ends: the child that is there is the last one."""
        self._retired.set()

    async def run(
        self,
        readiness: Readiness,
        prepare: Prepare | None = None,
        settle: Settle | None = None,
        cannot_start: CannotStart | None = None,
    ) -> None:
        """Keep a child running until the policy says to give up.

        Args:
            readiness: Learns whether there is one.
            prepare: Tells a child that has been introduced what else it must know.
            settle: Tells the next child what came of the last calls of the one before.
            cannot_start: Says whether a first start that ended by itself is the last; None: never.
        """
        self._readiness = readiness
        self._prepare, self._settle = prepare or _nothing, settle or _nothing_more
        record = Record()
        while True:
            life = await self._one_life()
            self.start_failure = life.failed
            if self._retired.is_set():
                # It ended because all ends: no failure to count.
                break
            verdict = after_exit(
                self._policy,
                record,
                life.up_s,
                anyio.current_time(),
                was_ready=life.failed is None,
                final=cannot_start is not None and await self._is_final(life, cannot_start),
            )
            record = verdict.record
            if verdict.give_up:
                self._become(Failed(life.failed or child_exited(self._how(), "no")))
                self._readiness.block("given_up", _ends_of(record))
                self.gave_up.set()
                return
            delay_s = random.uniform(0, verdict.max_delay_s)  # nosec B311 # spreads load
            await anyio.sleep(delay_s)
            if self._retired.is_set():
                break
            log.info("child.restarting", extra={"failures": record.failures})
            self._child_pool.starts_again()
            self._become(Starting())
        self._become(Failed(draining()))

    async def _is_final(self, life: _Life, cannot_start: CannotStart) -> bool:
        """Return whether no start has succeeded yet and none would."""
        report = self.last_report
        if self.start_s is not None or life.failed is None or report is None:
            return False
        if life.failed.reason not in _EXITED:
            return False
        # A connection has no known end, and the server behind it may be there a moment later.
        return report.how.is_known and not report.asked and await cannot_start()

    async def _one_life(self) -> _Life:
        """Start a child and stay until it, and whichever takes over from it, is gone."""
        began = anyio.current_time()
        try:
            lease = await self._started()
        except Unavailable as error:
            self._block(error.fault)
            if error.problem:
                self.last_report = ExitReport(Exit(), 0.0, (error.problem,), asked=False)
            return _Life(0.0, error.fault)
        ready_at = anyio.current_time()
        self._serve(lease, ready_at - began)
        while not lease.child.exited.is_set():
            await _first_of(lease.child.exited, self._worn)
            if self._worn.is_set():
                self._worn = anyio.Event()
                lease = await self._succeed(lease)
        self.last_report = lease.child.report
        self._readiness.block("child", "restarting")
        self._become(Starting())
        return _Life(anyio.current_time() - ready_at)

    async def _started(self) -> Lease:
        """Start a child that has had its handshake; log from time to time what is waited for.

        Raises:
            Unavailable: It could not be started; it is gone.
        """
        notice = _StartNotice(self._policy.start_notice_s, self._awaits)
        try:
            lease = await self._child_pool.shared()
            await self._meet(lease)
        finally:
            notice.end()
        return lease

    async def _meet(self, lease: Lease) -> None:
        """Have a fresh child introduced; one that fails is gone when this raises Unavailable."""
        try:
            lease.introduced_as(await self._introduce(lease))
            await self._prepare(lease)
        except Unavailable as error:
            exited = error.fault.reason in _EXITED
            if not exited and not isinstance(self.state, Ready):
                # Told before the child has ended, which may take it both rungs of the ladder.
                self._block(error.fault)
            lease.child.stop()
            await lease.child.exited.wait()
            self.last_report = lease.child.report
            raise Unavailable(child_exited(self._how(), "no") if exited else error.fault) from error

    async def _succeed(self, before: Lease) -> Lease:
        """Let another child take over; returns the one that serves from now on.

        Where none can be started the old one goes on, and the next attempt comes after the longest
        of the back-offs: a worn child is seldom as bad as none.
        """
        began = anyio.current_time()
        lease = None
        if not self._retired.is_set() and not before.mux.lost:
            async with anyio.create_task_group() as meanwhile:
                meanwhile.start_soon(self._lack_after, before)
                lease = await self._successor()
                if lease is not None:
                    # In the same turn: from here on nobody finds the old one.
                    self._serve(lease, anyio.current_time() - began)
                meanwhile.cancel_scope.cancel()
        if lease is None:
            with anyio.move_on_after(self._policy.max_delay_s):
                await before.child.exited.wait()
            return before
        settle = functools.partial(self._settle, before, lease)
        self._child_pool.retire(before, self._finish_s, settle)
        return lease

    async def _successor(self) -> Lease | None:
        try:
            lease = await self._started()
        except Unavailable as error:
            log.warning("child.replace_failed", extra={"reason": error.fault.reason})
            return None
        return lease

    async def _lack_after(self, lease: Lease) -> None:
        await lease.child.exited.wait()
        if isinstance(self.state, Ready) and self.state.lease is lease:
            self._readiness.block("child", "restarting")

    def _serve(self, lease: Lease, start_s: float) -> None:
        assert lease.profile is not None
        self.start_s, self.start_failure = start_s, None
        self._worn = anyio.Event()
        self._child_pool.became_ready(start_s)
        self._readiness.unblock("child")
        self._become(Ready(lease))
        extra = {
            "pid": lease.child.pid,
            "server": lease.profile.name,
            "revision": lease.profile.revision.date,
            "start_s": round(start_s, 3),
        }
        log.info("child.ready", extra=extra)

    def _block(self, fault: Fault) -> None:
        self._readiness.block("child", fault.reason)
        self._become(Failed(fault))

    def _become(self, state: State) -> None:
        self.state = state
        self._changed.set()
        self._changed = anyio.Event()

    def _how(self) -> Exit | None:
        return self.last_report.how if self.last_report is not None else None


class _StartNotice:
    """Logs from time to time what a start waits for, until it is told to end."""

    def __init__(self, every_s: float, awaits: str) -> None:
        self._every_s = every_s
        self._awaits = awaits
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer = self._loop.call_later(every_s, self._tell)

    def end(self) -> None:
        """Log no more; what was scheduled is forgotten."""
        self._timer.cancel()

    def _tell(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._tell)
        waited_s = round(self._loop.time() - self._began)
        extra = {"waited_s": waited_s, "for": f"the answer to {self._awaits}"}
        log.info("child.starting", extra=extra)


def _ends_of(record: Record) -> str:
    if record.failed_starts:
        return f"{record.failed_starts} failed starts in a row"
    return f"{len(record.ends)} ends within a minute"


async def _nothing(lease: Lease) -> None:
    """There is nothing more to tell."""


async def _nothing_more(before: Lease, lease: Lease) -> None:
    """There was nothing to tell in the first place."""


async def _first_of(*events: anyio.Event) -> None:
    async with anyio.create_task_group() as waiting:
        for event in events:
            waiting.start_soon(_leave_at, event, waiting.cancel_scope)


async def _leave_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
