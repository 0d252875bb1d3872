"""A circuit breaker: what keeps failing is not asked by each request.

Without it each request for a lost session would wait 250 ms for a store that is away. While the
breaker is open all of them fail at once; after a pause one may try, and the pause grows while
attempts fail. The heartbeat asks every 5 s, so that a store that comes back is found soon.
"""

from __future__ import annotations

OPENS_AFTER = 3
"""Failures in a row that open it."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0


class CircuitBreaker:
    """A breaker for one server; times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at: float | None = None
        """When the next attempt may be made; None while it is closed."""

    @property
    def open(self) -> bool:
        """Whether attempts are refused, apart from one now and then."""
        return self._retry_at is not None

    def admits(self, now: float) -> bool:
        """Return whether an attempt may be made; one after each pause, if it is open."""
        if self._retry_at is None:
            return True
        if now < self._retry_at:
            return False
        # Others wait for the outcome of this one.
        self._retry_at = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """Close it."""
        self._failures, self._retry_at = 0, None

    def failed(self, now: float) -> None:
        """Count a failure; open it after `OPENS_AFTER` in a row."""
        self._failures += 1
        if self._failures >= OPENS_AFTER:
            self._retry_at = now + self._pause_s

    @property
    def _pause_s(self) -> float:
        grown = FIRST_PAUSE_S * 2.0 ** min(10, self._failures - OPENS_AFTER)
        return min(grown, LONGEST_PAUSE_S)
