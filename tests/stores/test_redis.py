"""The store on a Redis server, here one that speaks literal bytes, right and wrong ones."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.breaker import OPENS_AFTER
from mcpbridge.stores.redis import LIMIT_S, RedisStore
from mcpbridge.stores.store import ENDED, MAX_VALUE_BYTES, StoreAway
from mcpbridge.stores.url import StoreUrl, parse_store_url
from tests.stores.test_memory import Clock
from tests.support.fake_redis import CUT, HELD, FakeRedis, fake_redis
from tests.support.store_contract import ONE, OTHER

H = hashlib.sha256(b"m1").hexdigest().encode()
ERROR = b"-ERR no\r\n"


def bulk(text: str) -> bytes:
    """Return a text as a bulk string."""
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


PATIENT_S = 60.0
"""For questions that are answered, however busy the machine is."""


@contextlib.asynccontextmanager
async def asking(
    *answers: bytes, limit_s: float = PATIENT_S
) -> AsyncIterator[tuple[RedisStore, FakeRedis, Clock]]:
    """Make a store on a server that gives these answers."""
    clock = Clock()
    async with fake_redis(*answers) as fake:
        store = RedisStore(StoreUrl("127.0.0.1", fake.port), clock, limit_s)
        try:
            yield store, fake, clock
        finally:
            await store.close()


async def until_answered(clock: Clock, question: Callable[[], Awaitable[str | None]]) -> str | None:
    """Ask until there is an answer: on a busy machine it may come too late at first."""
    while True:
        try:
            return await question()
        except StoreAway:
            clock.now += 10


async def test_a_claim_is_one_question() -> None:
    """SET with NX, GET and PX, under the hash of the id; no answer means that it was free."""
    async with asking(b"$-1\r\n", bulk(OTHER), bulk(ENDED)) as (store, fake, _):
        assert await store.claim("m1", ONE, 1800.0) == ONE
        assert await store.claim("m1", ONE, 0.5) == OTHER
        assert await store.claim("m1", ONE, 0.5) == ENDED
    first, second, _ = fake.asked
    assert first[:3] == [b"SET", b"home:{%b}" % H, ONE.encode()]
    assert {b"NX", b"GET"} < set(first[3:])
    assert first[first.index(b"PX") + 1] == b"1800000"
    assert second[second.index(b"PX") + 1] == b"500"


async def test_a_heartbeat_lasts_15_seconds() -> None:
    """Under the name of the replica."""
    async with asking(b"+OK\r\n", b"$1\r\n1\r\n", b"$-1\r\n", b":1\r\n") as (store, fake, _):
        await store.beat(ONE)
        assert await store.beats(ONE)
        assert not await store.beats(ONE)
        await store.silence(ONE)
    key = b"beat:" + ONE.encode()
    assert fake.asked == [
        [b"SET", key, b"1", b"PX", b"15000"],
        [b"GET", key],
        [b"GET", key],
        [b"DEL", key],
    ]


async def test_scripts_compare_and_set() -> None:
    """A claim is replaced, renewed, given up and ended in the server, in one question each."""
    answers = (bulk(OTHER), b":1\r\n:0\r\n:1\r\n", HELD, HELD, b":1\r\n", bulk(ONE))
    async with asking(*answers) as (store, fake, _):
        assert await store.replace("m1", ONE, OTHER, 2.0) == OTHER
        # Three questions are sent at once, and answered so.
        assert await store.renew(["m1", "m2", "m3"], ONE, 2.0) == ["m2"]
        await store.release("m1", ONE)
        assert await store.bury("m1", 3.0) == ONE
    replace, *renewals, release, bury = fake.asked
    assert replace[0] == b"EVAL"
    assert replace[2:] == [b"1", b"home:{%b}" % H, ONE.encode(), OTHER.encode(), b"2000"]
    assert renewals[0][2:] == [b"1", b"home:{%b}" % H, ONE.encode(), b"2000"]
    assert release[2:] == [b"1", b"home:{%b}" % H, ONE.encode()]
    keys = [b"%b:{%b}" % (kind, H) for kind in (b"home", b"state", b"params")]
    assert bury[2:] == [b"3", *keys, b"ended", b"3000"]


async def test_what_changed_is_json_that_a_later_release_may_have_written() -> None:
    """What cannot be read counts as nothing: the session is revived without it."""
    answers = (
        b"+OK\r\n",
        bulk('{"level":"info","later":[1],"initialized":true}'),
        bulk('{"level":"loud"}'),
        bulk('{"initialized":7}'),
        bulk("\0"),
        b"$-1\r\n",
    )
    async with asking(*answers) as (store, fake, _):
        assert await store.save("m1", SessionRecord(level="info"), 1.0)
        assert await store.load("m1") == SessionRecord(initialized=True, level="info")
        assert [await store.load("m1") for _ in range(4)] == [None] * 4
        assert not await store.keep_params("m1", b"x" * (MAX_VALUE_BYTES + 1), 1.0)
    assert fake.asked[0] == [b"SET", b"state:{%b}" % H, b'{"level":"info"}', b"PX", b"1000"]
    assert len(fake.asked) == 6


@pytest.mark.parametrize(
    "answer",
    [
        ERROR,
        b"-WRONGTYPE Operation against a key\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MOVED 1234 10.0.0.1:6379\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"?" * 100 + b"\r\n",
        b"$abc\r\n",
        b":1\r\n",
        b"*1\r\n" * 10 + b":1\r\n",
        CUT,
    ],
    ids=repr,
)
async def test_whatever_goes_wrong_is_a_store_that_is_away(answer: bytes) -> None:
    """And the next question, on whatever connection, has its own answer."""
    async with asking(answer) as (store, fake, _):
        with pytest.raises(StoreAway):
            await store.claim("m1", ONE, 1.0)
        assert store.errors == 1
        fake.answers[:] = [b"$-1\r\n"]
        assert await store.home("m1") is None
        assert store.up


async def test_a_late_answer_is_never_given_to_the_next_question() -> None:
    """It is that of another session: its connection ends with the time of the question."""
    async with asking(HELD, limit_s=LIMIT_S) as (store, fake, clock):
        with pytest.raises(StoreAway, match="no answer within 250 ms"):
            await store.home("m1")
        # The one that asked is not read any more, whatever comes.
        for each in fake.connections:
            each.write(bulk(OTHER))
        fake.answers[:] = [bulk(ONE)]
        assert await until_answered(clock, lambda: store.home("m2")) == ONE


async def test_a_question_whose_caller_leaves_takes_its_connection_with_it() -> None:
    """Cancelled in the middle, its answer would else be there for the next one."""
    async with asking(HELD) as (store, fake, _):
        asked = asyncio.create_task(store.home("m1"))
        await fake.was_asked.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        fake.answers[:] = [bulk(ONE)]
        assert await store.home("m2") == ONE
        assert len(fake.connections) == 2


async def test_a_kept_connection_that_its_server_closed_costs_no_error() -> None:
    """A server that was restarted closes all; the question is asked again."""
    async with asking(bulk(ONE), CUT, bulk(OTHER)) as (store, fake, _):
        assert await store.home("m1") == ONE
        assert await store.home("m1") == OTHER
        assert store.errors == 0
        assert len(fake.connections) == 2


async def test_a_server_that_became_a_replica_is_left() -> None:
    """Its connections are closed: the name may lead to another server now."""
    async with asking(b"-READONLY You can't write\r\n", bulk(ONE)) as (store, fake, _):
        with pytest.raises(StoreAway, match="ReadOnlyError"):
            await store.claim("m1", ONE, 1.0)
        assert await store.home("m1") == ONE
        assert len(fake.connections) == 2


async def test_the_breaker_keeps_questions_from_a_server_that_fails() -> None:
    """One may try after a while, and its answer lets the others through."""
    async with asking(ERROR) as (store, fake, clock):
        for _ in range(OPENS_AFTER):
            with pytest.raises(StoreAway, match="ResponseError: no"):
                await store.home("m1")
        assert [store.up] == [False]
        with pytest.raises(StoreAway, match="has failed several times"):
            await store.home("m1")
        assert len(fake.asked) == OPENS_AFTER == store.errors
        clock.now += 10
        fake.answers[:] = [bulk(ONE)]
        assert await store.home("m1") == ONE
        assert [store.up] == [True]
        assert await store.home("m1") == ONE


async def test_nothing_listens() -> None:
    """Then it is away, and used when it comes, at the same address."""
    clock = Clock()
    async with fake_redis() as fake:
        port = fake.port
    store = RedisStore(StoreUrl("127.0.0.1", port), clock, PATIENT_S)
    with pytest.raises(StoreAway):
        await store.beat(ONE)
    late = FakeRedis()
    late.answers.append(b"+OK\r\n")
    server = await asyncio.start_server(late.serve, "127.0.0.1", port)
    async with server:
        await store.beat(ONE)
        assert late.asked
        await store.close()
        await late.end()


async def test_user_and_database_are_those_of_the_url() -> None:
    """The password goes to the server alone."""
    async with fake_redis(b"-WRONGPASS no s3cret\r\n") as fake:
        url = parse_store_url(f"redis://me:s3cret@127.0.0.1:{fake.port}/5")
        store = RedisStore(url, Clock(), PATIENT_S)
        with pytest.raises(StoreAway):
            await store.beat(ONE)
        await store.close()
        assert [b"AUTH", b"me", b"s3cret"] in fake.setting_up
        assert [b"SELECT", b"5"] in fake.setting_up


async def test_many_at_once_wait_for_their_turn() -> None:
    """More questions than connections do not count as an error of the store."""
    async with asking(bulk(ONE)) as (store, fake, _):
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(store.home(f"m{number}")) for number in range(100)]
        assert {each.result() for each in asked} == {ONE}
        assert len(fake.connections) <= 16
        assert store.errors == 0
