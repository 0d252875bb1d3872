"""Prepares a release: `python -m scripts.release date 0.1.0`, `check` and `notes`.

`date VERSION` writes the version into `mcpbridge/__init__.py` and the chart, and puts it with
today's date over what CHANGELOG.md holds under "Unreleased". `check` says what is missing for a
release of the version that the program names, then runs `make audit` and `.ci/run`; `check --quick`
runs neither. `notes` prints what CHANGELOG.md says of that version, for the page of the release.

Exit status: 0; 1 if something is missing or a command failed; 2 if the usage is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
"""A version as PEP 440 writes it, with three numbers as Semantic Versioning asks."""
UNRELEASED = "## [Unreleased]\n"
REFUSED_NAMES = frozenset({"mcpbridge"})
"""Names without `-`, `_` and `.` under which PyPI has another project."""
LONG_CHECKS = (("make", "audit"), (".ci/run",))

_VERSION_LINE = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
_CHART_LINE = re.compile(r"^(version|appVersion): .*$", re.MULTILINE)
_NAME_LINE = re.compile(r'^name = "(.*)"$', re.MULTILINE)


def program_version(root: Path) -> str:
    """Return the version that the package names; ValueError if it names none."""
    found = _VERSION_LINE.search((root / "mcpbridge/__init__.py").read_text())
    if found is None:
        raise ValueError('mcpbridge/__init__.py has no line __version__ = "…"')
    return found[1]


def date_changelog(text: str, version: str, day: datetime.date) -> str:
    """Return the changelog with its unreleased part under the version and the day.

    Raises ValueError if there is no unreleased part, if it is empty, or if the version is there.
    """
    before, heading, after = text.partition(UNRELEASED)
    if not heading:
        raise ValueError(f"CHANGELOG.md has no line {UNRELEASED.strip()!r}")
    if f"\n## [{version}]" in text:
        raise ValueError(f"CHANGELOG.md has a heading for {version} already")
    if not re.match(r"\s*### ", after):
        raise ValueError("CHANGELOG.md names no change under Unreleased")
    return f"{before}{UNRELEASED}\n## [{version}] - {day.isoformat()}\n{after}"


def dated_chart(text: str, version: str) -> str:
    """Return Chart.yaml with this version, whose pre-releases Helm wants as 1.2.3-rc1."""
    semantic = re.sub("(a|b|rc)", r"-\1", version)
    return _CHART_LINE.sub(rf"\1: {semantic}", text)


def notes(text: str, version: str) -> str:
    """Return the part of the changelog under a version's heading; ValueError if there is none."""
    found = re.search(
        rf"^## \[{re.escape(version)}\] - [^\n]*\n(.*?)(?=^## |\Z)", text, re.M | re.S
    )
    if found is None or not found[1].strip():
        raise ValueError(f"CHANGELOG.md names no change under {version}")
    return f"{found[1].strip()}\n"


def missing(root: Path, command: Callable[..., str]) -> Iterator[str]:
    """Yield a sentence for each thing that a release of the program's version lacks.

    `command` runs a program in the folder and returns what it wrote on standard output.
    """
    version = program_version(root)
    changes = (root / "CHANGELOG.md").read_text()
    if not VERSION.fullmatch(version):
        yield f"the version {version!r} is not one of PEP 440 with three numbers"
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        yield f"CHANGELOG.md has no dated heading: make release-date VERSION={version}"
    if re.match(r"\s*### ", changes.partition(UNRELEASED)[2]):
        yield "CHANGELOG.md names changes under Unreleased"
    name = _NAME_LINE.search((root / "pyproject.toml").read_text())
    if name is None or re.sub(r"[-_.]", "", name[1]).lower() in REFUSED_NAMES:
        yield "the distribution needs a name that PyPI accepts (docs/releasing.md, To decide, 1)"
    if not re.search(r"^site_url:", (root / "mkdocs.yml").read_text(), re.MULTILINE):
        yield "mkdocs.yml has no site_url (docs/releasing.md, To decide, 4)"
    if command("git", "status", "--porcelain"):
        yield "the working copy has changes that are not committed"
    if command("git", "tag", "--list", f"v{version}"):
        yield f"the tag v{version} exists already"
    if command("git", "rev-parse", "--abbrev-ref", "HEAD").strip() != "main":
        yield "the branch is not main"


def _run(*arguments: str) -> str:
    return subprocess.run(arguments, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def _say(sentence: str) -> None:
    """Write a line at once: what a check writes itself comes after it."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def _date(version: str) -> int:
    changelog, package = ROOT / "CHANGELOG.md", ROOT / "mcpbridge/__init__.py"
    chart = ROOT / "deploy/chart/Chart.yaml"
    today = datetime.datetime.now(tz=datetime.UTC).date()
    try:
        dated = date_changelog(changelog.read_text(), version, today)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    changelog.write_text(dated)
    chart.write_text(dated_chart(chart.read_text(), version))
    package.write_text(_VERSION_LINE.sub(f'__version__ = "{version}"', package.read_text()))
    _say(f"{version}, {today}: read CHANGELOG.md once more, then commit")
    return 0


def _notes() -> int:
    try:
        found = notes((ROOT / "CHANGELOG.md").read_text(), program_version(ROOT))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(found)
    return 0


def _check(quick: bool) -> int:
    lacking = list(missing(ROOT, _run))
    for sentence in lacking:
        _say(f"missing: {sentence}")
    failed = 0
    for arguments in () if quick else LONG_CHECKS:
        _say(f"running: {' '.join(arguments)}")
        status = subprocess.run(arguments, cwd=ROOT, check=False).returncode
        if status:
            failed += 1
            _say(f"failed: {' '.join(arguments)} (status {status})")
    if not lacking and not failed:
        _say(f"{program_version(ROOT)} can be released: push the tag v{program_version(ROOT)}")
    return int(bool(lacking or failed))


def _version(text: str) -> str:
    if not VERSION.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"invalid version {text!r} (expected as 1.2.3 or 1.2.3rc1)"
        )
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the command that the arguments name and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    check = commands.add_parser("check", help="say what a release lacks, then run all its checks")
    check.add_argument("--quick", action="store_true", help="say what is missing, run nothing")
    date = commands.add_parser("date", help="write a version and today's date")
    date.add_argument("version", type=_version)
    commands.add_parser("notes", help="print what CHANGELOG.md says of this version")
    given = parser.parse_args(argv)
    match given.command:
        case "check":
            return _check(given.quick)
        case "date":
            return _date(given.version)
        case _:
            return _notes()


if __name__ == "__main__":
    sys.exit(main())
