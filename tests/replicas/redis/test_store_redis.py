"""The store on real servers: Redis, and Valkey if this machine has it.

Run by name, since `make test` needs no server: `pytest tests/replicas/redis`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.redis import LIMIT_S, RedisStore
from mcpbridge.stores.store import ENDED, StoreAway
from mcpbridge.stores.url import StoreUrl, parse_store_url
from tests.support.certificates import Authority
from tests.support.redis_server import PROGRAMS, RedisServer, redis_server
from tests.support.store_contract import (
    CONTRACTS,
    LONG_S,
    ONE,
    OTHER,
    Contract,
    new_session,
)

SERVERS = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: Path(each).name)


def test_there_is_a_server() -> None:
    """Without one the tests of this module would be none."""
    assert PROGRAMS, "needs redis-server or valkey-server: RUNLEVEL=1 apt-get install redis-server"


PATIENT_S = 60.0
"""For questions that are answered, however busy the machine is."""


@contextlib.asynccontextmanager
async def opened(url: StoreUrl, limit_s: float = PATIENT_S) -> AsyncIterator[RedisStore]:
    """Use a store until the block ends."""
    store = RedisStore(url, time.monotonic, limit_s)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def stored(
    program: str, folder: Path, limit_s: float = PATIENT_S
) -> AsyncIterator[tuple[RedisStore, RedisServer]]:
    """Use a store on a new server until the block ends."""
    with redis_server(program, folder) as server:
        async with opened(StoreUrl("127.0.0.1", server.port), limit_s) as store:
            yield store, server


async def until_answered(question: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the store answers; its breaker lets one try from time to time."""
    while True:
        try:
            return await question()
        except StoreAway:
            await asyncio.sleep(0.02)  # the breaker's pause is real time


async def until_gone(question: Callable[[], Awaitable[Any]]) -> None:
    """Ask until there is nothing; the server's clock goes on by itself."""
    while await question() is not None:
        pass


@SERVERS
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)
async def test_what_holds_for_every_store(program: str, contract: Contract, tmp_path: Path) -> None:
    """On a real server too."""
    async with stored(program, tmp_path) as (store, _):
        await contract(store)
        assert store.errors == 0


@SERVERS
async def test_of_many_replicas_one_wins(program: str, tmp_path: Path) -> None:
    """Each session that several claim at once has one home, the same for all of them."""
    with redis_server(program, tmp_path) as server:
        url = StoreUrl("127.0.0.1", server.port)
        async with opened(url) as one, opened(url) as other, opened(url) as third:
            stores = {f"10.0.0.{number}:8001/1": each for number, each in enumerate((one, other))}
            stores["10.0.0.9:8001/1"] = third
            for number in range(60):
                session, lost = new_session(), "10.0.0.7:8001/1"
                if number % 2:
                    await one.claim(session, lost, LONG_S)
                async with asyncio.TaskGroup() as tasks:
                    found = [
                        tasks.create_task(
                            store.replace(session, lost, home, LONG_S)
                            if number % 2
                            else store.claim(session, home, LONG_S)
                        )
                        for home, store in stores.items()
                    ]
                (home,) = {each.result() for each in found}
                assert home in stores
                assert await third.home(session) == home


@SERVERS
async def test_values_end_at_their_time(program: str, tmp_path: Path) -> None:
    """A claim with the idle time, a heartbeat with 15 s; a renewed one ends later."""
    async with stored(program, tmp_path) as (store, server):
        session, short = new_session(), new_session()
        await store.claim(session, ONE, LONG_S)
        await store.claim(short, ONE, 0.05)
        await store.save(short, SessionRecord(level="info"), 0.05)
        await store.keep_params(short, b"{}", 0.05)
        await store.beat(ONE)
        await until_gone(lambda: store.home(short))
        await until_gone(lambda: store.load(short))
        await until_gone(lambda: store.params(short))
        assert await store.claim(short, OTHER, LONG_S) == OTHER
        assert await store.renew([session], ONE, 2 * LONG_S) == []
        async with Redis(host="127.0.0.1", port=server.port) as client:
            beat_ms = await client.pttl(f"beat:{ONE}")
            homes = [key async for key in client.scan_iter("home:{*}")]
            kept_ms = sorted([await client.pttl(key) for key in homes])
        assert 0 < beat_ms <= 15_000
        assert 0 < kept_ms[0] <= 600_000 < kept_ms[1] <= 1_200_000
        assert len(kept_ms) == 2


@SERVERS
async def test_a_server_that_hangs_is_away_and_comes_back(program: str, tmp_path: Path) -> None:
    """No answer of before is taken for one of after."""
    async with stored(program, tmp_path, LIMIT_S) as (store, server):
        sessions = [new_session() for _ in range(4)]
        for number, session in enumerate(sessions):
            home = f"10.0.0.{number}:8001/1"
            await until_answered(functools.partial(store.claim, session, home, LONG_S))
        server.pause()
        for session in sessions:
            with pytest.raises(StoreAway):
                await store.home(session)
        assert not store.up
        server.resume()
        homes = [await until_answered(functools.partial(store.home, each)) for each in sessions]
        assert homes == [f"10.0.0.{number}:8001/1" for number in range(4)]


@SERVERS
async def test_a_server_that_begins_again_empty_is_used(program: str, tmp_path: Path) -> None:
    """Claims of before are gone, and can be made again; kept connections cost no error."""
    async with stored(program, tmp_path) as (store, server):
        session, ended = new_session(), new_session()
        await store.claim(session, ONE, LONG_S)
        await store.bury(ended, LONG_S)
        server.kill()
        server.start()
        assert await store.home(session) is None
        assert store.errors == 0
        server.kill()
        with pytest.raises(StoreAway):
            await store.home(session)
        server.start()
        assert await until_answered(lambda: store.claim(session, OTHER, LONG_S)) == OTHER
        assert await store.home(ended) is None


@SERVERS
async def test_a_server_that_is_away_at_first_is_used_when_it_comes(
    program: str, tmp_path: Path
) -> None:
    """Nothing has to be made again."""
    server = RedisServer(program, tmp_path)
    async with opened(StoreUrl("127.0.0.1", server.port)) as store:
        with pytest.raises(StoreAway):
            await store.beat(ONE)
        server.start()
        try:
            await until_answered(lambda: store.beat(ONE))
            assert await store.beats(ONE)
        finally:
            server.kill()


@SERVERS
async def test_a_failover_is_an_error_and_then_none(program: str, tmp_path: Path) -> None:
    """A server that became a replica refuses writes: `StoreAway`, until one takes them."""
    with redis_server(program, tmp_path) as other:
        async with stored(program, tmp_path) as (store, server):
            session = new_session()
            await store.claim(session, ONE, LONG_S)
            async with Redis(host="127.0.0.1", port=server.port) as client:
                await client.replicaof("127.0.0.1", str(other.port))
                with pytest.raises(StoreAway, match="ReadOnlyError"):
                    await store.claim(new_session(), ONE, LONG_S)
                await client.replicaof("no", "one")
            assert await until_answered(lambda: store.claim(session, OTHER, LONG_S)) in (ONE, OTHER)


@SERVERS
async def test_a_server_without_memory_refuses(program: str, tmp_path: Path) -> None:
    """That is `StoreAway` too, and reads go on."""
    async with stored(program, tmp_path) as (store, server):
        session = new_session()
        await store.claim(session, ONE, LONG_S)
        async with Redis(host="127.0.0.1", port=server.port) as client:
            await client.config_set("maxmemory", "1")
            with pytest.raises(StoreAway, match="OutOfMemoryError"):
                await store.claim(new_session(), ONE, LONG_S)
            assert await store.home(session) == ONE
            await client.config_set("maxmemory", "0")
        assert await store.bury(session, LONG_S) == ONE
        assert await store.home(session) == ENDED


@SERVERS
async def test_a_password_is_needed_and_not_shown(program: str, tmp_path: Path) -> None:
    """A wrong one is `StoreAway`: the server's setting may be put right while this one runs."""
    with redis_server(program, tmp_path, "--requirepass", "s3cret") as server:
        for password, error in ((":wr0ng@", "AuthenticationError"), ("", "AuthenticationError")):
            url = parse_store_url(f"redis://{password}127.0.0.1:{server.port}")
            async with opened(url) as store:
                with pytest.raises(StoreAway, match=error) as caught:
                    await store.beat(ONE)
                assert "wr0ng" not in str(caught.value)
        async with opened(parse_store_url(f"redis://:s3cret@127.0.0.1:{server.port}/3")) as store:
            await store.beat(ONE)
        async with Redis(host="127.0.0.1", port=server.port, password="s3cret", db=3) as client:
            assert await client.keys("*") == [f"beat:{ONE}".encode()]


@SERVERS
async def test_tls_is_checked(program: str, tmp_path: Path) -> None:
    """A server whose certificate no known authority signed is not asked."""
    authority = Authority(tmp_path)
    pair = authority.pair("server")
    files = ("--tls-cert-file", str(pair.cert), "--tls-key-file", str(pair.key))
    more = ("--tls-ca-cert-file", str(authority.cert), "--tls-auth-clients", "no")
    tls = ("--port", "0", "--tls-port", "{port}", *files, *more)
    with redis_server(program, tmp_path, *tls) as server:
        address = f"rediss://localhost:{server.port}"
        async with opened(parse_store_url(address)) as store:
            with pytest.raises(StoreAway):
                await store.beat(ONE)
        known = parse_store_url(f"{address}?ssl_ca_certs={authority.cert}")
        async with opened(known) as store:
            await until_answered(lambda: store.beat(ONE))
            assert await store.beats(ONE)
