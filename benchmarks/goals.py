"""The table of goals: every row measured, its goal, and whether it is met.

    .venv/bin/python benchmarks/goals.py [--seconds 1] [--rounds 3] [--only calls,streams]

One JSON line a figure on standard output, the table on standard error. What is compared is compared
in one run, in turns; times are processor time, figures are medians of the rounds. Every answer is
checked. The peers are a separate program (`peers`), for they have to be installed.

Exit status: 0, goals met or not; 1 if any answer was wrong or missing, or a target gave way under
its load; 2 if there was nothing to measure (no target, no /proc, no compiler for what is asked in
C) or bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import (
    bare,
    calls,
    crowd,
    figures,
    folder,
    gate,
    images,
    latency,
    lives,
    load,
    obstacles,
    streams,
    target,
    turns,
)
from benchmarks.bench import Bench
from benchmarks.compiled import compiler, prepare
from benchmarks.figures import Figure
from benchmarks.rounds import BUSY

LEAST_ROUNDS = 3
WRONG_ANSWERS = 1
COULD_NOT_MEASURE = 2
PARTS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "plain": calls.plain,
    "growth": calls.growth,
    "payloads": calls.payloads,
    "progress": streams.progress,
    "idle": streams.idle,
    "start": lives.start,
    "servers": lives.servers,
    "folder": folder.folder,
    "sessions": lives.sessions,
    "eras": calls.eras,
    "latency": latency.levels,
    "beside": latency.beside,
    "crowd": crowd.crowd,
    "turns": lambda _: turns.turns(),
    "instructions": lambda _: instructions(),
    "bare": bare.beside_bare,
    "images": lambda _: images.images(),
}
INSTRUCTIONS, TO_LEGACY = 180_000, 1.2


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, read; ends the process with status 2 where it is wrong."""
    language = "c" if compiler() else "python"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=1.0, help="length of a round (1)")
    add("--rounds", type=int, default=LEAST_ROUNDS, help="rounds on each target (3)")
    add("--only", type=_parts, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    add("--child", choices=("c", "python"), default=language)
    add("--generator", choices=("c", "python"), default=language)
    given = parser.parse_args(argv)
    if given.rounds < LEAST_ROUNDS or given.seconds <= 0:
        parser.error(f"--rounds is at least {LEAST_ROUNDS}, --seconds more than 0")
    return given


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return names


def instructions() -> Iterator[Figure]:
    """Instructions of a call of each kind, which a busy machine does not change."""
    row = "instructions of a call"
    if shutil.which("valgrind") is None:
        yield Figure(row, "legacy", "k", [], INSTRUCTIONS / 1000, note="no valgrind")
        return
    with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder, bare.fixed_hashes():
        counted = gate.per_call(Path(folder))
    for kind, number in counted.items():
        goal = INSTRUCTIONS / 1000 if kind == "legacy" else None
        yield Figure(row, kind, "k", [number / 1000], goal, obstacle=obstacles.FAST_PATH)
    share, wall = counted["modern"] / counted["legacy"], obstacles.ENVELOPE
    yield Figure(row, "modern / legacy", "1", [share], TO_LEGACY, obstacle=wall)


def generator(bench: Bench) -> Iterator[Figure]:
    """Whether the load generator was what limited a rate: its share of a processor."""
    row = "load generator"
    for name, share in bench.busiest.items():
        # A bare limit may well be faster than any generator; its processor time holds all the same.
        bound = BUSY if name == "bridge" else None
        note = "the trivial responder" if name == "bare_protocol" else ""
        yield Figure(row, f"share of a processor, {name}", "1", [share], bound, note=note)
    yield Figure(row, "wrong or missing answers", "calls", [bench.wrong], 0)


def measured(bench: Bench, names: list[str]) -> Iterator[Figure]:
    """All figures of some parts."""
    for name in names:
        yield from PARTS[name](bench)
    yield from generator(bench)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    given = options(argv)
    print(json.dumps(figures.machine(vars(given))), flush=True)
    told: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder:
            # As who installed it has it: pip compiles the modules, a checkout may be read-only.
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder, "compiled"))
            programs = prepare(given.child, given.generator, Path(folder))
            bench = Bench(programs, given.seconds, given.rounds)
            for figure in measured(bench, given.only):
                told.append(figure)
                print(figure.line(), flush=True)
    except subprocess.CalledProcessError as error:
        print(f"goals: {error}\n{error.stderr}", file=sys.stderr)
        return COULD_NOT_MEASURE
    except load.GeneratorFailed as error:
        print(f"goals: {error}", file=sys.stderr)
        return WRONG_ANSWERS
    except (OSError, target.TargetFailed, turns.NoAnswer) as error:
        print(f"goals: {error}", file=sys.stderr)
        return COULD_NOT_MEASURE
    print(figures.table(told), file=sys.stderr)
    goals = [each for each in told if each.met is not None]
    met = sum(1 for each in goals if each.met)
    print(f"{met} of {len(goals)} goals met; the peers: make bench-peers", file=sys.stderr)
    return WRONG_ANSWERS if bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
