"""Prepares a release: `python -m scripts.release date 0.1.0`, `check` and `notes`.

`date VERSION` writes the version into `mcpbridge/__init__.py`, into the chart and wherever
`deploy/` names an image of ours, and puts it with today's date over what CHANGELOG.md holds under
"Unreleased". `check` says what is missing for a release of the version that the program names,
then runs `make audit` and `.ci/run`; `check --quick` runs neither. `notes` prints what CHANGELOG.md
says of that version, for the page of the release.

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
VERSION = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}")
"""Three numbers. No pre-release: PEP 440 and Semantic Versioning, which Helm asks for, write it
differently, and a release moves the images' short tags (`slim`) to itself.
"""
UNRELEASED = "## [Unreleased]\n"
REFUSED_NAMES = frozenset({"mcpbridge"})
"""Names without `-`, `_` and `.` under which PyPI has another project."""
WITH_IMAGES = (
    "deploy/copy-in/deployment.yaml",
    "deploy/operator/sidecar.Dockerfile",
    "deploy/sidecar/deployment.yaml",
)
"""Files that name images of ours with their version."""
LONG_CHECKS = (("make", "audit"), (".ci/run",))

_VERSION_LINE = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
_CHART_LINE = re.compile(r"^(version|appVersion): .*$", re.MULTILINE)
_IMAGE = re.compile(r"(\S+):\d+\.\d+\.\d+-(slim|uv|node|uv-node|tree)$", re.MULTILINE)
_REGISTRY_LINE = re.compile(r"^  IMAGE: (\S+)/\$\{\{ github\.repository \}\}$", re.MULTILINE)
_IMAGES_LINE = re.compile(r"^  repository: (\S+)$", re.MULTILINE)
_NAME_LINE = re.compile(r'^name = "(.*)"$', re.MULTILINE)
_REPOSITORY_LINE = re.compile(r'^Repository = "https://(.*)"$', re.MULTILINE)
_ORIGIN = re.compile(r"^origin\s+(?:\w+://)?(?:[\w.-]+@)?(\S+?)(?:\.git)? \(push\)$", re.MULTILINE)
_BEFORE_THE_FIRST = re.compile(r"\s+The first version will be \S+; until [^.]*\.")
"""What the head of CHANGELOG.md says until there is a version."""


def program_version(root: Path) -> str:
    """Return the version that the package names; ValueError if it names none."""
    found = _VERSION_LINE.search((root / "mcpbridge/__init__.py").read_text())
    if found is None:
        raise ValueError('mcpbridge/__init__.py has no line __version__ = "…"')
    return found[1]


def date_changelog(text: str, version: str, day: datetime.date) -> str:
    """Return the changelog with its unreleased part under the version and the day.

    Its head no longer says that a first version will come. Raises ValueError if there is no
    unreleased part, if it is empty, or if the version is there.
    """
    before, heading, after = text.partition(UNRELEASED)
    if not heading:
        raise ValueError(f"CHANGELOG.md has no line {UNRELEASED.strip()!r}")
    if f"\n## [{version}]" in text:
        raise ValueError(f"CHANGELOG.md has a heading for {version} already")
    if not re.match(r"\s*### ", after):
        raise ValueError("CHANGELOG.md names no change under Unreleased")
    before = _BEFORE_THE_FIRST.sub("", before)
    return f"{before}{UNRELEASED}\n## [{version}] - {day.isoformat()}\n{after}"


def dated_chart(text: str, version: str) -> str:
    """Return Chart.yaml with this version of the chart and of the program."""
    return _CHART_LINE.sub(rf"\1: {version}", text)


def dated_images(text: str, version: str) -> str:
    """Return a manifest or a Dockerfile with this version of each of our images in it."""
    return _IMAGE.sub(rf"\1:{version}-\2", text)


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
        yield f"the version {version!r} is not three numbers, as 1.2.3"
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        yield f"CHANGELOG.md has no dated heading: make release-date VERSION={version}"
    if re.match(r"\s*### ", changes.partition(UNRELEASED)[2]):
        yield "CHANGELOG.md names changes under Unreleased"
    if _BEFORE_THE_FIRST.search(changes):
        yield "the head of CHANGELOG.md says that the first version will come"
    if command("git", "status", "--porcelain"):
        yield "the working copy has changes that are not committed"
    if command("git", "tag", "--list", f"v{version}"):
        yield f"the tag v{version} exists already"
    if command("git", "rev-parse", "--abbrev-ref", "HEAD").strip() != "main":
        yield "the branch is not main"
    yield from undecided(root, command)


def undecided(root: Path, command: Callable[..., str]) -> Iterator[str]:
    """Yield a sentence for each item of "To decide" in docs/releasing.md that is open.

    `command` is that of `missing`.
    """
    project = (root / "pyproject.toml").read_text()
    name, address = _NAME_LINE.search(project), _REPOSITORY_LINE.search(project)
    if name is None or re.sub(r"[-_.]", "", name[1]).lower() in REFUSED_NAMES:
        yield "the distribution needs a name that PyPI accepts (docs/releasing.md, To decide, 1)"
    origin = _ORIGIN.search(command("git", "remote", "--verbose"))
    # git@example.org:owner/name and https://example.org/owner/name are the same address.
    found = origin[1].replace(":", "/") if origin else "not set"
    if address is None or address[1] != found:
        yield (
            f"pyproject.toml says that the repository is {address and address[1]}, and git's origin"
            f" is {found} (docs/releasing.md, To decide, 2)"
        )
    pushed, taken = _image_repositories(root, address[1] if address else "")
    # A registry takes lower case alone, and the workflow has the repository as it is written.
    if taken != pushed or pushed != pushed.lower():
        yield (
            f"the chart takes images from {taken!r}, and a release pushes them to {pushed!r}"
            " (docs/releasing.md, To decide, 3)"
        )


def _image_repositories(root: Path, address: str) -> tuple[str, str]:
    """Return where a release pushes images to, and where the chart takes them from."""
    workflow = (root / ".github/workflows/release.yml").read_text()
    registry = _REGISTRY_LINE.search(workflow)
    taken = _IMAGES_LINE.search((root / "deploy/chart/values.yaml").read_text())
    name = address.partition("/")[2]
    return f"{registry[1]}/{name}" if registry else "", taken[1] if taken else ""


def _runner(root: Path) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        done = subprocess.run(arguments, cwd=root, check=True, text=True, stdout=subprocess.PIPE)
        return done.stdout

    return run


def _say(sentence: str) -> None:
    """Write a line at once: what a check writes itself comes after it."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def _date(root: Path, version: str) -> int:
    changelog, package = root / "CHANGELOG.md", root / "mcpbridge/__init__.py"
    chart = root / "deploy/chart/Chart.yaml"
    today = datetime.datetime.now(tz=datetime.UTC).date()
    try:
        dated = date_changelog(changelog.read_text(), version, today)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    changelog.write_text(dated)
    chart.write_text(dated_chart(chart.read_text(), version))
    for path in (root / name for name in WITH_IMAGES):
        path.write_text(dated_images(path.read_text(), version))
    package.write_text(_VERSION_LINE.sub(f'__version__ = "{version}"', package.read_text()))
    _say(f"{version}, {today}: read CHANGELOG.md once more, then commit")
    return 0


def _notes(root: Path) -> int:
    try:
        found = notes((root / "CHANGELOG.md").read_text(), program_version(root))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(found)
    return 0


def _check(root: Path, quick: bool) -> int:
    lacking = list(missing(root, _runner(root)))
    for sentence in lacking:
        _say(f"missing: {sentence}")
    failed = 0
    for arguments in () if quick else LONG_CHECKS:
        _say(f"running: {' '.join(arguments)}")
        status = subprocess.run(arguments, cwd=root, check=False).returncode
        if status:
            failed += 1
            _say(f"failed: {' '.join(arguments)} (status {status})")
    if not lacking and not failed:
        version = program_version(root)
        _say(f"{version} can be released: push the tag v{version}")
    return int(bool(lacking or failed))


def _version(text: str) -> str:
    if not VERSION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"invalid version {text!r} (expected as 1.2.3)")
    return text


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command that the arguments name on a project and return the exit status."""
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
            return _check(root, given.quick)
        case "date":
            return _date(root, given.version)
        case _:
            return _notes(root)


if __name__ == "__main__":
    sys.exit(main())
