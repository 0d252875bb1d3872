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
import importlib.metadata
import json
import os
import platform
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

from benchmarks import load, measure, target
from benchmarks.compiled import compile_c, compiler

LEAST_ROUNDS = 3
WARM_S = 0.5
BUSY = 0.9
"""A generator that took more than this share of a processor may have been what limited the rate."""
WRONG_ANSWERS = 1
COULD_NOT_MEASURE = 2
PACKAGES = ("mcpbridge", "uvicorn", "httptools", "uvloop", "starlette", "msgspec")


@dataclass(frozen=True, slots=True)
class Round:
    """One measured load on one target."""

    tally: load.Tally
    cpu_us_per_call: float
    memory: measure.Memory


@dataclass(frozen=True, slots=True)
class Row:
    """All rounds on the bridge and on the limit at one number of connections."""

    connections: int
    bridge: list[Round]
    bare: list[Round]

    def wrong(self) -> int:
        """Wrong and missing answers, the limit's included: those would be the generator's fault."""
        return sum(done.tally.wrong for done in [*self.bridge, *self.bare])

    def ratios(self) -> list[float]:
        """The bridge's processor time per call over the limit's, round by round."""
        pairs = zip(self.bridge, self.bare, strict=True)
        return [bridge.cpu_us_per_call / bare.cpu_us_per_call for bridge, bare in pairs]


@dataclass(frozen=True, slots=True)
class Programs:
    """What is run beside the bridge; paths of compiled programs where there is a compiler."""

    generator: Path | None
    child: list[str]


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


def prepare(given: argparse.Namespace, folder: Path) -> Programs:
    """Compile what is asked for in C into a folder.

    Raises:
        FileNotFoundError, subprocess.CalledProcessError: See `compile_c`.
    """
    if given.child == "c":
        child = [str(compile_c("echo_child", folder))]
    else:
        child = [sys.executable, str(Path(__file__).with_name("echo_child.py"))]
    return Programs(compile_c("load", folder) if given.generator == "c" else None, child)


def one_round(server: target.Target, work: load.Load, generator: Path | None) -> Round:
    """Put a load on a target and see what it cost, its warm-up left out."""
    with load.warm_generator(work, generator) as measured:
        before = measure.read_cpu(server.pid)
        tally = measured()
        after = measure.read_cpu(server.pid)
        memory = measure.read_memory(server.pid)
    return Round(tally, measure.cpu_ns_between(before, after) / 1000 / tally.calls, memory)


def one_row(given: argparse.Namespace, programs: Programs, connections: int) -> Row:
    """All rounds at one number of connections, on a fresh bridge and a fresh limit."""
    row = Row(connections, [], [])
    with ExitStack() as stack:
        argv = target.bridge_command(given.isolation, programs.child)
        bridge = stack.enter_context(target.running("bridge", argv))
        constant = load.answer_to_first(given.payload)
        bare = stack.enter_context(target.running("bare", target.bare_command(), constant))
        headers = stack.enter_context(target.session(bridge))
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
        turns = [(bridge, work, row.bridge), (bare, constant_work, row.bare)]
        for number in range(given.rounds):
            for server, its_work, rounds in turns if number % 2 == 0 else reversed(turns):
                rounds.append(one_round(server, its_work, programs.generator))
    return row


def figures(row: Row) -> Iterator[dict[str, object]]:
    """What a row says, a figure at a time: its name, target, median, unit and rounds."""
    for name, rounds in (("bridge", row.bridge), ("bare", row.bare)):
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
            for reason in ("calls", "right", "status", "shape", "id", "text", "lost", "reopened")
        }
        yield {"figure": "answers", "target": name, "connections": row.connections, **counts}
    yield _figure(row, "cpu_ratio", "bridge/bare", "1", row.ratios())


def _figure(row: Row, name: str, of: str, unit: str, values: list[float]) -> dict[str, object]:
    return {
        "figure": name,
        "target": of,
        "connections": row.connections,
        "median": round(median(values), 3),
        "unit": unit,
        "rounds": [round(value, 3) for value in values],
    }


def machine(given: argparse.Namespace) -> dict[str, object]:
    """Where and with what the figures were taken."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "figure": "machine",
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "options": vars(given),
    }


def table(rows: list[Row]) -> str:
    """The figures for people; medians, times in µs, memory in MiB."""
    titles = ("conns", "target", "calls/s", "CPU us/call", "ratio", "RSS MiB", "peak MiB", "wrong")
    lines = ["".join(f"{title:>12}" for title in titles)]
    for row in rows:
        for name, rounds in (("bridge", row.bridge), ("bare", row.bare)):
            cells = (
                str(row.connections),
                name,
                f"{median(done.tally.calls_per_s for done in rounds):.0f}",
                f"{median(done.cpu_us_per_call for done in rounds):.1f}",
                f"{median(row.ratios()):.2f}" if name == "bridge" else "",
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
    print(json.dumps(machine(given)), flush=True)
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder:
            programs = prepare(given, Path(folder))
            for connections in given.connections:
                rows.append(one_row(given, programs, connections))
                for figure in figures(rows[-1]):
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
