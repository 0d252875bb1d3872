"""How long a call takes, by the clock: at half and at nearly full load, and beside large answers.

Calls are due at equal distances and their latency counts from then (`Load.rate`), so that a stall
shows in every call that it delays. The rates are shares of what this machine manages, which
is measured first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from benchmarks import load, obstacles, target
from benchmarks.bench import Bench
from benchmarks.calls import AT_ONCE, FEW, HUGE
from benchmarks.figures import Figure
from benchmarks.rounds import Contender

LEVELS = (0.5, 0.9)
CONNECTIONS = (1, 16, 256, 4096)
CHILDREN = (1, 8, 64)
MOST_CALLS = ("--max-calls", "8192", "--queue-length", "8192")
"""Room for a call of each of 4,096 connections of one client, and for the share of the others."""
MOST_CHILDREN = ("--isolation", "session", "--max-children", "80")
"""More than run at once: those of the sessions before may still be ending."""
DEARER, SLOWER = 2.0, 1.0
WARMED_A_SECOND = 2048
"""Connections for each second of load before what is measured: enough on a busy machine as well."""
LIGHT_CALLS_PER_S = 200.0
BESIDE_LARGE = 3
LONGER = 4
"""A load whose 99th percentile is asked for lasts that many rounds' time."""


class Step(NamedTuple):
    """What was measured with one number of connections, or of children."""

    number: int
    calls_per_s: float
    """The most that it manages."""
    cpu_us: float
    """Processor time of a call at that rate."""
    told: Mapping[float, Sequence[load.Tally]]
    """Rounds at each level of load."""

    def p99_ms(self, level: float) -> float:
        """Return the milliseconds within which 99 % of the answers came, the least of the rounds.

        Other work on the machine only adds to it, and a cliff stands in every round.
        """
        return min(each.p99_us for each in self.told[level]) / 1000


def levels(bench: Bench) -> Iterator[Figure]:
    """Latency of small calls at two levels of load, by connections and by children."""
    steps = []
    with bench.bridge(*MOST_CALLS) as bridge, target.sessions(bridge) as (headers,):
        for connections in CONNECTIONS:
            work = bench.work(bridge, connections, headers=headers)
            steps.append(_step(bench, bridge, connections, work))
            yield from _figures(f"latency, {connections} connections", steps[-1])
    yield from cliffs("connections", steps)
    steps.clear()
    with bench.bridge(*MOST_CHILDREN) as bridge:
        for children in CHILDREN:
            with target.sessions(bridge, children) as opened:
                work = bench.work(bridge, max(FEW, children), each=opened)
                steps.append(_step(bench, bridge, children, work))
            yield from _figures(f"latency, {children} children", steps[-1])
    yield from cliffs("children", steps)


def _step(bench: Bench, bridge: target.Target, number: int, work: load.Load) -> Step:
    # The first calls of a connection are dearer than those after them.
    work = replace(work, warm_s=max(work.warm_s, work.connections / WARMED_A_SECOND))
    busy = Contender("bridge", bridge, work)
    bench.run(busy)
    most = median(done.tally.calls_per_s for done in busy.rounds)
    told = {
        level: [_tally(bench, replace(work, rate=level * most)) for _ in range(bench.rounds)]
        for level in LEVELS
    }
    return Step(number, most, median(busy.cpu_us), told)


def _figures(row: str, step: Step) -> Iterator[Figure]:
    for level, told in step.told.items():
        note = f"{level * step.calls_per_s:.0f} calls/s"
        for name, figures in (
            ("median", [each.p50_us / 1000 for each in told]),
            ("99 %", [each.p99_us / 1000 for each in told]),
        ):
            yield Figure(row, f"{name} at {level:.0%} load", "ms", figures, note=note)


def cliffs(kind: str, steps: Sequence[Step]) -> Iterator[Figure]:
    """Yield the worst step from one number to the next: of the cost of a call, and of its latency.

    There is no cliff if a call costs at most twice as much, and if the latency of 99 % of the calls
    at half load grows by no larger factor than the number does.
    """
    row, level = "no cliff", LEVELS[0]
    pairs = list(pairwise(steps))
    dearer = [after.cpu_us / before.cpu_us for before, after in pairs]
    slower = [
        after.p99_ms(level) / before.p99_ms(level) / (after.number / before.number)
        for before, after in pairs
    ]
    for name, found, goal in (
        ("processor time of a call", dearer, DEARER),
        (f"99 % at {level:.0%} load, by the growth", slower, SLOWER),
    ):
        worst = max(found)
        before, after = pairs[found.index(worst)]
        note, wall = f"from {before.number} to {after.number}", obstacles.CLIFF
        name = f"{kind}, worst step: {name}"
        yield Figure(row, name, "1", [worst], goal, note=note, obstacle=wall)


def _tally(bench: Bench, work: load.Load) -> load.Tally:
    with load.warm_generator(work, bench.programs.generator) as measured:
        tally = measured()
    bench.wrong += tally.wrong
    return tally


def beside(bench: Bench) -> Iterator[Figure]:
    """Light calls alone, and beside clients that call for answers of 1 MB as fast as they can.

    All on one child, which is the one with a goal; and with a child for each session.
    """
    row = f"light calls beside {AT_ONCE} clients with {HUGE // 1_000_000} MB"
    with bench.bridge("--isolation", "shared") as bridge:
        pairs = list(_beside(bench, bridge))
    with bench.bridge("--isolation", "session") as bridge:
        apart = [together for _, together in _beside(bench, bridge)]
    for name, told in (
        ("alone", [alone for alone, _ in pairs]),
        ("beside", [together for _, together in pairs]),
        ("beside, a child for each session", apart),
    ):
        yield Figure(row, f"{name}, median", "ms", [each.p50_us / 1000 for each in told])
        yield Figure(row, f"{name}, 99 %", "ms", [each.p99_us / 1000 for each in told])
    ratios = [together.p99_us / alone.p99_us for alone, together in pairs]
    wall = obstacles.BESIDE
    yield Figure(row, "99 % beside / alone", "1", ratios, BESIDE_LARGE, obstacle=wall)


def _beside(bench: Bench, bridge: target.Target) -> Iterator[tuple[load.Tally, load.Tally]]:
    """Measure, in each round, the light calls of one session alone and beside another's."""
    with target.sessions(bridge, 2) as (mine, theirs):
        seconds = LONGER * bench.seconds
        light = replace(
            bench.work(bridge, FEW, headers=mine), rate=LIGHT_CALLS_PER_S, seconds=seconds
        )
        heavy = replace(bench.work(bridge, AT_ONCE, HUGE, headers=theirs), seconds=seconds)
        for _ in range(bench.rounds):
            yield _tally(bench, light), _together(bench, light, heavy)


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
