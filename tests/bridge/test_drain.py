"""The ordered end: which phase takes what, and what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.bridge.drain import Drain, DrainSteps
from mcpbridge.rules.supervision.lifecycle import DrainEvent, DrainState
from mcpbridge.rules.supervision.shutdown_times import ShutdownTimes, times_within
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
    assert not task.done(), "another call has begun"
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


class Steps:
    """Writes down which steps were taken, and in which phase."""

    def __init__(self, drain: Drain) -> None:
        self.drain = drain
        self.taken: list[tuple[str, DrainState]] = []
        self.step_s = 0.0

    def take(self, name: str) -> None:
        """Note a step."""
        self.taken.append((name, self.drain.state))

    async def cut_off(self, step_s: float) -> None:
        """The step that waits for children."""
        self.take("cut_off")
        self.step_s = step_s

    def all(self) -> DrainSteps:
        """As `Drain.run` takes them."""
        return DrainSteps(
            lambda: self.take("refuse_traffic"),
            lambda: self.take("end_idle_streams"),
            self.cut_off,
            lambda last_bytes_s: self.take("stop_serving"),
        )


ALL_STEPS = [
    ("refuse_traffic", DrainState.SERVING),
    ("end_idle_streams", DrainState.DRAINING),
    ("cut_off", DrainState.CUTOFF),
    ("stop_serving", DrainState.ENDED),
]


@bounded
async def test_the_cutoff_waits_for_what_postpones_it() -> None:
    """Also if the last call ends before; at the deadline it comes all the same."""
    drain = Drain()
    steps = Steps(drain)
    drain.postpone()
    drain.call_started()
    task = asyncio.create_task(drain.run(steps.all(), times_within(60), lame_duck_s=0))
    await turns()
    drain.call_finished()
    await turns()
    assert (drain.state, drain.in_flight) == (DrainState.DRAINING, 0)
    drain.resume()
    assert await task is False
    assert steps.taken == ALL_STEPS
    drain, steps = Drain(), Steps(Drain())
    drain.postpone()
    times = ShutdownTimes(cutoff_s=0.01, children_s=4.01, longest_step_s=5.0)
    assert await drain.run(steps.all(), times, lame_duck_s=0) is False


@proves("fault 96")
@bounded
async def test_every_step_is_taken_once_and_in_order() -> None:
    """Readiness before all else; servers last, since they wait for streams."""
    drain = Drain()
    steps = Steps(drain)
    drain.call_started()
    task = asyncio.create_task(drain.run(steps.all(), times_within(60), lame_duck_s=0))
    await turns()
    assert (steps.taken, drain.state) == (ALL_STEPS[:2], DrainState.DRAINING)
    drain.call_finished()
    assert await task is False
    assert steps.taken == ALL_STEPS
    assert steps.step_s == 5.0, "the calls did not need their time"


@bounded
async def test_calls_that_are_left_at_the_deadline_are_cut_off() -> None:
    """And the caller of it learns that there were some."""
    drain = Drain()
    steps = Steps(drain)
    drain.call_started()
    times = ShutdownTimes(cutoff_s=0.01, children_s=4.01, longest_step_s=5.0)
    assert await drain.run(steps.all(), times, lame_duck_s=0) is True
    assert steps.taken == ALL_STEPS
    assert steps.step_s <= 2.0, "what the calls have left"


@proves("fault 97")
@bounded
async def test_a_signal_in_the_lame_duck_phase_goes_to_the_cutoff() -> None:
    """Streams end with everything else; a signal after the end changes nothing."""
    drain = Drain()
    steps = Steps(drain)
    task = asyncio.create_task(drain.run(steps.all(), times_within(120), lame_duck_s=50))
    await turns()
    drain.cut_short()
    assert await task is False
    assert [name for name, _ in steps.taken] == ["refuse_traffic", "cut_off", "stop_serving"]
    drain.cut_short()
    assert drain.state is DrainState.ENDED


@bounded
async def test_without_any_time_every_phase_still_comes_in_its_order() -> None:
    """The deadline may pass before the loop has a turn for the phases in between."""
    drain, told = Drain(), []

    async def cut_off(step_s: float) -> None:
        told.append("cut off")

    steps = DrainSteps(
        lambda: told.append("refuse"),
        lambda: told.append("end streams"),
        cut_off,
        lambda last_bytes_s: told.append("stop"),
    )
    drain.call_started()
    assert await drain.run(steps, ShutdownTimes(0.0, 4.0, 2.0), lame_duck_s=0.0)
    assert told == ["refuse", "end streams", "cut off", "stop"]
