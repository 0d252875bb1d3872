"""A replica's heartbeat, and the claims that it renews."""

from __future__ import annotations

import logging

import pytest

from mcpbridge.stores.fence import Fence
from mcpbridge.stores.heartbeat import BEAT_EVERY_S, Heartbeat
from mcpbridge.stores.memory import MemoryStore
from mcpbridge.stores.store import BEAT_FOR_S, StoreAway
from tests.stores.test_memory import Clock
from tests.support.store_contract import LONG_S, ONE, OTHER


class AwayStore(MemoryStore):
    """A store that is away at times."""

    away = False

    async def beat(self, home: str) -> None:
        """Refuse while it is away."""
        self._check()
        await super().beat(home)

    async def silence(self, home: str) -> None:
        """Refuse while it is away."""
        self._check()
        await super().silence(home)

    def _check(self) -> None:
        if self.away:
            raise StoreAway("no answer")


class World:
    """One replica, its store and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = AwayStore(self.clock)
        self.fence = Fence(self.store, ONE, LONG_S, self.clock)
        self.lost: list[str] = []
        self.waits: list[float] = []
        self.heartbeat = Heartbeat(
            self.store, ONE, LONG_S, self.fence, self.clock, self.lost.append, self._wait
        )

    async def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.now += seconds
        assert await self.store.beats(ONE)
        if len(self.waits) == 8:
            raise TimeoutError


async def test_it_beats_so_often_that_two_may_be_lost() -> None:
    """Eight times in a row it was there just before the next."""
    world = World()
    with pytest.raises(TimeoutError):
        await world.heartbeat.run()
    assert world.waits == [BEAT_EVERY_S] * 8
    assert 3 * BEAT_EVERY_S <= BEAT_FOR_S
    assert world.fence.lapses == 0
    await world.heartbeat.silence()
    assert not await world.store.beats(ONE)


async def test_a_store_that_is_away_is_said_once_and_used_when_it_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the start too: a warning, not an error."""
    caplog.set_level(logging.INFO, "mcpbridge.stores")
    world = World()
    for away in (True, True, False, False, True, True, False):
        world.store.away = away
        await world.heartbeat.beat()
        assert world.heartbeat.up is not away
    said = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert said == [("WARNING", "store.away"), ("INFO", "store.available")] * 2
    assert caplog.records[0].__dict__["problem"] == "no answer"
    world.store.away = True
    await world.heartbeat.silence()


async def test_claims_are_renewed_before_they_end() -> None:
    """One that is another's now is named and not renewed again; one that was released neither."""
    world = World()
    sessions = [f"m{number}" for number in range(250)]
    for each in (*sessions, "released"):
        await world.store.claim(each, ONE, LONG_S)
    world.heartbeat.claimed([*sessions, "released"])
    world.heartbeat.released("released")
    await world.heartbeat.beat()
    world.clock.now += LONG_S / 3
    await world.store.release("m7", ONE)
    await world.store.claim("m7", OTHER, LONG_S)
    await world.heartbeat.beat()
    assert world.lost == ["m7"]
    world.clock.now += LONG_S * 0.67
    assert [await world.store.home(each) for each in ("m0", "m249", "released")] == [ONE, ONE, None]
    await world.heartbeat.beat()
    assert world.lost == ["m7"]
