"""The rows that measure what a hop costs: instructions, latency, and memory of idle streams."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple, cast

from benchmarks.measure import read_memory
from tests.suites.figures import percentile
from tests.suites.replicas.lab import Lab, lab
from tests.suites.replicas.rows import Figure, Size, at_least, at_most, equal
from tests.suites.streams import SPARE_DESCRIPTORS, allow_descriptors
from tests.suites.wire import Connection, echo_call, open_session
from tests.support.bridge_process import eventually

MOST_INSTRUCTIONS = {"replica between": 300_000, "replica with the session": 330_000}
"""Of one call. Those of a call that is not forwarded are the affair of `make bench-gate`."""
FIRST, MORE = 200, 800
"""Calls of every life, and those that are counted."""
IDLE_S = 10.0
WITHIN_S = 120.0
"""Longest start and end of a replica that is counted: it is fifty times slower."""
COUNTED = ("valgrind", "--tool=cachegrind", "--cache-sim=no")
SAME_HASHES = ("env", "PYTHONHASHSEED=0")
"""How often a dictionary has to look twice hangs on the seed."""
ADDED_MS, P99_MS = 0.6, 3.0
WARM, PAIRS = 200, 2000
CALLERS = 8
FULL_LOAD_S, HALF_LOAD_S = 3.0, 10.0
KIB_EACH = 16.0
AT_ONCE = 50
WARM_STREAMS = 20
NEVER_S = "3600"
"""A session that makes no call stays."""


class Life(NamedTuple):
    """What the two replicas counted from their start to their end."""

    counts: Mapping[str, int]
    seconds: float
    """How long they were asked, or idle."""


async def row_17(_size: Size) -> list[Figure]:
    """Instructions of a forwarded call at both of its replicas, without those of timers."""
    assert shutil.which("valgrind"), "valgrind is missing; apt-get install valgrind"
    with tempfile.TemporaryDirectory(prefix="replicas-counts-") as name:
        folder = Path(name)
        base = await _life(folder / "base", FIRST, 0.0)
        idle = await _life(folder / "idle", FIRST, IDLE_S)
        more = await _life(folder / "more", FIRST + MORE, 0.0)
    figures = []
    for role, bound in MOST_INSTRUCTIONS.items():
        a_second = (idle.counts[role] - base.counts[role]) / (idle.seconds - base.seconds)
        timers = a_second * (more.seconds - base.seconds)
        each = (more.counts[role] - base.counts[role] - timers) / MORE
        figures.append(at_most(f"instructions at the {role}", round(each), bound))
        figures.append(at_least(f"the same at the {role}", round(each), bound // 3))
    return figures


async def _life(out: Path, calls: int, idle_s: float) -> Life:
    """Count two replicas: `calls` that one forwards to the other, then `idle_s` idle seconds."""
    async with lab(count=0) as made:
        roles = dict(zip(MOST_INSTRUCTIONS, (made.add(), made.add()), strict=True))
        between, having = roles.values()
        file = f"--cachegrind-out-file={out}.%p"
        under = (*made.under, *SAME_HASHES, *COUNTED, file)
        await asyncio.gather(
            *(each.start(under=under, within_s=WITHIN_S) for each in (between, having))
        )
        connection = Connection(having.url)
        headers = await open_session(connection)
        connection.close()
        connection, began = Connection(between.url), monotonic()
        for number in range(calls):
            await _timed(connection, headers, number)
        await asyncio.sleep(idle_s)  # the timers of an idle replica are what is counted
        seconds = monotonic() - began
        connection.close()
        pids = {role: replica.running.pid for role, replica in roles.items()}
        for replica in (between, having):
            replica.running.signal(signal.SIGTERM)
            assert await replica.running.ended(WITHIN_S) == 0
    return Life({role: _counted(Path(f"{out}.{pid}")) for role, pid in pids.items()}, seconds)


def _counted(file: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", file.read_text("utf-8"), re.MULTILINE)
    assert found is not None, f"no total in {file}"
    return int(found[1])


async def row_18(_size: Size) -> list[Figure]:
    """What the hop adds to a call's latency, and the slowest calls at half load."""
    async with lab() as made:
        owner, relay = (Connection(replica.url) for replica in made.replicas[:2])
        headers = await open_session(owner)
        direct: list[float] = []
        forwarded: list[float] = []
        for number in range(WARM + PAIRS):
            # In turns, so that whatever else the machine does falls on both.
            for connection, took in ((owner, direct), (relay, forwarded)):
                seconds = await _timed(connection, headers, number)
                if number >= WARM:
                    took.append(seconds)
        added_ms = (percentile(forwarded, 0.5) - percentile(direct, 0.5)) * 1000
        most = await _rate(made.replicas[1].url, headers)
        took = await _paced(made.replicas[1].url, headers, most / 2)
    p99_ms = percentile(took, 0.99) * 1000
    return [
        at_most("ms that the hop adds (median)", round(added_ms, 2), ADDED_MS),
        at_most(f"ms at half load ({most / 2:.0f} calls/s, p99)", round(p99_ms, 2), P99_MS),
    ]


async def _timed(connection: Connection, headers: Mapping[str, str], number: int) -> float:
    began = monotonic()
    response = await connection.request("POST", headers, echo_call(str(number), f"t{number}"))
    assert response.status == 200, response
    return monotonic() - began


async def _rate(url: str, headers: Mapping[str, str]) -> float:
    """Return calls a second under full load: callers that never rest."""
    numbers, until = itertools.count(), monotonic() + FULL_LOAD_S

    async def caller() -> None:
        connection = Connection(url)
        while monotonic() < until:
            await _timed(connection, headers, next(numbers))
        connection.close()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return next(numbers) / FULL_LOAD_S


async def _paced(url: str, headers: Mapping[str, str], rate: float) -> list[float]:
    """Seconds of calls that are made at a fixed rate."""
    numbers, began, took = itertools.count(), monotonic(), []

    async def caller() -> None:
        connection = Connection(url)
        while (number := next(numbers)) < HALF_LOAD_S * rate:
            await asyncio.sleep(max(0.0, began + number / rate - monotonic()))
            took.append(await _timed(connection, headers, number))
        connection.close()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return took


class _Listener(asyncio.Protocol):
    """One client that listens, and counts as open once its stream has a head."""

    def __init__(self, request: bytes) -> None:
        self.listening = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self.over = False
        self._request = request
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read the head; what comes later is of no interest."""
        if self.listening.done():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self.listening.set_result(self._head.startswith(b"HTTP/1.1 200 "))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self.over = True
        if not self.listening.done():
            self.listening.set_exception(exc or EOFError("closed before it listened"))


async def row_19(size: Size) -> list[Figure]:
    """Streams of sessions of one replica, opened at another, cost the other little memory."""
    count = size.streams
    allow_descriptors(2 * count + 2 * WARM_STREAMS + SPARE_DESCRIPTORS)
    words = ("--max-sessions", str(count + 100), "--unused-session-timeout", NEVER_S)
    async with lab(words=words) as made:
        pid = made.replicas[1].running.pid
        warm = await _listen(made, WARM_STREAMS)
        before_kib = read_memory(pid).rss_kib
        made_now = await _listen(made, count)
        each_kib = (read_memory(pid).rss_kib - before_kib) / count
        still = sum(not listener.over for listener in made_now)
        for listener in (*warm, *made_now):
            listener.transport.close()
        await eventually(lambda: all(each.over for each in made_now), "the streams are closed")
    return [
        equal("open", still, count),
        at_most("KiB each on the relay", round(each_kib, 1), KIB_EACH),
    ]


async def _listen(made: Lab, count: int) -> list[_Listener]:
    """Open `count` sessions at the first replica, and their streams at the second."""
    owner, relay = made.replicas[:2]
    places = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one() -> _Listener:
        async with places:
            connection = Connection(owner.url)
            headers = {**await open_session(connection), "accept": "text/event-stream"}
            connection.close()
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            request = f"GET /mcp HTTP/1.1\r\nhost: {relay.ip}:{relay.port}\r\n{lines}\r\n".encode()
            _, listener = await loop.create_connection(
                lambda: _Listener(request), relay.ip, relay.port
            )
            assert await listener.listening, listener._head
            return listener

    return list(await asyncio.gather(*(one() for _ in range(count))))
