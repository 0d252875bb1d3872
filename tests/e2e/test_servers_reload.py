"""A file of servers that changes while they serve."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

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
    messages,
    open_session,
    rpc,
)
from tests.support.servers_file import entry, save, statuses, write_servers

pytestmark = pytest.mark.asyncio

ECHO = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "x"}})
COUNTDOWN = rpc(3, "tools/call", {"name": "countdown", "arguments": {"seconds": 2}})
ENVIRON = child("environ")


async def reloaded(running: RunningBridge, count: int) -> dict[str, Any]:
    """What became of the servers at the reload of this number."""
    return (await running.logged("servers.reloaded", count=count))[count - 1]


async def test_only_what_has_changed_is_touched(tmp_path: Path) -> None:
    """Add, remove and change one of three entries: the others keep their processes."""
    path = write_servers(tmp_path / "mcp.json", {name: entry(DEMO) for name in "abc"})
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("child.ready", count=3)
        before = await statuses(client)
        session = await open_session_at(client, "a")
        servers = {name: entry(DEMO) for name in "abcd"}
        write_servers(path, servers)
        record = await reloaded(running, 1)
        assert (record["added"], record["unchanged"]) == (["d"], ["a", "b", "c"])
        await running.logged("child.ready", count=4)
        del servers["b"]
        write_servers(path, servers)
        assert (await reloaded(running, 2))["removed"] == ["b"]
        servers["c"] = entry(ENVIRON)
        write_servers(path, servers)
        assert (await reloaded(running, 3))["changed"] == ["c"]
        await running.logged("server.replaced")
        after = await statuses(client)
        assert list(after) == ["a", "c", "d"]
        assert after["a"]["pid"] == before["a"]["pid"]
        assert after["c"]["pid"] != before["c"]["pid"]
        gone = {before["b"]["pid"], before["c"]["pid"]}
        await eventually(lambda: not gone & running.processes(), "the old processes end")
        response = await client.post("/servers/b/mcp", json=ECHO, headers=ACCEPT)
        assert response.status_code == 404
        response = await client.post("/servers/a/mcp", json=ECHO, headers=session)
        assert response.status_code == 200, "its session goes on"
        # The order of members, comments and blanks change nothing.
        texts = {name: json.dumps(each) for name, each in servers.items()}
        entries = ",\n".join(f'"{name}": {text}' for name, text in reversed(texts.items()))
        save(path, f'{{"servers": {{ // the same\n{entries},}} }}')
        record = await reloaded(running, 4)
        assert sorted(record["unchanged"]) == ["a", "c", "d"]


async def open_session_at(client: Any, name: str) -> dict[str, str]:
    """A session of one server; the headers of its requests."""
    async with httpx.AsyncClient(base_url=f"{client.base_url}/servers/{name}") as of_server:
        return await open_session(of_server)


async def test_calls_in_flight_are_answered_by_the_server_before(tmp_path: Path) -> None:
    """A server that is changed or removed finishes its calls; its session is unknown then."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(DEMO), "b": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("child.ready", count=2)
        sessions = {name: await open_session_at(client, name) for name in "ab"}
        asking = [
            asyncio.create_task(
                client.post(f"/servers/{name}/mcp", json=COUNTDOWN, headers=sessions[name])
            )
            for name in "ab"
        ]

        async def in_flight() -> bool:
            text = (await client.get("/metrics")).text
            return all(f'mcpbridge_calls_in_flight{{server="{name}"}} 1.0' in text for name in "ab")

        await asked_until(in_flight, "both calls are in flight")
        write_servers(path, {"a": entry(ENVIRON)})
        await running.logged("server.replaced")
        for response in await asyncio.gather(*asking):
            assert response.status_code == 200
            assert "liftoff" in response.text.lower()
        for name, headers in sessions.items():
            response = await client.post(f"/servers/{name}/mcp", json=ECHO, headers=headers)
            assert response.status_code == 404


async def test_a_file_that_cannot_be_parsed_changes_nothing(tmp_path: Path) -> None:
    """The error names the line; the repair is served."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        pid = (await statuses(client))["a"]["pid"]
        save(path, '{"mcpServers": {\n  "a": {"command": "x"\n  "b": {}}}')
        (record,) = await running.logged("servers.reload_failed")
        assert "line 3" in record["problem"]
        assert (await statuses(client))["a"]["pid"] == pid
        write_servers(path, {"a": entry(DEMO), "b": entry(DEMO)})
        record = await reloaded(running, 1)
        assert (record["added"], record["unchanged"]) == (["b"], ["a"])
        assert (await statuses(client))["a"]["pid"] == pid


async def test_a_changed_server_that_cannot_start_leaves_the_one_before(tmp_path: Path) -> None:
    """Whether its command is missing or it ends at once; the reason is in `/servers`."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(DEMO)})
    dying = (sys.executable, "-c", "import sys; print('no bread', file=sys.stderr); sys.exit(3)")
    async with bridge("--config", str(path)) as running, running.client() as client:
        pid = (await statuses(client))["a"]["pid"]
        for command, reason in (
            (("no-such-program",), "cannot start 'no-such-program'"),
            (dying, "(exit code 3): no bread"),
        ):
            write_servers(path, {"a": entry(command)})

            async def told(reason: str = reason) -> bool:
                return reason in (await statuses(client))["a"]["reason"]

            await asked_until(told, reason)
            found = (await statuses(client))["a"]
            assert (found["state"], found["pid"]) == ("ready", pid)
            assert found["reason"].startswith("the server before the last change still serves")
            response = await client.post("/servers/a/mcp", json=ECHO, headers=ACCEPT)
            assert messages(response.text)[0]["result"]["content"][0]["text"] == "x"
        write_servers(path, {"a": entry(DEMO)})
        await running.logged("server.replaced")
        found = (await statuses(client))["a"]
        assert (found["state"], found["reason"]) == ("ready", "")


async def test_sighup_starts_failed_servers_again(tmp_path: Path) -> None:
    """And leaves the others alone: what a server lacked may be there now."""
    flag = tmp_path / "flag"
    picky = (
        f"import os, runpy, sys; os.path.exists({str(flag)!r}) or sys.exit(3);"
        " runpy.run_module('mcpbridge.demo', run_name='__main__')"
    )
    servers = {"good": entry(DEMO), "picky": entry((sys.executable, "-c", picky))}
    path = write_servers(tmp_path / "mcp.json", servers)
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("server.gave_up")
        pid = (await statuses(client))["good"]["pid"]
        flag.touch()
        running.signal(signal.SIGHUP)
        record = await reloaded(running, 1)
        assert (record["changed"], record["unchanged"]) == (["picky"], ["good"])
        await running.logged("child.ready", lambda each: each["server_name"] == "picky")
        found = await statuses(client)
        assert found["good"]["pid"] == pid
        assert found["picky"]["state"] == "ready"


async def test_saves_in_a_burst_start_few_processes(tmp_path: Path) -> None:
    """The last of twenty is served, and not each of them."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        for number in range(20):
            write_servers(path, {"a": entry(ENVIRON, env={"NUMBER": str(number)})})
            await asyncio.sleep(0.05)  # a burst is a matter of time

        async def last() -> bool:
            asked = {"name": "environ", "arguments": {"names": ["NUMBER"]}}
            call = rpc(1, "tools/call", asked)
            response = await client.post("/servers/a/mcp", json=call, headers=ACCEPT)
            return '\\"NUMBER\\": \\"19\\"' in response.text

        await asked_until(last, "the last one serves")
        assert len(running.events("child.started")) <= 4
