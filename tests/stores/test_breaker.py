"""The circuit breaker before a store."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.stores.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, OPENS_AFTER, CircuitBreaker


def test_it_opens_after_failures_in_a_row_and_lets_one_try() -> None:
    """An answer in between begins the row again; a success closes it."""
    breaker = CircuitBreaker()
    for _ in range(OPENS_AFTER - 1):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(OPENS_AFTER - 1):
        breaker.failed(0.0)
        assert breaker.admits(0.0)
    breaker.failed(0.0)
    assert breaker.open
    assert not breaker.admits(FIRST_PAUSE_S - 0.01)
    assert breaker.admits(FIRST_PAUSE_S)
    assert not breaker.admits(FIRST_PAUSE_S)
    breaker.succeeded()
    assert breaker.admits(FIRST_PAUSE_S)


@given(st.integers(OPENS_AFTER, 5000))
def test_the_pause_grows_to_its_limit(failures: int) -> None:
    """So a store that is back is found within it."""
    breaker = CircuitBreaker()
    for _ in range(failures):
        breaker.failed(100.0)
    assert not breaker.admits(100.0)
    assert breaker.admits(100.0 + LONGEST_PAUSE_S)
    if failures > OPENS_AFTER + 3:
        assert not CircuitBreaker.admits(breaker, 100.0 + LONGEST_PAUSE_S)
