"""Keeps the shared child running: starts it, shakes hands, watches, backs off, gives up.

It stands here and not with the processes because a child counts as up only after its handshake,
and that takes a mux.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from mcpbridge.bridge.gate import Gate
from mcpbridge.bridge.placement import Lease, Placement
from mcpbridge.errors import Unavailable
from mcpbridge.process.child import ExitReport
from mcpbridge.rules.faults import Exit, Fault, child_exited, draining
from mcpbridge.rules.profile import Profile
from mcpbridge.rules.restart import Record, RestartPolicy, after_exit

log = logging.getLogger("mcpbridge.bridge")


class Starting(msgspec.Struct, frozen=True):
    """A child will be there soon; whoever needs it waits."""


class Ready(msgspec.Struct, frozen=True):
    """A child is there and has had its handshake."""

    lease: Lease


class Failed(msgspec.Struct, frozen=True):
    """The last start failed; whoever needs a child now is told so at once."""

    fault: Fault


State = Starting | Ready | Failed
Introduce = Callable[[Lease], Awaitable[Profile]]


class Supervisor:
    """Keeps one handshaken child running for all sessions that share it."""

    def __init__(
        self,
        placement: Placement,
        policy: RestartPolicy,
        introduce: Introduce,
    ) -> None:
        """Make a supervisor.

        Args:
            placement: Starts children.
            policy: When to start again, and when to give up.
            introduce: Asks a fresh child what it is; it is up when that has an answer.
        """
        self._placement = placement
        self._gate = Gate()
        self._policy = policy
        self._introduce = introduce
        self._changed = anyio.Event()
        self._retired = anyio.Event()
        self.state: State = Starting()
        self.prepare: Callable[[Lease], Awaitable[None]] = _nothing
        """Tells a child that has been introduced what else it must know before it serves."""
        self.gave_up = anyio.Event()
        """No further start will be tried; `last_report` says how the last child ended."""
        self.last_report: ExitReport | None = None
        self.start_s: float | None = None
        """How long the last successful start took, handshake included."""

    async def lease(self) -> Lease:
        """The child, as soon as it is ready.

        Raises:
            Unavailable: It cannot be started at present.
        """
        while True:
            match self.state:
                case Ready(lease) if not lease.mux.lost:
                    return lease
                case Failed(fault):
                    raise Unavailable(fault)
            await self._changed.wait()

    async def settled(self) -> bool:
        """Wait until a start has succeeded or failed; whether it succeeded."""
        while isinstance(self.state, Starting):
            await self._changed.wait()
        return isinstance(self.state, Ready)

    def retire(self) -> None:
        """All ends: the child that is there is the last one."""
        self._retired.set()

    async def run(self, gate: Gate) -> None:
        """Keep a child running until the policy says to give up.

        Args:
            gate: Learns whether there is one.
        """
        self._gate = gate
        record = Record()
        while True:
            up_s = await self._one_life()
            if self._retired.is_set():
                # It ended because all ends: no failure to count.
                break
            verdict = after_exit(self._policy, record, up_s, anyio.current_time())
            record = verdict.record
            if verdict.give_up:
                self._become(Failed(child_exited(self._how(), "no")))
                self._gate.lack("given_up", f"{len(record.ends)} ends within a minute")
                self.gave_up.set()
                return
            await anyio.sleep(random.uniform(0, verdict.max_delay_s))
            if self._retired.is_set():
                break
            log.info("child.start_again", extra={"failures": record.failures})
            self._become(Starting())
        self._become(Failed(draining()))

    async def _one_life(self) -> float:
        """Start a child and stay until it is gone; returns how long it was ready, in seconds."""
        began = anyio.current_time()
        try:
            lease = await self._placement.shared()
        except Unavailable as error:
            self._lack(error.fault)
            return 0.0
        try:
            lease.profile = await self._introduce(lease)
            await self.prepare(lease)
        except Unavailable as error:
            exited = error.fault.reason == "child_exited"
            if not exited:
                # Told before the child has ended, which may take it both rungs of the ladder.
                self._lack(error.fault)
            lease.child.stop()
            await lease.child.exited.wait()
            self.last_report = lease.child.report
            if exited:
                self._lack(child_exited(self._how(), "no"))
            return 0.0
        ready_at = anyio.current_time()
        self.start_s = ready_at - began
        self._gate.satisfy("child")
        self._become(Ready(lease))
        extra = {
            "pid": lease.child.pid,
            "server": lease.profile.name,
            "revision": lease.profile.revision.date,
            "start_s": round(self.start_s, 3),
        }
        log.info("child.ready", extra=extra)
        await lease.child.exited.wait()
        self.last_report = lease.child.report
        self._gate.lack("child", "restarting")
        self._become(Starting())
        return anyio.current_time() - ready_at

    def _lack(self, fault: Fault) -> None:
        self._gate.lack("child", fault.reason)
        self._become(Failed(fault))

    def _become(self, state: State) -> None:
        self.state = state
        self._changed.set()
        self._changed = anyio.Event()

    def _how(self) -> Exit | None:
        return self.last_report.how if self.last_report is not None else None


async def _nothing(lease: Lease) -> None:
    """There is nothing more to tell."""
