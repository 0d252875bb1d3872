"""The pods of `deploy/` as processes: what their containers start, asked as a kubelet asks.

Only what a process outside of a pod cannot have is another: paths, ports, and the server itself.
"""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from tests.deploy.tools import SHAPES, Document, blocks, containers, deployment, documents_in
from tests.support.bridge_process import ACCEPT, DEMO, RunningBridge, open_session, rpc, started

pytestmark = pytest.mark.slow

PROGRAM = "/opt/mcpbridge/bin/mcpbridge"


def words_of(container: Document, socket_folder: Path) -> list[str]:
    """What a container gives to the program: its own words, or those of its image's CMD."""
    words = [*container.get("command", []), *container.get("args", [])]
    if container["image"] == "my-server:1":
        # The image of the guide for Python: the manifest leaves all to its CMD.
        assert words == []
        words = ["--", "server"]
    if words[0] == PROGRAM:
        del words[0]
    words = [word.replace("unix:/run/mcp", f"unix:{socket_folder}") for word in words]
    return [*words[: words.index("--") + 1], *DEMO] if "--" in words else words


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def pod(
    shape: str, folder: Path, more: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[tuple[RunningBridge, Document]]:
    """The containers that stay, in their order; the bridge, ready, and its container.

    Args:
        shape: A folder of `deploy/`.
        folder: Where the socket is.
        more: Variables of the bridge in addition to those of the manifest.
    """
    *helpers, last = [
        each for each in containers(deployment(shape)) if each["name"] != "bring-mcpbridge"
    ]
    async with AsyncExitStack() as stack:
        for each in helpers:
            shim = await stack.enter_async_context(started(*words_of(each, folder)))
            await shim.logged("shim.started")
            # As its startup probe does.
            check = [*each["startupProbe"]["exec"]["command"]]
            check[-1] = check[-1].replace("unix:/run/mcp", f"unix:{folder}")
            async with started(*check[1:], "--") as health:
                assert await health.ended() == 0
        env = {
            **{variable["name"]: variable["value"] for variable in last["env"]},
            **more,
            "MCPBRIDGE_ADMIN_PORT": str(free_port()),
            "PORT": str(free_port()),
        }
        bridge = await stack.enter_async_context(started(*words_of(last, folder), env=env))
        (record,) = await bridge.logged("serve.started")
        bridge.url = str(record["url"]).rpartition("/")[0]
        await bridge.logged("child.ready")
        yield bridge, last


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_pod_starts_answers_its_probes_and_calls_and_ends(
    shape: str, tmp_path: Path
) -> None:
    """Every probe on the port that it names; then SIGTERM and exit status 0."""
    async with pod(shape, tmp_path) as (bridge, container):
        (record,) = bridge.events("serve.started")
        ports = {"mcp": bridge.url, "admin": f"http://{record['admin']}"}
        async with httpx.AsyncClient(timeout=20) as kubelet:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe]["httpGet"]
                answer = await kubelet.get(f"{ports[asked['port']]}{asked['path']}")
                assert answer.status_code == 200, answer.text
        async with bridge.client() as client:
            session = await open_session(client)
            call = rpc(1, "tools/call", {"name": "echo", "arguments": {"text": shape}})
            answer = await client.post("/mcp", json=call, headers={**ACCEPT, **session})
            assert answer.json()["result"]["content"][0]["text"] == shape
        assert await bridge.terminate() == 0


async def test_a_token_from_a_secret_is_asked_of_clients_and_not_of_probes(tmp_path: Path) -> None:
    """The variable that the guide sets; the kubelet and Prometheus have no token."""
    (block,) = blocks("kubernetes.md", "yaml")
    (added,) = documents_in(block)
    (variable,) = added["env"]
    assert set(variable["valueFrom"]["secretKeyRef"]) == {"name", "key"}
    token = "a-token-of-the-test"
    async with pod("wrap", tmp_path, {variable["name"]: token}) as (bridge, container):
        (record,) = bridge.events("serve.started")
        admin = f"http://{record['admin']}"
        paths = [
            container[f"{probe}Probe"]["httpGet"]["path"]
            for probe in ("startup", "readiness", "liveness")
        ]
        async with bridge.client() as client:
            for path in (*paths, "/metrics"):
                assert (await client.get(f"{admin}{path}")).status_code == 200
            asked = rpc(1, "tools/list")
            assert (await client.post("/mcp", json=asked, headers=ACCEPT)).status_code == 401
            headers = {**ACCEPT, "authorization": f"Bearer {token}"}
            assert (await client.post("/mcp", json=asked, headers=headers)).status_code == 200
        assert await bridge.terminate() == 0


def test_the_example_that_the_guide_runs_is_in_the_image() -> None:
    """`docker run … -- /opt/mcpbridge/bin/python -m mcpbridge.demo`: the demo is a module."""
    lines = [line for block in blocks("containers.md") for line in block.splitlines()]
    (line,) = [line for line in lines if line.endswith("mcpbridge.demo")]
    assert shlex.split(line)[-3:] == ["/opt/mcpbridge/bin/python", *DEMO[1:]]
    assert sys.executable == DEMO[0]
