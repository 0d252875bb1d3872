"""Calls per second, processor time per call and memory of the bridge, for some numbers of clients.

    .venv/bin/python benchmarks/throughput.py [--connections 1,16,64] [--payload 100] [--child c]

For each number of connections a bridge is started over an echo child, one session is opened, and
the load is put on it in rounds; between them the same load is put on the limit (`bare_asgi`), in
turns of order, so that what disturbs a shared machine disturbs both. Every answer is checked. The
figures are medians of the rounds: JSON lines on standard output, one a figure, and a table on
standard error.

Exit status: 0; 1 if any answer was wrong or missing, or a target gave way under its load; 2 if
there was nothing to measure (no target, no /proc, no compiler for what is asked in C) or bad usage.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import figures, load, target
from benchmarks.compiled import Programs, compiler, prepare
from benchmarks.rounds import BUSY, Contender, take_turns

LEAST_ROUNDS = 3
WARM_S = 0.5
WRONG_ANSWERS = 1
COULD_NOT_MEASURE = 2


@dataclass(frozen=True, slots=True)
class Row:
    """The bridge and the limit after all rounds at one number of connections."""

    connections: int
    bridge: Contender
    bare: Contender

    @property
    def both(self) -> tuple[Contender, Contender]:
        """The bridge first."""
        return self.bridge, self.bare

    def wrong(self) -> int:
        """Wrong and missing answers, the limit's included: those would be the generator's fault."""
        return self.bridge.wrong + self.bare.wrong


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, read; ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--connections", type=_counts, default=[1, 16, 64], help="numbers of clients (1,16,64)")
    add("--seconds", type=float, default=3.0, help="length of a round (3)")
    add("--rounds", type=int, default=LEAST_ROUNDS, help="rounds on each target (3)")
    add("--payload", type=int, default=100, help="bytes of text in a call (100)")
    add("--isolation", choices=("auto", "shared", "session"), default="auto")
    add("--child", choices=("c", "python"), default="c" if compiler() else "python")
    add("--generator", choices=("c", "python"), default="c" if compiler() else "python")
    add("--json", action="store_true", help="only the JSON lines, no table")
    given = parser.parse_args(argv)
    if given.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {given.rounds}: a median needs at least {LEAST_ROUNDS}")
    if given.payload < 0 or given.seconds <= 0:
        parser.error("--payload is at least 0, --seconds more than 0")
    return given


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a number of clients is at least 1")
    return counts


def one_row(given: argparse.Namespace, programs: Programs, connections: int) -> Row:
    """All rounds at one number of connections, on a fresh bridge and a fresh limit."""
    with ExitStack() as stack:
        argv = target.bridge_command(programs.child, "--isolation", given.isolation)
        bridge = stack.enter_context(target.running("bridge", argv, mark=programs.mark))
        constant = load.answer_to_first(given.payload)
        argv = target.program_command("bare_asgi")
        bare = stack.enter_context(target.running("bare", argv, constant))
        (headers,) = stack.enter_context(target.sessions(bridge))
        work = load.Load(
            host=bridge.host,
            port=bridge.port,
            path=bridge.path,
            connections=connections,
            payload_bytes=given.payload,
            seconds=given.seconds,
            headers=headers,
            warm_s=WARM_S,
        )
        constant_work = replace(work, host=bare.host, port=bare.port, same_id=True)
        row = Row(
            connections,
            Contender("bridge", bridge, work),
            Contender("bare", bare, constant_work),
        )
        take_turns(row.both, given.rounds, programs.generator)
    return row


def row_figures(row: Row) -> Iterator[dict[str, object]]:
    """What a row says, a figure at a time: its name, target, median, unit and rounds."""
    for name, rounds in ((each.name, each.rounds) for each in row.both):
        of = {
            ("calls_per_s", "1/s"): [done.tally.calls_per_s for done in rounds],
            ("cpu_us_per_call", "us"): [done.cpu_us_per_call for done in rounds],
            ("rss", "KiB"): [float(done.memory.rss_kib) for done in rounds],
            ("peak_rss", "KiB"): [float(done.memory.peak_rss_kib) for done in rounds],
            ("generator_busy_share", "1"): [done.tally.busy_share for done in rounds],
        }
        for (figure, unit), values in of.items():
            yield _figure(row, figure, name, unit, values)
        counts: dict[str, object] = {
            reason: sum(getattr(done.tally, reason) for done in rounds)
            for reason in ("calls", "reopened", *load.OUTCOMES)
        }
        yield {"figure": "answers", "target": name, "connections": row.connections, **counts}
    yield _figure(row, "cpu_ratio", "bridge/bare", "1", row.bridge.over(row.bare))


def _figure(row: Row, name: str, of: str, unit: str, values: list[float]) -> dict[str, object]:
    return {
        "figure": name,
        "target": of,
        "connections": row.connections,
        "median": round(median(values), 3),
        "unit": unit,
        "rounds": [round(value, 3) for value in values],
    }


def table(rows: list[Row]) -> str:
    """The figures for people; medians, times in µs, memory in MiB."""
    titles = ("conns", "target", "calls/s", "CPU us/call", "ratio", "RSS MiB", "peak MiB", "wrong")
    lines = ["".join(f"{title:>12}" for title in titles)]
    for row in rows:
        for name, rounds in ((each.name, each.rounds) for each in row.both):
            cells = (
                str(row.connections),
                name,
                f"{median(done.tally.calls_per_s for done in rounds):.0f}",
                f"{median(done.cpu_us_per_call for done in rounds):.1f}",
                f"{median(row.bridge.over(row.bare)):.2f}" if name == "bridge" else "",
                f"{median(done.memory.rss_kib for done in rounds) / 1024:.1f}",
                f"{median(done.memory.peak_rss_kib for done in rounds) / 1024:.1f}",
                str(sum(done.tally.wrong for done in rounds)),
            )
            busy = max(done.tally.busy_share for done in rounds)
            note = "  generator-bound" if busy > BUSY else ""
            lines.append("".join(f"{cell:>12}" for cell in cells) + note)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    given = options(argv)
    print(json.dumps(figures.machine(vars(given))), flush=True)
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder:
            programs = prepare(given.child, given.generator, Path(folder))
            for connections in given.connections:
                rows.append(one_row(given, programs, connections))
                for figure in row_figures(rows[-1]):
                    print(json.dumps(figure), flush=True)
    except subprocess.CalledProcessError as error:
        print(f"throughput: {error}\n{error.stderr}", file=sys.stderr)
        return COULD_NOT_MEASURE
    except load.GeneratorFailed as error:
        print(f"throughput: {error}", file=sys.stderr)
        return WRONG_ANSWERS
    except (OSError, target.TargetFailed) as error:
        print(f"throughput: {error}", file=sys.stderr)
        return COULD_NOT_MEASURE
    if not given.json:
        print(table(rows), file=sys.stderr)
    return WRONG_ANSWERS if any(row.wrong() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
