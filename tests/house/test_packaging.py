"""What is installed, and what the repository holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import mcpbridge
from scripts.release import VERSION
from tests.house import checks
from tests.support.repository import repository_files

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "constraints.txt").read_text("utf-8")


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _requirements() -> list[str]:
    project = _pyproject()["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(each for extra in extras for each in extra)]


def test_every_dependency_has_two_bounds() -> None:
    """A release that does not exist yet is never installed unseen; nor one that is too old."""
    asked = _requirements() + _pyproject()["build-system"]["requires"]

    assert len(asked) > 10
    assert checks.unbounded(asked) == []


def test_the_lock_holds_exact_releases_and_nothing_else() -> None:
    """It names no index and no file, so that it serves wherever releases come from."""
    assert LOCK.count("==") > 20
    assert checks.loose_pins(LOCK) == []


def test_the_lock_was_made_after_the_bounds() -> None:
    """Every direct dependency is locked within its bounds; `make lock` mends it."""
    asked = _requirements() + _pyproject()["build-system"]["requires"]

    assert checks.unmet(asked, LOCK) == []


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """A path that exists on one machine only has no place in the repository."""
    files = repository_files()
    findings = [
        f"{path.relative_to(ROOT)}:{finding}"
        for path in files
        for finding in checks.machine_paths(path.read_text("utf-8", errors="replace"))
    ]

    assert Path(__file__) in files
    assert findings == []


def test_the_distribution_has_one_name() -> None:
    """That of `pyproject.toml`, which errors repeat by `DISTRIBUTION`; no text writes it out."""
    assert _pyproject()["project"]["name"] == mcpbridge.DISTRIBUTION
    naming = re.compile(rf"(?:{re.escape(mcpbridge.DISTRIBUTION)}\[|install mcpbridge)")
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "mcpbridge").rglob("*.py")]
    found = [path.relative_to(ROOT) for path in texts if naming.search(path.read_text("utf-8"))]
    assert len(texts) > 200
    assert found == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    """Unreleased stands first, and a version is a number of three parts."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert headings[0] == "[Unreleased]"
    assert VERSION.fullmatch(mcpbridge.__version__)


def test_make_says_what_it_installs() -> None:
    """A line before each installation: the first `make run` takes a while, and is not silent."""
    lines = (ROOT / "Makefile").read_text("utf-8").splitlines()
    installing = [n for n, line in enumerate(lines) if "python $(PIP_INSTALL)" in line]

    assert len(installing) >= 6
    assert [lines[n] for n in installing if "echo 'make: " not in lines[n - 1]] == []
