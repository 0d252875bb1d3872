"""`make streams`: thousands of open streams cost little memory and slow no call down.

STREAMS (5000) clients open a session and its standalone stream each and then only listen, as most
deployed clients do most of the time. Before, during and after, calls are made at one fixed rate,
so that the three stretches can be compared. What a stream costs is the growth of resident memory,
session and connection included, divided by their number. The stretch with the streams is longer
than the time between two signs of life, so that it holds the work of one whole round of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import uvloop

from benchmarks.measure import NS_PER_S, cpu_ns_between, read_cpu
from mcpbridge.http.keepalive import KeepAliveSettings
from tests.suites.figures import Figures, percentile
from tests.suites.holdings import WATCHED, Watched
from tests.suites.wire import Connection, echo_call, open_session
from tests.support.bridge_process import RunningBridge, bridge

KIB_EACH = 20.0
SLOWER = 3.0
"""How much longer than without the streams the 99th percentile of calls may be."""
CALLS_PER_S = 100
CALLERS = 8
CALM_S, SHORT_CALM_S = 8.0, 1.5
"""Of calls without streams, before and after; the short one where there are few streams."""
AGAIN = 1.03
"""What memory may grow by when all streams are opened a second time."""
FEW = 2000
SPARE_DESCRIPTORS = 200
UNUSED_S = 2
"""Sessions go that long after their streams: their clients never send a call."""
ROOT = Path(__file__).parents[2]
CHILD = ROOT / "benchmarks" / "echo_child.py"


class Listeners:
    """The clients, a separate process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, word: str) -> Mapping[str, int]:
        """Have a word obeyed; what the clients have heard by then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        line = await self._process.stdout.readline()
        assert line, "the clients have ended; their reason is on stderr"
        told: dict[str, int] = json.loads(line)
        return told


@asynccontextmanager
async def listeners(url: str, count: int) -> AsyncIterator[Listeners]:
    """That many clients of a bridge, not connected yet."""
    words = ("-m", "tests.suites.listeners", url, str(count))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=pipe, stdout=pipe, cwd=ROOT
    )
    try:
        yield Listeners(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


class Stretch:
    """Calls at the fixed rate for a while: how long they took, and the bridge's processor time."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.cpu_part = 0.0
        """Of one processor."""

    async def run(self, running: RunningBridge, seconds: float) -> None:
        """Make the calls."""
        connections = [Connection(running.url) for _ in range(CALLERS)]
        headers = await open_session(connections[0])
        for connection in connections:  # connected, and known to be
            await self._call(connection, headers, 0)
        self.took_s.clear()
        before, began = read_cpu(running.pid), monotonic()
        numbers = itertools.count()

        async def caller(connection: Connection) -> None:
            while (number := next(numbers)) < seconds * CALLS_PER_S:
                # By the clock and not after the last call: a slow call must not thin out the rest.
                await asyncio.sleep(max(0.0, began + number / CALLS_PER_S - monotonic()))
                await self._call(connection, headers, number)

        async with asyncio.TaskGroup() as callers:
            for connection in connections:
                callers.create_task(caller(connection))
        used_s = cpu_ns_between(before, read_cpu(running.pid)) / NS_PER_S
        self.cpu_part = used_s / (monotonic() - began)
        response = await connections[0].request("DELETE", headers)
        assert response.status == 200, response
        for connection in connections:
            connection.close()

    async def _call(self, connection: Connection, headers: Mapping[str, str], number: int) -> None:
        began = monotonic()
        response = await connection.request("POST", headers, echo_call(str(number), "aside"))
        self.took_s.append(monotonic() - began)
        assert response.status == 200, response
        assert response.messages()[-1]["id"] == number, response


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit on open files for this process and all it starts.

    Raises:
        SystemExit: The hard limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"streams: needs {wanted} open files, the limit is {hard}; raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def measure(running: RunningBridge, count: int, figures: Figures) -> None:
    """All stretches on one bridge."""
    watched = Watched(running)
    calm_s = CALM_S if count >= FEW else SHORT_CALM_S
    async with listeners(running.url, count) as clients:
        calm, loaded = Stretch(), Stretch()
        await calm.run(running, calm_s)
        start = await watched.steady()
        before_kib, began = watched.rss_kib, monotonic()
        heard = await clients.say("open")
        figures.equal("open", heard["open"], count, seconds=round(monotonic() - began, 1))
        await watched.steady()
        each_kib = (watched.rss_kib - before_kib) / count
        figures.at_most("kib_each", round(each_kib, 1), KIB_EACH, before_kib=before_kib)

        comments = heard.get("comments", 0)
        await loaded.run(running, KeepAliveSettings().every_s + 1)
        heard = await clients.say("?")
        figures.equal("still_open", heard["open"], count)
        figures.equal("each_heard_of_life", heard["comments"] - comments >= count, True)
        figures.equal("events_of_others", heard.get("events", 0), 0)
        most_kib = watched.rss_kib
        await close(clients, watched, start, figures)
        # The allocator keeps most of the pages: what was freed shows when all come again.
        await clients.say("open")
        again_kib = watched.rss_kib
        figures.at_most("rss_when_all_come_again", again_kib, most_kib * AGAIN, first=most_kib)
        await close(clients, watched, start, figures)
        again = Stretch()
        await again.run(running, calm_s)
    p99, calm_p99 = percentile(loaded.took_s, 0.99), percentile(calm.took_s + again.took_s, 0.99)
    facts = {"p99_ms": round(p99 * 1000, 2), "without_ms": round(calm_p99 * 1000, 2)}
    figures.at_most("times_slower", round(p99 / calm_p99, 2), SLOWER, **facts)
    idle = loaded.cpu_part - (calm.cpu_part + again.cpu_part) / 2
    figures.show("cpu_part_of_streams", round(idle, 4), with_calls=round(loaded.cpu_part, 4))


async def close(
    clients: Listeners, watched: Watched, start: Mapping[str, int], figures: Figures
) -> None:
    """Close all streams and judge what the bridge still holds."""
    await clients.say("close")
    found = await watched.settled(start)
    for name, wanted in start.items():
        figures.equal(name, found[name], wanted)


async def main() -> int:
    """The exit status."""
    count = int(os.environ.get("STREAMS") or 5000)
    figures = Figures("streams")
    allow_descriptors(count + SPARE_DESCRIPTORS)
    words = ("--max-sessions", str(count + 10), "--unused-session-timeout", str(UNUSED_S))
    command = (sys.executable, "-S", str(CHILD))
    async with bridge(*words, "--", *command, **WATCHED) as running:
        await measure(running, count, figures)
    return figures.end()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
