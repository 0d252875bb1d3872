"""Traces and durations as a collector gets them, and the trace that the server gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    eventually,
    open_session,
    rpc,
)
from tests.support.modern_client import headers_of, meta
from tests.support.otlp_collector import Collector, SentSpan, collecting

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "100"}


def _env(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **QUICK}


async def _only(collector: Collector, name: str, kind: str, count: int = 1) -> SentSpan:
    """The last of that many spans of a name and kind, as soon as they are there."""
    await eventually(lambda: len(collector.named(name, kind)) >= count, f"{kind} {name}")
    found = collector.named(name, kind)
    assert len(found) == count, collector.spans
    return found[-1]


async def test_a_call_has_a_span_on_each_side() -> None:
    """SERVER under the client's, CLIENT under it, with the attributes of the conventions; and
    durations of calls and sessions with few labels."""
    with collecting() as collector:
        env = {**_env(collector), "MCPBRIDGE_LOG_CALLS": "true"}
        async with bridge(env=env) as running, running.client() as client:
            session = await open_session(client)
            await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
            params = {"name": "add", "arguments": {"a": 1, "b": 2}}
            traced = {**session, "traceparent": PARENT, "tracestate": "vendor=1"}
            await client.post("/mcp", json=rpc("two", "tools/call", params), headers=traced)
            server = await _only(collector, "tools/call add", "SERVER")
            inner = await _only(collector, "tools/call add", "CLIENT")
            assert (server.trace_id, server.parent_id) == (TRACE, SPAN)
            assert (inner.trace_id, inner.parent_id) == (TRACE, server.span_id)
            common = {
                "mcp.method.name": "tools/call",
                "gen_ai.tool.name": "add",
                "gen_ai.operation.name": "execute_tool",
            }
            assert server.attributes == {
                **common,
                "jsonrpc.request.id": "two",
                "mcp.protocol.version": "2025-06-18",
                "mcp.session.id": session["mcp-session-id"],
                "network.transport": "tcp",
            }
            number = inner.attributes["jsonrpc.request.id"]
            assert number.isdigit()
            assert inner.attributes == {
                **common, "jsonrpc.request.id": number, "network.transport": "pipe"
            }  # fmt: skip
            assert (await _only(collector, "initialize", "SERVER")).parent_id == ""
            assert collector.resource["service.name"] == "mcpbridge"
            finished = await running.logged("call.finished", lambda r: r.get("tool") == "add")
            assert [(r["trace_id"], r["span_id"]) for r in finished] == [(TRACE, server.span_id)]

            await client.delete("/mcp", headers=session)
            await _durations(collector)


async def _durations(collector: Collector) -> None:
    names = ("mcp.server.operation.duration", "mcp.client.operation.duration")
    session = "mcp.server.session.duration"
    await eventually(lambda: session in collector.durations, "durations of sessions")
    for name, transport in zip(names, ("tcp", "pipe"), strict=True):
        points = [labels for labels, _ in collector.durations[name]]
        (call,) = (labels for labels in points if labels["mcp.method.name"] == "tools/call")
        assert call["gen_ai.tool.name"] == "add"
        assert call["network.transport"] == transport
        assert not any("session" in key or "request.id" in key for key in call)


async def test_what_goes_wrong_is_in_the_span(tmp_path: Path) -> None:
    """An error of the server, a cancelled call, a child that dies; each ends both spans."""
    with collecting() as collector:
        command = child("recorder", str(tmp_path))
        started = bridge("--otel", "--", *command, env=_env(collector))
        async with started as running, running.client() as client:
            session = await open_session(client)
            await _cancel_one(client, session)
            for kind in ("SERVER", "CLIENT"):
                cancelled = await _only(collector, "x/hold", kind)
                assert cancelled.is_error
                assert cancelled.attributes["error.type"] == "cancelled"

            params = {"_meta": {"traceparent": PARENT}}
            headers = {**session, "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
            reply = await client.post("/mcp", json=rpc(3, "x/echo", params), headers=headers)
            inner = await _only(collector, "x/echo", "CLIENT")
            seen = reply.json()["result"]["_meta"]["traceparent"]
            assert seen == f"00-{TRACE}-{inner.span_id}-01"
            server = await _only(collector, "x/echo", "SERVER")
            assert server.parent_id == SPAN

            await client.post("/mcp", json=rpc(4, "x/nothing"), headers=session)
            refused = await _only(collector, "x/nothing", "SERVER")
            assert refused.attributes["error.type"] == "-32601"
            assert refused.attributes["rpc.response.status_code"] == "-32601"

            await client.post("/mcp", json=rpc(5, "x/exit", {"code": 3}), headers=session)
            for kind in ("SERVER", "CLIENT"):
                died = await _only(collector, "x/exit", kind)
                assert died.attributes["error.type"] == "child_exited"


async def _cancel_one(client: httpx.AsyncClient, session: dict[str, str]) -> None:
    """Begin a call that streams, and cancel it once it has reported progress."""
    params = {"name": "n", "progress": 1, "_meta": {"progressToken": "t"}}
    call = rpc("held", "x/hold", params)
    async with client.stream("POST", "/mcp", json=call, headers=session) as stream:
        lines = stream.aiter_lines()
        while "progress" not in await anext(lines):
            pass
        cancel = {"method": "notifications/cancelled", "params": {"requestId": "held"}}
        await client.post("/mcp", json={"jsonrpc": "2.0", **cancel}, headers=session)
        async for _ in lines:
            pass


async def test_a_client_without_a_session_has_none_in_its_spans() -> None:
    """A client of 2026-07-28: its revision, and never a session; one that leaves is cancelled."""
    with collecting() as collector:
        async with bridge("--otel", env=_env(collector)) as running, running.client() as client:
            params = {"name": "echo", "arguments": {"text": "x"}, "_meta": meta()}
            await client.post("/mcp", **_modern(rpc(1, "tools/call", params)))
            server = await _only(collector, "tools/call echo", "SERVER")
            assert server.attributes["mcp.protocol.version"] == "2026-07-28"
            assert "mcp.session.id" not in server.attributes
            inner = await _only(collector, "tools/call echo", "CLIENT")
            assert (inner.trace_id, inner.parent_id) == (server.trace_id, server.span_id)

            await _leave_one(client, running)
            for kind in ("SERVER", "CLIENT"):
                left = await _only(collector, "tools/call countdown", kind)
                assert left.attributes["error.type"] == "cancelled"


async def _leave_one(client: httpx.AsyncClient, running: RunningBridge) -> None:
    asked = {"progressToken": 1, **meta()}
    params = {"name": "countdown", "arguments": {"seconds": 60}, "_meta": asked}
    call = _modern(rpc(2, "tools/call", params))
    async with client.stream("POST", "/mcp", **call) as stream:
        assert stream.headers["content-type"] == "text/event-stream", running.log


def _modern(message: dict[str, Any]) -> dict[str, Any]:
    return {"json": message, "headers": headers_of(message)}


async def test_without_tracing_a_header_reaches_the_server_all_the_same(tmp_path: Path) -> None:
    """Copied into `_meta` if it has none, on every way in; what is not a trace is left out."""
    started = bridge("--", *child("recorder", str(tmp_path)))
    async with started as running, running.client() as client:
        session = await open_session(client)

        async def echoed(params: Any, **headers: str) -> Any:
            call = rpc(1, "x/echo", params)
            answer = await client.post("/mcp", json=call, headers={**session, **headers})
            return answer.json()["result"]

        trace = {"traceparent": PARENT}
        for _ in range(3):  # the second time a connection may know the head already
            assert await echoed(None, **trace) == {"_meta": trace}
        both = {**trace, "tracestate": "a=1"}
        assert await echoed({"x": 1, "_meta": {"y": 2}}, **both) == {
            "x": 1, "_meta": {"y": 2, **both}
        }  # fmt: skip
        own = {"_meta": {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"}}
        assert await echoed(own, **both) == own
        assert await echoed({}, traceparent="00-nonsense") == {}
        assert await echoed({}) == {}


async def test_a_collector_that_is_away_costs_no_answer() -> None:
    """The bridge serves, and ends in time with status 0."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **QUICK}
    async with bridge(env=env) as running, running.client() as client:
        answer = await client.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
        assert json.loads(answer.content)["result"]["tools"]
