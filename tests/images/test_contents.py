"""What the images hold: the releases that a scanner finds in them, and their sizes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from mcpbridge import __version__
from scripts.sbom.syft import spdx
from tests.images import bases
from tests.images.conftest import REVISION, ROOT, TARGETS
from tests.images.engine import Engine
from tests.support.sbom import installed_with, listed, locked

MB = 1_000_000
WITH_ENVIRONMENT = ("slim", "uv", "uv-node")
"""The targets whose modules are files; in the others they are frozen."""
_COMPILED = """
import json, pathlib, sys
modules = {path: path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
           for path in pathlib.Path(sys.prefix, "lib").rglob("*.py")}
heads = {str(path): file.read_bytes()[4:8].hex() if file.exists() else None
         for path, file in modules.items()}
print(json.dumps(heads))
"""
"""Prints the flags of each module's compiled file (PEP 552), None if there is no such file."""
_LOADED = """
import importlib.util, json, pathlib, sys
import mcpbridge.app.lifecycle, mcpbridge.cli.serve
found = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
modules = {path: pathlib.Path(importlib.util.cache_from_source(path))
           for path in found if path.endswith(".py")}
heads = {path: file.read_bytes()[4:8].hex() if file.exists() else None
         for path, file in modules.items()}
print(json.dumps(heads))
"""
"""Prints the same of what a start imports, Python's own modules among it."""
UNCHECKED_HASH = (0b01).to_bytes(4, "little").hex()
EXTRAS = ("oauth", "otel", "redis")
"""What the Dockerfile installs with the package."""

GUIDE = (ROOT / "docs" / "containers.md").read_text("utf-8")
_SAID = re.compile(r"^\| `mcpbridge:([\w-]+)` \|.*\| (\d+) \|$", re.MULTILINE)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", TARGETS)
def test_a_scanner_finds_each_locked_release(
    engine: Engine, images: dict[str, str], target: str, tmp_path: Path
) -> None:
    """With its version, in the frozen tree as in an environment; and mcpbridge itself."""
    archive = tmp_path / "image.tar"
    engine("save", "--output", archive, images[target])
    found = listed(spdx(f"docker-archive:{archive}", "mcpbridge", target))
    pins = {**locked(), "mcpbridge": __version__}
    wanted = {name: pins[name] for name in installed_with(EXTRAS)}
    assert len(wanted) > 20
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("target", WITH_ENVIRONMENT)
def test_modules_are_compiled_for_any_date_of_their_source(
    engine: Engine, images: dict[str, str], target: str
) -> None:
    """A build that gives files the date of the commit would make dated ones stale."""
    python = ("--entrypoint=/opt/mcpbridge/bin/python", images[target], "-c", _COMPILED)
    heads = json.loads(engine("run", "--rm", *python))
    assert len(heads) > 1000
    assert {path: head for path, head in heads.items() if head != UNCHECKED_HASH} == {}


def test_what_a_start_loads_of_python_is_compiled(engine: Engine, images: dict[str, str]) -> None:
    """Of the standard library the official image has the sources alone."""
    python = ("--entrypoint=/opt/mcpbridge/bin/python", images["slim"], "-c", _LOADED)
    heads = json.loads(engine("run", "--rm", *python))
    assert len([path for path in heads if path.startswith("/usr/local/lib/")]) > 100
    assert {path: head for path, head in heads.items() if head != UNCHECKED_HASH} == {}


@pytest.mark.parametrize("target", TARGETS)
def test_labels_say_where_an_image_is_from(
    engine: Engine, images: dict[str, str], target: str
) -> None:
    """Repository, version and commit, also of a target that is built on another one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    labels = json.loads(engine("inspect", "--format={{json .Config.Labels}}", images[target]))
    assert labels["org.opencontainers.image.source"] == project["urls"]["Repository"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == REVISION
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_the_sizes_are_printed(
    engine: Engine, images: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond the base, which is not ours; none is a tenth over what docs/containers.md says."""
    base = {target: _size(engine, bases.PYTHON) for target in TARGETS}
    base |= {"node": _size(engine, bases.NODE), "tree": 0.0}
    beyond = {target: _size(engine, images[target]) - base[target] for target in TARGETS}
    with capsys.disabled():
        told = ", ".join(f"{name} {size:.1f} MB" for name, size in beyond.items())
        print(f"\nbeyond the base image, not compressed: {told}")
    said = {name: float(size) for name, size in _SAID.findall(GUIDE)}
    assert len(said) >= 4
    assert {name for name, size in said.items() if beyond[name] > 1.1 * size} == set()


def _size(engine: Engine, image: str) -> float:
    return int(engine("image", "inspect", "--format={{.Size}}", image)) / MB
