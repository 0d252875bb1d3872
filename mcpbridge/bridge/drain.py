"""The ordered end: what is in flight finishes, what is left is told, then all stops.

Source: `rules.supervision.lifecycle` has the phases and their order.
"""

from __future__ import annotations

import logging

import anyio

from mcpbridge.rules.supervision.lifecycle import DRAIN, DrainEvent, DrainState, step

log = logging.getLogger("mcpbridge.bridge")


class Drain:
    """The phase the process is in, and how many calls hold it up."""

    def __init__(self) -> None:
        self.state = DrainState.SERVING
        self._held = 0
        self._lasting = 0
        self._idle: anyio.Event | None = None
        """Made when somebody waits for it: an event takes longer than the rest of a `hold`."""
        self._cutoff = anyio.Event()

    @property
    def ending(self) -> bool:
        """The first signal has come."""
        return self.state is not DrainState.SERVING

    @property
    def accepts_sessions(self) -> bool:
        """New work is still taken."""
        return self.state in (DrainState.SERVING, DrainState.LAME_DUCK)

    @property
    def cut_off(self) -> bool:
        """Sessions are closed because the process ends, not because their clients are unknown."""
        return self.state in (DrainState.CUTOFF, DrainState.ENDED)

    @property
    def in_flight(self) -> int:
        """Calls in flight, and subscriptions."""
        return self._held

    @property
    def calls(self) -> int:
        """Calls in flight."""
        return self._held - self._lasting

    def call_started(self, *, lasting: bool = False) -> None:
        """A call is in flight, or a lasting subscription: the end waits, up to its deadline."""
        self._held += 1
        self._lasting += lasting

    def call_finished(self, *, lasting: bool = False) -> None:
        """That call is finished."""
        self._held -= 1
        self._lasting -= lasting
        if self._held == 0 and self._idle is not None:
            self._idle.set()

    def advance(self, event: DrainEvent) -> None:
        """Go on to the next phase."""
        before, self.state = self.state, step(DRAIN, self.state, event)
        if before is not self.state:
            extra = {"phase": self.state.value, "because": event.value, "calls": self._held}
            log.info("drain.phase_changed", extra=extra)
        if self.state is DrainState.CUTOFF:
            self._cutoff.set()

    async def until_idle(self) -> None:
        """Wait until no call is in flight."""
        while self._held:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    async def until_cutoff(self) -> None:
        """Wait until a further signal has cut the phases short."""
        await self._cutoff.wait()
