"""The wheel and the sdist that `make package-test` built: sound, and installable in every way.

Everything runs outside the repository, so that nothing of it is imported by accident.
"""

from __future__ import annotations

import asyncio
import email
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

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
    """The command serves, the call is answered as it stands there; only the port is another."""
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
            url = await _address(process)
            line = call[0].replace("http://localhost:8000/mcp", url)
            said = run(*shlex.split(line), cwd=tmp_path)
    finally:
        process.terminate()
        await process.wait()
    assert said.strip() == call[1].strip()
    assert process.returncode == 0


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where a bridge says that it listens, once it has said so."""
    assert process.stderr is not None
    async for line in process.stderr:
        if b" serve.started " in line:
            found = re.search(rb" url=(\S+)", line)
            assert found is not None
            return found[1].decode()
    raise AssertionError("it ended without listening")
