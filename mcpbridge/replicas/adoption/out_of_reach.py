"""How long homes that may live have been out of reach: that decides when they are replaced."""

from __future__ import annotations

from collections.abc import Callable

from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.homes.adoption import HELD_BACK_S
from mcpbridge.rules.homes.owner import OwnerVerdict

_MOST_HOMES = 4096


class HomesOutOfReach:
    """The homes that one replica could not reach lately, and that may live."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with none; `clock` returns monotonic seconds."""
        self._clock = clock
        self._unknown: dict[Replica, tuple[float, float]] = {}
        """When each home that may live was first and last found out of reach."""

    def __bool__(self) -> bool:
        """Return whether a home was out of reach lately: see `answered`."""
        return bool(self._unknown)

    def answered(self, home: Replica) -> None:
        """Take note of a home that answers: it is not out of reach."""
        self._unknown.pop(home, None)

    def seconds(self, home: Replica, verdict: OwnerVerdict) -> float:
        """Return for how many seconds a home has been out of reach, and may live."""
        if verdict is not OwnerVerdict.UNKNOWN:
            self._unknown.pop(home, None)
            return 0.0
        now = self._clock()
        since, last = self._unknown.get(home, (now, now))
        if now - last > HELD_BACK_S:
            # No client has asked in between, so it may have been within reach.
            since = now
        if len(self._unknown) >= _MOST_HOMES:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[home] = since, now
        return now - since
