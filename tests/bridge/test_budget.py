"""What is kept is counted as it comes and goes, whatever becomes of who keeps it."""

from __future__ import annotations

import gc

import anyio

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.replay import ReplayStore, ResumeResult
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.rules.access.shares import MESSAGE_BYTES, Pressure
from mcpbridge.rules.event_log import Window
from mcpbridge.telemetry.metrics import Meters
from tests.bridge.playbook import bounded


@bounded
async def test_a_stream_is_charged_until_its_bytes_are_gone() -> None:
    """Sent, shed, taken back, cut, or dropped with the stream."""
    budget = Budget(10_000)
    stream = Stream(Window(max_bytes=100), Meters(), charge=budget.charge)
    stream.append(b"x" * 60, sheddable=True)
    stream.append(b"x" * 50, sheddable=True)
    assert budget.held == stream.log.held == 50 + MESSAGE_BYTES, "the first one was shed"
    with stream.attach() as reader:
        await reader.read()
        assert budget.held == 50, "taken, and not known to be sent"
        stream.append(b"x" * 20, sheddable=True)
        await reader.read()
        assert budget.held == 20, "the one before was sent"
    assert budget.held == 0, "its reader has left"
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


def store_of(budget: Budget) -> ReplayStore:
    """The streams of a session whose client may resume them."""
    return ReplayStore(Window(), Meters(), lambda: 0.0, resumable=True, charge=budget.charge)


@bounded
async def test_what_may_be_shed_goes_before_anything_is_refused() -> None:
    """Finished streams and delivered events are kept only in case that the client asks again."""
    budget = Budget(3000)
    store = store_of(budget)
    for _ in range(2):
        store.begin(1).answer(b"x" * 400)
    store.tell(b"x" * 400)
    with store.standalone.attach() as reader:
        await reader.read()
    store.tell(b"y" * 4)
    open_stream = store.begin(1)
    open_stream.append(b"x" * 40, sheddable=True)
    await budget.pressed()
    assert (budget.pressure, budget.full) == (Pressure.SHED, False)
    assert store.shed() == 3 * (400 + MESSAGE_BYTES)
    assert budget.held == 44 + 2 * MESSAGE_BYTES, "the undelivered and the unfinished stay"
    assert budget.pressure is Pressure.NONE


@bounded
async def test_an_answer_is_let_go_at_once_when_its_client_says_that_it_has_it() -> None:
    """It names the last event and is told that nothing is left."""
    budget = Budget(10_000)
    store = store_of(budget)
    stream = store.begin(1)
    stream.answer(b"x" * 400)
    prefix = stream.id_prefix
    assert prefix is not None
    assert store.find(f"{prefix.decode()}0") is stream
    assert store.find(f"{prefix.decode()}1") is ResumeResult.OVER
    del stream
    gc.collect()
    assert budget.held == 0


@bounded
async def test_new_work_is_taken_again_as_soon_as_enough_is_gone() -> None:
    """Nothing but the count decides."""
    budget = Budget(1000)
    budget.charge(876)
    assert (budget.full, budget.excess) == (True, 126)
    budget.charge(-1)
    assert (budget.full, budget.excess) == (False, 125)
    assert [budget.was_full(), budget.was_full()] == [True, False]


@bounded
async def test_a_full_budget_that_is_emptied_at_once_is_not_full_any_more() -> None:
    """Also by a single change that leads below the alarm; until then every look finds it full."""
    budget = Budget(1000)
    budget.charge(900)
    assert [budget.was_full(), budget.was_full()] == [True, True]
    budget.charge(-900)
    assert not budget.full


@bounded
async def test_each_alarm_is_one() -> None:
    """A caller that has looked waits for the next change that presses."""
    budget = Budget(1000)
    budget.charge(800)
    await budget.pressed()
    with anyio.CancelScope() as waits:
        waits.cancel()
        await budget.pressed()
    assert waits.cancelled_caught
    budget.charge(1)
    await budget.pressed()


class Connection:
    """A connection with some bytes."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.ended = False

    def cut(self) -> None:
        """End it."""
        self.ended = True


@bounded
async def test_a_connection_is_found_while_it_has_bytes() -> None:
    """By what it holds, and with what ends it; one that was never there may leave."""
    budget = Budget(1000)
    first, second = Connection(5), Connection(7)
    for each in (first, second):
        budget.enter(each)
    budget.leave(first)
    budget.leave(first)
    (holder,) = budget.holders
    assert (holder.kind, holder.held) == ("connection", 7)
    holder.cut()
    assert (first.ended, second.ended) == (False, True)


@bounded
async def test_bytes_are_found_by_kind() -> None:
    """Connections and children have their own accounts; what passes counts in all."""
    budget = Budget(1000)
    budget.connections.charge(10)
    budget.children.charge(5)
    with budget.holding(7):
        assert (budget.held, budget.connections.held, budget.children.held) == (22, 10, 5)
    assert budget.held == 15
