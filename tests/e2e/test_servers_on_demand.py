"""Servers that start at the first call, stop when none comes, and get their roots of the bridge."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    DEMO,
    RunningBridge,
    asked_until,
    bridge,
    child,
    eventually,
    initialize,
    messages,
    open_session,
    rpc,
)
from tests.support.modern_client import headers_of, meta
from tests.support.servers_file import entry, own, statuses, write_servers

pytestmark = pytest.mark.asyncio

ECHO = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "x"}})


async def called(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> str:
    """The text that the tool answers at the default address."""
    response = await client.post("/mcp", json=ECHO, headers=headers or ACCEPT)
    assert response.status_code == 200, response.text
    return str(messages(response.text)[-1]["result"]["content"][0]["text"])


async def state(client: httpx.AsyncClient) -> str:
    """The state of the only server."""
    (found,) = (await statuses(client)).values()
    return str(found["state"])


async def stopped(running: RunningBridge, client: httpx.AsyncClient, count: int = 1) -> None:
    """Wait until the server has been stopped for want of calls `count` times."""
    await running.logged("server.idle_stopped", count=count)
    await eventually(lambda: not running.processes(), "its processes end")

    async def rests() -> bool:
        return await state(client) == "idle"

    await asked_until(rests, "it rests")


async def test_a_lazy_server_starts_at_the_first_call(tmp_path: Path) -> None:
    """It is ready without a process: the call waits for the start, as any of a session."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO, **own(start="lazy"))})
    async with bridge("--config", str(path), ready=False) as running, running.client() as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/servers/one/readyz")).status_code == 200
        assert await state(client) == "idle"
        assert running.processes() == set()
        assert running.events("child.started") == []
        texts = await asyncio.gather(*(called(client) for _ in range(4)))
        assert texts == ["x"] * 4
        assert await state(client) == "ready"
        assert len(running.events("child.started")) == 1
        await running.logged("serve.ready")
        headers = await open_session(client)
        assert await called(client, headers) == "x"


async def test_a_session_begins_on_a_lazy_server(tmp_path: Path) -> None:
    """`initialize` starts it too, and the first question which eras it speaks."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO, **own(start="lazy"))})
    env = {"MCPBRIDGE_CHILD_ERA": "auto"}
    async with (
        bridge("--config", str(path), ready=False, env=env) as running,
        running.client() as client,
    ):
        headers = await open_session(client)
        assert await called(client, headers) == "x"
        assert len(running.processes()) == 1


async def test_a_modern_client_starts_a_lazy_modern_server(tmp_path: Path) -> None:
    """For either era the first request is enough."""
    command = child("toolbox", "modern", str(tmp_path))
    path = write_servers(tmp_path / "mcp.json", {"one": entry(command, **own(start="lazy"))})
    env = {"MCPBRIDGE_CHILD_ERA": "auto"}
    async with (
        bridge("--config", str(path), ready=False, env=env) as running,
        running.client() as client,
    ):
        message = rpc(1, "tools/call", {"name": "any", "arguments": {}, "_meta": meta()})
        response = await client.post("/mcp", json=message, headers=headers_of(message))
        assert "did any" in response.text, response.text


async def test_an_idle_server_stops_and_its_sessions_stay(tmp_path: Path) -> None:
    """The next call in the same session starts it again, with what the session had asked of it."""
    settings = own(idle_stop="1s", on_child_exit="end")
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO, **settings)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        headers = await open_session(client)
        level = rpc(5, "logging/setLevel", {"level": "debug"})
        assert (await client.post("/mcp", json=level, headers=headers)).status_code == 200
        for count in (1, 2):
            await stopped(running, client, count)
            assert (await client.get("/readyz")).status_code == 200
            response = await client.post("/mcp", json=ECHO, headers=headers)
            remark, answer = messages(response.text)
            assert remark["params"]["level"] == "debug", "the level of the session is set again"
            assert answer["result"]["content"][0]["text"] == "x"
            assert await state(client) == "ready"
        assert running.events("child.restarting") == []
        assert [each["event"] for each in running.log if each["level"] == "error"] == []


async def test_a_session_with_its_own_process_gets_another_one(tmp_path: Path) -> None:
    """`isolation: session`: no process is left, and the call starts one for the session."""
    settings = own(idle_stop="1s", isolation="session")
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO, **settings)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        headers = await open_session(client)
        await called(client, headers)
        await stopped(running, client)
        assert await called(client, headers) == "x"


async def test_a_call_keeps_a_server_running(tmp_path: Path) -> None:
    """However long it takes."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO, **own(idle_stop="300ms"))})
    async with bridge("--config", str(path)) as running, running.client() as client:
        call = rpc(3, "tools/call", {"name": "countdown", "arguments": {"seconds": 1.5}})
        response = await client.post("/mcp", json=call, headers=ACCEPT)
        assert "liftoff" in response.text
        await stopped(running, client, len(running.events("server.idle_stopped")) + 1)


async def test_sigterm_ends_a_server_at_rest(tmp_path: Path) -> None:
    """Nothing waits for a process that does not run."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO, **own(start="lazy"))})
    async with bridge("--config", str(path), ready=False) as running:
        assert await running.terminate() == 0


@pytest.mark.parametrize("isolation", ["auto", "shared"])
async def test_clients_that_declare_roots_share_a_process(tmp_path: Path, isolation: str) -> None:
    """The bridge itself answers the server's `roots/list`, with the folders of the entry."""
    record = tmp_path / "record"
    record.mkdir()
    command = child("questioner", str(record))
    settings = own(roots=["${workspaceFolder}", "file:///srv/data"], isolation=isolation)
    path = write_servers(tmp_path / "mcp.json", {"one": entry(command, **settings)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        sessions = [
            await open_session(client, capabilities={"roots": {"listChanged": True}})
            for _ in range(4)
        ]
        line = json.dumps(rpc("q", "roots/list"))
        for headers in sessions:
            ask = rpc(7, "x/ask", {"lines": [line], "answers": 1})
            response = await client.post("/mcp", json=ask, headers=headers)
            (answer,) = messages(response.text)[-1]["result"]["answers"]
            assert answer["result"]["roots"] == [
                {"uri": tmp_path.as_uri(), "name": tmp_path.name},
                {"uri": "file:///srv/data", "name": "data"},
            ]
        assert len(running.processes()) == 1
        (log,) = record.iterdir()
        first = next(
            json.loads(each) for each in log.read_text().splitlines() if "initialize" in each
        )
        assert first["params"]["capabilities"] == {"roots": {}}


async def test_a_client_that_can_be_asked_more_has_its_own_process(tmp_path: Path) -> None:
    """Sampling is asked of the client itself, and so are its roots."""
    record = tmp_path / "record"
    record.mkdir()
    command = child("questioner", str(record))
    path = write_servers(
        tmp_path / "mcp.json", {"one": entry(command, **own(roots=["${workspaceFolder}"]))}
    )
    async with bridge("--config", str(path)) as running, running.client() as client:
        opened = initialize(0, capabilities={"roots": {}, "sampling": {}})
        response = await client.post("/mcp", json=opened, headers=ACCEPT)
        assert response.status_code == 200
        assert len(running.processes()) == 2
