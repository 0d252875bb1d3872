"""Checks all children at intervals: which are due to be recycled, and which do not answer.

One timer serves all children, without a task for each: a ping is sent like any request, and the
next look sees whether output came since. `rules.supervision.liveness` has the decisions.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import anyio
from anyio import to_thread

from mcpbridge import __version__
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import CallEvent
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.errors import ChannelClosed
from mcpbridge.process.linux import group_is_stopped
from mcpbridge.process.memory import footprint
from mcpbridge.rules.faults import Fault, child_stalled
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.rules.mcp.era_probe import own_envelope
from mcpbridge.rules.mcp.methods import DISCOVER, PING
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.rules.mcp.revisions import MODERN
from mcpbridge.rules.supervision.liveness import (
    ChildHealth,
    Finding,
    RecyclePolicy,
    Sample,
    begin,
    is_quiet,
    look,
)
from mcpbridge.wire.messages import Request

log = logging.getLogger("mcpbridge.bridge")


class HealthChecker:
    """A checker of the children of one bridge; owned by it."""

    def __init__(self, policy: RecyclePolicy) -> None:
        """Make a checker; it must be an observer of the pool whose children it checks.

        Args:
            policy: The limits that children are judged by.
        """
        self._policy = policy
        self._due = anyio.Event()
        self._watched: dict[Lease, _Watched] = {}

    async def run(self, replace: Callable[[Lease], None]) -> None:
        """Look at all children until cancelled.

        Args:
            replace: Called for a child that is due to be recycled, at each look until it is gone.
        """
        while True:
            with anyio.move_on_after(self._policy.look_every_s):
                await self._due.wait()
            # Made before the looks: a limit that is reached during them is looked at next.
            self._due = anyio.Event()
            for lease in [each for each in self._watched if each.child.exited.is_set()]:
                del self._watched[lease]
            # A copy: a look waits for a thread, and a child may be started in that time.
            for lease, watched in list(self._watched.items()):
                if await self._look(lease, watched):
                    replace(lease)

    def child_started(self, lease: Lease) -> None:
        """Check this child from now on: see `ChildObserver`."""
        now = anyio.current_time()
        jitter = random.uniform(-1, 1)  # nosec B311 # spreads load, hides nothing
        self._watched[lease] = _Watched(begin(now, jitter))

    def request_limit_reached(self) -> None:
        """Look at once: see `ChildObserver`."""
        self._due.set()

    async def _look(self, lease: Lease, watched: _Watched) -> bool:
        """Look at one child; return whether another one should take over from it."""
        if lease.mux.lost or lease.mux.shut:
            return False
        stopped, rss_bytes = await self._look_closely(lease, watched.child_health)
        mux = lease.mux
        sample = Sample(
            heard=mux.heard,
            taken=mux.channel.taken,
            congested=mux.channel.congested,
            requests=mux.requests,
            calls=mux.calls,
            timeouts=mux.timeouts,
            introduced=lease.profile is not None,
            answers_pings=watched.ping_sink.answers,
            stopped=stopped,
            rss_bytes=rss_bytes,
        )
        now = anyio.current_time()
        finding = watched.judge(self._policy, sample, now)
        if finding is Finding.ASK:
            watched.ask(lease)
        elif finding.lost:
            self._give_up(lease, finding)
        elif finding.recycle_due and not lease.recycle_due:
            lease.recycle()
            log.info("child.recycling", extra={"pid": lease.child.pid, "by": finding.value})
        return finding.recycle_due

    async def _look_closely(self, lease: Lease, child_health: ChildHealth) -> tuple[bool, int]:
        """Return whether the process group is stopped, and its bytes of memory; 0 if unmeasured."""
        policy, pid = self._policy, lease.child.pid
        quiet = policy.ping_interval_s and is_quiet(
            policy, child_health, lease.mux.heard, anyio.current_time()
        )
        stopped, rss_bytes = False, 0
        if pid and quiet and lease.profile is not None:
            # A process that a signal has stopped (SIGSTOP, a debugger) is not at fault if it does
            # not answer.
            stopped = await to_thread.run_sync(group_is_stopped, pid)
        if pid and policy.max_rss_bytes:
            # In a thread: it reads a file for each process of the machine, which may take long.
            memory = await to_thread.run_sync(footprint, pid)
            rss_bytes = memory.bytes if memory is not None else 0
        return stopped, rss_bytes

    def _give_up(self, lease: Lease, finding: Finding) -> None:
        extra = {"pid": lease.child.pid, "by": finding.value, "calls": lease.mux.calls}
        log.warning("child.stalled", extra=extra)
        # Before the kill: otherwise the calls would be told that the process ended, not that it
        # hung.
        lease.mux.fail_all(self._fault(finding))
        lease.child.kill()

    def _fault(self, finding: Finding) -> Fault:
        policy = self._policy
        match finding:
            case Finding.UNREAD:
                return child_stalled(f"--child-stall-timeout {policy.stall_timeout_s:g} s")
            case Finding.TIMEOUTS:
                return child_stalled(f"--child-max-timeouts {policy.max_timeouts}")
            case _:
                return child_stalled(f"--ping-timeout {policy.ping_timeout_s:g} s")


class _Watched:
    """A child's state between two looks."""

    def __init__(self, child_health: ChildHealth) -> None:
        self.child_health = child_health
        self.ping_sink = _PingSink(None)
        self._number: int | None = None

    def judge(self, policy: RecyclePolicy, sample: Sample, now: float) -> Finding:
        """Return the finding on the child, by a sample taken now."""
        self.child_health, finding = look(policy, self.child_health, sample, now)
        return finding

    def ask(self, lease: Lease) -> None:
        """Send a ping to a child; the answer to the ping before is not waited for any more."""
        if self._number is not None:
            lease.mux.forget(self._number)
        assert lease.profile is not None
        if lease.profile.revision in MODERN:
            request = Request(b"0", DISCOVER, own_envelope(SUPPORTED[0], __version__))
        else:
            request = Request(b"0", PING, None)
        self.ping_sink = _PingSink(lease.mux, answers=self.ping_sink.answers)
        try:
            self._number = lease.mux.request_aside(request, self.ping_sink)
        except ChannelClosed:
            self._number = None


class _PingSink:
    """A sink for the answer to one ping."""

    lasting = True
    """It does not count as a call, so that it does not delay the replacement of a child."""
    caller = b""
    asker = None

    def __init__(self, mux: Mux | None, *, answers: bool = False) -> None:
        self._mux = mux
        self.answers = answers
        """Whether the child has answered a ping, be it with an error."""
        self._before = mux.silence() if mux is not None else None
        """What was known of the child's silence when the ping was sent."""

    def receive(self, event: CallEvent) -> None:
        """Take an answer, even an error, as a sign of life."""
        if isinstance(event, Answered):
            self.answers = True
            if self._mux is not None and self._before is not None:
                # The mux has set its count to 0. A server may answer pings and no calls: undo it.
                self._mux.was_no_sign(self._before)
