"""The wheel and the sdist that `make package-test` built: sound, and installable in every way.

Everything runs outside the repository, so that nothing of it is imported by accident.
"""

from __future__ import annotations

import asyncio
import email
import os
import re
import shlex
import socket
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.repository import repository_files

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-package" / "bin"
README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WITHIN_S = 240
DEMO = ROOT / "mcpbridge" / "demo.py"
PLATFORMS = {
    "Operating System :: POSIX :: Linux": "x86_64-manylinux_2_28",
    "Operating System :: MacOS": "aarch64-apple-darwin",
}
"""What uv calls the platform of a classifier."""

pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    """Variables of the tools: nothing of this run's Python reaches them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**env, "PATH": f"{BIN}{os.pathsep}{env['PATH']}"}


def run(*words: str | Path, cwd: Path, **more: str) -> str:
    """Run a tool to its end; what it wrote on stdout. It has to succeed."""
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**environment(), **more},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def built(pattern: str) -> Path:
    """The one file of `dist/` with this name."""
    (found,) = (ROOT / "dist").glob(pattern)
    return found


def assert_works(says: str) -> None:
    """Fail unless `mcpbridge doctor` said so of the example."""
    assert "is mcpbridge-demo" in says
    assert "It can be served:" in says


def test_there_is_one_wheel_and_one_sdist() -> None:
    """Of this version, and for every platform."""
    wheel, sdist = built("*.whl"), built("*.tar.gz")
    name = PROJECT["name"].replace("-", "_")
    assert wheel.name == f"{sdist.name.removesuffix('.tar.gz')}-py3-none-any.whl"
    assert wheel.name.startswith(f"{name}-")


def test_the_index_takes_them(tmp_path: Path) -> None:
    """Metadata and the README, which must render."""
    said = run("twine", "check", "--strict", built("*.whl"), built("*.tar.gz"), cwd=tmp_path)
    assert said.count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """No tests, no duplicates, no compiled files; and every module is in it."""
    assert "OK" in run("check-wheel-contents", built("*.whl"), cwd=tmp_path)
    with zipfile.ZipFile(built("*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = (ROOT / "mcpbridge").rglob("*")
    files = {path.relative_to(ROOT).as_posix() for path in sources if path.is_file()}
    assert names == {name for name in files if "__pycache__" not in name}


def test_the_sdist_holds_the_repository_and_nothing_else() -> None:
    """So that its tests find what they read; the metadata is all that is added."""
    with tarfile.open(built("*.tar.gz")) as sdist:
        names = {path.name.partition("/")[2] for path in sdist if path.isfile()}
    files = {path.relative_to(ROOT).as_posix() for path in repository_files()}
    assert len(files) > 500
    assert names == files | {"PKG-INFO"}


def test_the_metadata_say_who_and_where() -> None:
    """Author, licence, addresses: what an index shows beside the README."""
    with zipfile.ZipFile(built("*.whl")) as wheel:
        (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        facts = email.message_from_bytes(wheel.read(path))
    assert facts["Author"] == PROJECT["authors"][0]["name"]
    assert facts["License-Expression"] == "MIT"
    labels = {url.partition(",")[0] for url in facts.get_all("Project-URL", [])}
    assert labels == {"Repository", "Documentation", "Changelog", "Issues"}


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_pip_installs_it(pattern: str, tmp_path: Path) -> None:
    """Into an empty environment, with the newest releases of everything."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", built(pattern), cwd=tmp_path)
    program = python.with_name("mcpbridge")
    assert_works(run(program, "doctor", "--", python, "-m", "mcpbridge.demo", cwd=tmp_path))
    assert run(program, "--version", cwd=tmp_path).startswith("mcpbridge ")


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_uvx_runs_it(pattern: str, tmp_path: Path) -> None:
    """The example is on the path with it, as README.md has it."""
    words = ("mcpbridge", "doctor", "--", "python", "-m", "mcpbridge.demo")
    assert_works(run("uvx", "--from", built(pattern), *words, cwd=tmp_path))


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_pipx_runs_it(pattern: str, tmp_path: Path) -> None:
    """The server is any command, here the example's file."""
    words = ("run", "--spec", built(pattern), "mcpbridge", "doctor", "--", sys.executable, DEMO)
    assert_works(run("pipx", *words, cwd=tmp_path, PIPX_HOME=str(tmp_path / "pipx")))


def installations() -> list[str]:
    """What README.md and docs/ print to install a clone, with its extras; each line once."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    tool = r"(?:pipx|uv tool|pip) install (?:\.|'\.\[[\w,-]+\]')"
    text = "\n".join(page.read_text("utf-8") for page in pages)
    return sorted(set(re.findall(rf"(?:^|`|\$ )({tool})(?=$|`)", text, re.M)))


def test_every_way_to_install_is_seen() -> None:
    """With pipx, uv and pip, and each extra that the pages install."""
    assert {"pipx install .", "uv tool install .", "pip install '.[oauth]'"} <= set(installations())


@pytest.mark.parametrize("line", installations())
def test_an_installation_is_as_a_page_prints_it(line: str, tmp_path: Path) -> None:
    """Only `.`, the clone, is the wheel, and the folder for programs another one."""
    wheel, programs = built("*.whl"), tmp_path / "bin"
    if line.startswith("pip "):
        run(sys.executable, "-m", "venv", tmp_path, cwd=tmp_path)
        line = f". bin/activate && {line}"
    typed = re.sub(r"(install '?)\.", lambda found: f"{found[1]}{wheel}", line)
    folders = {
        "PIPX_HOME": tmp_path / "pipx",
        "PIPX_BIN_DIR": programs,
        "UV_TOOL_DIR": tmp_path / "uv",
        "UV_TOOL_BIN_DIR": programs,
    }
    run("sh", "-c", typed, cwd=tmp_path, **{name: str(path) for name, path in folders.items()})
    assert run(programs / "mcpbridge", "--version", cwd=tmp_path).startswith("mcpbridge ")


@pytest.mark.parametrize(
    "classifier",
    [each for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)],
)
def test_every_python_of_the_classifiers_can_be_installed_for(
    classifier: str, tmp_path: Path
) -> None:
    """From wheels alone, on every platform of the classifiers."""
    version = classifier.rpartition(" ")[2]
    for platform in platforms():
        python = ("--python-version", version, "--python-platform", platform)
        options = ("--dry-run", "--only-binary", ":all:", *python, "--target", tmp_path / "none")
        run("uv", "pip", "install", *options, built("*.whl"), cwd=tmp_path)


def platforms() -> Sequence[str]:
    """The platforms of the classifiers, as uv names them."""
    named = [each for each in PROJECT["classifiers"] if each.startswith("Operating System")]
    assert named
    return [PLATFORMS[each] for each in named]


async def test_the_first_minute_of_the_readme_is_as_printed(tmp_path: Path) -> None:
    """The command serves, logs the printed events with the printed fields, and answers the call.

    Only the port, times and numbers of processes are others.
    """
    serve, call = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", README, re.M | re.S)
    words = shlex.split(serve[0].replace("--from .", f"--from {ROOT}"))
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=tmp_path,
        env={**environment(), "PORT": "0", "MCPBRIDGE_LOG_FORMAT": "text"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            logged = await _logged_until_ready(process)
            (url,) = re.findall(r" serve\.started url=(\S+)", "\n".join(logged))
            line = call[0].replace("http://localhost:8000/mcp", url)
            said = run(*shlex.split(line), cwd=tmp_path)
    finally:
        process.terminate()
        await process.wait()
    assert said.strip() == call[1].strip()
    assert process.returncode == 0
    printed = [_shape(line) for line in serve[1].splitlines()]
    assert printed[-1].event == "serve.ready"
    # The server writes at the same time as the bridge: the order of the lines is not fixed.
    shown = [shape for shape in map(_shape, logged) if not _is_of_the_machine(shape)]
    assert sorted(map(_on_ipv4, shown)) == sorted(map(_on_ipv4, printed))
    assert (printed[0] in shown) is _has_ipv6()


class Shape(NamedTuple):
    """What two log lines have in common that differ in times, ports and processes only."""

    level: str
    event: str
    fields: tuple[str, ...]


def _shape(line: str) -> Shape:
    """Read a line of the log for people; a value with blanks is in quotes."""
    time, level, event, *fields = shlex.split(line)
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time), line
    return Shape(level, event, tuple(field.partition("=")[0] for field in fields))


def _is_of_the_machine(shape: Shape) -> bool:
    """Tell a line that is not printed: for a user root, a slow machine, or a container's limit."""
    return shape.level != "info" or shape.event == "child_pool.sized"


def _on_ipv4(shape: Shape) -> Shape:
    """Leave out the second address, which is logged if the machine has IPv6."""
    return shape._replace(fields=tuple(field for field in shape.fields if field != "also"))


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def _logged_until_ready(process: asyncio.subprocess.Process) -> list[str]:
    """Return the log of a bridge until it is ready, without what uvx writes before."""
    assert process.stderr is not None
    lines: list[str] = []
    async for line in process.stderr:
        text = line.decode().rstrip("\n")
        if lines or " serve.started " in text:
            lines.append(text)
        if " serve.ready " in text:
            return lines
    raise AssertionError(f"it ended before it was ready: {lines}")
