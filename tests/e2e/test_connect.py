"""A bridge whose server is started by a shim at the other end of a connection."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.bridge_process import (
    ACCEPT,
    child,
    eventually,
    rpc,
)
from tests.support.bridge_process import open_session as opened
from tests.support.mcp_clients import ASKED, YES, Streamable
from tests.support.shim import (
    address,
    call,
    connect,
    connected,
    descriptors,
    forking,
    in_place_of_the_shim,
    questioner,
    shim,
)

pytestmark = pytest.mark.slow

NEVER = ("--give-up-after", "0")
QUESTION = {"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {}}


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_everything_works_over_a_connection(kind: str, tmp_path: Path) -> None:
    """Sessions of both kinds, questions, big messages; stderr stays where the server is."""
    to = address(kind, tmp_path)
    command = ("sh", "-c", 'echo words >&2; exec "$0" "$@"', *questioner(tmp_path))
    async with shim(to, command=command) as far, connected(to) as near, near.client() as client:
        before = descriptors(near.pid), descriptors(far.pid)
        one, two = await opened(client), await opened(client)
        big = {"text": "é" * 500_000}
        for headers in (one, two):
            assert (await call(client, headers, "x/echo", big))["result"] == big
        assert len(await far.logged("child.started")) == 1

        own = Streamable(client, await opened(client, capabilities=ASKED))
        asking = rpc(1, "x/ask", {"lines": [json.dumps(QUESTION)], "answers": 1})
        async with own.calling(asking) as told:
            asked = await told()
            assert asked["method"] == "elicitation/create"
            await own.send({"jsonrpc": "2.0", "id": asked["id"], "result": YES})
            assert (await told())["result"]["answers"][0]["result"] == YES
        assert len(await far.logged("child.started", count=2)) == 2

        gone = await client.delete("/mcp", headers=own.headers)
        assert gone.status_code in (200, 204)
        await far.logged("child.stopped")
        assert {each["line"] for each in far.events("child.stderr")} == {"words"}
        assert near.events("child.stderr") == []
        await eventually(
            lambda: descriptors(far.pid) <= before[1] and descriptors(near.pid) <= before[0] + 1,
            "both have closed what they opened",
        )


async def test_each_session_may_have_a_connection(tmp_path: Path) -> None:
    """`--isolation session`, a spare that says nothing, and probes that start nothing."""
    to = address("unix", tmp_path)
    words = ("--isolation", "session", "--spares", "2", "--max-children", "6")
    async with (
        shim(to, command=questioner(tmp_path)) as far,
        connected(to, *words) as near,
        near.client() as client,
    ):
        await near.logged("child.connected", count=3)
        for _ in range(100):
            connect(to).close()
        sessions = [await opened(client) for _ in range(3)]
        for headers in sessions:
            assert (await call(client, headers, "x/echo", {"a": 1}))["result"] == {"a": 1}
        # The spares wait for their first byte; only who was spoken to has started.
        assert len(await far.logged("child.started", count=1 + len(sessions))) == 1 + len(sessions)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("tool", ["inetd", *(["socat"] if shutil.which("socat") else [])])
async def test_a_process_for_each_connection_may_stand_in_for_the_shim(
    tool: str, kind: str, tmp_path: Path
) -> None:
    """As inetd and `socat LISTEN,fork EXEC:COMMAND` do; with the real socat too if there is one."""
    to = address(kind, tmp_path)
    async with (
        in_place_of_the_shim(forking(tool, to, questioner(tmp_path)), to),
        connected(to, "--isolation", "session") as near,
        near.client() as client,
    ):
        big = {"text": "x" * 1_000_000}
        sessions = [await opened(client), await opened(client)]
        for headers in sessions:
            assert (await call(client, headers, "x/echo", big))["result"] == big
        assert (await client.delete("/mcp", headers=sessions[0])).status_code in (200, 204)
        await near.logged("child.disconnected")
        assert (await call(client, sessions[1], "x/echo", {"c": 3}))["result"] == {"c": 3}


@pytest.mark.parametrize(("kind", "modern"), [("dual", True), ("modern", True), ("plain", False)])
async def test_a_shim_may_come_later_than_its_bridge(
    kind: str, modern: bool, tmp_path: Path
) -> None:
    """The bridge asks what the server speaks once the shim is there."""
    to = address("unix", tmp_path)
    record = tmp_path / "record"
    record.mkdir()
    env = {"MCPBRIDGE_CHILD_ERA": "auto"}
    async with connected(to, *NEVER, env=env, ready=False) as near, near.client() as client:
        await near.logged("child.spawn_failed")
        refused = await client.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
        assert "unreachable" in refused.text
        async with shim(to, command=child("eras", kind, str(record))):
            (eras,) = await near.logged("child.eras_found")
            # Whether a server of 2026-07-28 speaks the other era too is tried by its first client.
            assert ("legacy" in eras["speaks"], "modern" in eras["speaks"]) == (not modern, modern)
            await near.logged("child.ready")
            headers = await opened(client)
            assert "result" in await call(client, headers, "tools/list")
            assert await near.terminate() == 0
