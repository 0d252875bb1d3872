"""A replica whose heartbeat was missing asks before it serves a session again."""

from __future__ import annotations

import pytest

from mcpbridge.stores.fence import Fence
from mcpbridge.stores.memory import MemoryStore
from mcpbridge.stores.store import BEAT_FOR_S, StoreAway
from tests.stores.test_memory import Clock
from tests.support.store_contract import LONG_S, ONE, OTHER


class Cut(MemoryStore):
    """A store to which the way is cut at times."""

    cut = False

    async def claim(self, session_id: str, home: str, keep_s: float) -> str:
        """Refuse while the way is cut."""
        if self.cut:
            raise StoreAway("cut")
        return await super().claim(session_id, home, keep_s)


async def test_a_session_is_checked_once_after_each_lapse() -> None:
    """Not before the first, not twice after one, and again after the next."""
    clock = Clock()
    fence = Fence(MemoryStore(clock), ONE, LONG_S, clock)
    assert not fence.must_check("m1"), "nothing was said yet that could end"
    fence.beaten(clock.now)
    clock.now += BEAT_FOR_S - 0.1
    assert not fence.must_check("m1")
    fence.beaten(clock.now)
    assert fence.lapses == 0
    clock.now += BEAT_FOR_S
    assert fence.must_check("m1"), "it has ended in the store, whether or not that is known here"
    assert await fence.holds("m1")
    fence.begun("m3")
    assert fence.must_check("m1"), "the lapse goes on"
    assert fence.must_check("m3")
    fence.beaten(clock.now)
    assert fence.lapses == 1
    for session_id in ("m1", "m2", "m3"):
        assert fence.must_check(session_id)
    assert await fence.holds("m1")
    assert not fence.must_check("m1")
    assert await fence.holds("m2")
    clock.now += 2 * BEAT_FOR_S
    fence.beaten(clock.now)
    assert fence.lapses == 2
    assert fence.must_check("m1")
    fence.forget("m1")
    assert fence.must_check("m1")


async def test_a_replica_yields_what_another_has_claimed() -> None:
    """And keeps what it has checked, since its check is a claim: no other gets it later."""
    clock = Clock()
    store = MemoryStore(clock)
    fence = Fence(store, ONE, LONG_S, clock)
    fence.beaten(clock.now)
    clock.now += BEAT_FOR_S
    assert await store.claim("m1", OTHER, LONG_S) == OTHER
    fence.beaten(clock.now)
    assert not await fence.holds("m1")
    assert fence.must_check("m1"), "another request for it must not find it checked"
    assert await fence.holds("m2")
    assert await store.claim("m2", OTHER, LONG_S) == ONE
    await store.bury("m3", LONG_S)
    assert not await fence.holds("m3")


async def test_a_session_that_begins_after_a_lapse_needs_no_check() -> None:
    """It was claimed, or opened, with a heartbeat that is there."""
    clock = Clock()
    fence = Fence(MemoryStore(clock), ONE, LONG_S, clock)
    fence.begun("m0")
    fence.beaten(clock.now)
    clock.now += BEAT_FOR_S
    fence.beaten(clock.now)
    fence.begun("m1")
    assert fence.must_check("m0")
    assert not fence.must_check("m1")
    clock.now += BEAT_FOR_S
    assert fence.must_check("m1")


async def test_a_late_answer_of_the_store_counts_from_its_question() -> None:
    """The heartbeat may have ended before its answer has come."""
    clock = Clock()
    fence = Fence(MemoryStore(clock), ONE, LONG_S, clock)
    sent_at = clock.now
    clock.now += BEAT_FOR_S + 1
    fence.beaten(sent_at)
    assert fence.must_check("m1")


async def test_while_the_store_is_away_nothing_is_checked() -> None:
    """The caller decides; once it is back each session is checked."""
    clock = Clock()
    store = Cut(clock)
    fence = Fence(store, ONE, LONG_S, clock)
    fence.beaten(clock.now)
    clock.now += BEAT_FOR_S
    store.cut = True
    with pytest.raises(StoreAway, match="the store cannot be used: cut"):
        await fence.holds("m1")
    assert fence.must_check("m1")
    store.cut = False
    fence.beaten(clock.now)
    assert await fence.holds("m1")
    assert not fence.must_check("m1")
