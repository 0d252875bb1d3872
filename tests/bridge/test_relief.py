"""Who has most gives way when memory is short, and nothing else happens before it has to."""

from __future__ import annotations

import anyio
import pytest

from mcpbridge.bridge.budget import Budget, Holder
from mcpbridge.bridge.relief import MemoryRelief
from mcpbridge.rules.access.shares import Account, Pressure
from mcpbridge.telemetry.metrics import Meters
from tests.bridge.playbook import bounded, turns

KIB = 1 << 10


class Kept:
    """Some bytes in the ledger, which can be shed or cut."""

    def __init__(self, budget: Budget, kind: str, size: int) -> None:
        self.account = Account(budget)
        self.account.charge(size)
        self.kind = kind
        self.gone = anyio.Event()

    def holder(self) -> Holder:
        """It, as the bridge finds it."""
        return Holder(self.kind, self.account.held, self.let_go)

    def let_go(self) -> int:
        """Let the bytes go; their number."""
        freed = self.account.held
        self.account.charge(-freed)
        self.gone.set()
        return freed


@bounded
async def test_it_sheds_at_three_quarters_and_ends_no_client() -> None:
    """What is kept only in case that a client asks again is enough."""
    budget, meters = Budget(1000 * KIB), Meters()
    shed, busy = Kept(budget, "session", 300 * KIB), Kept(budget, "session", 500 * KIB)
    async with anyio.create_task_group() as tasks:
        relief = MemoryRelief(budget, meters, lambda: [shed.let_go], lambda: [[busy.holder()]])
        tasks.start_soon(relief.run)
        await shed.gone.wait()
        tasks.cancel_scope.cancel()
    assert (budget.held, busy.gone.is_set()) == (500 * KIB, False)
    assert meters.tallies["memory_shed_bytes"][()] == 300 * KIB
    assert "memory_cuts" not in meters.tallies


@bounded
async def test_above_the_limit_the_heaviest_of_the_heaviest_kind_is_ended_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says who, and the metrics count it."""
    budget, meters = Budget(1000 * KIB), Meters()
    light = Kept(budget, "connection", 100 * KIB)
    heavy = [Kept(budget, "connection", 300 * KIB) for _ in range(2)]
    session = Kept(budget, "session", 350 * KIB)
    groups = [[each.holder() for each in (light, *heavy)], [session.holder()]]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(MemoryRelief(budget, meters, list, lambda: groups).run)
        await heavy[1].gone.wait()
        tasks.cancel_scope.cancel()
    assert not any(each.gone.is_set() for each in (light, heavy[0], session))
    assert (budget.pressure, meters.tallies["memory_cuts"]["connection"]) == (Pressure.NONE, 1)
    (record,) = [r for r in caplog.records if r.__dict__.get("bytes") == 300 * KIB]
    assert (record.getMessage(), record.__dict__["account"]) == ("memory.client_cut", "connection")


@bounded
async def test_a_full_budget_ends_a_holder_even_if_no_byte_comes_or_goes() -> None:
    """New work is not refused for longer than a second."""
    budget = Budget(1000 * KIB)
    stays = Kept(budget, "call", 900 * KIB)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(MemoryRelief(budget, Meters(), list, lambda: [[stays.holder()]]).run)
        await stays.gone.wait()
        tasks.cancel_scope.cancel()
    assert not budget.full


@bounded
async def test_a_budget_that_was_full_for_a_moment_ends_no_client() -> None:
    """One large request was refused and let go again, although much is kept all the time."""
    budget = Budget(1000 * KIB)
    stays, looked = Kept(budget, "call", 800 * KIB), anyio.Event()

    def sheds_nothing() -> int:
        looked.set()
        return 0

    budget.charge(100 * KIB)
    budget.charge(-100 * KIB)
    holders = [[stays.holder()]]
    async with anyio.create_task_group() as tasks:
        relief = MemoryRelief(budget, Meters(), lambda: [sheds_nothing], lambda: holders)
        tasks.start_soon(relief.run)
        await looked.wait()
        await turns()
        tasks.cancel_scope.cancel()
    assert not stays.gone.is_set()


@bounded
async def test_no_other_client_is_ended_while_one_is_on_its_way_out() -> None:
    """Its task lets the bytes go a moment later; only after that another may have to end."""
    budget = Budget(1000 * KIB)
    budget.charge(1100 * KIB)
    ended: list[float] = []
    twice = anyio.Event()

    def end() -> None:
        ended.append(anyio.current_time())
        if len(ended) > 1:
            twice.set()

    groups = [[Holder("call", 1100 * KIB, end)]]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(MemoryRelief(budget, Meters(), list, lambda: groups).run)
        await twice.wait()
        tasks.cancel_scope.cancel()
    assert ended[1] - ended[0] >= 0.25


@bounded
async def test_calls_go_on_while_much_is_shed() -> None:
    """There may be thousands of sessions with something to shed: not all in one turn."""
    budget = Budget(1000 * KIB)
    budget.charge(800 * KIB)
    done, others = anyio.Event(), 0

    def shed() -> int:
        counted.append(others)
        if len(counted) == 250:
            done.set()
        return 0

    counted: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(MemoryRelief(budget, Meters(), lambda: [shed] * 250, list).run)
        while not done.is_set():
            others += 1
            await turns(1)
        tasks.cancel_scope.cancel()
    assert len(set(counted)) == 3, "a hundred in each turn"
