"""`mcpbridge dev --fault`: what a client meets, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge.rules.injected_faults import FaultPlan, fault_rule
from mcpbridge.tape.recording import read_recording
from mcpbridge.wire.messages import Request
from tests.support.bridge_process import DEMO, bridge, messages, open_session, ran, rpc
from tests.support.developing import developing, source

pytestmark = pytest.mark.slow

Headers = dict[str, str]


async def called(client: httpx.AsyncClient, headers: Headers, tool: str, **arguments: Any) -> Any:
    """The message that answers a call of a tool."""
    body = rpc(1, "tools/call", {"name": tool, "arguments": arguments})
    response = await client.post("/mcp", json=body, headers=headers)
    return messages(response.text)[-1]


def reason(message: Any) -> str:
    """Why mcpbridge says that a call has failed; empty if it has not."""
    return str(message.get("error", {}).get("data", {}).get("mcpbridge", {}).get("reason", ""))


async def test_each_fault_is_met_and_marked(tmp_path: Path) -> None:
    """By the client, in the log and in the recording; and the next call is served."""
    path = tmp_path / "tape.jsonl"
    rules = ["tool=add error", "tool=echo garbage", "tool=countdown die", "tool=fail drop"]
    words = [word for each in rules for word in ("--fault", each)]
    words += ["--no-watch", "--record", str(path), "--request-timeout", "1s"]
    async with bridge(*words, "--", *DEMO, program=["dev"]) as running, running.client() as client:
        headers = await open_session(client)
        met = [
            await called(client, headers, "add", a=1, b=2),
            await called(client, headers, "echo", text="x"),
            await called(client, headers, "fail", message="x"),
            await called(client, headers, "countdown", seconds=30),
        ]
        assert [reason(each) for each in met] == [
            "injected",
            "bad_child_message",
            "timeout",
            "child_exited",
        ]
        assert "signal 9" in met[-1]["error"]["message"]
        marks = await running.logged("fault.injected", count=4)
        assert sorted(each["rule"] for each in marks) == sorted(rules)
        assert {each["effect"] for each in marks} == {"error", "garbage", "die", "drop"}
        await running.logged("child.ready", count=2)
        response = await client.post("/mcp", json=rpc(9, "tools/list"), headers=headers)
        assert messages(response.text)[-1]["result"]["tools"]
    text = path.read_text("utf-8")
    assert all(f'{each}"' in text for each in rules)


async def test_a_delayed_answer_comes_after_that_of_a_later_call(tmp_path: Path) -> None:
    """The rule is for tools whose names match; both calls have their own answers."""
    rule, tape = "tool=slow* delay=2s", tmp_path / "tape.jsonl"
    words = ("--fault", rule, "--no-watch", "--record", str(tape))
    async with developing(tmp_path, source(["slow_one", "quick"]), *words) as on:
        session = await on.open()
        answered: list[str] = []

        async def call(tool: str) -> Any:
            said = await on.call(session, tool)
            answered.append(tool)
            return said

        began = time.monotonic()
        slow = asyncio.create_task(call("slow_one"))
        # The server has it now: what is sent from here on is sent later.
        (mark,) = await on.bridge.logged("fault.injected")
        assert await call("quick") == await slow
        assert time.monotonic() - began >= 2
        assert answered == ["quick", "slow_one"]
        assert on.bridge.events("fault.injected") == [mark]
        assert (mark["rule"], mark["effect"], mark["tool"]) == (rule, "delay", "slow_one")
    frames = read_recording(tape).frames
    marks = [each.text for each in frames if (each.text or "").startswith("fault.injected")]
    assert [mark.partition(" tool=")[2] for mark in marks if mark] == ["slow* delay=2s"]
    asked = [
        json.loads(each.message.params or b"{}")["name"]
        for each in frames
        if isinstance(each.message, Request) and each.message.method == "tools/call"
    ]
    assert asked == ["slow_one", "quick"]


async def test_the_same_calls_fail_in_each_run() -> None:
    """Those that the rule and its seed say."""
    rule = "tool=ec?o error rate=0.5 seed=7"
    plan = FaultPlan([fault_rule(rule)], "demo")
    wanted = ["injected" if plan.next("tools/call", "echo") else "" for _ in range(12)]
    assert 0 < wanted.count("injected") < 12
    for _ in range(2):
        words = ("--no-watch", "--fault", rule, "--", *DEMO)
        async with bridge(*words, program=["dev"]) as running, running.client() as client:
            headers = await open_session(client)
            met = [reason(await called(client, headers, "echo", text="x")) for _ in wanted]
        assert met == wanted


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["dev", "--fault", "tool=x explode", "--", *DEMO],
            "'tool=x explode': 'explode' is unknown (expected tool=, method=, server=",
        ),
        (["dev", "--fault", "drop rate=2", "--", *DEMO], "'rate=2' is not a rate"),
        (["--fault", "drop", "--", *DEMO], "only `mcpbridge dev` has it: mcpbridge dev --fault"),
        (["doctor", "--fault", "drop", "--", *DEMO], "only `mcpbridge dev` has it"),
        (["--record", "x", "--", *DEMO], "only `mcpbridge dev` has it: mcpbridge dev --record"),
    ],
)
async def test_a_wrong_rule_or_place_is_one_sentence(words: list[str], problem: str) -> None:
    """That names the part, and what would be right."""
    status, text = await ran(*words)
    assert status == 2
    shown = json.loads(text)["problem"] if text.startswith("{") else " ".join(text.split())
    assert problem in shown
