"""docs/containers.md as its reader follows it: each Dockerfile is built, each line is run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.images.conftest import ROOT, SERVERS
from tests.images.containers import Container, container, echoed, rpc
from tests.images.engine import Engine

GUIDE = (ROOT / "docs" / "containers.md").read_text("utf-8")
RECIPES = dict(
    zip(
        ("python", "node", "any"),
        re.findall(r"^```dockerfile\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL),
        strict=True,
    )
)
LINES = [
    line
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if not language
]
BUILD_S = 300.0


def beside(folder: Path) -> None:
    """The files that the guide says stand beside the Dockerfile: servers without dependencies."""
    (folder / "server.py").write_bytes((ROOT / "mcpbridge" / "demo.py").read_bytes())
    (folder / "requirements.txt").write_text("# none\n", "utf-8")
    (folder / "index.js").write_bytes((SERVERS / "server.mjs").read_bytes())
    package = {"name": "my-server", "version": "1.0.0", "type": "module"}
    (folder / "package.json").write_text(json.dumps(package), "utf-8")
    lock = {**package, "lockfileVersion": 3, "packages": {"": package}}
    (folder / "package-lock.json").write_text(json.dumps(lock), "utf-8")


def line_with(text: str) -> list[str]:
    """The words of the one line of the guide that holds this text."""
    (line,) = [line for line in LINES if text in line]
    return shlex.split(line)


@pytest.fixture(scope="module")
def made(
    engine: Engine, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """An image of each Dockerfile of the guide, by the line that it gives."""
    names = {}
    for name, recipe in RECIPES.items():
        folder = tmp_path_factory.mktemp(name)
        beside(folder)
        (folder / "Dockerfile").write_text(recipe, "utf-8")
        docker, build, *options, dot = line_with("-t my-server:1 .")
        assert (docker, build, dot) == ("docker", "build", ".")
        names[name] = f"mcpbridge-test-guide-{name}:1"
        words = [word.replace("my-server:1", names[name]) for word in options]
        engine(build, "--network=host", *words, folder, within_s=BUILD_S)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_what_the_guide_builds_serves_as_the_guide_runs_it(
    engine: Engine, made: dict[str, str], name: str
) -> None:
    """With every limit of the `docker run` line; healthy, answers, ends with 0 when stopped."""
    docker, run, *options, image = line_with("--stop-timeout")
    assert (docker, run, image) == ("docker", "run", "my-server:1")
    # The container has a name and its own end here, and a free port.
    place = options.index("--name")
    del options[place : place + 2]
    options.remove("--rm")
    options[options.index("127.0.0.1:8000:8000")] = "127.0.0.1::8000"
    often = ("--health-interval=500ms",)
    with container(engine, made[name], options=(*options, *often)) as running:
        running.ready()
        listed = running.post(rpc("tools/list")).json()
        assert "echo" in {tool["name"] for tool in listed["result"]["tools"]}
        assert echoed(running, name) == name
        running.becomes("healthy")
        inspect = [word.replace("my-server", running.name) for word in line_with(".State.Health")]
        assert engine(*inspect[1:]) == "healthy"
        assert line_with("docker stop") == ["docker", "stop", "my-server"]
        engine("stop", running.name)
        assert running.ended().status == 0


@pytest.mark.slow
def test_the_example_and_doctor_run_as_the_guide_says(engine: Engine, made: dict[str, str]) -> None:
    """`docker run … doctor -- COMMAND` says that it can be served, and the demo serves."""
    words = [
        word.replace("my-server:1", made["python"]) for word in line_with("my-server:1 doctor")
    ]
    assert "It can be served" in engine(*words[1:])
    _, _, rm, *publish, image, dash, python, module, demo = line_with("mcpbridge.demo")
    assert (rm, publish[-1]) == ("--rm", "127.0.0.1:8000:8000")
    options = ("-p", "127.0.0.1::8000")
    with container(engine, image, dash, python, module, demo, options=options) as running:
        _answers(running)


def _answers(running: Container) -> None:
    running.ready()
    assert echoed(running, "hello") == "hello"
