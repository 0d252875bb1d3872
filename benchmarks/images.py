"""How large the images are, as an engine that answers here builds them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import obstacles
from benchmarks.figures import Figure

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("slim", "node", "uv", "uv-node", "tree")
MB = 1_000_000
SLIM_BEYOND_MB = 35
BASE = re.compile(r"^FROM (\S+) AS python$", re.MULTILINE)
ANSWERS_WITHIN_S, BUILT_WITHIN_S = 10, 1800


class NotMeasured(Exception):
    """There is no size; the text says why."""


def images() -> Iterator[Figure]:
    """The size of each target of the Dockerfile, and of slim beyond its base."""
    row = "size of an image"
    try:
        _docker("version", within_s=ANSWERS_WITHIN_S, otherwise="no engine")
    except NotMeasured as why:
        yield from (_unknown(row, each, why) for each in (*TARGETS, "slim beyond its base"))
        return
    sizes: dict[str, float] = {}
    for name in TARGETS:
        try:
            sizes[name] = _built(name)
        except NotMeasured as why:
            yield _unknown(row, name, why)
        else:
            yield Figure(row, name, "MB", [sizes[name]])
    yield _beyond_base(row, sizes.get("slim"))


def _beyond_base(row: str, slim: float | None) -> Figure:
    name = "slim beyond its base"
    found = BASE.search((ROOT / "Dockerfile").read_text())
    try:
        if slim is None or found is None:
            raise NotMeasured("slim was not built")
        _docker("pull", "--quiet", found[1], within_s=BUILT_WITHIN_S)
        beyond = [slim - _size(found[1])]
    except NotMeasured as why:
        return _unknown(row, name, why)
    goal, wall = SLIM_BEYOND_MB, obstacles.IMAGE
    return Figure(row, name, "MB", beyond, goal, note=found[1], obstacle=wall)


def _unknown(row: str, name: str, why: NotMeasured) -> Figure:
    goal = SLIM_BEYOND_MB if name not in TARGETS else None
    return Figure(row, name, "MB", [], goal, note=str(why))


def _built(name: str) -> float:
    words = ("build", "--quiet", "--target", name, str(ROOT))
    return _size(_docker(*words, within_s=BUILT_WITHIN_S).split()[-1])


def _size(image: str) -> float:
    words = ("image", "inspect", "--format", "{{.Size}}", image)
    return int(_docker(*words, within_s=ANSWERS_WITHIN_S)) / MB


def _docker(*words: str, within_s: float, otherwise: str = "") -> str:
    """What docker printed; raises NotMeasured with `otherwise` or the end of what it complained."""
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, timeout=within_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasured(otherwise or str(error)) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason told"]
        raise NotMeasured(otherwise or f"docker {words[0]}: {said[-1]}")
    return done.stdout
