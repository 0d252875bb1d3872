"""The tree: copied into other images, and what it must not leave with those it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images import bases
from tests.images.conftest import SERVERS
from tests.images.containers import CONFINED, Ended, container, echoed
from tests.images.engine import Engine

NODE = ("--", "node", "/srv/server.mjs")
WITH_SERVERS = (f"--volume={SERVERS}:/srv:ro", "--publish=127.0.0.1::8000")
PROGRAM = "/opt/mcpbridge/bin/mcpbridge"
EXPORTING = (
    "--env=OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9",
    "--env=LD_LIBRARY_PATH=/usr/lib/of-the-image",
)


@pytest.mark.slow
def test_a_server_does_not_inherit_the_trees_libraries(
    engine: Engine, images: dict[str, str]
) -> None:
    """Its environment has nothing of the tree's loader; what was set before is as it was."""
    options = (*CONFINED, *WITH_SERVERS, *EXPORTING)
    with container(engine, images["copied"], *NODE, options=options) as run:
        run.ready()
        first, *others = sorted(run.processes(), key=lambda each: each.pid != run.pid)
        assert others
        for each in others:
            environment = each.environment
            assert environment["LD_LIBRARY_PATH"] == "/usr/lib/of-the-image"
            assert not [name for name in environment if name.startswith(("_PYI", "_MEI"))]
            assert not [name for name in environment if name.endswith("_ORIG")]
            assert not any("mcpbridge" in value for value in environment.values())
        # The optional parts are in it: spans are made, and metrics written.
        assert any(name.startswith("_message") for name in first.libraries)
        metrics = run.get("/metrics")
        assert metrics.status_code == 200
        assert "mcpbridge_" in metrics.text
        assert run.stop() == Ended(0, out_of_memory=False)


@pytest.mark.slow
def test_an_init_container_brings_the_tree(
    engine: Engine, images: dict[str, str], tmp_path: Path
) -> None:
    """`copy-self` into a volume; an image that has nothing of ours runs it from there.

    Done again while it runs, as when the init container is started again, it disturbs no process.
    """
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    copying = ("run", "--rm", *CONFINED, "--user=4711:4711", f"--volume={shared}:/shared")
    copy = (*copying, images["tree"], "copy-self", "/shared")
    assert engine(*copy) == "/shared/bin/mcpbridge"
    mounted = f"--volume={shared}:/opt/mcpbridge:ro"
    options = (*CONFINED, *WITH_SERVERS, mounted, "--user=4712:4712", f"--entrypoint={PROGRAM}")
    with container(engine, bases.NODE, *NODE, options=options) as run:
        run.ready()
        assert engine(*copy) == "/shared/bin/mcpbridge"
        assert echoed(run, "as before") == "as before"
        assert run.exec(PROGRAM, "health")[0] == 0
        assert run.stop() == Ended(0, out_of_memory=False)


@pytest.mark.slow
def test_copy_self_says_why_it_cannot(engine: Engine, images: dict[str, str]) -> None:
    """An environment of Python would not run elsewhere; nor a tree where nothing may run."""
    run = ("run", "--rm", "--read-only")
    status, _, said = engine.tried(*run, "--tmpfs=/to", images["slim"], "copy-self", "/to")
    assert status == 2
    assert "needs the interpreter of its image" in said
    assert "mcpbridge:tree" in said

    status, _, said = engine.tried(*run, images["tree"], "copy-self", "/to")
    assert status == 1
    assert "Read-only file system: '/to'" in said

    noexec = "--tmpfs=/to:noexec,mode=1777"
    status, _, said = engine.tried(*run, noexec, images["tree"], "copy-self", "/to")
    assert status == 2
    assert "noexec" in said


@pytest.mark.slow
def test_images_name_their_user_by_number(engine: Engine, images: dict[str, str]) -> None:
    """Only a number tells a cluster that it is not root."""
    for target in ("slim", "uv", "node", "uv-node", "tree"):
        assert engine("inspect", "--format={{.Config.User}}", images[target]) == "65532:65532"
