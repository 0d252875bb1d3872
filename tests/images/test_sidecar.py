"""The bridge beside a server's container: one network, and a socket between them."""

from __future__ import annotations

import pytest

from tests.images.conftest import SERVERS
from tests.images.containers import (
    CONFINED,
    OFTEN,
    Ended,
    LongCall,
    container,
    echoed,
    eventually,
    volume,
)
from tests.images.engine import Engine

PROGRAM = "/opt/mcpbridge/bin/mcpbridge"
NODE = ("--", "node", "/srv/server.mjs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bridge", "address"), [("bare", "unix:/run/mcp/mcp.sock"), ("tree", "unix:@mcp")]
)
def test_the_bridge_is_a_container_of_its_own(
    engine: Engine, images: dict[str, str], bridge: str, address: str
) -> None:
    """A socket in a shared volume, or one without a file in the shared network.

    The bridge's image has no shell, no Python and no library but glibc. Each of the two has 64 MiB.
    The bridge ends with its call answered while the server's container stays; then that one ends.
    """
    with volume(engine) as shared:
        mounted = f"--volume={shared}:/run/mcp"
        listening = ("shim", f"--listen={address}", "--mode=0666", *NODE)
        # In a pod the network is the pod's; here it is that of the server's container.
        options = (
            *(*CONFINED, mounted, "--no-healthcheck"),
            *(f"--volume={SERVERS}:/srv:ro", "--publish=127.0.0.1::8000"),
        )
        with container(engine, images["copied"], *listening, options=options) as server:
            eventually(lambda: server.exec(PROGRAM, "health", address)[0] == 0, "shim", server.logs)
            assert len(server.processes()) == 1  # no client has sent anything
            joined = (*CONFINED, *OFTEN, mounted, f"--network=container:{server.name}")
            words = (f"--connect={address}", "--user=4711:4711")
            with container(engine, images[bridge], words[0], options=(*joined, words[1])) as run:
                run.serves_at(server)
                run.becomes("healthy")
                assert echoed(run, "across") == "across"
                call = LongCall(run, 2)
                assert run.stop() == Ended(0, out_of_memory=False)
                assert call.answer()["result"]["content"][0]["text"] == "liftoff"
            eventually(lambda: len(server.processes()) == 1, "its servers ended", server.logs)
            assert server.stop() == Ended(0, out_of_memory=False)
