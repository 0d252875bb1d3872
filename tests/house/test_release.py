"""The release script dates the changelog and names what a release lacks."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import mcpbridge
from scripts.release import WITH_IMAGES, date_changelog, dated_chart, main, missing, notes

ROOT = Path(__file__).parents[2]

DAY = datetime.date(2026, 3, 1)
OPEN = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One thing.\n"


def dated(version: str) -> str:
    """OPEN as a release leaves it."""
    return OPEN.replace("]\n\n", f"]\n\n## [{version}] - 2026-03-01\n\n")


DATED = dated("1.2.3")


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


def test_a_dated_changelog_does_not_say_that_the_first_version_will_come() -> None:
    head = "The form is old. The first version will be 1.2.3; until it is\nreleased, all waits.\n"
    assert date_changelog(head + OPEN, "1.2.3", DAY) == f"The form is old.\n{DATED}"


def test_the_chart_gets_the_version_of_the_program() -> None:
    before = "apiVersion: v2\nversion: 0.1.0\nappVersion: 0.1.0\nkubeVersion: '>=1.29'\n"
    assert dated_chart(before, "1.2.3") == before.replace("0.1.0", "1.2.3")


def test_the_notes_of_a_release_are_its_part_of_the_changelog() -> None:
    older = "\n## [1.2.2] - 2026-01-01\n\n### Fixed\n\n- Another thing.\n"
    assert notes(DATED + older, "1.2.3") == "### Added\n\n- One thing.\n"
    assert notes(DATED + older, "1.2.2") == "### Fixed\n\n- Another thing.\n"
    with pytest.raises(ValueError, match=r"no change under 1\.2\.4"):
        notes(DATED + older, "1.2.4")


def project(
    folder: Path,
    *,
    version: str = "1.2.3",
    changes: str = DATED,
    name: str = "mcp-stdio-bridge",
    images: str = "ghcr.io/our/bridge",
) -> Path:
    """A project that lacks nothing, but for what the arguments change."""
    (folder / "mcpbridge").mkdir()
    (folder / "mcpbridge/__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(changes)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\n[project.urls]\nRepository = "https://example.org/our/bridge"\n'
    )
    (folder / ".github/workflows").mkdir(parents=True)
    shutil.copy(ROOT / ".github/workflows/release.yml", folder / ".github/workflows")
    (folder / "deploy/chart").mkdir(parents=True)
    (folder / "deploy/chart/values.yaml").write_text(f"bridge:\n  repository: {images}\n")
    return folder


def git(
    status: str = "",
    tags: str = "",
    branch: str = "main",
    origin: str = "https://example.org/our/bridge.git",
) -> object:
    """A git that answers the questions of the script."""
    remotes = f"origin\t{origin} (fetch)\norigin\t{origin} (push)\n" if origin else ""
    answers = {"status": status, "tag": tags, "rev-parse": f"{branch}\n", "remote": remotes}
    return lambda program, command, *rest: answers[command]


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.org/our/bridge",
        "git@example.org:our/bridge.git",
        "ssh://git@example.org/our/bridge.git",
    ],
)
def test_a_complete_project_lacks_nothing(origin: str, tmp_path: Path) -> None:
    assert list(missing(project(tmp_path), git(origin=origin))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of_project", "of_git", "says"),
    [
        ({"version": "1.3", "changes": dated("1.3")}, {}, "three numbers"),
        ({"version": "1.2.3rc1", "changes": dated("1.2.3rc1")}, {}, "three numbers"),
        ({"version": "1.2.4"}, {}, "make release-date VERSION=1.2.4"),
        ({"changes": OPEN + DATED}, {}, "under Unreleased"),
        ({"changes": f"\nThe first version will be 1.2.3; until then.\n{DATED}"}, {}, "will come"),
        ({"name": "MCP.bridge"}, {}, "a name that PyPI accepts"),
        ({}, {"origin": "https://example.org/my/bridge"}, "git's origin is example.org/my/bridge"),
        ({}, {"origin": ""}, "git's origin is not set"),
        ({"images": "ghcr.io/my/bridge"}, {}, "a release pushes them to 'ghcr.io/our/bridge'"),
        ({}, {"status": " M README.md\n"}, "not committed"),
        ({}, {"tags": "v1.2.3\n"}, "v1.2.3 exists"),
        ({}, {"branch": "fix"}, "not main"),
    ],
)
def test_each_thing_that_is_missing_is_named(
    tmp_path: Path, of_project: dict[str, str], of_git: dict[str, str], says: str
) -> None:
    (sentence,) = missing(project(tmp_path, **of_project), git(**of_git))  # type: ignore[arg-type]
    assert says in sentence


def test_each_decision_that_is_open_is_named(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "releasing.md").read_text("utf-8")
    section = page.partition("## To decide\n")[2].partition("\n## ")[0]
    undecided = project(tmp_path, name="mcpbridge", images="bridge")
    lacking = "".join(missing(undecided, git(origin="")))  # type: ignore[arg-type]
    numbers = re.findall(r"^(\d)\. \*\*", section, re.MULTILINE)
    assert len(numbers) == 3
    assert re.findall(r"docs/releasing\.md, To decide, (\d)", lacking) == numbers


@pytest.mark.parametrize("version", ["v1", "1.2", "1.2.3rc1", "01.2.3"])
def test_a_version_that_is_none_is_refused(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["date", version], tmp_path)
    assert end.value.code == 2
    assert f"invalid version '{version}' (expected as 1.2.3)" in capsys.readouterr().err


def test_date_writes_the_version_wherever_the_project_names_it(tmp_path: Path) -> None:
    names = ["CHANGELOG.md", "mcpbridge/__init__.py", "deploy/chart/Chart.yaml"]
    for name in (*names, *WITH_IMAGES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert main(["date", "9.8.7"], tmp_path) == 0
    changes, package, chart = ((tmp_path / name).read_text("utf-8") for name in names)
    assert re.search(
        r"^## \[Unreleased\]\n\n## \[9\.8\.7\] - \d{4}-\d\d-\d\d\n\n### ", changes, re.M
    )
    assert "until it is released" not in changes
    assert '\n__version__ = "9.8.7"\n' in package
    assert chart.count(": 9.8.7\n") == 2
    for name in WITH_IMAGES:
        manifest, before = (tmp_path / name).read_text("utf-8"), (ROOT / name).read_text("utf-8")
        assert re.search(r" \S+:9\.8\.7-(slim|tree)$", manifest, re.M), name
        assert manifest == before.replace(f":{mcpbridge.__version__}-", ":9.8.7-")
    assert main(["date", "9.8.7"], tmp_path) == 1


NEEDS_GIT = pytest.mark.skipif(
    "CI" not in os.environ and shutil.which("git") is None,
    reason="no git; the tests need Python and make alone, and CI leaves none out",
)


def in_git(folder: Path) -> Path:
    """The project as the one commit of a branch main, with its address as origin."""
    for words in (
        ("init", "-q", "-b", "main"),
        ("remote", "add", "origin", "https://example.org/our/bridge.git"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "All"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True, timeout=30)
    return folder


def checking(folder: Path, status: int) -> Path:
    """A project whose long checks are there, `.ci/run` with this exit status."""
    (folder / "Makefile").write_text("audit:\n\t@true\n")
    (folder / ".ci").mkdir()
    (folder / ".ci/run").write_text(f"#!/bin/sh\nexit {status}\n")
    (folder / ".ci/run").chmod(0o755)
    return in_git(project(folder))


@NEEDS_GIT
def test_check_asks_git_and_runs_what_a_release_needs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under `make test`, the make of the check would tell which folder it enters.
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    checking(tmp_path, status=0)
    assert main(["check"], tmp_path) == 0
    assert capfd.readouterr().out.splitlines() == [
        "running: make audit",
        "running: .ci/run",
        "1.2.3 can be released: push the tag v1.2.3",
    ]


@NEEDS_GIT
def test_check_fails_if_a_check_fails_or_something_is_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checking(tmp_path, status=3)
    assert main(["check"], tmp_path) == 1
    assert "failed: .ci/run (status 3)" in capfd.readouterr().out
    assert main(["check", "--quick"], tmp_path) == 0
    (tmp_path / "new").touch()
    assert main(["check", "--quick"], tmp_path) == 1
    assert "missing: the working copy has changes" in capfd.readouterr().out


def test_notes_are_printed_or_what_they_lack(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the exit status that ends a release before anything is published."""
    released = project(tmp_path)
    assert main(["notes"], released) == 0
    assert capfd.readouterr().out == "### Added\n\n- One thing.\n"
    (released / "CHANGELOG.md").write_text(OPEN)
    assert main(["notes"], released) == 1
    assert "CHANGELOG.md names no change under 1.2.3" in capfd.readouterr().err
