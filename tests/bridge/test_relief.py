"""Who has most gives way when memory is short, and nothing else happens before it has to."""

from __future__ import annotations

import anyio
import pytest

from mcpbridge.bridge.budget import Budget, Holder
from mcpbridge.bridge.relief import MemoryRelief
from mcpbridge.rules.access.shares import Account, Pressure
from mcpbridge.telemetry.metrics import Meters

pytestmark = pytest.mark.asyncio
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


async def test_a_full_budget_ends_a_holder_even_if_no_byte_comes_or_goes() -> None:
    """New work is not refused for longer than a second."""
    budget = Budget(1000 * KIB)
    stays = Kept(budget, "call", 900 * KIB)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(MemoryRelief(budget, Meters(), list, lambda: [[stays.holder()]]).run)
        await stays.gone.wait()
        tasks.cancel_scope.cancel()
    assert not budget.full
