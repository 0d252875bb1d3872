"""Three replicas of a server, with a real store: Redis, and Valkey if this machine has it."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from mcpbridge.stores.store import BEAT_FOR_S
from tests.support.bridge_process import asked_until, child, open_session, rpc
from tests.support.namespaces import NEEDS_NAMESPACES
from tests.support.questioner_bridge import ASKED, Headers, result_of
from tests.support.redis_server import PROGRAMS, RedisServer, redis_server
from tests.support.replicas import Replicas, replicas

pytestmark = [pytest.mark.slow, NEEDS_NAMESPACES]
SERVERS = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: Path(each).name)
WITHIN_S = 120.0
"""However busy the machine is."""


@asynccontextmanager
async def with_store(
    program: str, folder: Path, *words: str
) -> AsyncIterator[tuple[Replicas, RedisServer, Path]]:
    """Run three replicas with a store; the folder has what their children have read."""
    record = folder / "record"
    record.mkdir()
    command = child("questioner", str(record))
    with redis_server(program, folder) as server:
        store = ("--store", f"redis://127.0.0.1:{server.port}", *words)
        async with replicas(3, *store, command=command, hosts=folder / "hosts") as running:
            for each in running.running:
                await each.logged("store.available")
            yield running, server, record


async def echoed(client: httpx.AsyncClient, headers: Headers, nonce: str) -> int:
    """The status of a call, whose answer is right if it has one."""
    answer = await client.post("/mcp", json=rpc(nonce, "x/echo", {"nonce": nonce}), headers=headers)
    if answer.status_code == 200:
        assert answer.json() == result_of(nonce, {"nonce": nonce})
    return answer.status_code


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """The value of a metric without labels."""
    text = (await client.get("/metrics")).text
    found = re.search(rf"^mcpbridge_{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


async def kill(running: Replicas, number: int) -> None:
    """End a replica at once."""
    running.running[number].signal(signal.SIGKILL)
    await running.running[number].ended()


def readers_of(folder: Path, text: str) -> set[str]:
    """The processes that have read a text."""
    return {each.name for each in folder.iterdir() if text.encode() in each.read_bytes()}


async def keys(server: RedisServer) -> set[str]:
    """The kinds of keys in the store."""
    async with Redis(port=server.port) as asking:
        found = await asking.keys("*")
    return {each.partition(b":")[0].decode() for each in found if isinstance(each, bytes)}


@SERVERS
async def test_a_session_of_a_killed_replica_has_one_home(program: str, tmp_path: Path) -> None:
    """Both that are left are asked at once, and none has to wait; level and logging go on."""
    async with with_store(program, tmp_path) as (running, server, record):
        lost, *left = running.clients
        own = await open_session(lost, "2025-06-18", ASKED)
        assert await echoed(lost, own, "before") == 200
        assert await keys(server) == {"beat"}, "nothing is written when a session opens"
        asked = await lost.post(
            "/mcp", json=rpc(2, "logging/setLevel", {"level": "error"}), headers=own
        )
        assert asked.status_code == 200, asked.text

        async def written() -> bool:
            return "state" in await keys(server)

        await asked_until(written, "the level is in the store", WITHIN_S)
        await kill(running, 0)
        found = await asyncio.gather(
            *(echoed(left[number % 2], own, f"after-{number}-") for number in range(8))
        )
        assert found == [200] * 8, "the first claim wins at once"
        (process,) = set.union(*(readers_of(record, f"after-{number}-") for number in range(8)))
        assert b'"level":"error"' in (record / process).read_bytes()
        assert await keys(server) == {"beat", "state", "home"}
        for client in left:
            assert await metric(client, "store_up") == 1.0
        deleted = await left[0].delete("/mcp", headers=own)
        assert deleted.status_code == 200
        assert await keys(server) == {"beat", "home"}, "what is left says that it has ended"
        assert await echoed(left[1], own, "late") == 404


@SERVERS
async def test_a_store_that_is_away_takes_nothing_from_sessions_that_live(
    program: str, tmp_path: Path
) -> None:
    """Stopped, killed, begun again empty: calls are answered; orphans with a process wait."""
    async with with_store(program, tmp_path) as (running, server, record):
        first, second, third = running.clients
        own = await open_session(first, "2025-06-18", ASKED)
        other = await open_session(third, "2025-06-18", ASKED)
        server.pause()
        for each in running.running:
            await each.logged("store.away")
        for number, client in enumerate(running.clients):
            assert await echoed(client, own, f"paused-{number}-") == 200
        assert (await second.get("/readyz")).status_code == 200
        assert await metric(second, "store_up") == 0.0
        assert await metric(second, "store_errors_total") > 0
        await kill(running, 2)
        assert await echoed(second, other, "orphan") == 503
        server.kill()
        # The lapse of the heartbeat is over by the time at which the store has counted to it.
        await asyncio.sleep(BEAT_FOR_S)  # the store's own clock, which no test can set
        for number, client in enumerate((first, second)):
            assert await echoed(client, own, f"lapsed-{number}-") == 200
        server.start()
        for each in running.running[:2]:
            await each.logged("store.available", count=2)

        async def adopted() -> bool:
            return await echoed(second, other, "again") == 200

        await asked_until(adopted, "the orphan has a home", WITHIN_S)
        for number, client in enumerate((first, second)):
            assert await echoed(client, own, f"back-{number}-") == 200
        texts = [f"{name}-{number}-" for name in ("lapsed", "back") for number in (0, 1)]
        assert len(set.union(*(readers_of(record, each) for each in texts))) == 1
