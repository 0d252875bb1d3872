"""What is kept is counted as it comes and goes, whatever becomes of who keeps it."""

from __future__ import annotations

import gc

import pytest

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.rules.access.shares import Pressure
from mcpbridge.rules.event_log import Window
from mcpbridge.telemetry.metrics import Meters

pytestmark = pytest.mark.asyncio


async def test_a_stream_is_charged_until_its_bytes_are_gone() -> None:
    """Delivered, shed, taken back, cut, or dropped with the stream."""
    budget = Budget(1000)
    stream = Stream(Window(max_bytes=100), Meters(), charge=budget.charge)
    stream.append(b"x" * 60, sheddable=True)
    stream.append(b"x" * 50, sheddable=True)
    assert (budget.held, stream.log.size) == (50, 50), "the first one was shed"
    with stream.attach() as reader:
        await reader.read()
    assert budget.held == 0, "delivered"
    stream.log.discard(stream.append(b"x" * 10, sheddable=True))
    assert budget.held == 0, "taken back"
    stream.append(b"x" * 10, sheddable=False)
    stream.cut()
    assert (budget.held, stream.log.closed) == (0, True)
    dropped = Stream(Window(), Meters(), charge=budget.charge)
    dropped.append(b"x" * 10, sheddable=False)
    del dropped
    gc.collect()
    assert budget.held == 0, "dropped"


async def test_finished_streams_are_let_go_before_anything_is_refused() -> None:
    """They are kept only in case that their client asks again; an unfinished one stays."""
    budget = Budget(1000)
    store = ReplayStore(Window(), Meters(), lambda: 0.0, resumable=True, charge=budget.charge)
    for _ in range(2):
        store.begin(1).answer(b"x" * 400)
    open_stream = store.begin(1)
    open_stream.append(b"x" * 40, sheddable=True)
    await budget.pressed()
    assert (budget.pressure, budget.full, store.held) == (Pressure.SHED, False, 840)
    store.shed_finished()
    assert (budget.held, store.held, open_stream.log.size) == (40, 40, 40)
    assert budget.pressure is Pressure.NONE


async def test_new_work_is_taken_again_as_soon_as_enough_is_gone() -> None:
    """Nothing but the count decides."""
    budget = Budget(1000)
    budget.charge(876)
    assert (budget.full, budget.excess) == (True, 1)
    budget.charge(-1)
    assert (budget.full, budget.excess) == (False, 0)
