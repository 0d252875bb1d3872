"""Whose child ends for another client: the one that is idle for longest, listeners last."""

from __future__ import annotations

from typing import cast

import pytest

from mcpbridge.bridge.children.child_pool import Order
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.evictors import evict_longest_idle
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.rules.supervision.isolation import Isolation
from tests.bridge.legacy.parts import lease_on_memory


class FakeHolder:
    """A session or a warm pool with one child."""

    def __init__(self, idle_since: float, *, listened: bool = False, busy: str = "") -> None:
        self.last_used = idle_since
        self.listened = listened
        self.holds_own_child = busy != "shares"
        self.in_flight = [object()] if busy == "call" else []
        self.server_requests = [object()] if busy == "question" else []
        self.lease, _ = lease_on_memory(shared=False)
        self._lends = busy != "gone"
        self.idle = [] if busy else [(idle_since, self.lease)]

    def lend(self, lease: Lease | None = None) -> Lease | None:
        """Give the child up."""
        return self.lease if self._lends else None


def evicted(
    sessions: list[FakeHolder],
    pools: list[FakeHolder] | None = None,
    isolation: Isolation = Isolation.AUTO,
    order: Order = lambda lease: 0,
) -> list[Lease]:
    """What is taken from these holders."""
    return list(
        evict_longest_idle(
            cast(list[WarmPool], pools or []), cast(list[Session], sessions), isolation, order
        )
    )


async def test_the_child_that_has_been_idle_for_longest_ends() -> None:
    """Of a session or of a warm pool."""
    recent, old = FakeHolder(20), FakeHolder(10)
    assert evicted([recent, old]) == [old.lease]
    assert evicted([recent], [old]) == [old.lease]
    assert evicted([old], [recent]) == [old.lease]


async def test_a_client_that_listens_keeps_its_child_for_longer() -> None:
    """It would miss the child's notifications; a warm pool has no listeners."""
    listening, recent = FakeHolder(1, listened=True), FakeHolder(20)
    assert evicted([listening, recent]) == [recent.lease]
    assert evicted([listening], [recent]) == [recent.lease]
    assert evicted([listening]) == [listening.lease]


@pytest.mark.parametrize("busy", ["call", "question", "shares"])
async def test_a_session_that_needs_its_child_keeps_it(busy: str) -> None:
    """A call is in flight, the client is being asked, or it shares its child."""
    assert evicted([FakeHolder(1, busy=busy)]) == []


async def test_under_session_isolation_only_children_of_the_warm_pool_end() -> None:
    """The operator has promised each session its process."""
    session, pool = FakeHolder(1), FakeHolder(20)
    assert evicted([session], isolation=Isolation.SESSION) == []
    assert evicted([session], [pool], isolation=Isolation.SESSION) == [pool.lease]


async def test_a_pool_without_idle_children_gives_none() -> None:
    """All of them work on calls."""
    assert evicted([], [FakeHolder(1, busy="call")]) == []


async def test_a_holder_that_has_none_any_more_gives_none() -> None:
    """The pool asks the next evictor then."""
    assert evicted([FakeHolder(1, busy="gone")]) == []


async def test_the_clients_give_way_in_the_order_that_they_are_given() -> None:
    """Before how long it has been idle; some never do."""
    spared, heavy, light = FakeHolder(1), FakeHolder(9), FakeHolder(5)
    ranks = {heavy.lease: 0, light.lease: 1}
    assert evicted([spared, heavy, light], order=ranks.get) == [heavy.lease]
    assert evicted([spared, light], [heavy], order=ranks.get) == [heavy.lease]
    assert evicted([spared], [light], order=ranks.get) == [light.lease]
    assert evicted([spared], order=ranks.get) == []
