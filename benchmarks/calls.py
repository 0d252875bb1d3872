"""What a call costs: beside the limits, with many clients, in either era, with large texts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import load, obstacles, target
from benchmarks.bench import Bench, rate
from benchmarks.figures import Figure
from benchmarks.rounds import Contender

SMALL = 100
FEW, MANY = 16, 256
SESSIONS = 500
LARGE, HUGE = 10_000, 1_000_000
AT_ONCE = 4
PIPE_CALLS = 20_000
TO_ASGI, TO_GROW, TO_PROTOTYPE, TO_STRUCTURED, TO_MODERN = 1.6, 1.25, 1.5, 2.0, 1.2
MIB_WITH_HUGE = 64
MODERN = "2026-07-28"
ENVELOPE: dict[str, object] = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
}
MODERN_HEAD = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}


def plain(bench: Bench) -> Iterator[Figure]:
    """A small call beside the limits, with 16 and with 64 clients."""
    with ExitStack() as stack:
        bridge = stack.enter_context(bench.bridge())
        (headers,) = stack.enter_context(target.sessions(bridge))
        limits = [
            stack.enter_context(bench.limit(name, SMALL)) for name in ("bare_asgi", "bare_protocol")
        ]
        for connections in (FEW, 64):
            row = f"call of {SMALL} B, {connections} connections"
            mine = Contender("bridge", bridge, bench.work(bridge, connections, headers=headers))
            asgi, protocol = (
                Contender(each.name, each, bench.work(each, connections, same_id=True))
                for each in limits
            )
            bench.run(mine, asgi, protocol)
            yield from (rate(row, each) for each in (mine, asgi, protocol))
            yield Figure(row, "pipes alone", "us", _pipes_alone(bench, connections))
            yield Figure(row, "bridge / bare_asgi", "1", mine.over(asgi), TO_ASGI, aim=1.0)


def _pipes_alone(bench: Bench, at_once: int) -> list[float]:
    words = map(str, (PIPE_CALLS, at_once, SMALL))
    argv = target.program_command("bare_pipes", *words, *bench.programs.child)
    done = (subprocess.run(argv, check=True, capture_output=True) for _ in range(bench.rounds))
    return [float(each.stdout) for each in done]


def growth(bench: Bench) -> Iterator[Figure]:
    """The same call from more connections, and from more sessions on as many connections."""
    row = "growth"
    with bench.bridge() as bridge, target.sessions(bridge, SESSIONS) as opened:
        few = Contender("few", bridge, bench.work(bridge, FEW, headers=opened[0]))
        many = Contender("many", bridge, bench.work(bridge, MANY, headers=opened[0]))
        bench.run(few, many)
        yield rate(row, few, f"{FEW} connections")
        yield rate(row, many, f"{MANY} connections")
        yield Figure(row, f"{MANY} / {FEW} connections", "1", many.over(few), TO_GROW)
        single = Contender("single", bridge, bench.work(bridge, SESSIONS, headers=opened[0]))
        each = Contender("each", bridge, bench.work(bridge, SESSIONS, each=opened))
        bench.run(single, each)
        yield rate(row, single, f"{SESSIONS} connections, 1 session")
        yield rate(row, each, f"{SESSIONS} connections, {SESSIONS} sessions")
        yield Figure(row, f"{SESSIONS} / 1 sessions", "1", each.over(single), TO_GROW)


def eras(bench: Bench) -> Iterator[Figure]:
    """The same call of a client of 2026-07-28; the child is one of the legacy revisions."""
    row = f"client of {MODERN}"
    with bench.bridge() as bridge, target.sessions(bridge) as (headers,):
        old = Contender("legacy", bridge, bench.work(bridge, FEW, headers=headers))
        work = bench.work(bridge, FEW, headers=MODERN_HEAD, meta=ENVELOPE)
        new = Contender("modern", bridge, work)
        bench.run(old, new)
    yield rate(row, old, "legacy era")
    yield rate(row, new, MODERN)
    name, wall = f"{MODERN} / handshake", obstacles.ENVELOPE
    yield Figure(row, name, "1", new.over(old), TO_MODERN, obstacle=wall)


def payloads(bench: Bench) -> Iterator[Figure]:
    """Large texts and structured content beside the prototype, and what memory 1 MB takes."""
    for row, connections, fields, goal, wall in (
        (f"call of {LARGE // 1000} kB", FEW, {"size": LARGE}, TO_PROTOTYPE, obstacles.PAYLOAD),
        (f"call of {HUGE // 1000} kB", AT_ONCE, {"size": HUGE}, TO_PROTOTYPE, obstacles.PAYLOAD),
        (
            f"call of {HUGE // 1000} kB structured",
            AT_ONCE,
            {"structured_bytes": HUGE},
            TO_STRUCTURED,
            obstacles.STRUCTURED,
        ),
    ):
        mine, its = _beside_prototype(bench, connections, fields)
        named = f"{row}, {connections} connections"
        yield from (rate(named, each) for each in (mine, its))
        yield Figure(named, "bridge / prototype", "1", mine.over(its), goal, obstacle=wall)
        if fields.get("size") == HUGE:
            yield from _memory(mine, its)


def _beside_prototype(
    bench: Bench, connections: int, fields: dict[str, int]
) -> tuple[Contender, Contender]:
    """Rounds of one load on the bridge and on the prototype; `fields` are those of the load."""
    with ExitStack() as stack:
        bridge = stack.enter_context(bench.bridge())
        (headers,) = stack.enter_context(target.sessions(bridge))
        argv = target.program_command("prototype", *bench.programs.child)
        bare = stack.enter_context(target.running("prototype", argv, mark=bench.programs.mark))
        first = target.Client(bare)
        first.ask("POST", {}, json.loads(load.call(load.FIRST_ID, 1)))
        first.close()
        work = bench.work(bridge, connections, **fields, headers=headers)
        mine = Contender("bridge", bridge, work)
        its = Contender("prototype", bare, bench.work(bare, connections, **fields))
        bench.run(mine, its)
    return mine, its


def _memory(mine: Contender, its: Contender) -> Iterator[Figure]:
    row = f"memory, {AT_ONCE} calls of {HUGE // 1_000_000} MB in flight"
    # The most it ever held is what counts, so the last round tells it for all.
    for each, goal in ((mine, MIB_WITH_HUGE), (its, None)):
        most = each.rounds[-1].memory.peak_rss_kib / 1024
        yield Figure(row, f"{each.name}, peak RSS", "MiB", [most], goal)
