"""What the operators of a cluster ask of a bridge, O1 to O17, asked of the running program.

The sentences stand in `tests/conformance/operators.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from mcpbridge.rules.supervision.shutdown_times import times_within
from tests.support.bridge_process import (
    ACCEPT,
    DEMO,
    bridge,
    child,
    eventually,
    initialize,
    messages,
    open_session,
    rpc,
    started,
)
from tests.support.doctor import as_operator, doctor
from tests.support.namespaces import NEEDS_NAMESPACES, OTHER_USER
from tests.support.proofs import proves
from tests.support.raw_http import post, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

SILENT = child("starting", "silent")
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
STREAM = {"accept": "text/event-stream"}
ANYBODY = (
    *OTHER_USER, "sh", "-c",
    "mount --make-rprivate / && mount -o remount,ro,bind / && cd / &&"
    ' exec unshare --user --map-user=12345 --map-group=12345 "$@"', "sh",
)  # fmt: skip
"""Runs a program as a user without a name, without capabilities, where all is read-only."""


@proves("O3", "O5", "O6", "O17")
@pytest.mark.parametrize("kind", ["well", "wide", "many", "logging"])
async def test_the_operator_takes_a_bridge_over(kind: str) -> None:
    """A plain server, 100 KB of tools, 100 tools, one that logs first."""
    async with bridge("--", *child("unhealthy", kind)) as running:
        said = await as_operator(running.url)
        assert (said.status, said.failed()) == (0, []), said.out
        assert {"streamable", "initialize", "initialized", "tools/list"} <= set(said.marks())
        assert (said.report["attempts"], said.report["good"]) == (1, True)


@proves("O1", "O2")
async def test_the_operator_takes_a_server_that_starts_for_six_seconds() -> None:
    """At its second attempt if its first one is as quick as the operator's: a head, no answer."""
    async with bridge("--", *child("unhealthy", "slow", "6"), ready=False) as running:
        said = await as_operator(running.url, "--retry-wait", "2s")
        assert (said.status, said.failed()) == (0, []), said.out
        assert await running.logged("child.ready")


@proves("O1", "O2", "O8", "O16")
async def test_the_port_is_bound_before_the_server_is_up(tmp_path: Path) -> None:
    """It takes connections and starts to answer while the server is silent."""
    readiness = tmp_path / "gate"
    os.mkfifo(readiness)
    late = child("starting", "late", str(readiness))
    async with bridge("--", *late, ready=False) as running, running.client() as client:
        (begun,) = await running.logged("child.started")
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.close()
            await writer.wait_closed()
        async with (
            client.stream("POST", "/mcp", json=initialize(1), headers=ACCEPT) as response,
        ):
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"
        async with client.stream("GET", "/sse", headers=STREAM) as sse:
            assert sse.headers["content-type"] == "text/event-stream"
        assert running.events("child.started") == [begun], "connections start nothing"
        assert running.events("child.ready") == []
        readiness.write_text("")
        await running.logged("child.ready")


@proves("O16")
async def test_a_connect_starts_no_server() -> None:
    """Not even where each session has its own process."""
    async with bridge("--isolation", "session") as running, running.client() as client:
        before = len(running.events("child.started"))
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.close()
            await writer.wait_closed()
        assert (await client.get("/health")).status_code == 200
        assert len(running.events("child.started")) == before
        await open_session(client)
        await running.logged("child.started", count=before + 1)


@proves("O3", "O4", "O5", "O6", "O7")
async def test_answers_are_as_the_operator_reads_them() -> None:
    """Content types, ids, names, revisions, notifications."""
    async with bridge() as running, running.client() as client:
        opened = await client.post("/mcp", json=initialize(7, "2024-11-05"), headers=ACCEPT)
        assert opened.headers["content-type"] == "application/json"
        answer = opened.json()
        assert answer["id"] == 7
        assert answer["result"]["protocolVersion"] == "2024-11-05"
        assert answer["result"]["serverInfo"]["name"] == "mcpbridge-demo"
        session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        told = await client.post("/mcp", json=INITIALIZED, headers=session)
        assert (told.status_code, told.content) == (202, b"")
        params = {
            "name": "countdown",
            "arguments": {"seconds": 0.01, "steps": 2},
            "_meta": {"progressToken": 1},
        }
        counted = await client.post("/mcp", json=rpc(8, "tools/call", params), headers=session)
        assert counted.headers["content-type"] == "text/event-stream"
        assert messages(counted.text)[-1]["id"] == 8


@proves("O3")
@pytest.mark.parametrize("capabilities", [{}, {"roots": {}}])
async def test_a_client_without_streams_in_its_revision_gets_logs_if_it_asks(
    capabilities: dict[str, object],
) -> None:
    """At 2024-11-05 an answer is JSON though the server logs, on a shared child or its own."""
    async with bridge("--", *child("unhealthy", "logging")) as running, running.client() as client:
        old = await open_session(client, "2024-11-05", capabilities)
        answer = await client.post("/mcp", json=rpc(1, "tools/list"), headers=old)
        assert answer.headers["content-type"] == "application/json"
        level = rpc(2, "logging/setLevel", {"level": "debug"})
        assert (await client.post("/mcp", json=level, headers=old)).status_code == 200
        asked = await client.post("/mcp", json=rpc(3, "tools/list"), headers=old)
        newer = await open_session(client, "2025-06-18", capabilities)
        unasked = await client.post("/mcp", json=rpc(3, "tools/list"), headers=newer)
        for answer in (asked, unasked):
            log, listed = messages(answer.text)
            assert (log["method"], listed["id"]) == ("notifications/message", 3)


@proves("O7")
async def test_a_server_that_is_not_ready_is_503() -> None:
    """With JSON, never a status that is taken for another protocol."""
    words = ("--start-timeout", "300ms", "--give-up-after", "0")
    async with bridge(*words, "--", *SILENT, ready=False) as running, running.client() as client:
        for body in (initialize(1, "2024-11-05"), rpc(2, "tools/list")):
            answer = await client.post("/mcp", json=body, headers=ACCEPT)
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["id"] == body["id"]
        told = await client.post("/mcp", json=INITIALIZED, headers=ACCEPT)
        assert told.status_code in (202, 503)


@proves("O4", "O8")
async def test_the_older_transport_serves_the_operator() -> None:
    """A relative endpoint at once, answers on the stream."""
    async with bridge("--", *child("unhealthy", "many")) as running, running.client() as client:
        said = await as_operator(running.url, "--protocol", "sse")
        assert (said.status, said.failed()) == (0, []), said.out
        assert {"sse", "sse_endpoint", "initialize", "tools/list"} <= set(said.marks())
        assert "session_id" not in said.out, "a reader of the report is not the session's client"
        async with client.stream("GET", "/sse", headers=STREAM) as sse:
            assert sse.headers["content-type"] == "text/event-stream"
            first = await anext(sse.aiter_text())
            assert re.search(r"^data: /messages\?", first, re.MULTILINE)


@proves("O9", "O17")
async def test_sessions_that_nobody_deletes_are_reaped() -> None:
    """Those that never sent anything soon, the others later."""
    words = ("--unused-session-timeout", "200ms", "--session-idle-timeout", "400ms")
    async with bridge(*words) as running:
        assert (await as_operator(running.url)).status == 0
        expired = await running.logged("session.expired", count=2)
        assert {record["used"] for record in expired} == {False, True}


@proves("O10")
async def test_the_operators_variables_are_heard_and_kept_from_the_server() -> None:
    """The path is the bridge's; the server is to speak stdio."""
    env = {
        "MCP_TRANSPORT": "http",
        "MCP_HTTP_PATH": "/tools",
        "MCP_SESSION_MANAGEMENT": "true",
    }
    words = ("--", *child("invalid_output"))
    async with bridge(*words, env=env) as running, running.client() as client:
        answer = await client.post("/tools", json=rpc(1, "x/look"), headers=ACCEPT)
        seen = answer.json()["result"]["env"]
        assert seen["MCP_TRANSPORT"] == "stdio"
        assert not {"MCP_HTTP_PATH", "MCP_SESSION_MANAGEMENT"} & set(seen)
        assert (await client.post("/mcp", json=rpc(2, "x/look"))).status_code == 404


@proves("O11")
async def test_health_tells_of_the_end() -> None:
    """200 while it can serve, also before the server is up; 503 while it drains."""
    words = ("--lame-duck", "2s", "--", *SILENT)
    async with bridge(*words, ready=False) as running, running.client() as client:
        assert (await client.get("/health")).status_code == 200
        running.signal(signal.SIGTERM)
        await running.logged("drain.phase_changed")
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert "draining" in answer.json()["missing"]
        assert await running.ended() == 0


@proves("O12")
async def test_names_of_the_cluster_are_admitted() -> None:
    """As the operator and the kubelet call it."""
    async with bridge("--host", "0.0.0.0") as running:
        for host in ("server.default.svc.cluster.local", "10.42.0.7", "localhost", "server"):
            async with wire(running.port) as connection:
                body = json.dumps(initialize(1)).encode()
                await connection.send(post(body, f"Host: {host}:{running.port}"))
                assert (await connection.response()).status == 200, host


@proves("O13")
async def test_the_whole_end_fits_the_operators_grace() -> None:
    """With a call that never ends and a server that nothing but SIGKILL ends."""
    flush_s = 2.0
    assert times_within(30.0).children_s + flush_s <= 27.0
    words = ("--grace", "6s", "--", *child("ignoring_sigterm"))
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    async with started("--port", "0", "--host", "127.0.0.1", *words, env=env) as running:
        await running.logged("child.ready")
        running.signal(signal.SIGTERM)
        assert await running.ended(within_s=5.9) == 0
        await eventually(lambda: not running.processes(), "nothing of the server is left", 1)


@proves("O14")
@NEEDS_NAMESPACES
async def test_any_user_can_run_it_where_nothing_can_be_written(tmp_path: Path) -> None:
    """No folder to write in, no home, no capability, a user that is nowhere listed."""
    env = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    root = str(Path(__file__).parents[2])
    script = "import os, pathlib; print(os.getuid(), open('/proc/self/status').read()); "
    script += "pathlib.Path('/tmp/x').touch()"
    shown = await asyncio.create_subprocess_exec(
        *ANYBODY, sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await shown.communicate()
    assert out.startswith(b"12345 "), err
    assert b"Read-only file system" in err
    options = {"under": ANYBODY, "env": {**env, "PYTHONPATH": root}}
    async with started("--port", "0", "--", *DEMO, **options) as running:  # type: ignore[arg-type]
        (record,) = await running.logged("serve.started")
        await running.logged("child.ready")
        said = await as_operator(record["url"])
        assert said.status == 0, said.out
        running.process.terminate()
        assert await running.ended() == 0


@proves("O15")
async def test_refusals_hold_nothing_that_reads_like_a_login() -> None:
    """Neither 401 nor 403 stands in the text of any other error."""
    async with bridge("--max-request-bytes", "2KiB") as running, running.client() as client:
        session = await open_session(client)
        unknown = {**ACCEPT, "mcp-session-id": "0" * 64}
        refused = [
            await client.post("/mcp", content=b"{", headers=ACCEPT),
            await client.post("/mcp", content=b"x" * 4096, headers=ACCEPT),
            await client.post("/mcp", json=rpc(1, "tools/list"), headers=unknown),
            await client.post("/mcp", json=rpc(2, "x/none"), headers=session),
            await client.post("/mcp", json=rpc(3, "tools/call", {"name": "x"}), headers=session),
            await client.get("/mcp", headers={"accept": "text/event-stream"}),
            await client.get("/none"),
            await client.put("/mcp"),
            await client.post("/mcp", json=initialize(4), headers={"host": "evil.example"}),
        ]
        for answer in refused:
            assert answer.status_code not in (401, 403)
            assert answer.status_code >= 400 or "error" in answer.text
            assert not re.search("401|403", answer.text), answer.text


@proves("O16", "O17")
async def test_the_lifecycle_operator_takes_a_bridge_over() -> None:
    """A connect, a handshake of either era, clients that leave without a word."""
    async with bridge() as running, bridge("--modern", "off") as old:
        for url in (running.url, old.url):
            said = await doctor(url, "--as", "lifecycle-operator", "--json")
            assert (said.status, said.failed()) == (0, []), said.out
            assert set(said.marks()) == {"readiness", "handshake", "cancelled"}
        async with bridge("--legacy", "off") as new:
            said = await doctor(new.url, "--as", "lifecycle-operator", "--json")
            assert (said.status, said.marks()["initialize"]) == (0, "note"), said.out
            assert said.marks()["handshake"] == "ok"


@proves("O17")
async def test_a_client_that_only_posts_is_served() -> None:
    """No MCP-Protocol-Version, no DELETE, no GET."""
    async with bridge() as running, httpx.AsyncClient(base_url=running.url) as client:
        opened = await client.post("/mcp", json=initialize(1, "2024-11-05"), headers=ACCEPT)
        session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        await client.post("/mcp", json=INITIALIZED, headers=session)
        listed = await client.post("/mcp", json=rpc(2, "tools/list"), headers=session)
        assert listed.json()["id"] == 2
        assert listed.json()["result"]["tools"]
