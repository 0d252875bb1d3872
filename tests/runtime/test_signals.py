"""Which signals are one order to end, and which are another."""

from __future__ import annotations

import pytest

from mcpbridge.runtime.signals import ONE_ORDER_S, EndOrders
from tests.support.proofs import proves


@proves("fault 97")
@pytest.mark.parametrize(
    ("times", "orders"),
    [
        ([7.0], [1]),
        ([7.0, 7.0], [1, None]),
        ([7.0, 7.499, 7.5], [1, None, 2]),
        ([7.0, 7.3, 7.6, 7.9, 8.2], [1, None, 2, None, 3]),
        ([7.0, 9.0, 11.0], [1, 2, 3]),
        # A machine that has just started: the clock is near 0.
        ([0.1, 0.2], [1, None]),
    ],
)
def test_signals_within_half_a_second_are_one_order(
    times: list[float], orders: list[int | None]
) -> None:
    """Measured from the signal that was counted, so that a stream of signals is several."""
    assert ONE_ORDER_S == 0.5
    moments = iter(times)
    counter = EndOrders(clock=lambda: next(moments))
    assert [counter.received() for _ in times] == orders
    assert counter.count == max(order for order in orders if order)
