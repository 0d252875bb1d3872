"""`/metrics` of a running bridge, read by Prometheus' own parsers; and where it is served."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from tests.support.bridge_process import (
    ACCEPT,
    DEMO,
    bridge,
    child,
    open_session,
    rpc,
    started,
)
from tests.support.modern_client import headers_of, meta
from tests.support.proofs import proves

pytestmark = pytest.mark.slow

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
MADE_UP = 10_000
BATCH = 100
"""The most that one takes."""


async def scraped(client: httpx.AsyncClient, accept: str = "") -> Samples:
    """Every sample by name and labels."""
    response = await client.get("/metrics", headers={"accept": accept} if accept else {})
    assert response.status_code == 200
    parse = open_metrics if "openmetrics" in response.headers["content-type"] else plain
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """One sample of a metric of the bridge; None if there is none."""
    return samples.get((f"mcpbridge_{name}", frozenset(labels.items())))


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_tools_are_known_before_a_client_lists_them(era: str, tmp_path: Path) -> None:
    """The line that says ready has their number; only a tool that does not exist is `other`."""
    env = {"MCPBRIDGE_CHILD_ERA": era}
    command = ("--log-calls", "--", *(child("modern", str(tmp_path)) if era == "modern" else DEMO))
    async with bridge(*command, env=env) as running, running.client() as client:
        (ready,) = await running.logged("serve.ready")
        listed = await client.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
        tools = listed.json()["result"]["tools"]
        assert ready["url"] == f"{running.url}/mcp"
        assert ready["tools"] == len(tools) > 0
        assert ready["server"]
        assert ready["version"]
    # Another one, which no client has asked for the list.
    async with bridge(*command, env=env) as running, running.client() as client:
        await running.logged("serve.ready")
        for name in ("echo", "made-up"):
            call = rpc(2, "tools/call", {"name": name, "arguments": {"text": "a"}})
            await client.post("/mcp", json=call, headers=ACCEPT)
        calls = await running.logged("call.finished", lambda each: "tool" in each, count=2)
        assert [each["tool"] for each in calls] == ["echo", "other"]


async def test_what_a_bridge_does_is_counted() -> None:
    """Calls by end, tools, sessions, streams, children, bytes; both forms say the same."""
    async with bridge() as running, running.client() as client:
        session = await open_session(client)
        await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
        for name in ("echo", "fail", "unknown"):
            arguments = {"text": "a", "message": "m"}
            call = rpc(2, "tools/call", {"name": name, "arguments": arguments})
            for _ in range(3):  # from the second on a connection knows the head
                assert (await client.post("/mcp", json=call, headers=session)).status_code == 200
        await client.post("/mcp", json=rpc(3, "made/up"), headers=session)
        modern = rpc(4, "tools/call", {"name": "echo", "arguments": {"text": "b"}, "_meta": meta()})
        await client.post("/mcp", json=modern, headers=headers_of(modern))
        json_type = {"content-type": "application/json"}
        await client.post("/mcp", content=b"{", headers={**session, **json_type})

        async with client.stream("GET", "/mcp", headers=session):
            now = await scraped(client)
            assert value(now, "streams_open") == 1
            assert value(now, "sessions_open") == 1
        await client.delete("/mcp", headers=session)
        now, again = await scraped(client), await scraped(client, "application/openmetrics-text")
    assert {name for name, _ in now if name.startswith("mcpbridge")} == {
        name for name, _ in again if name.startswith("mcpbridge")
    }
    _assert_counted(now)


def _assert_counted(now: Samples) -> None:
    assert value(now, "calls_total", method="initialize", outcome="ok") == 1
    assert value(now, "calls_total", method="other", outcome="error") == 1
    assert value(now, "tool_calls_total", tool="echo", outcome="ok") == 4
    assert value(now, "tool_calls_total", tool="fail", outcome="tool_error") == 3
    assert value(now, "tool_calls_total", tool="other", outcome="error") == 3
    assert value(now, "tool_call_duration_seconds_count", tool="echo") == 4
    assert value(now, "call_duration_seconds_count", method="tools/call") == 10
    assert value(now, "http_requests_total", method="POST", status="200") == 13
    assert value(now, "http_requests_total", method="POST", status="202") == 1
    assert value(now, "http_requests_total", method="POST", status="400") == 1
    assert value(now, "sessions_total", transport="streamable-http") == 1
    assert value(now, "sessions_ended_total", reason="deleted") == 1
    assert value(now, "sessions_open") == 0
    assert value(now, "streams_open") == 0
    assert value(now, "calls_in_flight") == 0
    assert value(now, "children") == 1
    assert value(now, "child_starts_total", use="shared") == 1
    assert value(now, "child_start_seconds_count") == 1
    assert value(now, "ready") == 1
    assert value(now, "drain_phase", phase="serving") == 1
    assert (value(now, "http_body_bytes_total", direction="in") or 0) > 500
    assert (value(now, "http_body_bytes_total", direction="out") or 0) > 500


async def test_labels_stay_few_whatever_clients_make_up() -> None:
    """10 000 methods and 10 000 tools that do not exist, over HTTP."""
    async with bridge() as running, running.client() as client:
        session = await open_session(client, revision="2025-03-26")
        await client.post("/mcp", json=rpc("l", "tools/list"), headers=session)
        before = len(await scraped(client))
        for start in range(0, MADE_UP, BATCH):
            numbers = range(start, start + BATCH)
            for batch in (
                [rpc(number, f"made/up{number}") for number in numbers],
                [rpc(number, "tools/call", {"name": f"tool{number}"}) for number in numbers],
            ):
                answer = await client.post("/mcp", json=batch, headers=session)
                assert answer.status_code == 200
        now = await scraped(client)
    assert value(now, "calls_total", method="other", outcome="error") == MADE_UP
    assert value(now, "tool_calls_total", tool="other", outcome="error") == MADE_UP
    methods = {dict(labels).get("method", "") for name, labels in now if "_call" in name}
    assert methods <= KNOWN_REQUESTS | {"other", ""}
    assert len(now) < before + 80


async def test_a_child_that_dies_and_a_limit_are_counted(tmp_path: Path) -> None:
    """Exits by how, restarts, faults by reason, refusals by flag."""
    words = ("--max-sessions", "1", "--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        session = await open_session(client)
        held = rpc(2, "x/hold", {"name": "n"})
        call = asyncio.create_task(client.post("/mcp", json=held, headers=session))
        await _until_in_flight(client)
        refused = await client.post(
            "/mcp", json=rpc(1, "initialize", _INTRODUCTION), headers=ACCEPT
        )
        assert refused.status_code == 503
        (pid,) = (record["pid"] for record in running.events("child.started"))
        os.kill(pid, signal.SIGKILL)
        assert (await call).json()["error"]["data"]["mcpbridge"]["reason"] == "child_exited"
        await running.logged("child.ready", count=2)
        now = await scraped(client)
    assert value(now, "child_exits_total", how="signal 9", asked="no") == 1
    assert value(now, "child_restarts_total") == 1
    assert value(now, "call_faults_total", reason="child_exited") == 1
    assert value(now, "refusals_total", limit="--max-sessions") == 1
    assert (value(now, "sessions_open"), value(now, "sessions_max")) == (1, 1)


@pytest.mark.parametrize("limited", ["sessions", "processes", "memory"])
async def test_how_full_a_bridge_is_follows_from_the_limit_it_is_nearest_to(limited: str) -> None:
    """Sessions, processes without the shared one, or kept memory, whichever is used most."""
    words = {
        "sessions": ("--max-sessions", "4"),
        "processes": ("--max-children", "5", "--spares", "1"),
        "memory": ("--max-memory", "1MiB", "--max-children", "5000"),
    }[limited]
    async with bridge(*words) as running, running.client() as client:
        before = value(await scraped(client), "fill") or 0.0
        # Each session has its own process, and none of the three fills more than a quarter.
        await open_session(client, capabilities={"elicitation": {}})
        now = await scraped(client)
        fill = value(now, "fill") or 0.0
    if limited == "memory":
        kept = sum(
            number for (name, _), number in now.items() if name == "mcpbridge_memory_kept_bytes"
        )
        assert fill == pytest.approx(kept / (1 << 20))
        assert fill > before
    else:
        assert (before, fill) == (0, 0.25)


_INTRODUCTION = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "t", "version": "1"},
}


async def _until_in_flight(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while value(await scraped(client), "calls_in_flight") != 1:
            pass


@proves("O12")
async def test_an_admin_port_has_the_metrics_to_itself() -> None:
    """Probes are on both; the rules on Host hold there too."""
    async with bridge("--admin-port", "0") as running, running.client() as client:
        (record,) = await running.logged("serve.started")
        async with httpx.AsyncClient(base_url=f"http://{record['admin']}", timeout=20) as admin:
            for path in ("/livez", "/readyz", "/startupz", "/health", "/healthz"):
                assert (await client.get(path)).status_code == 200
                assert (await admin.get(path)).status_code == 200
            assert (await client.get("/metrics")).status_code == 404
            assert value(await scraped(admin), "ready") == 1
            posted = await admin.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
            assert posted.status_code == 404
            foreign = await admin.get("/metrics", headers={"host": "evil.example"})
            assert foreign.status_code == 421


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--admin-port", "70000"), "invalid port 70000 (expected 1-65535)"),
        (("--admin-host", "127.0.0.1"), "is given without --admin-port"),
        (("--port", "8123", "--admin-port", "8123"), "8123 is the port of the MCP path"),
        (("--path", "/metrics"), "is the path of the metrics"),
    ],
)
async def test_an_admin_port_that_cannot_be_is_refused(
    words: tuple[str, ...], problem: str
) -> None:
    """Before anything starts, with exit status 2."""
    async with started(*words) as running:
        assert await running.ended() == 2
        (record,) = await running.logged("serve.failed")
        assert problem in record["problem"]


async def test_an_admin_port_that_is_taken_ends_the_start() -> None:
    """Exit status 1, and the log names the address."""
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken, started("--port", "0", "--admin-port", str(port)) as running:
        assert await running.ended() == 1
        (record,) = await running.logged("serve.failed")
        assert str(port) in record["problem"]


CANARY = "canary-7f3a9c"


async def test_no_secret_is_in_logs_or_metrics() -> None:
    """Bodies, tokens, session ids, header values: at level debug, with a record for each call."""
    words = ("--log-level", "debug", "--log-calls")
    async with bridge(*words) as running, running.client() as client:
        await running.logged("serve.ready")
        secret = {
            "authorization": f"Bearer {CANARY}",
            "cookie": f"x={CANARY}",
            "x-api-key": CANARY,
            "last-event-id": CANARY,
        }
        session = await open_session(client)
        arguments = {"text": CANARY, "_meta": {"token": CANARY}}
        for name in ("echo", CANARY):
            call = rpc(f"id-{CANARY}", "tools/call", {"name": name, "arguments": arguments})
            headers = {**session, **secret}
            assert CANARY in (await client.post("/mcp", json=call, headers=headers)).text
        await client.post("/mcp", json=rpc(CANARY, f"x/{CANARY}"), headers=session)
        broken = {**session, "content-type": "application/json"}
        await client.post("/mcp", content=f'{{"{CANARY}'.encode(), headers=broken)
        await client.get(f"/{CANARY}", headers=secret)
        await client.get("/mcp", headers={**ACCEPT, "mcp-session-id": CANARY})
        metrics = (await client.get("/metrics")).text
        finished = await running.logged("call.finished", count=4)
    called = {"method": "tools/call", "outcome": "ok", "tool": "echo"}
    assert called.items() <= finished[1].items()
    assert finished[2]["tool"] == "other"
    assert all(record["level"] == "info" for record in finished)
    logged = "\n".join(json.dumps(record) for record in running.log)
    for private in (CANARY, session["mcp-session-id"]):
        assert private not in logged
        assert private not in metrics
