"""The ordered end: calls in flight finish, calls that are left fail, then everything stops.

`rules.supervision.lifecycle` has the phases and their order.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from mcpbridge.rules.supervision.lifecycle import DRAIN, DrainEvent, DrainState, step
from mcpbridge.rules.supervision.shutdown_times import ShutdownTimes

log = logging.getLogger("mcpbridge.bridge")


_ACCEPTING = (DrainState.SERVING, DrainState.LAME_DUCK)
"""Read once: with CPython 3.11 the class of an enum looks its members up by a slow path."""
_LAST_BYTES_S = 2.0
"""Seconds that clients have to take their last bytes, from the moment when these are written."""


class DrainSteps(msgspec.Struct, frozen=True):
    """The actions at the beginning of each phase, called once and in this order."""

    refuse_traffic: Callable[[], None]
    """LAME_DUCK: the readiness probe fails, while everything is still served."""
    end_idle_streams: Callable[[], None]
    """DRAINING: streams that only listen end, so that their clients connect elsewhere."""
    cut_off: Callable[[float], Awaitable[None]]
    """CUTOFF: calls that are left get an error, streams end, children are stopped. Called with the
    seconds of each step of stopping a child."""
    stop_serving: Callable[[float], None]
    """ENDED: the HTTP servers end, last since they wait for streams. Called with the seconds that
    clients have to take their last bytes."""


class Drain:
    """The phase of the process, and the number of calls that delay the next one."""

    def __init__(self) -> None:
        self.state = DrainState.SERVING
        self.calls = 0
        """Number of calls in flight; every call reads it, and a property would be a call more."""
        self._lasting = 0
        self._postponed = 0
        self._idle: anyio.Event | None = None
        """Made when a task waits for it: making it costs more than counting a call."""
        self._cutoff = anyio.Event()

    @property
    def ending(self) -> bool:
        """Whether a signal to end has come."""
        return self.state is not DrainState.SERVING

    @property
    def accepts_sessions(self) -> bool:
        """Whether new sessions and calls are still accepted."""
        return self.state in _ACCEPTING

    @property
    def cut_off(self) -> bool:
        """Whether the cutoff has closed all sessions, so that an unknown id may be one of them."""
        return self.state in (DrainState.CUTOFF, DrainState.ENDED)

    @property
    def in_flight(self) -> int:
        """Number of calls in flight and open subscriptions."""
        return self.calls + self._lasting

    def call_started(self, *, lasting: bool = False) -> None:
        """Count a call, or a subscription if `lasting`; the drain waits for both."""
        if lasting:
            self._lasting += 1
        else:
            self.calls += 1

    def call_finished(self, *, lasting: bool = False) -> None:
        """Count a call or subscription as finished."""
        if lasting:
            self._lasting -= 1
        else:
            self.calls -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    def postpone(self) -> None:
        """Let the cutoff wait for something other than calls, until `resume` or the deadline."""
        self._postponed += 1

    def resume(self) -> None:
        """Take back one `postpone`."""
        self._postponed -= 1
        if not self._postponed and self._idle is not None:
            self._idle.set()

    async def run(self, steps: DrainSteps, times: ShutdownTimes, *, lame_duck_s: float) -> bool:
        """Go through the phases of the end until nothing is left to do.

        Args:
            steps: The actions at the beginning of each phase.
            times: The deadlines, from now on.
            lame_duck_s: Seconds in which new sessions are still accepted; less than until the
                cutoff.

        Returns:
            Whether calls were in flight at the cutoff.
        """
        began_at = anyio.current_time()
        steps.refuse_traffic()
        self.advance(DrainEvent.SIGNAL)
        # One deadline around both waits: a long lame duck leaves less time for calls, and the end
        # comes no later for it.
        with anyio.move_on_after(times.cutoff_s):
            with anyio.move_on_after(lame_duck_s):
                await self.until_cutoff()
            if self.state is DrainState.LAME_DUCK:
                self.advance(DrainEvent.LAME_DUCK_OVER)
                steps.end_idle_streams()
                await self._until_idle_or_cutoff()
        if self.state is DrainState.LAME_DUCK:
            # The cutoff came before the loop had a turn for the end of the lame duck.
            self.advance(DrainEvent.LAME_DUCK_OVER)
            steps.end_idle_streams()
        if self.state is DrainState.DRAINING:
            left = self.in_flight or self._postponed
            self.advance(DrainEvent.DEADLINE if left else DrainEvent.IDLE)
        cut_at, calls_left = anyio.current_time(), self.in_flight > 0
        await steps.cut_off(times.step_s(cut_at - began_at))
        self.advance(DrainEvent.STOPPED)
        # The time that stopping children took since the cutoff counts toward the last bytes.
        steps.stop_serving(max(0.0, _LAST_BYTES_S - (anyio.current_time() - cut_at)))
        return calls_left

    def cut_short(self) -> None:
        """Go to the cutoff now: a further signal has come."""
        if self.state is not DrainState.ENDED:
            self.advance(DrainEvent.SIGNAL)

    def advance(self, event: DrainEvent) -> None:
        """Go on to the phase that follows this event; log it if it is another."""
        before, self.state = self.state, step(DRAIN, self.state, event)
        if before is not self.state:
            extra = {"phase": self.state.value, "because": event.value, "calls": self.in_flight}
            log.info("drain.phase_changed", extra=extra)
        if self.state is DrainState.CUTOFF:
            self._cutoff.set()

    async def until_idle(self) -> None:
        """Wait until no call is in flight, no subscription is open, and nothing postpones."""
        while self.in_flight or self._postponed:
            # A new event for each wait: the last one was set when no call was in flight, and one
            # may have begun since.
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    async def until_cutoff(self) -> None:
        """Wait until a further signal has cut the phases short."""
        await self._cutoff.wait()

    async def _until_idle_or_cutoff(self) -> None:
        async with anyio.create_task_group() as either:
            either.start_soon(self._leave_at_cutoff, either.cancel_scope)
            await self.until_idle()
            either.cancel_scope.cancel()

    async def _leave_at_cutoff(self, scope: anyio.CancelScope) -> None:
        await self.until_cutoff()
        scope.cancel()
