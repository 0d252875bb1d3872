"""What becomes of requests for sessions that leave."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes import states
from mcpbridge.rules.homes.states import Arrival
from tests.support.replica_world import LOST


async def test_an_arrival_is_held_for_a_time_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its client is asked to come again."""
    leaving = LeavingSessions()
    await leaving.until_answered("m1")
    leaving.begin("m1")
    assert leaving.arrival("m1") is Arrival.HOLD
    waits = asyncio.ensure_future(leaving.until_answered("m1"))
    await asyncio.sleep(0)
    leaving.refused("m1")
    await waits
    monkeypatch.setattr("mcpbridge.replicas.leaving.HELD_S", 0.01)
    leaving.begin("m1")
    with pytest.raises(Unavailable, match="shutting down"):
        await leaving.until_answered("m1")
    leaving.accepted("m1", LOST)
    assert (leaving.arrival("m1"), leaving.moved_to("m1")) == (Arrival.FORWARD, LOST)
    assert states.HELD_S == 2.0
