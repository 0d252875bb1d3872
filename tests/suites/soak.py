"""`make soak`: nothing that the bridge holds grows with what it has served.

| phase | size | each |
|---|---|---|
| calls | CALLS (100000) | one call in one of 16 sessions, ids as they come |
| modern | CALLS / 4 | one call of a 2026-07-28 client; 30 % disconnect before the answer |
| sessions | SESSIONS (20000) | initialize, initialized, a call, DELETE |
| own | SESSIONS / 100 | the same by a client that offers sampling: a child for each session |

Each phase begins with its own warm-up, the longest one where connections break: the heap
finds its size after some 10 000 sessions, or 50 000 calls with disconnects. A phase's memory is the
median slope over samples, in KiB for 100 000 calls, or for 20 000 sessions; in a short run, whose
samples are few pages apart, it is shown and not judged. After each phase descriptors, tasks,
threads, children and zombies must be exactly what they were before it.

The hostile part comes last, on its own bridges: `tests.suites.hostile`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import uvloop

from tests.suites import hostile
from tests.suites.figures import Figures, slope
from tests.suites.holdings import WATCHED, Watched
from tests.suites.wire import Connection, echo_call, open_session
from tests.support.bridge_process import bridge
from tests.support.modern_client import headers_of, meta

WORKERS = 16
OWN_WORKERS = 4
SAMPLES = 20
GROWTH_KIB = 256.0
NOISE_KIB = 192.0
"""A heap that does not grow still takes and gives that much, as glibc enlarges it by 128 KiB at
once (M_TOP_PAD); a shorter run is told more of it."""
JUDGED_CALLS, JUDGED_SESSIONS = 100_000, 20_000
JUDGED_FROM = 4
"""A phase is judged by no less than this part of what its growth is told for."""
WARM_CALLS = 20_000
"""Before that many calls the heap has not found its size, however short the run is."""
MODERN_PART, OWN_PART = 4, 100
DISCONNECTS = 0.3
CHILD = Path(__file__).parents[2] / "benchmarks" / "echo_child.py"

Work = Callable[[Connection, int], Awaitable[None]]


class Phase(NamedTuple):
    """One kind of load."""

    name: str
    size: int
    warm_up: float
    """As a part of the size."""
    per: int
    """The growth is told for that many."""
    workers: int
    work: Work


async def spread(url: str, phase: Phase, size: int) -> None:
    """Do the work that many times, by all workers at once, each on its own connection."""
    numbers = iter(range(size))

    async def one_worker() -> None:
        connection = Connection(url)
        try:
            for number in numbers:
                await phase.work(connection, number)
        finally:
            connection.close()

    async with asyncio.TaskGroup() as workers:
        for _ in range(phase.workers):
            workers.create_task(one_worker())


async def soak(url: str, watched: Watched, phase: Phase, figures: Figures) -> None:
    """Warm up, take what is held as the start, load, and judge what is held then."""
    await spread(url, phase, max(phase.workers, int(phase.size * phase.warm_up)))
    start = await watched.steady()
    samples = [(0.0, float(watched.rss_kib))]
    step = max(1, phase.size // SAMPLES)
    began = monotonic()
    for done in range(step, phase.size + 1, step):
        await spread(url, phase, step)
        samples.append((float(done), float(watched.rss_kib)))
    rate = round(phase.size / (monotonic() - began))
    growth = round(slope(samples) * phase.per, 1)
    facts = {"of": phase.size, "per_s": rate, "rss_kib": [samples[0][1], samples[-1][1]]}
    name = f"{phase.name}_growth_kib_per_{phase.per}"
    if phase.size * JUDGED_FROM >= phase.per:
        noise = NOISE_KIB * phase.per / phase.size if phase.size < phase.per else 0
        figures.at_most(name, growth, GROWTH_KIB + noise, **facts)
    else:
        figures.show(name, growth, **facts)
    found = await watched.settled(start)
    for name, before in start.items():
        figures.equal(f"{phase.name}_{name}", found[name], before)


async def call(connection: Connection, headers: Mapping[str, str], number: int) -> None:
    """One call and its right answer."""
    text = f"text {number}"
    response = await connection.request("POST", headers, echo_call(str(number), text))
    assert response.status == 200, response
    (answer,) = response.messages()
    assert (answer["id"], answer["result"]["content"][0]["text"]) == (number, text), answer


def whole_session(capabilities: Any) -> Work:
    """A session from its beginning to its end, with one call."""

    async def work(connection: Connection, number: int) -> None:
        headers = await open_session(connection, capabilities=capabilities)
        await call(connection, headers, number)
        response = await connection.request("DELETE", headers)
        assert response.status == 200, response

    return work


def modern_call(chance: random.Random) -> Work:
    """A call of a 2026-07-28 client, which may leave before the answer."""
    arguments = {"name": "echo", "arguments": {"text": "modern"}, "_meta": meta()}

    async def work(connection: Connection, number: int) -> None:
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": arguments}
        body = json.dumps(message).encode()
        if chance.random() < DISCONNECTS:
            await connection.send("POST", headers_of(message), body)
            # Some are gone before the bridge has read them, some while the child has them.
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.002)))
            connection.close()
            return
        response = await connection.request("POST", headers_of(message), body)
        assert response.status == 200, response
        answer = response.messages()[-1]
        assert (answer["id"], answer["result"]["content"][0]["text"]) == (number, "modern"), answer

    return work


@asynccontextmanager
async def sessions_for_calls(url: str) -> AsyncIterator[Work]:
    """Calls in sessions that stay open until the block ends."""
    connection = Connection(url)
    opened = [await open_session(connection) for _ in range(WORKERS)]
    # Idle, it would be closed by the bridge at its own moment, and be counted until then.
    connection.close()
    turns = itertools.cycle(opened)

    async def work(connection: Connection, number: int) -> None:
        await call(connection, next(turns), number)

    yield work
    for headers in opened:
        response = await connection.request("DELETE", headers)
        assert response.status == 200, response
    connection.close()


async def main() -> int:
    """All phases on one bridge; the exit status."""
    calls = int(os.environ.get("CALLS") or 100_000)
    sessions = int(os.environ.get("SESSIONS") or 20_000)
    figures = Figures("soak")
    chance = random.Random(calls)
    words = ("--spares", "0", "--", sys.executable, "-S", str(CHILD))
    async with bridge(*words, **WATCHED) as running:
        watched = Watched(running)
        url = running.url
        async with sessions_for_calls(url) as work:
            warm_up = max(0.2, WARM_CALLS / calls)
            phase = Phase("calls", calls, warm_up, JUDGED_CALLS, WORKERS, work)
            await soak(url, watched, phase, figures)
        modern = max(1, calls // MODERN_PART)
        own = max(1, sessions // OWN_PART)
        asks: dict[str, Any] = {"sampling": {}}
        for phase in (
            Phase("modern", modern, 2, JUDGED_CALLS, WORKERS, modern_call(chance)),
            Phase("sessions", sessions, 0.5, JUDGED_SESSIONS, WORKERS, whole_session({})),
            Phase("own", own, 0.5, JUDGED_SESSIONS, OWN_WORKERS, whole_session(asks)),
        ):
            await soak(url, watched, phase, figures)
        figures.show("rss_kib", watched.rss_kib)
    await hostile.run(figures)
    return figures.end()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
