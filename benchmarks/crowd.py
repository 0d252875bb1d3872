"""The longest turn of the loop with thousands of sessions and open streams."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import load, measure, obstacles, target, turns
from benchmarks.bench import Bench
from benchmarks.calls import FEW
from benchmarks.figures import Figure
from benchmarks.streams import open_stream

MOST = 10_000
FILES_BESIDE = 500
"""Descriptors of this program beside the streams."""
PAUSE_MS = 50
WATCHED_S = 20.0
"""Several rounds of every sweep and scan that runs by the clock."""
LIGHT_CALLS_PER_S = 100.0


def crowd(bench: Bench) -> Iterator[Figure]:
    """Sessions with an open stream each, as many as descriptors allow, and a few calls beside."""
    count = min(MOST, _descriptors() - FILES_BESIDE)
    room = (f"--max-sessions={count + 1}", f"--max-connections={count + FILES_BESIDE}")
    with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder, ExitStack() as stack:
        path = Path(folder, "turns")
        command = target.bridge_command(bench.programs.child, *room, "--isolation", "shared")
        argv = [*turns.METER, str(path), *command]
        bridge = stack.enter_context(target.running("bridge", argv, mark=bench.programs.mark))
        began = time.monotonic()
        opened = stack.enter_context(target.sessions(bridge, count))
        for headers in opened:
            stack.enter_context(open_stream(bridge, headers))
        ready = time.monotonic()
        work = replace(
            bench.work(bridge, FEW, headers=opened[0], rate=LIGHT_CALLS_PER_S), seconds=WATCHED_S
        )
        with load.warm_generator(work, bench.programs.generator) as measured:
            tally = measured()
        bench.wrong += tally.wrong
        ended = time.monotonic()
        arriving, quiet = turns.longest(path, began, ready), turns.longest(path, ready, ended)
        held = measure.read_memory(bridge.pid).rss_kib / 1024
    row = f"{count} sessions with an open stream each"
    fewer = f"{MOST} need more descriptors: ulimit -Hn" if count < MOST else ""
    for name, longest_s in (
        ("longest turn while they arrive", arriving),
        (f"longest turn of {WATCHED_S:.0f} s after", quiet),
    ):
        values = [longest_s * 1e3]
        yield Figure(row, name, "ms", values, PAUSE_MS, note=fewer, obstacle=obstacles.CROWD)
    yield Figure(row, "99 % of a few calls beside", "ms", [tally.p99_us / 1000])
    yield Figure(row, "RSS", "MiB", [held])


def _descriptors() -> int:
    """How many descriptors this program may have; the soft bound is raised to the hard one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
