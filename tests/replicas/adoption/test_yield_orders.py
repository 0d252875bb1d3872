"""How often homes are told that their sessions are elsewhere."""

from __future__ import annotations

from mcpbridge.replicas.adoption.yield_orders import YieldOrders
from mcpbridge.rules.access.principals import ANONYMOUS, Principal

HOME, OTHER = "10.0.0.1:8001", "10.0.0.2:8001"


class Told:
    """What was told to homes, each of which answers as the test says."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.answering: set[str] = set()
        self.served = {"m1", "m2", "m3"}
        self.orders = YieldOrders(self.tell, lambda session_id, _: session_id in self.served)

    async def tell(self, address: str, session_id: str, principal: Principal) -> bool:
        """Take an order; return whether it is carried out."""
        self.told.append((address, session_id))
        return address in self.answering

    async def tell_all(self) -> list[tuple[str, str]]:
        """Tell each once; what was told by that."""
        self.told.clear()
        await self.orders.tell_all()
        return sorted(self.told)


async def test_a_silent_home_is_told_one_session_and_one_that_answers_all() -> None:
    """A home out of reach takes its time with each; what was carried out is not repeated."""
    made = Told()
    for session_id, address in (("m1", HOME), ("m2", HOME), ("m3", OTHER)):
        made.orders.add(session_id, address, ANONYMOUS)
    made.answering = {OTHER}
    assert await made.tell_all() == [(HOME, "m1"), (OTHER, "m3")]
    assert await made.tell_all() == [(HOME, "m1")]
    made.answering = {HOME}
    assert await made.tell_all() == [(HOME, "m1"), (HOME, "m2")]
    assert await made.tell_all() == []


async def test_no_home_is_told_of_a_session_that_is_not_served_here_any_more() -> None:
    """Its order is forgotten, also if the session comes back."""
    made = Told()
    made.orders.add("m1", HOME, ANONYMOUS)
    made.served.clear()
    assert await made.tell_all() == []
    made.served.add("m1")
    assert await made.tell_all() == []
