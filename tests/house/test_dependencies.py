"""No release with a known hole that we would stand in is ever installed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.sbom import locked

ROOT = Path(__file__).parents[2]
FLOORS = {
    "cryptography": ("46.0.7", "CVE-2026-26007, CVE-2026-39892: keys and buffers unchecked"),
    "h11": ("0.16.0", "CVE-2025-43859: chunks misread, so that requests are smuggled (fault 87)"),
    "httptools": ("0.6.1", "CVE-2023-30589, llhttp before 9: requests are smuggled (fault 87)"),
    "joserfc": ("1.7.6", "CVE-2026-48990, CVE-2026-119284: tokens of any size, and more"),
    "starlette": (
        "1.3.1",
        "CVE-2026-48710, PYSEC-2026-248: a Host or a path makes another URL (fault 89);"
        " PYSEC-2026-249: forms without limits",
    ),
    "uvicorn": ("0.11.7", "PYSEC-2020-151: responses are split by what stands in headers"),
}
"""What a release must not be older than, and why. A floor is raised here first."""


def _asked() -> dict[str, list[Requirement]]:
    """What a user's installation asks for, extras included, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [each for texts in project["optional-dependencies"].values() for each in texts]
    found: dict[str, list[Requirement]] = {}
    for text in (*project["dependencies"], *extras):
        requirement = Requirement(text)
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def _locked() -> dict[str, Version]:
    return {name: Version(release) for name, release in locked().items()}


@pytest.mark.parametrize("name", FLOORS)
def test_no_release_below_a_floor_can_be_installed(name: str) -> None:
    """Asked for by ourselves, so that it holds for who installs without the lock; locked above."""
    floor = Version(FLOORS[name][0])
    asked = _asked()[name]
    lowest = [
        Version(each.version)
        for requirement in asked
        for each in requirement.specifier
        if each.operator == ">="
    ]
    assert len(lowest) == len(asked)
    assert min(lowest) >= floor, FLOORS[name][1]
    assert _locked()[name] >= floor


def test_every_finding_that_is_passed_over_has_its_reason() -> None:
    """`# nosec` names what it passes over, and says why."""
    marks = [
        line
        for path in (ROOT / "mcpbridge").rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if "nosec" in line
    ]
    assert len(marks) > 5
    assert [line for line in marks if not re.search(r"  # nosec B\d{3} # [a-z].+\Z", line)] == []


def test_the_audit_is_strict_and_no_part_of_what_must_pass() -> None:
    """Its answer changes by the day; it has not passed if the service did not answer."""
    recipe = subprocess.run(
        ["make", "--dry-run", "audit"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "pip-audit --strict" in recipe
    assert "constraints.txt" in recipe
    gate = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "audit" not in re.sub(r"--no-audit", "", gate)
