"""A file of servers that changes while they serve."""

from __future__ import annotations

import asyncio
import json
import os
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
from tests.support.servers_file import entry, own, save, statuses, write_servers

pytestmark = pytest.mark.asyncio

ECHO = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "x"}})
COUNTDOWN = rpc(3, "tools/call", {"name": "countdown", "arguments": {"seconds": 2}})
ENVIRON = child("environ")


async def reloaded(running: RunningBridge, count: int) -> dict[str, Any]:
    """What became of the servers at the reload of this number."""
    return (await running.logged("servers.reloaded", count=count))[count - 1]


async def reloaded_in_place(running: RunningBridge, name: str) -> dict[str, Any]:
    """The record of the first reload of one server."""
    return (await running.logged("server.reloaded", lambda each: each["server_name"] == name))[0]


async def environ(client: httpx.AsyncClient, headers: dict[str, str], *names: str) -> Any:
    """What the server of `environ` says of its process in a session."""
    call = rpc(9, "tools/call", {"name": "environ", "arguments": {"names": names}})
    response = await client.post("/servers/a/mcp", json=call, headers=headers)
    assert response.status_code == 200, response.text
    return json.loads(messages(response.text)[-1]["result"]["content"][0]["text"])


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
        assert await pids(client, "abc") == {name: before[name]["pid"] for name in "abc"}
        added = await pids(client, "d")
        del servers["b"]
        write_servers(path, servers)
        assert (await reloaded(running, 2))["removed"] == ["b"]
        assert await pids(client, "ac") == {name: before[name]["pid"] for name in "ac"}
        servers["c"] = entry(ENVIRON)
        write_servers(path, servers)
        assert (await reloaded(running, 3))["changed"] == ["c"]
        await reloaded_in_place(running, "c")
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
        assert await pids(client, "acd") == {name: after[name]["pid"] for name in "acd"}
        assert await pids(client, "d") == added


async def pids(client: Any, names: str) -> dict[str, object]:
    """The processes of some servers."""
    found = await statuses(client)
    return {name: found[name]["pid"] for name in names}


async def open_session_at(client: Any, name: str) -> dict[str, str]:
    """A session of one server; the headers of its requests."""
    async with httpx.AsyncClient(base_url=f"{client.base_url}/servers/{name}") as of_server:
        return await open_session(of_server)


async def test_calls_in_flight_are_answered_by_the_server_before(tmp_path: Path) -> None:
    """A changed server has its sessions still; those of a removed one are unknown."""
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
        before = (await statuses(client))["a"]["pid"]
        write_servers(path, {"a": entry(ENVIRON, env={"NUMBER": "1"})})
        record = await reloaded_in_place(running, "a")
        assert record["because"] == "its entry in mcp.json"
        said = await environ(client, sessions["a"], "NUMBER")
        assert (said["NUMBER"], said["pid"]) == ("1", record["pid"])
        assert said["pid"] != before
        for response in await asyncio.gather(*asking):
            assert response.status_code == 200
            assert "liftoff" in response.text.lower()
        response = await client.post("/servers/b/mcp", json=ECHO, headers=sessions["b"])
        assert response.status_code == 404
        assert not running.events("server.replaced")


async def test_a_change_of_settings_takes_another_server(tmp_path: Path) -> None:
    """A session has the limits and rules that it was opened with: it ends."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(DEMO)})
    async with bridge("--config", str(path)) as running, running.client() as client:
        session = await open_session_at(client, "a")
        write_servers(path, {"a": entry(DEMO, **own(deny_tool=["echo"]))})
        await running.logged("server.replaced")
        response = await client.post("/servers/a/mcp", json=ECHO, headers=session)
        assert response.status_code == 404
        response = await client.post("/servers/a/mcp", json=ECHO, headers=ACCEPT)
        assert "error" in messages(response.text)[0]
        assert not running.events("server.reloaded")


async def test_a_server_of_another_era_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """What the sessions cannot be continued with is served all the same, to new ones."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(DEMO)})
    async with (
        bridge("--config", str(path), "--child-era", "auto") as running,
        running.client() as client,
    ):
        session = await open_session_at(client, "a")
        write_servers(path, {"a": entry(child("modern", str(tmp_path)))})
        await running.logged("server.replaced")
        response = await client.post("/servers/a/mcp", json=ECHO, headers=session)
        assert response.status_code == 404
        found = (await statuses(client))["a"]
        assert (found["state"], found["reason"]) == ("ready", "")


async def test_a_change_that_failed_is_not_started_from_again(tmp_path: Path) -> None:
    """A server that ends later is started from the entry that has served."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(ENVIRON, env={"NUMBER": "1"})})
    dying = entry((sys.executable, "-c", "import sys; sys.exit(3)"), env={"NUMBER": "2"})
    async with bridge("--config", str(path)) as running, running.client() as client:
        session = await open_session_at(client, "a")
        pid = (await environ(client, session))["pid"]
        write_servers(path, {"a": dying})
        await running.logged("server.replace_failed")
        os.kill(pid, signal.SIGKILL)
        ready = await running.logged("child.ready", count=2)
        said = await environ(client, session, "NUMBER")
        assert (said["NUMBER"], said["pid"]) == ("1", ready[1]["pid"])


async def test_the_last_of_two_changes_counts(tmp_path: Path) -> None:
    """Also if the one before it is still starting."""
    path = write_servers(tmp_path / "mcp.json", {"a": entry(ENVIRON, env={"NUMBER": "1"})})
    started = tmp_path / "started"
    hanging = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(600)"
    async with bridge("--config", str(path)) as running, running.client() as client:
        session = await open_session_at(client, "a")
        write_servers(path, {"a": entry((sys.executable, "-c", hanging))})
        await eventually(started.exists, "the server of the first change starts")
        assert (await environ(client, session, "NUMBER"))["NUMBER"] == "1"
        write_servers(path, {"a": entry(ENVIRON, env={"NUMBER": "3"})})
        await reloaded_in_place(running, "a")
        assert (await environ(client, session, "NUMBER"))["NUMBER"] == "3"
        await eventually(lambda: len(running.processes()) == 1, "the others have ended")


async def test_an_env_file_is_followed_like_the_file_itself(tmp_path: Path) -> None:
    """Its server starts from what it says now, in the same session; the other is left alone."""
    (tmp_path / "a.env").write_text("NUMBER=1\n", "utf-8")
    servers = {
        "a": entry(ENVIRON, envFile="a.env"),
        "b": entry(DEMO),
        "c": entry(DEMO, envFile="missing.env"),
    }
    path = write_servers(tmp_path / "mcp.json", servers)
    async with bridge("--config", str(path)) as running, running.client() as client:
        await running.logged("child.ready", count=2)
        session = await open_session_at(client, "a")
        assert (await environ(client, session, "NUMBER"))["NUMBER"] == "1"
        save(tmp_path / "a.env", "NUMBER=2\n")
        record = await reloaded(running, 1)
        assert (record["changed"], record["unchanged"]) == (["a"], ["b", "c"])
        await reloaded_in_place(running, "a")
        assert (await environ(client, session, "NUMBER"))["NUMBER"] == "2"
        # One that was not there fails its server until it is.
        assert "envFile" in (await statuses(client))["c"]["reason"]
        save(tmp_path / "missing.env", "NUMBER=3\n")
        assert (await reloaded(running, 2))["changed"] == ["c"]
        ready = await running.logged("child.ready", lambda each: each["server_name"] == "c")
        assert len(ready) == 1


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
        await reloaded_in_place(running, "a")
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
