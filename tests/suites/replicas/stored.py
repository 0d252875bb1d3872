"""The rows with a store: a real Redis server that stops, ends, and is replaced under load."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx
from redis.asyncio import Redis

from mcpbridge.stores.store import BEAT_FOR_S
from tests.suites.replicas.conversation import Client, http_client, tool_call
from tests.suites.replicas.lab import Lab, lab
from tests.suites.replicas.load import ROLLING, busy, common, rolled
from tests.suites.replicas.rows import Figure, Size, at_least, detail, equal
from tests.support.bridge_process import messages
from tests.support.redis_server import PROGRAMS, RedisServer

STORE = "store.test"
FIRST_IP, SECOND_IP = "127.0.0.1", "127.0.0.2"
LAPSED_S = BEAT_FOR_S + 2
"""After this time without a store every replica's heartbeat has lapsed."""
OWN_CHILD: dict[str, object] = {"elicitation": {}}
SESSIONS = 6
EVENT_EVERY_S = 5.0


class Answer(NamedTuple):
    """What one replica said at one time to a session's question who serves it."""

    replica: str
    status: int
    process: str | None
    """The process that served it, if there is an answer."""


async def asked(client: Client, url: str, text: str) -> Answer:
    """Ask one replica which process serves a session."""
    try:
        response = await client.post(url, tool_call(text, "who", text=text))
    except httpx.TransportError:
        return Answer(url, 0, None)
    if response.status_code != 200:
        return Answer(url, response.status_code, None)
    (message,) = messages(response.text)
    if "error" in message:
        return Answer(url, 200, None)
    said, process = message["result"]["content"][0]["text"].split()
    assert said == text, "the answer of another call"
    return Answer(url, 200, process)


def doubles(rounds: Sequence[Sequence[Answer]]) -> int:
    """Count the rounds in which two processes served, and the returns to an earlier process."""
    wrong, past, now = 0, set[str](), ""
    for answers in rounds:
        found = {each.process for each in answers if each.process is not None}
        wrong += len(found) > 1 or bool(found & past)
        for process in found - {now}:
            past.add(now)
            now = process
    return wrong


@asynccontextmanager
async def _with_store(*words: str) -> AsyncIterator[tuple[Lab, RedisServer, Path]]:
    """Three replicas with a store, which has a name, and with more flags."""
    with tempfile.TemporaryDirectory(prefix="replicas-store-") as name:
        folder = Path(name)
        server = RedisServer(PROGRAMS[0], folder)
        server.start()
        try:
            given = ("--store", f"redis://{STORE}:{server.port}", *words)
            async with lab(words=given, names={STORE: FIRST_IP}) as made:
                yield made, server, folder
        finally:
            server.kill()


async def row_2(size: Size) -> list[Figure]:
    """Rolling restarts under load, without a store and with one."""
    async with lab(words=ROLLING) as made:
        alone = await rolled(made, size.restarts)
    async with _with_store(*ROLLING) as (made, _, _):
        stored = await rolled(made, size.restarts)
        claims = [await each.counted("mcpbridge_handovers_total") for each in made.replicas]
    taken = sum(each.get("taken", 0) for each in claims)
    return [
        *alone,
        *(replace(each, name=f"{each.name} with a store") for each in stored),
        at_least("sessions handed over with a store", taken, 1),
    ]


async def row_5(size: Size) -> list[Figure]:
    """Sessions with a process each are asked through all replicas while these end and begin."""
    async with _with_store() as (made, _, _), http_client() as http:
        url = made.replicas[0].url
        opened = [await Client.opened(http, url, url, OWN_CHILD) for _ in range(SESSIONS)]
        rounds: list[list[list[Answer]]] = [[] for _ in opened]
        over = asyncio.Event()

        async def ask(client: Client, into: list[list[Answer]], name: str) -> None:
            for number in itertools.count():
                if over.is_set():
                    return
                urls = [each.url for each in made.replicas]
                calls = (
                    asked(client, each, f"{name}-{number}-{at}") for at, each in enumerate(urls)
                )
                into.append(await asyncio.gather(*calls))
                await asyncio.sleep(1)  # the row's own rate

        async with asyncio.TaskGroup() as tasks:
            for number, ((client, _), into) in enumerate(zip(opened, rounds, strict=True)):
                tasks.create_task(ask(client, into, f"s{number}"))
            events = await _disturb(made, monotonic() + size.seconds)
            over.set()
        executed = made.executed()
    lost = sum(not any(answer.process for answer in each[-1]) for each in rounds)
    wrong = sum(map(doubles, rounds))
    if wrong or lost:
        detail("rounds", rounds)
    gone = sum(answer.status == 404 for each in rounds for answers in each for answer in answers)
    return [
        equal("rounds with two processes", wrong, 0),
        equal("sessions lost", lost, 0),
        equal("404", gone, 0),
        equal("executed twice", sum(count > 1 for count in executed.values()), 0),
        at_least("replicas that ended", events, 2),
        at_least("rounds", min(map(len, rounds)), events),
    ]


async def _disturb(made: Lab, until: float) -> int:
    """Kill and replace replicas, at another address or the same; return how many."""
    count = 0
    while monotonic() < until:
        replica = made.replicas[count % len(made.replicas)]
        began = monotonic()
        await replica.kill()
        await (made.start(replica) if count % 2 else made.replace(replica))
        count += 1
        await asyncio.sleep(max(0.0, began + EVENT_EVERY_S - monotonic()))
    # The last ones are found by their next round.
    await asyncio.sleep(EVENT_EVERY_S)
    return count


async def row_7(_size: Size) -> list[Figure]:
    """The store stops, ends, begins empty and is replaced by its copy, under load."""
    async with _with_store() as (made, server, folder), busy(made, "stored") as clients:
        await clients.ready()
        await _noticed(made, "store.available", 1)
        server.pause()
        await _noticed(made, "store.away", 1)
        await asyncio.sleep(LAPSED_S)  # the store's own clock
        server.resume()
        await _noticed(made, "store.available", 2)
        server.kill()
        await _noticed(made, "store.away", 2)
        server.start()
        await _noticed(made, "store.available", 3)
        copy = await _failed_over(made, server, folder)
        try:
            await _noticed(made, "store.available", 4)
            load = await clients.stop()
        finally:
            copy.kill()
        figures = common(load, made)
    return [
        equal("errors", len(load.errors), 0),
        equal("sessions lost", load.sessions - load.kept, 0),
        *figures,
        at_least("right answers", load.right, load.sessions * 10),
    ]


async def _failed_over(made: Lab, server: RedisServer, folder: Path) -> RedisServer:
    """Replace the store by its copy at another address, to which its name leads then."""
    (other := folder / "copy").mkdir()
    where = ("--bind", SECOND_IP, "--port", str(server.port))
    copy = RedisServer(PROGRAMS[0], other, *where, "--replicaof", f"{FIRST_IP} {server.port}")
    copy.start()
    async with Redis(host=SECOND_IP, port=server.port) as asking:
        server.kill()
        await _noticed(made, "store.away", 3)
        await asking.replicaof("NO", "ONE")
    made.name(STORE, SECOND_IP)
    return copy


async def _noticed(made: Lab, event: str, count: int) -> None:
    """Wait until each replica has logged this event of the store `count` times."""
    for each in made.replicas:
        await each.running.logged(event, count=count)
