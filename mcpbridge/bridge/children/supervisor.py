"""Keeps the shared child running: start, handshake, restart with back-off, giving up.

It is here and not in `process`, because a child counts as up only after its handshake, which needs
a mux.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import msgspec

from mcpbridge.bridge.children.handshake import HarmedByProbeError
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import UNREACHABLE, Exit, Fault, Unavailable, child_exited, draining
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.supervision.restart import RestartPolicy, RestartRecord, after_exit

log = logging.getLogger("mcpbridge.bridge")

_EXITED = ("child_exited", "child_oom")
"""The reasons of faults that are caused by a process that ended by itself."""


class Starting(msgspec.Struct, frozen=True):
    """A state: a child is starting; callers of `lease` wait for it."""


class Ready(msgspec.Struct, frozen=True):
    """A state: a child runs and has had its handshake."""

    lease: Lease


class FirstChild(msgspec.Struct, frozen=True):
    """A child that has had its handshake before its supervisor runs."""

    lease: Lease
    start_s: float
    """How many seconds its start took, handshake included."""


class _Life(msgspec.Struct, frozen=True):
    """A record of one child, from its start to its end."""

    up_s: float
    """For how many seconds it was ready."""
    failed: Fault | None = None
    """Why it never became ready; None if it did."""
    charged: bool = False
    """Whether a client is charged with its end: it counts for nothing else."""


class StartFailure(msgspec.Struct, frozen=True):
    """A record of a start that failed."""

    fault: Fault
    report: ExitReport | None = None
    """How its process ended; None if there was none."""


class Failed(msgspec.Struct, frozen=True):
    """A state: the last start failed; callers of `lease` get the fault at once."""

    fault: Fault


class Held(Failed, frozen=True):
    """A state: the last start failed, and the next one waits for a call of `lease` or a reload."""


class Resting(msgspec.Struct, frozen=True):
    """A state: no child runs, since no client needs one; the next call of `lease` starts one."""


State = Starting | Ready | Failed | Resting
Introduce = Callable[[Lease], Awaitable[ServerProfile]]


Prepare = Callable[[Lease], Awaitable[None]]
Settle = Callable[[Lease, Lease], Awaitable[None]]
"""Called with the child before and the one that serves now."""
CannotStart = Callable[[], Awaitable[bool]]
"""Called if the first child ended by itself: returns whether another would end the same way."""


class Supervisor:
    """A supervisor that keeps one initialized child running for all sessions that share it."""

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
            introduce: Does the handshake with a fresh child, which is up when this returns.
            finish_s: Seconds that a replaced child has to finish its calls; 0: no limit.
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
        self._recycle_due = anyio.Event()
        self._again = anyio.Event()
        """Set when a start that has begun before is outdated, and the wait for the next is over."""
        self._start: anyio.CancelScope | None = None
        """The handshake of the child that starts."""
        self._reloads: list[asyncio.Future[StartFailure | None]] = []
        self._runs = False
        self._rest_due = False
        """Whether the child that serves was ended because no client needs it."""
        self._wanted = anyio.Event()
        """Set when a client needs a child; made when the supervisor begins to wait for one."""
        self.state: State = Starting()
        self._prepare: Prepare = _nothing
        self._settle: Settle = _nothing_more
        self.gave_up = anyio.Event()
        """Set when no further start will be tried; `last_report` says how the last child ended."""
        self.start_failure: Fault | None = None
        """Why the last start failed; None if it succeeded."""
        self.last_report: ExitReport | None = None
        self.profile: ServerProfile | None = None
        """The profile of the last child that was ready; None before one."""
        self.start_s: float | None = None
        """Seconds that the last successful start took, handshake included; None before one."""

    @property
    def usable(self) -> Lease | None:
        """The child; None if it is not ready at this moment."""
        state = self.state
        return state.lease if isinstance(state, Ready) and not state.lease.mux.shut else None

    async def lease(self) -> Lease:
        """Return the child, as soon as it is ready.

        Raises:
            Unavailable: It cannot be started at present.
        """
        asked = False
        while True:
            match self.state:
                case Ready(lease) if not lease.mux.shut:
                    return lease
                case Failed(fault) if asked or not self.held:
                    raise Unavailable(fault)
            # A caller asks for one start: if that fails too, it gets the fault.
            asked = True
            self.wake()
            await self._changed.wait()

    @property
    def held(self) -> bool:
        """Whether the last start failed and the next one waits for `wake` or a reload."""
        return isinstance(self.state, Held)

    def wake(self) -> None:
        """Start a child, if none runs because no client needed one or the last start failed."""
        self._wanted.set()

    def rest(self) -> None:
        """End the child that serves, since no client needs it; `lease` starts another.

        Sessions keep it as their child until the next one takes over, with what they had asked of
        it.
        """
        lease = self.usable
        if lease is not None:
            self._rest_due = True
            lease.rest()
            lease.mux.stop_accepting()
            lease.child.stop()

    async def settled(self) -> bool:
        """Wait until a start has succeeded or failed; return whether it succeeded."""
        while isinstance(self.state, Starting):
            await self._changed.wait()
        return isinstance(self.state, Ready)

    @property
    def change(self) -> anyio.Event:
        """Set when the state changes next; for each change there is another event."""
        return self._changed

    def replace(self, lease: Lease) -> None:
        """Start another child and let it take over, if this is the child that serves."""
        if isinstance(self.state, Ready) and self.state.lease is lease:
            self._recycle_due.set()

    async def reload(self) -> StartFailure | None:
        """Start another child now, whatever is waited for, and let it take over.

        A start that has begun is ended and begins again: it may have read the program before it
        was changed. If the start fails, a child that serves goes on.

        Returns:
            Why the start failed; None if the new child serves, or if the supervisor does not run or
            rests: the next start is of the changed program.
        """
        if not self._runs or isinstance(self.state, Resting):
            return None
        outcome: asyncio.Future[StartFailure | None] = asyncio.get_running_loop().create_future()
        self._reloads.append(outcome)
        self._recycle_due.set()
        self._again.set()
        if self._start is not None:
            self._start.cancel()
        return await outcome

    def retire(self) -> None:
        """Start no further child: the process is about to end."""
        self._retired.set()

    async def run(
        self,
        readiness: Readiness,
        prepare: Prepare | None = None,
        settle: Settle | None = None,
        cannot_start: CannotStart | None = None,
        first: FirstChild | None = None,
        *,
        rests: bool = False,
    ) -> None:
        """Keep a child running until the policy says to give up.

        Args:
            readiness: Blocked while no child is ready.
            prepare: Restores the state of sessions on a child that has had its handshake.
            settle: Applies the changes of a replaced child's last calls to the next child.
            cannot_start: Returns whether to give up if the first child ended by itself; None: no.
            first: The child that serves first; None: one is started.
            rests: Whether to start none before a client needs one.
        """
        self._readiness = readiness
        self._prepare, self._settle = prepare or _nothing, settle or _nothing_more
        self._runs = True
        try:
            await self._keep_running(cannot_start, first, rests=rests)
        finally:
            self._runs = False
            fault = self.state.fault if isinstance(self.state, Failed) else draining()
            self._reloaded(StartFailure(fault, self.last_report))

    async def _keep_running(
        self, cannot_start: CannotStart | None, first: FirstChild | None, *, rests: bool
    ) -> None:
        record = RestartRecord()
        while True:
            if rests:
                await self._until_wanted()
                if self._retired.is_set():
                    break
            life, first = await self._one_life(first), None
            self.start_failure = life.failed
            if self._retired.is_set():
                # The child ended because the process is about to end: not a failure to count.
                break
            rests = self._rest_due
            if rests:
                continue
            verdict = after_exit(
                self._policy,
                record,
                life.up_s,
                anyio.current_time(),
                was_ready=life.failed is None,
                charged=life.charged,
                final=cannot_start is not None and await self._is_final(life, cannot_start),
            )
            record = verdict.record
            if verdict.give_up:
                self._become(Failed(life.failed or child_exited(self._how(), "no")))
                self._readiness.block("given_up", _ends_of(record))
                self.gave_up.set()
                return
            # One that is away is tried for as long as it is; its pool has logged that it is.
            away = life.failed is not None and life.failed.reason == UNREACHABLE
            if verdict.waits and life.failed is not None and not away:
                await self._until_asked(life.failed)
            else:
                delay_s = random.uniform(0, verdict.max_delay_s)  # nosec B311 # spreads load
                with anyio.move_on_after(delay_s):
                    await self._again.wait()
            # The process may have begun to end during the delay.
            if self._retired.is_set():
                break
            self._log_restart(record.failures, life.failed, away=away)
            self._child_pool.starts_again()
            self._become(Starting())
        self._become(Failed(draining()))

    def _log_restart(self, failures: int, failed: Fault | None, *, away: bool) -> None:
        """Log why a child is started again: its start failed, or else it ended."""
        problem = (failed or child_exited(self._how(), "no")).message
        extra = {"failures": failures, "problem": problem}
        if away:
            log.debug("child.restarting", extra=extra)
        else:
            log.info("child.restarting", extra=extra)

    async def _until_wanted(self) -> None:
        """Rest until a client needs a child, or no child will be started any more."""
        self._rest_due, self._wanted = False, anyio.Event()
        # A client that comes is served: it waits for the start.
        self._readiness.unblock("child")
        self._become(Resting())
        self._reloaded(None)
        await _first_of(self._wanted, self._retired)
        self._become(Starting())

    async def _until_asked(self, fault: Fault) -> None:
        """Wait until a client or a reload asks for a start, or no child will be started."""
        self._wanted = anyio.Event()
        self._become(Held(fault))
        if not self._again.is_set():
            log.warning("child.start_held", extra={"problem": fault.message})
        await _first_of(self._wanted, self._again, self._retired)

    async def _is_final(self, life: _Life, cannot_start: CannotStart) -> bool:
        """Return whether no start has succeeded so far and none would."""
        report = self.last_report
        if self.start_s is not None or life.failed is None or report is None:
            return False
        if life.failed.reason not in _EXITED:
            return False
        # A connection has no exit status, and the server behind it may be back a moment later.
        return report.how.is_known and not report.asked and await cannot_start()

    async def _one_life(self, first: FirstChild | None) -> _Life:
        """Start a child and wait until it, and each that takes over from it, is gone."""
        began = anyio.current_time() - (first.start_s if first is not None else 0.0)
        try:
            lease = first.lease if first is not None else await self._started()
        except Unavailable as error:
            self._block(error.fault)
            return _Life(0.0, error.fault)
        ready_at = anyio.current_time()
        self._serve(lease, ready_at - began)
        while not lease.child.exited.is_set():
            await _first_of(lease.child.exited, self._recycle_due)
            if self._recycle_due.is_set():
                self._recycle_due = anyio.Event()
                if not self._rest_due:
                    lease = await self._succeed(lease)
        self.last_report = lease.child.report
        if not self._rest_due:
            self._readiness.block("child", "restarting")
            self._become(Starting())
        return _Life(anyio.current_time() - ready_at, charged=self._child_pool.charged(lease))

    async def _started(self) -> Lease:
        """Start a child and do its handshake; log from time to time what the start waits for.

        Raises:
            Unavailable: It could not be started; its process is gone.
        """
        notice = _StartNotice(self._policy.start_notice_s, self._awaits)
        try:
            while True:
                self._again = anyio.Event()
                lease = await self._spawned()
                with suppress(HarmedByProbeError), anyio.CancelScope() as self._start:
                    # Set if a reload was asked for while the process was made.
                    if not self._again.is_set():
                        await self._shake_hands(lease)
                        return lease
                # One after the other: two processes of a server may compete for a port or lock.
                lease.child.stop()
                await lease.child.exited.wait()
        except Unavailable as error:
            self._reloaded(StartFailure(error.fault, self.last_report))
            raise
        finally:
            self._start = None
            notice.end()

    async def _spawned(self) -> Lease:
        try:
            return await self._child_pool.shared()
        except Unavailable as error:
            if error.problem:
                self.last_report = ExitReport(Exit(), 0.0, (error.problem,), asked=False)
            raise

    async def _shake_hands(self, lease: Lease) -> None:
        """Do the handshake; if it fails, end the child and raise Unavailable once it is gone."""
        try:
            lease.introduced_as(await self._introduce(lease))
            await self._prepare(lease)
        except Unavailable as error:
            exited = error.fault.reason in _EXITED
            if not exited and not isinstance(self.state, Ready):
                # Before the child is stopped, which may take seconds: callers fail at once.
                self._block(error.fault)
            lease.child.stop()
            await lease.child.exited.wait()
            self.last_report = lease.child.report
            raise Unavailable(child_exited(self._how(), "no") if exited else error.fault) from error

    async def _succeed(self, before: Lease) -> Lease:
        """Let another child take over; return the one that serves from now on.

        If none can be started the old one goes on, and the next attempt comes after the longest
        back-off: a child that is due to be recycled is better than none.
        """
        began = anyio.current_time()
        lease = None
        if not self._retired.is_set() and not before.mux.lost:
            async with anyio.create_task_group() as tasks:
                # The old child may end before the next one is ready: from then on none serves.
                tasks.start_soon(self._lack_after, before)
                lease = await self._successor()
                if lease is not None:
                    # In the turn of the loop in which it is ready: no later call finds the old one.
                    self._serve(lease, anyio.current_time() - began)
                tasks.cancel_scope.cancel()
        if lease is None:
            with anyio.move_on_after(self._policy.max_delay_s):
                await _first_of(before.child.exited, self._again)
            return before
        settle = functools.partial(self._settle, before, lease)
        self._child_pool.retire(before, self._finish_s, settle)
        return lease

    async def _successor(self) -> Lease | None:
        try:
            lease = await self._started()
        except Unavailable as error:
            log.warning("child.replace_failed", extra={"reason": error.fault.reason})
            # Each reload that was asked for has its outcome: this start began after it.
            self._recycle_due = anyio.Event()
            return None
        return lease

    async def _lack_after(self, lease: Lease) -> None:
        await lease.child.exited.wait()
        if isinstance(self.state, Ready) and self.state.lease is lease:
            self._readiness.block("child", "restarting")

    def _serve(self, lease: Lease, start_s: float) -> None:
        assert lease.profile is not None
        self.start_s, self.start_failure = start_s, None
        self.profile = lease.profile
        # The health checker asks for the replacement at each look, also while this child started.
        self._recycle_due = anyio.Event()
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
        self._reloaded(None)

    def _reloaded(self, failure: StartFailure | None) -> None:
        """Give those who asked for a reload its outcome."""
        reloads, self._reloads = self._reloads, []
        for outcome in reloads:
            if not outcome.done():
                outcome.set_result(failure)

    def _block(self, fault: Fault) -> None:
        self._readiness.block("child", fault.reason)
        self._become(Failed(fault))

    def _become(self, state: State) -> None:
        self.state = state
        # Tasks that wait have the old event; later ones wait for the next change.
        self._changed.set()
        self._changed = anyio.Event()

    def _how(self) -> Exit | None:
        return self.last_report.how if self.last_report is not None else None


class _StartNotice:
    """A timer that logs from time to time what a start waits for, until `end` is called."""

    def __init__(self, every_s: float, awaits: str) -> None:
        self._every_s = every_s
        self._awaits = awaits
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer = self._loop.call_later(every_s, self._tell)

    def end(self) -> None:
        """Cancel the next log record."""
        self._timer.cancel()

    def _tell(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._tell)
        waited_s = round(self._loop.time() - self._began)
        extra = {"waited_s": waited_s, "for": f"the answer to {self._awaits}"}
        log.info("child.starting", extra=extra)


def _ends_of(record: RestartRecord) -> str:
    if record.failed_starts:
        return f"{record.failed_starts} failed starts in a row"
    return f"{len(record.ends)} ends within a minute"


async def _nothing(lease: Lease) -> None:
    """Do nothing: no `prepare` was given."""


async def _nothing_more(before: Lease, lease: Lease) -> None:
    """Do nothing: no `settle` was given."""


async def _first_of(*events: anyio.Event) -> None:
    async with anyio.create_task_group() as waiting:
        for event in events:
            waiting.start_soon(_leave_at, event, waiting.cancel_scope)


async def _leave_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
