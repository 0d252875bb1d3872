"""More clients than processes: all are served, and who has a process can still be asked."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import ACCEPT, asked_until, eventually, initialize, open_session
from tests.support.modern_client import FORM, asking, form, retry_of, serving, text_of
from tests.support.questioner_bridge import Headers, Served, question, result_of
from tests.support.questioner_bridge import serving as serving_questioners

ROOTS: dict[str, Any] = {"roots": {}}
YES = {"action": "accept", "content": {}}
ERA = ("--child-era", "legacy")


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """The value of a metric without labels."""
    text = (await client.get("/metrics")).text
    found = re.search(rf"^mcpbridge_{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


async def is_asked(served: Served, session: Headers) -> bool:
    """Whether a question of the server reaches the client of this session."""
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "x/ask",
        "params": {"lines": [question(0, "roots/list")], "answers": 1},
    }
    async with served.client.stream("POST", "/mcp", json=message, headers=session) as response:
        if response.headers["content-type"] == "application/json":
            (reply,) = json.loads(await response.aread())["result"]["answers"]
            assert reply["error"]["code"] == -32601
            return False
        lines = response.aiter_lines()
        said = [json.loads(line[5:]) async for line in _data(lines, 1)]
        await served.reply(session, said[0]["id"], {"roots": []})
        (end,) = [json.loads(line[5:]) async for line in _data(lines, 1)]
        assert end["result"]["answers"] == [result_of(0, {"roots": []})]
        return True


async def _data(lines: Any, count: int) -> Any:
    async for line in lines:
        if line.startswith("data:") and line[5:].strip():
            yield line
            count -= 1
            if not count:
                return


@pytest.mark.slow
async def test_forty_clients_that_can_be_asked_have_forty_sessions(tmp_path: Path) -> None:
    """At once, in front of 16 processes; who has none is served by the shared one, unasked."""
    async with serving_questioners(tmp_path, "--max-children", "16") as served:
        answers = await asyncio.gather(
            *(
                served.client.post("/mcp", json=initialize(0, capabilities=ROOTS), headers=ACCEPT)
                for _ in range(40)
            )
        )
        assert [answer.status_code for answer in answers] == [200] * 40
        assert len(served.bridge.processes()) <= 16
        sessions = [
            {**ACCEPT, "mcp-session-id": answer.headers["mcp-session-id"]} for answer in answers
        ]
        asked = [await is_asked(served, session) for session in sessions]
        fallbacks = await metric(served.client, "shared_fallbacks_total")
        assert asked.count(False) == fallbacks <= 25
        assert bool(fallbacks) == bool(served.bridge.events("child_pool.exhausted"))
        assert len(served.bridge.processes()) <= 16


@pytest.mark.slow
async def test_a_newcomer_is_served_by_the_shared_process_where_none_can_lend(
    tmp_path: Path,
) -> None:
    """And so is a session that lent its process; who has a call in flight keeps its own."""
    words = ("--max-children", "2", "--queue-timeout", "100ms")
    async with serving_questioners(tmp_path, *words) as served:
        lent = await served.own()
        holder = await served.own()
        message = {"jsonrpc": "2.0", "id": 1, "method": "x/hold", "params": {"name": "h"}}
        call = asyncio.create_task(served.post(holder, message))
        await served.until_heard('"name":"h"')
        newcomer = await open_session(served.client, capabilities=ROOTS)
        assert not await is_asked(served, newcomer)
        assert not await is_asked(served, lent)
        assert await metric(served.client, "shared_fallbacks_total") == 2
        (record, *_) = await served.bridge.logged("child_pool.exhausted")
        assert (record["max_children"], record["served_by"]) == (2, "shared process")
        await served.delete(lent)
        await served.delete(holder)
        assert (await call).status_code == 200

        async def is_free() -> bool:
            return await is_asked(served, await served.own())

        await asked_until(is_free, "its place is free: the next one can be asked again")


@pytest.mark.slow
async def test_no_process_is_shared_where_each_session_is_to_have_its_own(tmp_path: Path) -> None:
    """With `--isolation session` the newcomer is refused, and told by which limit."""
    words = ("--isolation", "session", "--max-children", "2")
    async with serving_questioners(tmp_path, *words) as served:
        await served.own()
        refused = await served.client.post("/mcp", json=initialize(0), headers=ACCEPT)
        assert refused.status_code == 503
        assert "--max-children 2" in refused.text
        assert await metric(served.client, "shared_fallbacks_total") == 0


@pytest.mark.slow
async def test_calls_at_once_of_one_client_that_may_ask_share_its_processes(
    tmp_path: Path,
) -> None:
    """32 of them: none is refused, no process too many runs, and quick calls need few."""
    async with serving("legacy", tmp_path, *ERA, "--max-children", "5") as served:
        results = await asyncio.gather(
            *(served.result("tools/call", {"name": "do", "arguments": {}}, FORM) for _ in range(32))
        )
        assert [result["resultType"] for result in results] == ["complete"] * 32
        started = len(served.bridge.events("child.started"))
        assert started <= 5
        assert await metric(served.client, "shared_fallbacks_total") == 0
        # The client's own serve its next calls as well.
        again = await served.result("tools/call", asking([form()]), FORM)
        await served.result("tools/call", retry_of(asking([form()]), again, i1=YES), FORM)
        assert len(served.bridge.events("child.started")) == started


@pytest.mark.slow
async def test_a_call_that_may_ask_gets_the_process_that_another_gives_back(
    tmp_path: Path,
) -> None:
    """It waits for `--queue-timeout`; then the shared process serves it, and declines for it."""
    words = ("--max-children", "2", "--queue-timeout", "30s")
    async with serving("legacy", tmp_path, *ERA, *words) as served:
        params = asking([form()])
        first = await served.result("tools/call", params, FORM)
        assert first["resultType"] == "input_required"
        waiting = [
            asyncio.create_task(served.result("tools/call", params, capabilities))
            for capabilities in (FORM, {**FORM, **ROOTS})
        ]
        await eventually(lambda: _in_flight(served) >= 2, "both wait")
        # The process goes to the one, and its place to the other when that one is done.
        await served.result("tools/call", retry_of(params, first, i1=YES), FORM)
        same = await waiting[0]
        assert same["resultType"] == "input_required"
        await served.result("tools/call", retry_of(params, same, i1=YES), FORM)
        other = await waiting[1]
        assert other["resultType"] == "input_required"
        assert len(await served.bridge.logged("child.started", count=3)) == 3
        assert len(served.bridge.processes()) == 2


def _in_flight(served: Any) -> int:
    text = httpx.get(f"{served.bridge.url}/metrics").text
    found = re.search(r"^mcpbridge_calls_in_flight (\S+)$", text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.slow
async def test_a_call_that_waits_in_vain_is_served_without_being_asked(tmp_path: Path) -> None:
    """The server's request is declined, and the call has its answer."""
    words = ("--max-children", "2", "--queue-timeout", "100ms")
    async with serving("legacy", tmp_path, *ERA, *words) as served:
        params = asking([form()])
        first = await served.result("tools/call", params, FORM)
        instead = await served.result("tools/call", params, FORM)
        assert instead["resultType"] == "complete"
        (declined,) = text_of(instead)["answers"]
        assert declined["code"] == -32601
        assert await metric(served.client, "shared_fallbacks_total") == 1
        assert await served.bridge.logged("child_pool.exhausted")
        await served.result("tools/call", retry_of(params, first, i1=YES), FORM)


@pytest.mark.slow
async def test_as_many_processes_run_as_fit_into_the_memory(tmp_path: Path) -> None:
    """By default, from what the first one was seen to use; the log and the metrics say it."""
    async with serving_questioners(tmp_path) as served:
        (sized,) = await served.bridge.logged("child_pool.sized")
        room = sized["memory_limit"] - sized["memory_limit"] // 8 - sized["bridge"]
        fitting = room // sized["per_process"]
        assert sized["max_children"] == max(2, min(64, fitting))
        assert await metric(served.client, "children_max") == sized["max_children"]
        assert 1 << 20 < sized["per_process"] < 1 << 28
        assert 1 << 20 < sized["bridge"] < 1 << 28


@pytest.mark.slow
async def test_the_operator_says_how_many_processes_run(tmp_path: Path) -> None:
    """Then nothing is measured."""
    async with serving_questioners(tmp_path, "--max-children", "7") as served:
        assert await metric(served.client, "children_max") == 7
        assert not served.bridge.events("child_pool.sized")
