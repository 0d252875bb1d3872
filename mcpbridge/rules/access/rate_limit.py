"""Limits the rate of one principal: one token bucket each, filled at a steady rate.

A bucket holds `burst` tokens and gains `per_s` of them each second. A message takes one; a batch
takes one for each member and may leave the bucket in debt, since no batch fits into a small one.
A full bucket is equivalent to none, so full ones are forgotten: there are never more buckets than
principals that have sent something lately.

Source: RFC 6585, 4 (429); RFC 9110, 10.2.3 (Retry-After).
"""

from __future__ import annotations

import re

import msgspec

_RATE = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/([smh])(?::([0-9]{1,9}))?\Z"
_PERIOD_S = {"s": 1, "m": 60, "h": 3600}
_MIN_BURST = 10
"""A client that connects sends five messages before its first call."""
_PRUNE_AT = 1024
"""Number of buckets from which full ones are looked for and removed."""


class RateLimit(msgspec.Struct, frozen=True):
    """The rate at which one principal may send messages, and the burst that it may send at once."""

    per_s: float
    burst: int
    text: str
    """The text it was parsed from."""

    def __str__(self) -> str:
        return self.text


def rate_limit(text: str) -> RateLimit:
    """Parse `20/s` or `600/m:50`: messages per second, minute or hour, and the burst.

    The default burst is one second's worth, and at least 10.

    Raises:
        ValueError: Not a rate; the text completes a sentence that begins with the value.
    """
    match = re.match(_RATE, text)
    if match is None:
        raise ValueError("is not a rate; write 20/s or 600/m:50")
    per_s = float(match[1]) / _PERIOD_S[match[2]]
    burst = int(match[3]) if match[3] is not None else max(_MIN_BURST, int(per_s))
    if per_s <= 0 or burst < 1:
        raise ValueError("is not a rate: no message would ever be served")
    return RateLimit(per_s, burst, text)


class _Bucket(msgspec.Struct, frozen=True):
    level: float
    at: float


class Buckets:
    """The buckets of all principals, by their quota keys."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._buckets: dict[bytes, _Bucket] = {}
        self._prune_at = _PRUNE_AT

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: bytes, count: int, now: float) -> float:
        """Take `count` tokens.

        Returns:
            0, or the number of seconds until there is a token; then none was taken.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            self._prune(now)
            bucket = _Bucket(self.limit.burst, now)
        level = self._level(bucket, now)
        taken = count if level >= 1 else 0
        self._buckets[key] = _Bucket(level - taken, now)
        return 0.0 if taken else (1 - level) / self.limit.per_s

    def _level(self, bucket: _Bucket, now: float) -> float:
        return min(self.limit.burst, bucket.level + (now - bucket.at) * self.limit.per_s)

    def _prune(self, now: float) -> None:
        if len(self._buckets) < self._prune_at:
            return
        full = self.limit.burst
        self._buckets = {
            key: bucket for key, bucket in self._buckets.items() if self._level(bucket, now) < full
        }
        self._prune_at = max(_PRUNE_AT, 2 * len(self._buckets))
