"""The release script dates the changelog and names what a release lacks."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from scripts.release import date_changelog, dated_chart, main, missing, notes

DAY = datetime.date(2026, 3, 1)
OPEN = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One thing.\n"
DATED = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-03-01\n\n### Added\n\n- One thing.\n"


def test_what_is_unreleased_gets_version_and_day() -> None:
    assert date_changelog(OPEN, "1.2.3", DAY) == DATED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# Changelog\n", "no line '## [Unreleased]'"),
        (DATED, "heading for 1.2.3 already"),
        (DATED.replace("1.2.3", "1.2.2"), "names no change"),
    ],
)
def test_a_changelog_that_cannot_be_dated_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        date_changelog(text, "1.2.3", DAY)


@pytest.mark.parametrize(("version", "chart"), [("1.2.3", "1.2.3"), ("1.2.3rc1", "1.2.3-rc1")])
def test_the_chart_gets_the_version_of_the_program(version: str, chart: str) -> None:
    before = "apiVersion: v2\nversion: 0.1.0\nappVersion: 0.1.0\nkubeVersion: '>=1.29'\n"
    after = dated_chart(before, version)
    assert after == before.replace("0.1.0", chart)


def test_the_notes_of_a_release_are_its_part_of_the_changelog() -> None:
    older = "\n## [1.2.2] - 2026-01-01\n\n### Fixed\n\n- Another thing.\n"
    assert notes(DATED + older, "1.2.3") == "### Added\n\n- One thing.\n"
    assert notes(DATED + older, "1.2.2") == "### Fixed\n\n- Another thing.\n"
    with pytest.raises(ValueError, match=r"no change under 1\.2\.4"):
        notes(DATED + older, "1.2.4")


def project(
    folder: Path, *, version: str = "1.2.3", changes: str = DATED, name: str = "mcp-stdio-bridge"
) -> Path:
    """A project that lacks nothing, but for what the arguments change."""
    (folder / "mcpbridge").mkdir()
    (folder / "mcpbridge/__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(changes)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    (folder / "mkdocs.yml").write_text("site_url: https://example.org/\n")
    return folder


def git(status: str = "", tags: str = "", branch: str = "main") -> object:
    """A git that answers the three questions of the script."""
    answers = {"status": status, "tag": tags, "rev-parse": f"{branch}\n"}
    return lambda program, command, *rest: answers[command]


def test_a_complete_project_lacks_nothing(tmp_path: Path) -> None:
    assert list(missing(project(tmp_path), git())) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of_project", "of_git", "says"),
    [
        ({"version": "1.3"}, {}, "three numbers"),
        ({"version": "1.2.4"}, {}, "make release-date VERSION=1.2.4"),
        ({"changes": OPEN + DATED}, {}, "under Unreleased"),
        ({"name": "MCP.bridge"}, {}, "a name that PyPI accepts"),
        ({}, {"status": " M README.md\n"}, "not committed"),
        ({}, {"tags": "v1.2.3\n"}, "v1.2.3 exists"),
        ({}, {"branch": "fix"}, "not main"),
    ],
)
def test_each_thing_that_is_missing_is_named(
    tmp_path: Path, of_project: dict[str, str], of_git: dict[str, str], says: str
) -> None:
    lacking = list(missing(project(tmp_path, **of_project), git(**of_git)))  # type: ignore[arg-type]
    assert any(says in sentence for sentence in lacking), lacking


def test_a_version_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["date", "v1"])
    assert end.value.code == 2
    assert "invalid version 'v1' (expected as 1.2.3 or 1.2.3rc1)" in capsys.readouterr().err
