"""One engine and one build for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpbridge import __version__
from tests.images import bases
from tests.images.engine import Engine, NoEngine, running_engine

ROOT = Path(__file__).parents[2]
TARGETS = ("slim", "uv", "tree", "node", "uv-node")
BUILD_S = 900.0
REVISION = "0123456789abcdef0123456789abcdef01234567"
LABELLED = (f"--build-arg=VERSION={__version__}", f"--build-arg=REVISION={REVISION}")
"""As the workflow of a release builds them; test_workflows.py compares the names."""
SERVERS = Path(__file__).parent / "serving"

# How the tree gets into an image: the two lines that the guide gives.
_COPIED = """\
FROM {base}
COPY --from=mcpbridge:tree /opt/mcpbridge /opt/mcpbridge
USER 65532:65532
HEALTHCHECK CMD ["/opt/mcpbridge/bin/mcpbridge", "health", "/readyz"]
ENTRYPOINT ["/opt/mcpbridge/bin/mcpbridge"]
"""


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with every base image in it."""
    folder = tmp_path_factory.mktemp("engine")
    try:
        with running_engine(folder) as running:
            bases.provide(running, tmp_path_factory.mktemp("bases"))
            yield running
    except (NoEngine, bases.NoBase) as error:
        pytest.exit(f"make image-test: {error}", returncode=1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Names of what was built: each target, and the tree in an image with and without anything."""
    for target in TARGETS:
        # The host's network: a build reaches what the user who runs the tests reaches.
        words = ("--network=host", f"--target={target}", f"--tag=mcpbridge:{target}")
        engine("build", *words, *LABELLED, ROOT, within_s=BUILD_S)
    default = ("--network=host", "--tag=mcpbridge:default")
    engine("build", *default, *LABELLED, ROOT, within_s=BUILD_S)
    context = tmp_path_factory.mktemp("context")
    for name, base in (("copied", bases.NODE), ("bare-copied", bases.BARE)):
        (context / "Dockerfile").write_text(_COPIED.format(base=base), "utf-8")
        engine("build", f"--tag=mcpbridge-test-{name}", context)
    return {target: f"mcpbridge:{target}" for target in (*TARGETS, "default")} | {
        "copied": "mcpbridge-test-copied",
        "bare": "mcpbridge-test-bare-copied",
    }
