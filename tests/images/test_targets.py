"""Each target, confined as a restricted cluster confines it, under a real engine."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.images.conftest import ROOT, SERVERS
from tests.images.containers import (
    CONFINED,
    OFTEN,
    Container,
    Ended,
    LongCall,
    container,
    echoed,
    eventually,
    rpc,
)
from tests.images.engine import Engine
from tests.support.proofs import proves

DEMO = ("/opt/mcpbridge/bin/python", "-m", "mcpbridge.demo")
NODE = ("node", "/srv/server.mjs")
WITH_SERVERS = (f"--volume={SERVERS}:/srv:ro", "--publish=127.0.0.1::8000")
SERVED = {"slim": DEMO, "uv": DEMO, "node": NODE, "copied": NODE}
"""What each image serves: what its language is for."""
USERS = {"slim": "65532", "uv": "4711", "node": "65532", "copied": "4711"}
"""The image's own and any other, without a name and without a home."""


@proves("O14")
@pytest.mark.slow
@pytest.mark.parametrize("image", SERVED)
def test_serves_where_nothing_is_granted(
    engine: Engine, images: dict[str, str], image: str
) -> None:
    """No root, no capability, nothing to write to, 64 MiB; and nothing of its call is lost.

    As process 1: healthy by its own HEALTHCHECK, answers, ends with the call it was serving.
    """
    user = () if USERS[image] == "65532" else (f"--user={USERS[image]}:{USERS[image]}",)
    options = (*CONFINED, *OFTEN, *WITH_SERVERS, *user)
    with container(engine, images[image], "--", *SERVED[image], options=options) as run:
        run.becomes("healthy")
        _is_confined(run, USERS[image])
        assert echoed(run, "hello") == "hello"
        call = LongCall(run, 2)
        assert run.stop() == Ended(0, out_of_memory=False)
        assert call.answer()["result"]["content"] == [{"type": "text", "text": "liftoff"}]


def _is_confined(run: Container, user: str) -> None:
    """As the kernel sees it: the bridge, and the server below it."""
    processes = run.processes()
    assert len(processes) > 1
    first = next(each for each in processes if each.pid == run.pid)
    assert first.facts["NSpid"].split()[-1] == "1"
    for each in processes:
        assert each.facts["Uid"].split() == [user] * 4
        assert {int(each.facts[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
        assert each.facts["NoNewPrivs"] == "1"
    # The loop and the parser in C, in the frozen tree as elsewhere.
    assert any(name.startswith("loop.cpython") for name in first.libraries)
    assert any(name.startswith("parser.cpython") for name in first.libraries)


@proves("fault 10")
@pytest.mark.slow
@pytest.mark.parametrize("image", ["slim", "node"])
def test_a_server_that_is_gone_for_good_is_unhealthy(
    engine: Engine, images: dict[str, str], image: str
) -> None:
    """Where the bridge stays, its health tells; where it gives up, its status does."""
    gone = ("--", "sh", "-c", "exit 3")
    options = (*CONFINED, *OFTEN, "--health-start-period=1s", "--health-retries=2")
    with container(engine, images[image], "--give-up-after=0", *gone, options=options) as run:
        run.becomes("unhealthy")
        assert run.inspect(".State.Running")
        assert run.stop() == Ended(0, out_of_memory=False)
    with container(engine, images[image], "--give-up-after=1", *gone, options=options) as run:
        assert run.ended() == Ended(3, out_of_memory=False)


@pytest.mark.slow
def test_orphans_are_reaped(engine: Engine, images: dict[str, str]) -> None:
    """Process 1 inherits what a server leaves behind; no zombie stays, and the server is well."""
    options = (*CONFINED, *WITH_SERVERS)
    with container(engine, images["copied"], "--", *NODE, options=options) as run:
        run.ready()
        for _ in range(3):
            message = rpc("tools/call", name="orphans", arguments={})
            assert "left" in run.post(message).text
        eventually(lambda: not any(each.is_zombie for each in run.processes()), "no zombie")
        eventually(lambda: len(run.processes()) == 2, "the bridge and its server")
        assert echoed(run, "still here") == "still here"
        assert run.stop() == Ended(0, out_of_memory=False)


@pytest.mark.slow
def test_what_installs_when_called_needs_only_a_tmpfs(
    engine: Engine, images: dict[str, str], tmp_path: Path
) -> None:
    """npx and uvx keep all they write below /tmp, as any user."""
    wheel, tarball = _wheel(tmp_path), _tarball(tmp_path)
    options = (
        *("--read-only", "--tmpfs=/tmp:exec", "--user=4711:4711", "--publish=127.0.0.1::8000"),
        *(f"--volume={file}:/packages/{file.name}:ro" for file in (wheel, tarball)),
    )
    npx = ("npx", "--yes", "--offline", f"--package=/packages/{tarball.name}", "test-server")
    uvx = ("uvx", "--offline", "--from", f"/packages/{wheel.name}", "served")
    for image, command in (("node", npx), ("uv", uvx), ("uv-node", npx), ("uv-node", uvx)):
        with container(engine, images[image], "--", *command, options=options) as run:
            run.ready()
            assert echoed(run, image) == image
            assert run.stop().status == 0


@pytest.mark.slow
def test_the_default_target_is_slim(engine: Engine, images: dict[str, str]) -> None:
    """What `docker build -t mcpbridge .` makes."""
    assert engine("inspect", "--format={{.Id}}", images["default"]) == engine(
        "inspect", "--format={{.Id}}", images["slim"]
    )


def _wheel(folder: Path) -> Path:
    """A package with the bundled example as a program, which needs nothing else."""
    file = folder / "served-1-py3-none-any.whl"
    facts = "served-1.dist-info"
    with zipfile.ZipFile(file, "w") as packed:
        packed.write(ROOT / "mcpbridge/demo.py", "served.py")
        packed.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\nName: served\nVersion: 1\n")
        packed.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(f"{facts}/entry_points.txt", "[console_scripts]\nserved = served:main\n")
        packed.writestr(f"{facts}/RECORD", "")
    file.chmod(0o644)
    return file


def _tarball(folder: Path) -> Path:
    """The server of Node.js as npm packs it."""
    file = folder / "test-server-1.0.0.tgz"
    with tarfile.open(file, "w:gz") as packed:
        for name in ("package.json", "server.mjs"):
            packed.add(SERVERS / name, f"package/{name}")
    file.chmod(0o644)
    return file
