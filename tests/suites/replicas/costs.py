"""The rows that measure what a hop costs: instructions, latency, and memory of idle streams."""

from __future__ import annotations

import asyncio
import compileall
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple, cast

from benchmarks.measure import read_memory
from tests.suites.figures import percentile
from tests.suites.replicas.lab import CHILD, KEY, Lab, Replica, lab
from tests.suites.replicas.rows import Figure, Size, at_least, at_most, equal
from tests.suites.streams import SPARE_DESCRIPTORS, allow_descriptors
from tests.suites.wire import Connection, echo_call, open_session
from tests.support.bridge_process import eventually
from tests.support.redis_server import free_port
from tests.support.sdk_servers import ROOT

MOST_INSTRUCTIONS = {"replica between": 300_000, "replica with the session": 330_000}
"""Of one call. Those of a call that is not forwarded are the affair of `make bench-gate`."""
DIRECT_MORE = 10.0
"""Percent that a call takes more at a replica that has peers."""
START_MORE = 1.0
"""Percent within which two starts are alike."""
STARTS = 9
OF_REPLICAS = ("replicas", "stores", "http/peers", "app/replicas.py")
"""What only `--peers` and `--store` use."""
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
    """Instructions of a call, forwarded or not; what the replicas' code costs a bridge without."""
    assert shutil.which("valgrind"), "valgrind is missing; apt-get install valgrind"
    with tempfile.TemporaryDirectory(prefix="replicas-counts-") as name:
        folder = Path(name)
        forwarded = await _per_call(folder, tuple(MOST_INSTRUCTIONS))
        alone = (await _per_call(folder, ("bridge without peers",), peers=False)).popitem()[1]
        direct = (await _per_call(folder, ("replica with peers",))).popitem()[1]
        starts = await _starts(folder)
    figures = []
    for role, bound in MOST_INSTRUCTIONS.items():
        figures.append(at_most(f"instructions at the {role}", forwarded[role], bound))
        figures.append(at_least(f"the same at the {role}", forwarded[role], bound // 3))
    more = round(100 * (direct / alone - 1), 1)
    figures.append(at_most(f"% more than {alone} of a call not forwarded", more, DIRECT_MORE))
    return [*figures, *starts]


async def _per_call(folder: Path, roles: Sequence[str], *, peers: bool = True) -> dict[str, int]:
    """Return the instructions of a call at each of its replicas, without those of timers."""
    base = await _life(folder / f"{roles[0]} base", roles, FIRST, 0.0, peers=peers)
    idle = await _life(folder / f"{roles[0]} idle", roles, FIRST, IDLE_S, peers=peers)
    more = await _life(folder / f"{roles[0]} more", roles, FIRST + MORE, 0.0, peers=peers)
    found = {}
    for role in roles:
        a_second = (idle.counts[role] - base.counts[role]) / (idle.seconds - base.seconds)
        timers = a_second * (more.seconds - base.seconds)
        found[role] = round((more.counts[role] - base.counts[role] - timers) / MORE)
    return found


async def _life(out: Path, names: Sequence[str], calls: int, idle_s: float, *, peers: bool) -> Life:
    """Count replicas in a life of `calls` calls and `idle_s` idle seconds.

    The calls are made at the first of them, in a session of the last one.
    """
    async with lab(count=0, peers=peers) as made:
        roles = {name: made.add() for name in names}
        between, having = roles[names[0]], roles[names[-1]]
        file = f"--cachegrind-out-file={out}.%p"
        under = (*made.under, *SAME_HASHES, *COUNTED, file)
        await asyncio.gather(
            *(each.start(under=under, within_s=WITHIN_S) for each in roles.values())
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
        for replica in roles.values():
            replica.running.signal(signal.SIGTERM)
            assert await replica.running.ended(WITHIN_S) == 0
    return Life({role: _counted(Path(f"{out}.{pid}")) for role, pid in pids.items()}, seconds)


def _counted(file: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", file.read_text("utf-8"), re.MULTILINE)
    assert found is not None, f"no total in {file}"
    return int(found[1])


async def _starts(folder: Path) -> list[Figure]:
    """Start a bridge without peers from the whole tree, and from one without the replicas' code."""
    whole, less = folder / "tree-0", folder / "tree-1"
    for tree in (whole, less):
        here = tree / "mcpbridge"
        shutil.copytree(ROOT / "mcpbridge", here, ignore=shutil.ignore_patterns("__pycache__"))
        for name in OF_REPLICAS if tree == less else ():
            (shutil.rmtree if (here / name).is_dir() else os.unlink)(here / name)
        # Else the first start would compile the modules, and count that.
        assert compileall.compile_dir(str(here), quiet=1), f"{here} does not compile"
    counted = [await _start_counted(tree, ()) for tree in (whole, less)]
    memory = [await _start_memory(tree) for tree in (whole, less)]
    with_peers = await _start_counted(whole, ("--peers", f"localhost:{free_port()}"))
    return [
        _alike("instructions", *counted),
        _alike("KiB", *memory),
        # What is compared would show a start that uses that code.
        at_least(
            "% that --peers adds to them",
            round(100 * (with_peers / counted[0] - 1), 1),
            2 * START_MORE,
        ),
    ]


def _alike(unit: str, whole: float, less: float) -> Figure:
    percent = round(100 * abs(whole / less - 1), 2)
    name = f"% between {whole} and {less} {unit} of a start without peers, with their code or not"
    return at_most(name, percent, START_MORE)


@asynccontextmanager
async def _begun(tree: Path, words: Sequence[str], under: Sequence[str]) -> AsyncIterator[Replica]:
    """A bridge of a tree that has just begun to serve."""
    key = {"MCPBRIDGE_STATE_KEY": KEY} if words else {}
    command = (sys.executable, "-I", "-S", str(CHILD), os.devnull)
    one = Replica("127.0.0.1", free_port(), (*words, "--", *command), key)
    where = ("env", "-C", str(tree), f"PYTHONPATH={tree}", *SAME_HASHES[1:])
    try:
        await one.start(under=(*where, *under), within_s=WITHIN_S)
        yield one
    finally:
        await one.close()


async def _start_counted(tree: Path, words: Sequence[str]) -> int:
    """Return the instructions from the start of a bridge to its end, which follows at once."""
    out = f"{tree}-{len(words)}"
    async with _begun(tree, words, (*COUNTED, f"--cachegrind-out-file={out}.%p")) as one:
        one.running.signal(signal.SIGTERM)
        assert await one.running.ended(WITHIN_S) == 0
        return _counted(Path(f"{out}.{one.running.pid}"))


async def _start_memory(tree: Path) -> int:
    """Return the median of the memory that a bridge has after its start, in KiB."""
    found = []
    for _ in range(STARTS):
        async with _begun(tree, (), ()) as one:
            found.append(read_memory(one.running.pid).rss_kib)
    return sorted(found)[STARTS // 2]


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
