"""The store in memory: what holds for every store, and its times, which the test sets."""

from __future__ import annotations

import pytest

from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores import memory
from mcpbridge.stores.memory import MemoryStore
from mcpbridge.stores.store import BEAT_FOR_S, Store
from tests.support.store_contract import CONTRACTS, LONG_S, ONE, OTHER, Contract


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)
async def test_what_holds_for_every_store(contract: Contract) -> None:
    """In memory too."""
    store: Store = MemoryStore(Clock())
    await contract(store)
    await store.close()


async def test_each_value_ends_at_its_time() -> None:
    """One that was written again ends later, at the last time that was said."""
    clock = Clock()
    store = MemoryStore(clock)
    await store.claim("claimed", ONE, 10.0)
    await store.claim("renewed", ONE, 10.0)
    await store.claim("shortened", ONE, 90.0)
    await store.save("saved", SessionRecord(), 10.0)
    await store.keep_params("saved", b"{}", 10.0)
    await store.beat(ONE)
    clock.now += 9.9
    assert await store.renew(["renewed"], ONE, 30.0) == []
    await store.release("shortened", ONE)
    await store.claim("shortened", ONE, 20.0)
    assert await store.home("claimed") == ONE
    clock.now += 0.1
    assert await store.home("claimed") is None
    assert await store.load("saved") is None
    assert await store.params("saved") is None
    assert await store.claim("claimed", OTHER, 10.0) == OTHER
    assert await store.beats(ONE)
    clock.now = 1000.0 + BEAT_FOR_S
    assert not await store.beats(ONE)
    clock.now = 1029.9
    assert await store.home("renewed") == ONE
    assert await store.home("shortened") is None
    clock.now = 1100.0
    assert len(store) == 0


async def test_it_keeps_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends soonest goes first."""
    monkeypatch.setattr(memory, "_MAX_ENTRIES", 3)
    store = MemoryStore(Clock())
    for number, keep_s in enumerate((50.0, 10.0, LONG_S, 60.0)):
        await store.claim(f"m{number}", ONE, keep_s)
    assert [await store.home(f"m{number}") for number in range(4)] == [ONE, None, ONE, ONE]
