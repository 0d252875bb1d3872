"""Charges the end of a shared child to the client whose call it most likely was.

A child that ends while it works on calls was most likely ended by one of them. While other clients
are served, such an end does not count towards giving up, and from the second one on its client is
paused, each time for twice as long: it may not end the child as often as it likes.

If several clients had a call in flight, the end is charged to the one that has been charged most,
and else to the one whose call was sent last. A wrong guess is paused for a second, in which the
right one is alone with its next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

WINDOW_S = 600.0
"""For how long an end is held against its client."""
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 60.0
_MAX_CLIENTS = 1024
"""Most clients whose ends are kept; the one charged longest ago is forgotten."""


class CrashCharge(msgspec.Struct, frozen=True):
    """The charge for one end."""

    caller: bytes
    """The client, by its `Principal.share_key`."""
    crashes: int
    """How many ends it was charged with lately, this one included."""
    pause_s: float
    """For how long its calls are refused; 0: they are not."""


class CrashCharges:
    """The ends that each client was charged with, and the clients that are paused."""

    def __init__(self) -> None:
        self._ends: dict[bytes, tuple[float, ...]] = {}
        self.paused: dict[bytes, float] = {}
        """Until when each client is paused; those whose pause is over may still be here."""

    def charge(self, callers: Sequence[bytes], now: float) -> CrashCharge | None:
        """Charge an end; return None if no client had a call in flight.

        Args:
            callers: Whose calls the child had, in the order in which they were sent.
            now: The event loop's time.
        """
        suspects = [each for each in callers if each]
        if not suspects:
            return None
        ranks = [(len(self._recent(each, now)), n, each) for n, each in enumerate(suspects)]
        _, _, caller = max(ranks)
        ends = (*self._recent(caller, now), now)
        self._ends.pop(caller, None)
        self._ends[caller] = ends[-16:]
        if len(self._ends) > _MAX_CLIENTS:
            del self._ends[next(iter(self._ends))]
        pause_s = 0.0
        if len(ends) > 1:
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (len(ends) - 2))
            self.paused = {key: until for key, until in self.paused.items() if until > now}
            self.paused[caller] = now + pause_s
        return CrashCharge(caller, len(ends), pause_s)

    def pause_left_s(self, caller: bytes, now: float) -> float:
        """Return for how many seconds a client is still paused; 0 if it is not."""
        until = self.paused.get(caller)
        if until is None:
            return 0.0
        if until <= now:
            del self.paused[caller]
            return 0.0
        return until - now

    def _recent(self, caller: bytes, now: float) -> tuple[float, ...]:
        return tuple(end for end in self._ends.get(caller, ()) if now - end < WINDOW_S)
