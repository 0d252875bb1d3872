"""How much one principal may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.access.rate_limit import Buckets, RateLimit, rate_limit
from tests.support.proofs import proves


@pytest.mark.parametrize(
    ("text", "per_s", "burst"),
    [
        ("20/s", 20, 20),
        ("1/s", 1, 10),
        ("600/m:50", 10, 50),
        ("36/h", 0.01, 10),
        ("0.5/s:1", 0.5, 1),
        ("5000/s", 5000, 5000),
    ],
)
def test_a_rate_is_a_number_for_a_time_and_perhaps_a_burst(
    text: str, per_s: float, burst: int
) -> None:
    """Without a burst it is one second's worth, and enough for a client that connects."""
    limit = rate_limit(text)
    assert (limit.per_s, limit.burst, str(limit)) == (per_s, burst, text)


@pytest.mark.parametrize(
    "text", ["", "20", "0/s", "20/d", "-1/s", "20/s:0", "20/s:", "1_0/s", "٣/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    """A rate that would never let anything through is not one either."""
    with pytest.raises(ValueError, match="is not a rate"):
        rate_limit(text)


def test_a_bucket_is_emptied_and_fills_again() -> None:
    """As many as the burst at once, then one each time there is a whole one; told how long."""
    buckets = Buckets(RateLimit(2.0, 3, ""))
    assert [buckets.take(b"a", 1, 10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take(b"a", 1, 10.25) == 0.25
    assert buckets.take(b"a", 1, 10.5) == 0


def test_a_bucket_holds_no_more_than_the_burst() -> None:
    """A client that was quiet for an hour cannot ask for an hour's worth at once."""
    buckets = Buckets(RateLimit(2.0, 3, ""))
    assert buckets.take(b"a", 1, 0.0) == 0
    assert [buckets.take(b"a", 1, 3600.0) for _ in range(4)] == [0, 0, 0, 0.5]


@proves("fault 84")
def test_nobody_pays_for_another() -> None:
    """One empty bucket says nothing of the next."""
    buckets = Buckets(RateLimit(1.0, 1, ""))
    assert buckets.take(b"a", 1, 0.0) == 0
    assert buckets.take(b"a", 1, 0.0) == 1
    assert buckets.take(b"b", 1, 0.0) == 0


def test_a_batch_may_leave_a_bucket_in_debt() -> None:
    """It is served whole, and paid for by waiting longer."""
    buckets = Buckets(RateLimit(1.0, 2, ""))
    assert buckets.take(b"a", 10, 0.0) == 0
    assert buckets.take(b"a", 1, 0.0) == 9
    assert buckets.take(b"a", 1, 8.0) == 1
    assert buckets.take(b"a", 1, 9.0) == 0


def test_full_buckets_are_forgotten() -> None:
    """There are never many more than principals that asked for something lately."""
    buckets = Buckets(RateLimit(1.0, 1, ""))
    for number in range(5000):
        buckets.take(b"%d" % number, 1, float(number))
    assert len(buckets) <= 1024


@given(
    st.floats(0.1, 100),
    st.integers(1, 20),
    st.lists(st.floats(0, 5), min_size=1, max_size=50),
)
def test_the_rate_is_never_exceeded(per_s: float, burst: int, pauses: list[float]) -> None:
    """In any stretch of time as many pass as the burst and the rate allow, and no more."""
    buckets, now, passed = Buckets(RateLimit(per_s, burst, "")), 0.0, 0
    for pause in pauses:
        now += pause
        passed += buckets.take(b"a", 1, now) == 0
    assert passed <= burst + now * per_s + 1e-6
