"""What holds for every store, as functions that take one; each kind's test module runs them all."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.store import ENDED, MAX_VALUE_BYTES, Store

ONE, OTHER, THIRD = "10.0.0.1:8001/00000001", "10.0.0.2:8001/00000002", "[::1]:8001/00000003"
LONG_S = 600.0
_numbers = itertools.count()

Contract = Callable[[Store], Awaitable[None]]


def new_session() -> str:
    """Return an id that no other test uses."""
    return f"m{next(_numbers)}abc"


async def the_first_claim_wins(store: Store) -> None:
    """All others get its home, and the same one may claim again."""
    session = new_session()
    assert await store.home(session) is None
    assert await store.claim(session, ONE, LONG_S) == ONE
    assert await store.claim(session, OTHER, LONG_S) == ONE
    assert await store.claim(session, ONE, LONG_S) == ONE
    assert await store.home(session) == ONE
    assert await store.home(new_session()) is None


async def only_the_claim_of_the_lost_home_is_replaced(store: Store) -> None:
    """Of two that find it lost, one wins; without a claim it is the first."""
    session = new_session()
    assert await store.replace(session, ONE, OTHER, LONG_S) == OTHER
    assert await store.replace(session, ONE, THIRD, LONG_S) == OTHER
    assert await store.replace(session, OTHER, THIRD, LONG_S) == THIRD
    assert await store.replace(session, OTHER, ONE, LONG_S) == THIRD
    assert await store.home(session) == THIRD


async def a_session_that_has_ended_is_never_claimed(store: Store) -> None:
    """Nor replaced; what was kept of it is gone, and its home is named to the one that ends it."""
    session, unclaimed = new_session(), new_session()
    await store.claim(session, ONE, LONG_S)
    await store.save(session, SessionRecord(level="info"), LONG_S)
    await store.keep_params(session, b"{}", LONG_S)
    assert await store.bury(session, LONG_S) == ONE
    assert await store.bury(session, LONG_S) == ENDED
    assert await store.bury(unclaimed, LONG_S) is None
    for each in (session, unclaimed):
        assert await store.claim(each, OTHER, LONG_S) == ENDED
        assert await store.replace(each, ONE, OTHER, LONG_S) == ENDED
        assert await store.renew([each], ONE, LONG_S) == [each]
        await store.release(each, ONE)
        assert await store.home(each) == ENDED
    assert await store.load(session) is None
    assert await store.params(session) is None


async def a_home_gives_up_its_own_claim_only(store: Store) -> None:
    """One that it has lost stays."""
    session = new_session()
    await store.claim(session, ONE, LONG_S)
    await store.release(session, OTHER)
    assert await store.home(session) == ONE
    await store.release(session, ONE)
    assert await store.home(session) is None


async def claims_are_renewed_if_they_are_ones_own(store: Store) -> None:
    """Those that are not are named, in their order."""
    mine, other, unclaimed = new_session(), new_session(), new_session()
    await store.claim(mine, ONE, LONG_S)
    await store.claim(other, OTHER, LONG_S)
    assert await store.renew([other, mine, unclaimed], ONE, LONG_S) == [other, unclaimed]
    assert await store.home(mine) == ONE
    assert await store.home(other) == OTHER
    assert await store.home(unclaimed) is None


async def a_heartbeat_is_of_one_start_of_one_replica(store: Store) -> None:
    """Another boot at the same address does not beat for it."""
    home = f"10.0.0.9:8001/{next(_numbers):08x}"
    other = f"10.0.0.9:8001/{next(_numbers):08x}"
    assert not await store.beats(home)
    await store.beat(home)
    await store.beat(home)
    assert await store.beats(home)
    assert not await store.beats(other)
    await store.silence(home)
    assert not await store.beats(home)


async def what_changed_in_a_session_is_found_again(store: Store) -> None:
    """The last of it, for this session."""
    session = new_session()
    assert await store.load(session) is None
    record = SessionRecord(True, "warning", ("file:///ä", "file:///b"))
    assert await store.save(session, SessionRecord(), LONG_S)
    assert await store.save(session, record, LONG_S)
    assert await store.load(session) == record
    assert await store.load(new_session()) is None


async def params_are_found_again_byte_for_byte(store: Store) -> None:
    """Whatever they hold."""
    session = new_session()
    params = b'{"a":"\\u0000\xc3\xa4"}\r\n$-1\r\n'
    assert await store.params(session) is None
    assert await store.keep_params(session, params, LONG_S)
    assert await store.params(session) == params


async def what_is_too_long_is_not_kept(store: Store) -> None:
    """The caller is told, and nothing of it stays."""
    session = new_session()
    assert await store.keep_params(session, b"x" * MAX_VALUE_BYTES, LONG_S)
    assert not await store.keep_params(session, b"x" * (MAX_VALUE_BYTES + 1), LONG_S)
    assert len(await store.params(session) or b"") == MAX_VALUE_BYTES
    record = SessionRecord(subscriptions=("file:///" + "x" * MAX_VALUE_BYTES,))
    assert not await store.save(session, record, LONG_S)
    assert await store.load(session) is None


CONTRACTS: list[Contract] = [
    the_first_claim_wins,
    only_the_claim_of_the_lost_home_is_replaced,
    a_session_that_has_ended_is_never_claimed,
    a_home_gives_up_its_own_claim_only,
    claims_are_renewed_if_they_are_ones_own,
    a_heartbeat_is_of_one_start_of_one_replica,
    what_changed_in_a_session_is_found_again,
    params_are_found_again_byte_for_byte,
    what_is_too_long_is_not_kept,
]
