"""`make mutants`: make each mistake in a copy of the program, and see the tests beside it fail.

    MUTANTS=20 SEED=7 make mutants      only that many of them, chosen by the seed

A mistake that the tests pass with is printed and the status is 1; so is one whose anchor does not
stand exactly once in its file, and one that cannot even be imported, since any test would see that.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
COPIED = ("mcpbridge", "tests", "pyproject.toml")
WITHIN_S = 300.0
"""A mutation may make a test hang; that is noticed too."""
_PASSED, _FAILED = 0, 1


def misplaced(mutations: tuple[Mutation, ...]) -> list[str]:
    """Return a line for each mutation whose anchor does not stand exactly once in its file."""
    found = []
    for each in mutations:
        path = ROOT / "mcpbridge" / each.file
        count = path.read_text("utf-8").count(each.old) if path.exists() else 0
        if count != 1:
            found.append(f"{each.file}: {each.old!r} stands there {count} times (expected once)")
        elif each.old == each.new:
            found.append(f"{each.file}: {each.old!r} is not changed")
    return found


def tested(copy: Path, suite: str) -> int | None:
    """Return the exit status of pytest over a suite in the copy; None if it did not end."""
    words = [f"tests/{each}" for each in suite.split()]
    flags = ("-x", "-q", "-p", "no:cacheprovider", "-m", "not sdk")
    # The copy's own modules come first on the path (pytest's `pythonpath`), before an installation.
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    try:
        return subprocess.run(
            (sys.executable, "-m", "pytest", *flags, *words),
            cwd=copy,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=WITHIN_S,
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def survives(copy: Path, mutation: Mutation) -> str | None:
    """Return what is wrong if the tests do not notice a mutation; the copy is as before then."""
    path = copy / "mcpbridge" / mutation.file
    whole = path.read_text("utf-8")
    path.write_text(whole.replace(mutation.old, mutation.new), "utf-8")
    try:
        status = tested(copy, mutation.suite)
    finally:
        path.write_text(whole, "utf-8")
    if status == _PASSED:
        return f"survived tests/{mutation.suite}"
    if status in (None, _FAILED):
        return None
    return f"pytest ended with status {status}"


def chosen() -> tuple[list[Mutation], int]:
    """Return the mutations that the environment asks for, and the seed that chose them."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    count = int(os.environ.get("MUTANTS") or len(MUTATIONS))
    if count >= len(MUTATIONS):
        return list(MUTATIONS), seed
    return random.Random(seed).sample(MUTATIONS, count), seed


def main() -> int:
    """Run the mutations; the exit status."""
    wrong = misplaced(MUTATIONS)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    mutations, seed = chosen()
    began, survivors = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="mcpbridge-mutants-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(source, copy / name, ignore=ignored)
            else:
                shutil.copy(source, copy / name)
        for suite in sorted({each.suite for each in mutations}):
            if tested(copy, suite) != _PASSED:
                print(f"tests/{suite} fails without any mutation", file=sys.stderr)
                return 1
        for number, each in enumerate(mutations, 1):
            problem = survives(copy, each)
            if problem is not None:
                survivors += 1
                change = re.sub(r"\s+", " ", f"{each.old} -> {each.new}")
                print(f"{each.file}: {change}: {problem}", flush=True)
            elif sys.stderr.isatty():
                print(f"\r{number} of {len(mutations)}", end="", file=sys.stderr)
    took = time.monotonic() - began
    print(f"{len(mutations)} of {len(MUTATIONS)} mutations, {survivors} survived, seed {seed},"
          f" {took:.0f} s")  # fmt: skip
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
