"""How long a call takes, by the clock: at half and at nearly full load, and beside large answers.

Calls are due at equal distances and their latency counts from then (`Load.rate`), so that a stall
shows in every call that it delays. The rates are shares of what this machine manages, which
is measured first.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median

from benchmarks import load, obstacles, target
from benchmarks.bench import Bench
from benchmarks.calls import AT_ONCE, FEW, HUGE
from benchmarks.figures import Figure

LEVELS = (0.5, 0.9)
CONNECTIONS = (1, 16, 256, 4096)
CHILDREN = (1, 8, 64)
MOST_CALLS = ("--max-calls", "8192", "--queue-length", "8192")
"""Room for a call of each of 4,096 connections of one client, and for the share of the others."""
MOST_CHILDREN = ("--isolation", "session", "--max-children", "80")
"""More than run at once: those of the sessions before may still be ending."""
LIGHT_CALLS_PER_S = 200.0
BESIDE_LARGE = 3
LONGER = 4
"""A load whose 99th percentile is asked for lasts that many rounds' time."""


def levels(bench: Bench) -> Iterator[Figure]:
    """Latency of small calls at two levels of load, by connections and by children."""
    with bench.bridge(*MOST_CALLS) as bridge, target.sessions(bridge) as (headers,):
        for connections in CONNECTIONS:
            work = bench.work(bridge, connections, headers=headers)
            yield from _at_levels(bench, f"latency, {connections} connections", work)
    with bench.bridge(*MOST_CHILDREN) as bridge:
        for children in CHILDREN:
            with target.sessions(bridge, children) as opened:
                work = bench.work(bridge, max(FEW, children), each=opened)
                yield from _at_levels(bench, f"latency, {children} children", work)


def _at_levels(bench: Bench, row: str, work: load.Load) -> Iterator[Figure]:
    most = median(_tally(bench, work).calls_per_s for _ in range(bench.rounds))
    for level in LEVELS:
        calls_per_s = level * most
        told = [_tally(bench, replace(work, rate=calls_per_s)) for _ in range(bench.rounds)]
        note = f"{calls_per_s:.0f} calls/s"
        for name, figures in (
            ("median", [each.p50_us / 1000 for each in told]),
            ("99 %", [each.p99_us / 1000 for each in told]),
        ):
            yield Figure(row, f"{name} at {level:.0%} load", "ms", figures, note=note)


def _tally(bench: Bench, work: load.Load) -> load.Tally:
    with load.warm_generator(work, bench.programs.generator) as measured:
        tally = measured()
    bench.wrong += tally.wrong
    return tally


def beside(bench: Bench) -> Iterator[Figure]:
    """Light calls alone, and beside clients that call for answers of 1 MB as fast as they can."""
    row = f"light calls beside {AT_ONCE} clients with {HUGE // 1_000_000} MB"
    with bench.bridge() as bridge, target.sessions(bridge, 2) as (mine, theirs):
        seconds = LONGER * bench.seconds
        light = replace(
            bench.work(bridge, FEW, headers=mine), rate=LIGHT_CALLS_PER_S, seconds=seconds
        )
        heavy = replace(bench.work(bridge, AT_ONCE, HUGE, headers=theirs), seconds=seconds)
        pairs = [
            (_tally(bench, light), _together(bench, light, heavy)) for _ in range(bench.rounds)
        ]
    for name, told in (("alone", [a for a, _ in pairs]), ("beside", [b for _, b in pairs])):
        yield Figure(row, f"{name}, median", "ms", [each.p50_us / 1000 for each in told])
        yield Figure(row, f"{name}, 99 %", "ms", [each.p99_us / 1000 for each in told])
    ratios = [b.p99_us / a.p99_us for a, b in pairs]
    wall = obstacles.BESIDE
    yield Figure(row, "99 % beside / alone", "1", ratios, BESIDE_LARGE, obstacle=wall)


def _together(bench: Bench, light: load.Load, heavy: load.Load) -> load.Tally:
    generator = bench.programs.generator
    with (
        load.warm_generator(heavy, generator) as heavily,
        load.warm_generator(light, generator) as lightly,
        ThreadPoolExecutor(max_workers=1) as aside,
    ):
        running = aside.submit(heavily)
        tally = lightly()
        bench.wrong += tally.wrong + running.result().wrong
    return tally
