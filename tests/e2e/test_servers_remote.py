"""Entries with `url`: servers elsewhere, served under addresses of the bridge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge.tape.frame import Direction
from mcpbridge.tape.recording import read_recording
from tests.support.bridge_process import (
    ACCEPT,
    asked_until,
    bridge,
    eventually,
    messages,
    open_session,
    rpc,
)
from tests.support.fake_remote import (
    FakeRemote,
    Got,
    begin_stream,
    event,
    fake_remote,
    introduced,
    respond,
    result,
)
from tests.support.fake_servers import TOOL, OlderServer, modern_server
from tests.support.login_server import LoginServer, home, kept, logged_in
from tests.support.modern_client import meta
from tests.support.servers_file import entry, statuses, write_servers

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

PROBED = {"MCPBRIDGE_CHILD_ERA": "auto"}
PATH = "/servers/far/mcp"


class LegacyServer:
    """A remote over Streamable HTTP that forgets its sessions when it restarts."""

    def __init__(self, prefix: str = "s") -> None:
        self.prefix = prefix
        self.sessions: set[str] = set()
        self.cut: set[str] = set()
        self.listeners: dict[str, asyncio.StreamWriter] = {}
        """The standalone stream of each session."""

    async def __call__(self, got: Got, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        session = got.headers.get("mcp-session-id", "")
        if got.rpc == "initialize":
            session = f"{self.prefix}{len(self.sessions)}"
            self.sessions.add(session)
            introduced(writer, got, {"tools": {"listChanged": True}}, mcp_session_id=session)
        elif got.method == "OPTIONS":
            respond(writer, "405 Method Not Allowed")
        elif session not in self.sessions:
            respond(writer, "404 Not Found" if session else "400 Bad Request")
        elif got.method == "GET":
            begin_stream(writer)
            self.listeners[session] = writer
            await asyncio.Event().wait()
        elif "id" not in got.message or got.method == "DELETE":
            respond(writer, "202 Accepted")
        elif got.rpc in self.cut:
            writer.transport.abort()
        elif got.rpc == "tools/list":
            result(writer, got, {"tools": [TOOL]})
        else:
            result(writer, got, {"content": [{"type": "text", "text": got.rpc}]})


def far(remote: FakeRemote, **more: Any) -> dict[str, Any]:
    """An entry of a server elsewhere."""
    return {"type": "http", "url": remote.url, **more}


async def asked(
    client: httpx.AsyncClient, headers: Mapping[str, str], method: str, params: Any = None
) -> dict[str, Any]:
    """The answer to a request in a session, which must not be an HTTP error."""
    response = await client.post(PATH, json=rpc(7, method, params), headers=headers)
    assert response.status_code == 200, response.text
    return next(each for each in messages(response.text) if each.get("id") == 7)


async def in_state(client: httpx.AsyncClient, state: str) -> str:
    """Wait until `/servers` says that the server is in a state; return the reason."""

    async def so() -> bool:
        return bool((await statuses(client))["far"]["state"] == state)

    await asked_until(so, state)
    return str((await statuses(client))["far"]["reason"])


async def session_of(client: httpx.AsyncClient) -> dict[str, str]:
    """A session of the server; the headers of its requests."""
    base = f"{client.base_url}{PATH.removesuffix('/mcp')}"
    async with httpx.AsyncClient(base_url=base) as of_server:
        return await open_session(of_server)


async def test_a_restarted_remote_serves_the_same_session(tmp_path: Path) -> None:
    """While it is away each request gets an error, and `/servers` and `/readyz` say why."""
    server = LegacyServer()
    env = {"FAR_KEY": "s3cret", **PROBED}
    async with fake_remote(server) as remote:
        headers = {"X-Key": "${env:FAR_KEY}"}
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote, headers=headers)})
        async with bridge("--config", str(path), env=env) as running, running.client() as client:
            await in_state(client, "ready")
            session = await session_of(client)
            assert (await asked(client, session, "tools/list"))["result"]["tools"] == [TOOL]
            assert {each.headers["x-key"] for each in remote.got} == {"s3cret"}
            await remote.stop()
            for method in ("tools/list", "tools/call"):
                failed = (await asked(client, session, method, {"name": "hello"}))["error"]
                assert failed["data"]["mcpbridge"]["executed"] in ("no", "maybe")
            failed = (await asked(client, session, "tools/list"))["error"]
            assert failed["data"]["mcpbridge"]["reason"] == "unreachable"
            reason = await in_state(client, "unreachable")
            assert f"{remote.url} cannot be reached: " in reason
            assert (await client.get("/servers/far/readyz")).status_code == 503
            server.sessions, server.prefix = set(), "t"
            await remote.start()
            await in_state(client, "ready")
            assert (await asked(client, session, "tools/list"))["result"]["tools"] == [TOOL]
            called = await asked(client, session, "tools/call", {"name": "hello"})
            assert called["result"]["content"][0]["text"] == "tools/call"
            assert "s3cret" not in str(running.log)


async def test_a_remote_that_comes_later_is_found(tmp_path: Path) -> None:
    """Until then a request is answered with an error, and not with an empty list.

    It is tried often, and what is known already does not fill the log.
    """
    server = LegacyServer()
    async with fake_remote(server) as remote:
        await remote.stop()
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        running_bridge = bridge("--config", str(path), "--log-level", "debug", ready=False)
        async with running_bridge as running, running.client() as client:
            reason = await in_state(client, "unreachable")
            failures = await running.logged("child.spawn_failed", count=2)
            assert [each["level"] for each in failures[:2]] == ["error", "debug"]
            assert f"cannot connect to {remote.url}" in reason
            refused = await client.post(PATH, json=rpc(1, "tools/list"), headers=ACCEPT)
            assert "unreachable" in refused.text
            assert "(url)" in refused.text
            await remote.start()
            await in_state(client, "ready")
            session = await session_of(client)
            assert (await asked(client, session, "tools/list"))["result"]["tools"] == [TOOL]


@pytest.mark.parametrize(("method", "times"), [("tools/call", 1), ("tools/list", 2)])
async def test_a_tool_call_is_never_sent_twice(method: str, times: int, tmp_path: Path) -> None:
    """If its connection breaks it may have been executed; a list is asked for again."""
    server = LegacyServer()
    async with fake_remote(server) as remote:
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        async with bridge("--config", str(path)) as running, running.client() as client:
            session = await session_of(client)
            server.cut = {method}
            failed = (await asked(client, session, method, {"name": "hello"}))["error"]
            assert failed["data"]["mcpbridge"]["executed"] == "maybe"
            # The bridge itself lists tools too, without params.
            sent = [each for each in remote.all_of(method) if each.message.get("params")]
            assert len(sent) == times
            server.cut = set()
            assert "result" in await asked(client, session, method, {"name": "hello"})


async def test_a_client_that_can_be_asked_has_a_session_of_its_own(tmp_path: Path) -> None:
    """A request of the server reaches it, and its answer the session that asked."""
    server = LegacyServer()
    async with fake_remote(server) as remote:
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        async with bridge("--config", str(path)) as running, running.client() as client:
            base = f"{client.base_url}{PATH.removesuffix('/mcp')}"
            async with httpx.AsyncClient(base_url=base) as of_server:
                session = await open_session(of_server, capabilities={"roots": {}})
            assert len(remote.all_of("initialize")) == 2
            assert remote.all_of("initialize")[1].message["params"]["capabilities"] == {"roots": {}}
            async with client.stream("GET", PATH, headers=session) as stream:
                await eventually(lambda: "s1" in server.listeners, "its own session listens")
                server.listeners["s1"].write(
                    event({"jsonrpc": "2.0", "id": 5, "method": "roots/list"})
                )
                async for line in stream.aiter_lines():
                    if "roots/list" in line:
                        break
                asking = json.loads(line.removeprefix("data: "))
                answer = {"jsonrpc": "2.0", "id": asking["id"], "result": {"roots": []}}
                await client.post(PATH, json=answer, headers=session)
            (answered,) = await remote.received(lambda got: "result" in got.message)
            assert answered.message == {"jsonrpc": "2.0", "id": 5, "result": {"roots": []}}


async def test_only_a_changed_entry_gets_another_client(tmp_path: Path) -> None:
    """As for servers that are started: what has not changed is left alone."""
    one, other = LegacyServer(), LegacyServer()
    async with fake_remote(one) as first, fake_remote(other) as second:
        servers = {"far": far(first), "near": entry()}
        path = write_servers(tmp_path / "mcp.json", servers)
        async with bridge("--config", str(path)) as running, running.client() as client:
            await running.logged("child.ready", count=2)
            session = await session_of(client)
            pid = (await statuses(client))["near"]["pid"]
            servers["far"] = far(second)
            write_servers(path, servers)
            await running.logged("server.reloaded")
            found = await statuses(client)
            assert (found["near"]["pid"], found["far"]["state"]) == (pid, "ready")
            await asked(client, session, "tools/list")
            assert second.all_of("tools/list")
            await first.received(lambda got: got.method == "DELETE")
            del servers["far"]
            write_servers(path, servers)
            await second.received(lambda got: got.method == "DELETE")


async def test_wrong_credentials_are_named(tmp_path: Path) -> None:
    """In `/servers`, with the field that has them, and without their value."""

    async def closed(got: Got, writer: asyncio.StreamWriter) -> None:
        respond(writer, "401 Unauthorized")

    async with fake_remote(closed) as remote:
        entries = {"far": far(remote, headers={"Authorization": "Bearer s3cret"})}
        path = write_servers(tmp_path / "mcp.json", entries)
        running_bridge = bridge("--config", str(path), ready=False)
        async with running_bridge as running, running.client() as client:

            async def told() -> bool:
                return "401" in (await statuses(client))["far"]["reason"]

            await asked_until(told, "the status is told")
            found = (await statuses(client))["far"]
            assert "give valid credentials in headers" in found["reason"]
            assert "mcpbridge login" not in found["reason"]
            assert "s3cret" not in f"{found} {running.log}"


async def test_a_login_made_while_the_server_is_served_is_used_and_renewed(tmp_path: Path) -> None:
    """`/servers` says that one is needed; sessions go on when it is refreshed."""
    server, env = LoginServer(LegacyServer()), home(tmp_path)
    async with fake_remote(server) as remote:
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        running_bridge = bridge("--config", str(path), env=env, ready=False)
        async with running_bridge as running, running.client() as client:

            async def told() -> bool:
                return "run mcpbridge login" in (await statuses(client))["far"]["reason"]

            await asked_until(told, "a login is asked for")
            status, said = await logged_in(remote, env)
            assert status == 0, said
            await in_state(client, "ready")
            session = await session_of(client)
            assert (await asked(client, session, "tools/list"))["result"]["tools"] == [TOOL]
            server.valid = "another"
            assert (await asked(client, session, "tools/list"))["result"]["tools"] == [TOOL]
            grants = [form["grant_type"] for form in server.forms]
            assert grants == ["authorization_code", "refresh_token"]
            assert json.loads(kept(tmp_path).read_text())["access_token"] == server.valid
            assert server.valid not in str(running.log)


async def test_a_login_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    """Nor sent; the remedy works without a restart. One that is whole goes with each request."""
    server, env = LoginServer(LegacyServer()), home(tmp_path)
    async with fake_remote(server) as remote:
        assert (await logged_in(remote, env))[0] == 0
        kept(tmp_path).chmod(0o644)
        remote.got.clear()
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        running_bridge = bridge("--config", str(path), env=env, ready=False)
        async with running_bridge as running, running.client() as client:
            (record, *_) = await running.logged("connect.login_unusable")
            assert "chmod 600" in record["problem"]
            assert not [got for got in remote.got if "authorization" in got.headers]
            kept(tmp_path).chmod(0o600)
            await in_state(client, "ready")
            (used,) = running.events("connect.login_used")
            assert used["file"] == str(kept(tmp_path))
        remote.got.clear()
        async with bridge("--config", str(path), env=env) as running:
            await running.logged("connect.login_used")
            assert remote.got
            assert all("authorization" in got.headers for got in remote.got)


def posts(remote: FakeRemote) -> list[Got]:
    """The messages that the server was sent, refused ones included."""
    return [got for got in remote.got if (got.method, got.path) == ("POST", "/mcp")]


async def test_a_login_that_has_ended_is_not_tried_each_time(tmp_path: Path) -> None:
    """Nor is its authorization server asked; a further login is used at once."""
    server, env = LoginServer(LegacyServer()), home(tmp_path)
    async with fake_remote(server) as remote:
        assert (await logged_in(remote, env))[0] == 0
        server.valid, server.refresh = "ended", ""
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        running_bridge = bridge("--config", str(path), env=env, ready=False)
        async with running_bridge as running, running.client() as client:
            await running.logged("connect.login_not_renewed")
            asked_before = len(posts(remote))

            async def again() -> bool:
                return len(posts(remote)) >= asked_before + 2

            await asked_until(again, "the server is tried again")
            assert [form["grant_type"] for form in server.forms[1:]] == ["refresh_token"]
            assert (await logged_in(remote, env))[0] == 0
            await in_state(client, "ready")


async def test_a_server_of_the_older_transport_is_served(tmp_path: Path) -> None:
    """With `type: sse` its address is sent no POST at all; it may restart."""
    server = OlderServer()
    async with fake_remote(server) as remote:
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote, type="sse")})
        async with bridge("--config", str(path)) as running, running.client() as client:
            session = await session_of(client)
            assert (await asked(client, session, "tools/list"))["result"]["tools"] == [TOOL]
            assert [got for got in remote.got if (got.method, got.path) == ("POST", "/mcp")] == []
            await remote.stop()
            failed = (await asked(client, session, "tools/list"))["error"]
            assert failed["data"]["mcpbridge"]["reason"] in ("unreachable", "session_lost")
            await in_state(client, "unreachable")
            await remote.start()
            await in_state(client, "ready")

            async def served() -> bool:
                return "result" in await asked(client, session, "tools/list")

            await asked_until(served, "the same session works")


async def test_a_modern_remote_serves_clients_of_both_eras(tmp_path: Path) -> None:
    """A legacy client by translation, as before a server that was started."""
    async with fake_remote(modern_server) as remote:
        path = write_servers(tmp_path / "mcp.json", {"far": far(remote)})
        async with bridge("--config", str(path), env=PROBED) as running, running.client() as client:
            session = await session_of(client)
            listed = await asked(client, session, "tools/list")
            assert listed["result"] == {"tools": [TOOL]}
            called = await asked(client, session, "tools/call", {"name": "hello"})
            assert called["result"]["content"][0]["text"] == "tools/call"
            params = {"name": "hello", "arguments": {}, "_meta": meta()}
            headers = {**ACCEPT, "mcp-method": "tools/call", "mcp-name": "hello"}
            headers["mcp-protocol-version"] = "2026-07-28"
            called = await asked(client, headers, "tools/call", params)
            assert called["result"]["resultType"] == "complete"


async def test_the_developers_proxy_records_it_without_its_secrets(tmp_path: Path) -> None:
    """It has no files to watch and no process, beside a server that has both."""
    tape = tmp_path / "tape.jsonl"
    async with fake_remote(modern_server) as remote:
        entries = {"far": far(remote, headers={"X-Key": "s3cret"}), "near": entry()}
        path = write_servers(tmp_path / "mcp.json", entries)
        words = ("--config", str(path), "--record", str(tape))
        running_dev = bridge(*words, program=("dev",), env=PROBED)
        async with running_dev as running, running.client() as client:
            await running.logged("child.ready", count=2)
            begun = await running.logged("dev.started", count=2)
            assert {each["server_name"]: each["command"] for each in begun}["far"] == remote.url
            session = await session_of(client)
            called = await asked(client, session, "tools/call", {"name": "hello s3cret"})
            assert "result" in called
    frames = [each for each in read_recording(tape).frames[1:] if each.server_label == "far"]
    assert any("hello" in str(each.message) for each in frames)
    assert [each for each in frames if each.direction is Direction.STDERR] == []
    assert "s3cret" not in tape.read_text()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"url": "http://user:s3cret@x/mcp"}, "url: a URL with credentials"),
        ({"url": "http:///mcp"}, "is not an http URL"),
        ({"headers": {"Host": "x"}}, "headers.Host: mcpbridge sets host itself"),
        ({"headers": {"A b": "x"}}, "headers.A b: not a header"),
        ({"headers": {"A": "s3cret\n"}, "url": "http://x/\n"}, ""),
        ({"headers": {"A": "${NOT_SET_ANYWHERE}"}}, "NOT_SET_ANYWHERE is not set"),
    ],
)
async def test_a_wrong_entry_is_named(more: Any, problem: str, tmp_path: Path) -> None:
    """The other server runs; no secret is told."""
    entries = {"far": {"url": "http://127.0.0.1:1/mcp", **more}, "near": entry()}
    path = write_servers(tmp_path / "mcp.json", entries)
    async with bridge("--config", str(path)) as running, running.client() as client:
        found = (await statuses(client))["far"]
        assert (found["state"], problem in found["reason"]) == ("failed", True), found
        assert "s3cret" not in f"{found} {running.log}"
