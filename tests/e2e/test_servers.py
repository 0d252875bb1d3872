"""Several servers in one process: each by its name, and none disturbed by another."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    DEMO,
    asked_until,
    bridge,
    child,
    eventually,
    messages,
    open_session,
    ran,
    rpc,
    started,
)
from tests.support.servers_file import entry, own, save, statuses, write_servers

pytestmark = pytest.mark.asyncio

VSCODE = """{
  // VS Code writes comments, and people leave trailing commas.
  "inputs": [{"id": "gh", "type": "promptString", "description": "token", "password": true}],
  "servers": {
    "with blank": {"type": "stdio", "command": "%(python)s", "args": ["-m", "mcpbridge.demo"]},
    "mine": {
      "command": "%(python)s", "args": ["%(environ)s"], "envFile": "${workspaceFolder}/.env",
      "env": {"TOKEN": "${input:gh}", "REGION": "${SOME_REGION:-eu}"},
      "dev": {"watch": "src/**/*.py", "debug": {"type": "debugpy"}},
    },
  },
}"""
DYING = (sys.executable, "-c", "import sys; print('no bread', file=sys.stderr); sys.exit(3)")
QUICK = (sys.executable, str(Path(__file__).parent.parent / "support" / "quick_restarts.py"))
CRASHES = 100
SLOW = rpc(7, "tools/call", {"name": "countdown", "arguments": {"seconds": 1}})


async def tools(client: httpx.AsyncClient, path: str) -> list[str]:
    """The names of the tools at a path, by Streamable HTTP without a session."""
    response = await client.post(path, json=rpc(1, "tools/list"), headers=ACCEPT)
    assert response.status_code == 200, response.text
    (answer,) = messages(response.text)
    return [tool["name"] for tool in answer["result"]["tools"]]


def of_server(name: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a record is of this server."""
    return lambda record: bool(record["server_name"] == name)


async def in_flight(client: httpx.AsyncClient, name: str) -> None:
    """Wait until a server has one call in flight."""

    async def counted() -> bool:
        line = f'mcpbridge_calls_in_flight{{server="{name}"}} 1.0'
        return line in (await client.get("/metrics")).text

    await asked_until(counted, "a call in flight")


async def tools_by_sse(client: httpx.AsyncClient, path: str) -> list[str]:
    """The names of the tools at a path, by HTTP+SSE."""
    headers = {"accept": "text/event-stream"}
    async with client.stream("GET", path, headers=headers) as stream:
        lines = stream.aiter_lines()
        found: list[Any] = []
        async for line in lines:
            if not line.startswith("data: "):
                continue
            if not found:
                found.append(line[6:])
                await client.post(line[6:], json=rpc(1, "tools/list"))
            else:
                listed = json.loads(line[6:])["result"]["tools"]
                return [tool["name"] for tool in listed]
    raise AssertionError("the stream ended")


async def test_each_server_is_reached_by_its_name(tmp_path: Path) -> None:
    """A file of VS Code as it is: both transports at each address; a name may have a blank."""
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".env").write_text("FROM_FILE='a b'\n")
    environ = child("environ")[1]
    text = VSCODE % {"python": sys.executable, "environ": environ}
    path = save(tmp_path / ".vscode" / "mcp.json", text)
    env = {"MCPBRIDGE_INPUT_GH": "s3cret"}
    async with bridge("--config", str(path), env=env) as running, running.client() as client:
        await running.logged("child.ready", count=2)
        assert "echo" in await tools(client, "/servers/with%20blank/mcp")
        assert "echo" in await tools_by_sse(client, "/servers/with%20blank/sse")
        names = ["TOKEN", "REGION", "FROM_FILE", "MCPBRIDGE_INPUT_GH"]
        call = rpc(2, "tools/call", {"name": "environ", "arguments": {"names": names}})
        response = await client.post("/servers/mine/mcp", json=call, headers=ACCEPT)
        told = json.loads(messages(response.text)[0]["result"]["content"][0]["text"])
        assert [told[name] for name in names] == ["s3cret", "eu", "a b", None]
        pid = told["pid"]
        found = await statuses(client)
        assert {name: each["state"] for name, each in found.items()} == {
            "with blank": "ready",
            "mine": "ready",
        }
        assert {each["pid"] for each in found.values()} <= running.processes()
        assert found["mine"]["pid"] == pid
        assert found["mine"]["address"] == f"{running.url}/servers/mine/mcp"
        assert found["with blank"]["address"].endswith("/servers/with%20blank/mcp")


async def test_the_default_server_has_the_short_address(tmp_path: Path) -> None:
    """`/mcp` and `/sse` are those of the marked server; without a mark 404 lists the names."""
    path = write_servers(
        tmp_path / "mcp.json",
        {"one": entry(child("toolbox", "handshake", str(tmp_path))), "two": entry(DEMO)},
    )
    async with bridge("--config", str(path)) as running, running.client() as client:
        response = await client.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
        assert response.status_code == 404
        assert "ask for /servers/NAME/mcp (servers: one, two)" in response.text
        response = await client.post("/servers/three/mcp", json=rpc(1, "ping"), headers=ACCEPT)
        assert response.status_code == 404
        assert "unknown server 'three' (servers: one, two)" in response.text
        marked = {"one": entry(DYING), "two": entry(DEMO, **own(default=True))}
        write_servers(path, marked)
        await running.logged("servers.reloaded")
        assert "echo" in await tools(client, "/mcp")
        assert "echo" in await tools_by_sse(client, "/sse")


async def test_the_only_server_is_the_default(tmp_path: Path) -> None:
    """`.mcp.json` of Claude Code as it is, with a session at the usual address."""
    path = write_servers(tmp_path / ".mcp.json", {"only": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        headers = await open_session(client)
        call = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "x"}})
        for _ in range(3):  # the later ones by the fast path
            response = await client.post("/mcp", json=call, headers=headers)
            assert messages(response.text)[0]["result"]["content"][0]["text"] == "x"
        # The session is the server's, by whichever of its addresses.
        response = await client.post("/servers/only/mcp", json=call, headers=headers)
        assert response.status_code == 200


async def test_a_session_of_one_server_is_unknown_to_another(tmp_path: Path) -> None:
    """No server gets what belongs to a session of another one."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO), "two": entry(DEMO)})
    async with bridge("--config", str(path)) as running:
        base = f"{running.url}/servers"
        async with httpx.AsyncClient(base_url=f"{base}/one") as client:
            headers = await open_session(client)
            assert (await client.post("/mcp", json=SLOW, headers=headers)).status_code == 200
            response = await client.post(f"{base}/two/mcp", json=SLOW, headers=headers)
            assert response.status_code == 404


async def test_failing_servers_disturb_no_other(tmp_path: Path) -> None:
    """Each is named with its field, what is wrong and what would be right; the process stays."""
    path = write_servers(
        tmp_path / "mcp.json",
        {
            "good": entry(DEMO),
            "missing": {"command": "no-such-program"},
            "dying": entry(DYING),
            "crashing": entry(child("crashing", "4"), **own(give_up_after=2)),
            "unset": entry(DEMO, env={"TOKEN": "${NO_SUCH_VARIABLE}"}),
            "wrong": entry(DEMO, **own(isolatoin="shared")),
            "far": {"url": "http://127.0.0.1:1/mcp"},
        },
    )
    async with bridge("--config", str(path)) as running, running.client() as client:
        for name in ("dying", "crashing"):
            await running.logged("server.gave_up", of_server(name))
        unusable = {each["server_name"]: each for each in running.events("server.unusable")}
        assert sorted(unusable) == ["missing", "unset", "wrong"]
        assert unusable["wrong"]["field"] == "mcpbridge.isolatoin"
        assert unusable["wrong"]["remedy"] == "did you mean isolation?"
        assert unusable["unset"]["field"] == "env.TOKEN"
        found = await statuses(client)
        failed = ("missing", "dying", "crashing")
        assert [found[name]["state"] for name in failed] == ["failed"] * 3
        assert "command: cannot start 'no-such-program'" in found["missing"]["reason"]
        assert "(exit code 3): no bread" in found["dying"]["reason"]
        assert "(exit code 4): the well is dry" in found["crashing"]["reason"]
        assert found["far"]["state"] == "unreachable"
        assert "cannot connect to http://127.0.0.1:1/mcp" in found["far"]["reason"]
        assert "echo" in await tools(client, "/servers/good/mcp")
        for name in failed:
            response = await client.post(
                f"/servers/{name}/mcp", json=rpc(1, "tools/list"), headers=ACCEPT
            )
            assert response.status_code == 503, response.text
            ready = await client.get(f"/servers/{name}/readyz")
            assert ready.status_code == 503
        assert (await client.get("/servers/good/readyz")).status_code == 200
        for probe in ("/livez", "/readyz", "/health", "/startupz"):
            assert (await client.get(probe)).status_code == 200, probe
        assert running.process.returncode is None


async def test_servers_that_crash_again_and_again_disturb_no_other(tmp_path: Path) -> None:
    """A hundred crashes of one that had become ready, and of one that never does.

    The good ones answer all the time, and `/servers` names the reason of each of the others.
    """
    reasons = {
        "crashing": "(exit code 4): the well is dry",
        "hopeless": "(exit code 3): no bread",
        "missing": "command: cannot start 'no-such-program'",
    }
    good, never = {"demo": "echo", "environ": "environ"}, own(give_up_after=0)
    path = write_servers(
        tmp_path / "mcp.json",
        {
            "crashing": entry(child("crashing", "4"), **never),
            "demo": entry(DEMO),
            "hopeless": entry(DYING, **never),
            "environ": entry(child("environ")),
            "missing": {"command": "no-such-program"},
        },
    )
    async with (
        bridge("--config", str(path), under=QUICK, ready=False) as running,
        running.client() as client,
    ):
        for name in good:
            await running.logged("serve.ready", of_server(name))
        before = await statuses(client)
        async with asyncio.TaskGroup() as answering:
            enough = asyncio.Event()
            asked = [
                answering.create_task(answers_until(enough, client, f"/servers/{name}/mcp", tool))
                for name, tool in good.items()
            ]
            for count in range(10, CRASHES + 1, 10):
                for name in ("crashing", "hopeless"):
                    await running.logged("child.exited", of_server(name), count)
                await all_named(client, reasons)
            enough.set()
        assert all(task.result() for task in asked)
        after = await statuses(client)
        assert [after[name] for name in good] == [before[name] for name in good]
        assert (await client.get("/servers/missing/readyz")).status_code == 503
        for probe in ("/livez", "/readyz", "/health", "/startupz"):
            assert (await client.get(probe)).status_code == 200, probe
        ready = running.events("child.ready")
        assert {each["server_name"] for each in ready} == {*good, "crashing"}
        assert running.events("server.gave_up") == []


async def answers_until(
    enough: asyncio.Event, client: httpx.AsyncClient, path: str, tool: str
) -> int:
    """Ask a server for its tools until it is enough; how often it was asked."""
    count = 0
    while not enough.is_set():
        assert tool in await tools(client, path)
        count += 1
    return count


async def all_named(client: httpx.AsyncClient, reasons: Mapping[str, str]) -> None:
    """Ask until `/servers` says of each of these servers why it is not served.

    One that crashes after its handshake counts as ready for a moment.
    """

    async def so() -> bool:
        found = await statuses(client)
        return all(reason in found[name]["reason"] for name, reason in reasons.items())

    await asked_until(so, "each reason is named")


async def test_metrics_name_the_server(tmp_path: Path) -> None:
    """Calls are counted by server; what a process has once has no such label."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO), "two": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("serve.ready", count=2)
        call = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "x"}})
        for _ in range(2):
            assert (await client.post("/servers/two/mcp", json=call)).status_code == 200
        text = (await client.get("/metrics")).text
        assert 'mcpbridge_tool_calls_total{outcome="ok",server="two",tool="echo"} 2.0' in text
        assert 'mcpbridge_calls_total{method="tools/call",outcome="ok",server="one"}' not in text
        assert 'mcpbridge_http_requests_total{method="POST",status="200"} 2.0' in text
        assert 'mcpbridge_children{server="one"} 1.0' in text
        assert (
            text.count("# TYPE mcpbridge_calls counter")
            + text.count("# TYPE mcpbridge_calls_total counter")
            == 1
        )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"mcpServers": {"a": {"command": "x"}},\n "b": }', "line 2"),
        (
            '{"servers": {"a": {"command": "no-such-program"}}}',
            "no server of this file can be served",
        ),
        ('{"mcpServers": {}}', "no server of this file can be served"),
        ("[]", "not an object"),
    ],
)
async def test_a_file_that_serves_nothing_ends_the_start(
    tmp_path: Path, text: str, problem: str
) -> None:
    """Status 2, and the line of the file if it cannot be parsed."""
    status, output = await ran("--config", str(save(tmp_path / "mcp.json", text)))
    assert status == 2
    assert problem in output


async def test_a_command_beside_the_file_is_refused(tmp_path: Path) -> None:
    """Which of the two is meant cannot be known."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO)})
    status, output = await ran("--config", str(path), "--", "python", "server.py")
    assert (status, "a command stands after -- as well" in output) == (2, True)
    status, output = await ran("--config", str(path), "--cwd", "/")
    assert (status, "--cwd" in output and "no effect with --config" in output) == (2, True)
    status, output = await ran("--config", str(tmp_path / "none.json"))
    assert (status, "cannot be read" in output) == (2, True)


async def test_a_call_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    """SIGTERM drains all servers; the status is 0."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO), "two": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("child.ready", count=2)
        asking = asyncio.create_task(client.post("/servers/two/mcp", json=SLOW, headers=ACCEPT))

        def begins(record: dict[str, Any]) -> bool:
            return bool(record["phase"] == "draining" and record["calls"] == 1)

        await in_flight(client, "two")
        running.signal(signal.SIGTERM)
        await running.logged("drain.phase_changed", begins)
        assert (await asking).status_code == 200
        assert await running.ended() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """The call gets its error, the status is 3."""
    path = write_servers(tmp_path / "mcp.json", {"one": entry(DEMO)})
    async with started("--port", "0", "--config", str(path)) as running:
        (record,) = await running.logged("serve.started")
        await running.logged("child.ready")
        url = str(record["url"]).removesuffix("/servers")
        async with httpx.AsyncClient(base_url=url) as client:
            call = rpc(7, "tools/call", {"name": "countdown", "arguments": {"seconds": 60}})
            asking = asyncio.create_task(client.post("/mcp", json=call, headers=ACCEPT))
            await in_flight(client, "one")
            running.signal(signal.SIGTERM)
            await running.logged("drain.phase_changed")
            running.signal(signal.SIGTERM)
            assert await running.ended() == 3
            await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: not running.processes(), "no process is left", 5)


async def test_secrets_of_entries_are_not_logged(tmp_path: Path) -> None:
    """What a server writes to its stderr is shown without the values of its entry."""
    telling = (
        "import os, sys; print('it is', os.environ['API_TOKEN'], file=sys.stderr); sys.exit(1)"
    )
    path = write_servers(
        tmp_path / "mcp.json",
        {
            "good": entry(DEMO),
            "telling": entry((sys.executable, "-c", telling), env={"API_TOKEN": "pa55"}),
        },
    )
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("server.gave_up")
        found = await statuses(client)
        assert "it is ***" in found["telling"]["reason"]
        assert "pa55" not in json.dumps(running.log)
