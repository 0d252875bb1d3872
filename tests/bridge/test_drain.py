"""The ordered end: which phase takes what, and what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.bridge.drain import Drain
from mcpbridge.rules.supervision.lifecycle import DrainEvent, DrainState
from tests.bridge.playbook import bounded, turns
from tests.support.proofs import proves


@pytest.mark.parametrize(
    ("events", "state", "accepts", "ending"),
    [
        ([], DrainState.SERVING, True, False),
        ([DrainEvent.SIGNAL], DrainState.LAME_DUCK, True, True),
        ([DrainEvent.SIGNAL, DrainEvent.LAME_DUCK_OVER], DrainState.DRAINING, False, True),
        ([DrainEvent.SIGNAL, DrainEvent.SIGNAL], DrainState.CUTOFF, False, True),
        (
            [DrainEvent.SIGNAL, DrainEvent.SIGNAL, DrainEvent.STOPPED],
            DrainState.ENDED,
            False,
            True,
        ),
    ],
)
def test_each_phase_takes_what_it_should(
    events: list[DrainEvent], state: DrainState, accepts: bool, ending: bool
) -> None:
    """New work up to the end of the lame duck, and a farewell from the first signal on."""
    drain = Drain()
    for event in events:
        drain.advance(event)
    assert (drain.state, drain.accepts_sessions, drain.ending) == (state, accepts, ending)


@proves("fault 96")
@bounded
async def test_it_is_idle_when_the_last_call_is_over() -> None:
    """However many there are, and again and again."""
    drain = Drain()
    await drain.until_idle()
    for _ in range(2):
        drain.call_started()
        drain.call_started()
        task = asyncio.create_task(drain.until_idle())
        drain.call_finished()
        await turns()
        assert (task.done(), drain.in_flight) == (False, 1)
        drain.call_finished()
        await task
    drain.call_started()
    task = asyncio.create_task(drain.until_idle())
    await turns()
    drain.call_finished()
    drain.call_started()
    await turns()
    assert not task.done(), "another call has begun meanwhile"
    drain.call_finished()
    await task


@proves("fault 97")
@bounded
async def test_a_further_signal_cuts_every_wait_short(caplog: pytest.LogCaptureFixture) -> None:
    """Each change of phase is one record."""
    caplog.set_level("INFO")
    drain = Drain()
    task = asyncio.create_task(drain.until_cutoff())
    for event in (DrainEvent.SIGNAL, DrainEvent.LAME_DUCK_OVER):
        drain.advance(event)
        await turns()
        assert not task.done()
    drain.advance(DrainEvent.SIGNAL)
    await task
    drain.advance(DrainEvent.SIGNAL)
    phases = [vars(record)["phase"] for record in caplog.records]
    assert phases == ["lame_duck", "draining", "cutoff"]
