"""What a call costs on the bridge, over what it costs on a bare uvicorn: by instructions counted.

Both serve the same requests, of 16 and of 64 connections, under cachegrind, as in `gate`: one life
of each server with a few calls of each number of connections, and one life more with further calls
of one number; the difference, by the call, holds no start and no end. A life that idles tells what
timers take in a second, which is taken off. Without valgrind processor time is measured instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import gate, load, obstacles, target
from benchmarks.bench import Bench, rate
from benchmarks.calls import FEW, SMALL
from benchmarks.figures import Figure
from benchmarks.rounds import Contender

CONNECTIONS = (FEW, 64)
BRIDGE, BARE = "bridge", "bare uvicorn"
TO_BARE = 1.0
FIRST, MORE = 320, 1600
"""Calls of each number of connections in every life, and those that are counted."""
IDLE_S = 15.0
BARE_ID = "0" * 32
"""What stands for the id of a session in the requests to a server that has none."""


def beside_bare(bench: Bench) -> Iterator[Figure]:
    """Yield what both take, and the ratio with its goal, for each number of connections."""
    if shutil.which("valgrind") is None:
        yield from _by_time(bench)
        return
    row = f"instructions of a call of {SMALL} B"
    with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder, fixed_hashes():
        counted = _per_call(bench, Path(folder))
    for connections in CONNECTIONS:
        mine, its = (counted[name, connections] for name in (BRIDGE, BARE))
        for name, number in ((BRIDGE, mine), (BARE, its)):
            yield Figure(row, f"{name}, {connections} connections", "k", [number / 1000])
        yield _ratio(row, connections, [mine / its])


def _ratio(row: str, connections: int, ratios: list[float], note: str = "") -> Figure:
    name, wall = f"{BRIDGE} / {BARE}, {connections} connections", obstacles.BARE
    return Figure(row, name, "1", ratios, TO_BARE, note=note, obstacle=wall)


@contextmanager
def fixed_hashes() -> Iterator[None]:
    """Give the processes started within the same seed of hashes: lives are compared."""
    name = "PYTHONHASHSEED"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _per_call(bench: Bench, folder: Path) -> dict[tuple[str, int], float]:
    """Return the instructions of a call, by server and number of connections."""
    few = dict.fromkeys(CONNECTIONS, FIRST)
    more = [{**few, connections: FIRST + MORE} for connections in CONNECTIONS]
    runs = [(few, 0.0), (few, IDLE_S), *((calls, 0.0) for calls in more)]
    found = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as side_by_side:
        for server in (BRIDGE, BARE):
            # Else the first of those that are counted would compile the modules.
            _live(bench, server, (), few, 0.0)
            count = partial(_count, bench, server, folder)
            base, idle, *lives = side_by_side.map(lambda run, count=count: count(*run), runs)
            a_second = (idle.instructions - base.instructions) / (idle.seconds - base.seconds)
            for connections, life in zip(CONNECTIONS, lives, strict=True):
                timers = a_second * (life.seconds - base.seconds)
                beyond = life.instructions - base.instructions - timers
                found[server, connections] = beyond / MORE
    return found


def _count(
    bench: Bench, server: str, folder: Path, calls: Mapping[int, int], idle_s: float
) -> gate.Life:
    out = folder / "-".join(map(str, (server, *calls.values(), idle_s)))
    pid, seconds = _live(bench, server, gate.instrument(out), calls, idle_s)
    return gate.Life(gate.total(out, pid), seconds)


def _live(
    bench: Bench, server: str, instrument: Sequence[str], calls: Mapping[int, int], idle_s: float
) -> tuple[int, float]:
    """Let a server be asked and idle; return its pid, and how long that took."""
    argv, words = target.program_command("bare_asgi"), load.answer_to_first(SMALL)
    if server == BRIDGE:
        options = ("--port", "0", "--", *bench.programs.child)
        argv, words = target.program_command("patient", *options), b""
    mark = bench.programs.mark
    with (
        target.running(server, [*instrument, *argv], words, mark) as running,
        target.sessions(running) as (session,),
    ):
        headers = {"Mcp-Session-Id": BARE_ID, **session}
        began = time.monotonic()
        for connections, count in calls.items():
            _make_calls(bench, running, connections, count, headers)
        time.sleep(idle_s)  # what timers take in it is what is counted
        seconds = time.monotonic() - began
    return running.pid, seconds


def _make_calls(
    bench: Bench, server: target.Target, connections: int, count: int, headers: dict[str, str]
) -> None:
    work = replace(
        bench.work(server, connections, headers=headers, same_id=server.name == BARE),
        warm_s=0.0,
        seconds=gate.WITHIN_S,
        patience_s=gate.WITHIN_S,
        max_calls=count,
    )
    with load.warm_generator(work, bench.programs.generator) as measured:
        tally = measured()
    if tally.right != count:
        raise target.TargetFailed(f"{tally.right} right answers to {count} calls: {tally}")


def _by_time(bench: Bench) -> Iterator[Figure]:
    row = f"processor time of a call of {SMALL} B"
    with (
        bench.bridge() as bridge,
        target.sessions(bridge) as (session,),
        bench.limit("bare_asgi", SMALL) as bare,
    ):
        for connections in CONNECTIONS:
            work = bench.work(bridge, connections, headers=session)
            mine = Contender(BRIDGE, bridge, work)
            same = bench.work(bare, connections, headers=session, same_id=True)
            its = Contender(BARE, bare, same)
            bench.run(mine, its)
            yield from (
                rate(row, each, f"{each.name}, {connections} connections") for each in (mine, its)
            )
            yield _ratio(row, connections, mine.over(its), "by processor time: no valgrind")
