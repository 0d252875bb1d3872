"""Whose call begins, and whose gives way, when `--max-calls` or nearly as many are in flight.

Only calls that wait for a child's turn are ended, so that none of them had an effect. But calls
that children work on may take all places for as long as `--request-timeout`; so a client that has
more than its share does not get the last ones.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.rules.access.shares import ranked, reserved, within_share
from mcpbridge.rules.faults import Fault, capacity, last_places

_COUNTED_S = 0.02
"""For how long a count of all calls is used: a flood of refused calls must not count them each."""


class CallShedder:
    """Ends calls of the heaviest clients for those of lighter ones."""

    def __init__(
        self,
        open_calls: Callable[[], Iterable[Exchange]],
        max_calls: int,
        clock: Callable[[], float],
        gave_way: Callable[[], None],
    ) -> None:
        """Make a shedder.

        Args:
            open_calls: Returns all calls in flight.
            max_calls: Most calls in flight, for the text of the fault.
            clock: Returns the event loop's time.
            gave_way: Called for each call that is ended.
        """
        self._open_calls = open_calls
        self._max_calls = max_calls
        self._clock = clock
        self._gave_way = gave_way
        self._counted_at = float("-inf")
        self._counts: collections.Counter[bytes] = collections.Counter()
        self._waiting: dict[bytes, list[Exchange]] = {}

    def shed(self, newcomer: bytes) -> bool:
        """End a waiting call of a client with more calls; return whether there was one.

        Args:
            newcomer: The client that has one more call, by its `Principal.share_key`.
        """
        self._count_again()
        # With the call that wants to begin: else two clients with as many calls would end each
        # other's in turns.
        counts = {**self._counts, newcomer: self._counts[newcomer] + 1}
        for holder in ranked(counts, newcomer):
            waiting = self._waiting.get(holder, [])
            while waiting and holder != newcomer:
                exchange = waiting.pop()
                # It may have had its turn, or its answer, since the calls were counted.
                if exchange.queued and exchange.reply is None:
                    self._counts[holder] -= 1
                    self._counts[newcomer] += 1
                    self._gave_way()
                    exchange.abandon(capacity("--max-calls", self._max_calls))
                    return True
        return False

    def over_share(self, newcomer: bytes) -> Fault | None:
        """Return the fault if a client may not take one of the last places; else count its call.

        Args:
            newcomer: The client, by its `Principal.share_key`.
        """
        self._count_again()
        if not within_share(self._counts, newcomer, self._max_calls):
            return last_places("--max-calls", self._max_calls, reserved(self._max_calls))
        # It may be asked many times before calls are counted again.
        self._counts[newcomer] += 1
        return None

    def _count_again(self) -> None:
        """Count all calls, if the last count is too old."""
        now = self._clock()
        if now - self._counted_at <= _COUNTED_S:
            return
        self._counted_at = now
        self._counts.clear()
        self._waiting = {}
        for exchange in self._open_calls():
            self._counts[exchange.caller] += 1
            if exchange.queued and exchange.reply is None:
                self._waiting.setdefault(exchange.caller, []).append(exchange)
