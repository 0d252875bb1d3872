"""Limits on calls, streams and messages: who comes one too many is told which limit it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import ACCEPT, bridge, child, messages, open_session, rpc
from tests.support.modern_client import headers_of, meta
from tests.support.proofs import proves
from tests.support.questioner_bridge import Headers, Served, note, reading, serving
from tests.support.raw_http import post, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

LONG = "20s"
SOON_S = 10.0


def call(served: Served, headers: Headers, number: int, method: str, **params: Any) -> Any:
    """A call that is on its way."""
    return asyncio.create_task(served.post(headers, rpc(number, method, params)))


async def settled(served: Served) -> None:
    """Let the bridge see what has been sent to it; pings wait for no place."""
    for _ in range(10):
        assert await served.ask({}, "ping") == {}


async def held(served: Served, headers: Headers, number: int) -> Any:
    """A call that the child does not answer by itself; it has read it."""
    params = {**headers, "accept": "application/json"}
    task = call(served, params, number, "x/hold", name=f"h{number}")
    await served.until_heard(f'"h{number}"')
    return task


async def answered(served: Served, name: str) -> None:
    """Let the child answer a held call, without another call."""
    (number,) = [m["id"] for m in served.heard("x/hold") if m["params"]["name"] == name]
    line = json.dumps({"jsonrpc": "2.0", "id": number, "result": {"name": name}})
    await served.tell(await served.open(), "x-say", lines=[line])


def assert_capacity(answer: httpx.Response, text: str, status: int = 200) -> None:
    """The error of a call that has not been executed and may be tried again."""
    assert answer.status_code == status, answer.text
    assert (status == 200) or int(answer.headers["retry-after"]) > 0
    error = answer.json()["error"]
    assert error["code"] == -32603
    assert text in error["message"]
    facts = error["data"]["mcpbridge"]
    assert facts == {"reason": "capacity", "executed": "no", "retryable": True}


@proves("fault 56")
async def test_calls_over_the_bound_of_a_child_wait_their_turn(tmp_path: Path) -> None:
    """In order, bounded; pings pass; a cancelled one leaves without a word to the child."""
    words = ("--max-calls-per-child", "2", "--queue-length", "2", "--queue-timeout", LONG)
    async with serving(tmp_path, *words) as served:
        session = await served.open()
        first, second = [await held(served, session, number) for number in (1, 2)]
        third = call(served, session, 3, "x/echo", n=3)
        await settled(served)
        fourth = call(served, session, 4, "x/echo", n=4)
        await settled(served)
        fifth = await served.post(session, rpc(5, "x/echo", {"n": 5}))
        assert_capacity(fifth, "--queue-length 2")
        await served.tell(session, "cancelled", requestId=4)
        cancelled = await fourth
        assert (cancelled.json()["id"], cancelled.json()["error"]["code"]) == (4, -32800)
        sixth = call(served, session, 6, "x/echo", n=6)
        await settled(served)
        assert served.heard("x/echo") == []
        await answered(served, "h1")
        assert (await first).json()["result"] == {"name": "h1"}
        assert [(await task).json()["result"]["n"] for task in (third, sixth)] == [3, 6]
        assert [m["params"]["n"] for m in served.heard("x/echo")] == [3, 6]
        assert served.heard("notifications/cancelled") == []
        await answered(served, "h2")
        assert (await second).status_code == 200
        assert await served.ask(session, "x/echo", n=7) == {"n": 7}


@proves("fault 56")
async def test_who_waits_too_long_for_a_turn_is_told(tmp_path: Path) -> None:
    """In a session by an error, outside by 503 and Retry-After."""
    words = ("--max-calls-per-child", "1", "--queue-length", "1", "--queue-timeout", "300ms")
    async with serving(tmp_path, *words) as served:
        session = await served.open()
        first = await held(served, session, 1)
        text = "--max-calls-per-child 1, and no turn came within 0.3 s (--queue-timeout)"
        assert_capacity(await served.post(session, rpc(2, "x/echo")), text)
        assert_capacity(await served.post({}, rpc(3, "x/echo")), text, 503)
        message = rpc(4, "tools/call", {"name": "x", "_meta": meta()})
        modern = headers_of(message)
        assert_capacity(await served.post(modern, message), text, 503)
        assert served.heard("tools/call") == []
        await answered(served, "h1")
        assert (await first).status_code == 200


@proves("fault 56")
async def test_who_leaves_does_not_wait_on(tmp_path: Path) -> None:
    """The place in the queue is the next one's."""
    words = ("--max-calls-per-child", "1", "--queue-length", "1", "--queue-timeout", "60s")
    async with serving(tmp_path, *words) as served:
        first = await held(served, await served.open(), 1)
        message = rpc(4, "tools/call", {"name": "x", "_meta": meta()})
        modern = headers_of(message)
        lines = [f"{name}: {value}" for name, value in modern.items()]
        async with wire(served.bridge.port) as leaving:
            await leaving.send(post(json.dumps(message).encode(), *lines))
            await settled(served)
            assert_capacity(await served.post(modern, message), "--queue-length 1", 503)
        await settled(served)
        after = asyncio.create_task(served.post(modern, message))
        await settled(served)
        assert_capacity(await served.post(modern, message), "--queue-length 1", 503)
        assert served.heard("tools/call") == []
        await answered(served, "h1")
        assert (await first).status_code == 200
        await served.until_heard('"tools/call"')
        after.cancel()


@proves("fault 84")
async def test_a_burst_at_a_server_that_works_on_one_call_at_a_time_is_answered() -> None:
    """At the defaults, and though it takes longer than the seconds that clients wait elsewhere."""
    limits = httpx.Limits(max_connections=None)
    async with (
        bridge("--", *child("serial", "0.05")) as running,
        running.client(limits=limits, headers=ACCEPT) as client,
    ):
        session = await open_session(client)

        async def work(number: int) -> Any:
            body = rpc(number, "x/work", {"n": number})
            answer = await client.post("/mcp", json=body, headers=session)
            (message,) = messages(answer.text)
            return message["id"], message.get("result")

        answers = await asyncio.gather(*map(work, range(200)))
    assert answers == [(number, {"n": number}) for number in range(200)]


@proves("fault 56")
async def test_a_call_whose_time_ends_in_the_queue_is_told_so(tmp_path: Path) -> None:
    """Its server has not got it: the error names the limit, and says that it may be tried again."""
    words = ("--max-calls-per-child", "1", "--request-timeout", "500ms")
    async with serving(tmp_path, *words) as served:
        session = await served.open()
        first = await held(served, session, 1)
        text = (
            "limit reached: --max-calls-per-child 1, and no turn came: the MCP server did not"
            " answer within 0.5 s (--request-timeout)"
        )
        json_only = {**session, "accept": "application/json"}
        assert_capacity(await served.post(json_only, rpc(2, "x/echo")), text)
        facts = (await first).json()["error"]["data"]["mcpbridge"]
        assert (facts["reason"], facts["executed"]) == ("timeout", "maybe")
        assert served.heard("x/echo") == []


@proves("fault 56")
async def test_a_call_is_not_idle_while_it_waits_for_its_turn(tmp_path: Path) -> None:
    """Its idle time begins when its server gets it."""
    words = ("--max-calls-per-child", "1", "--request-idle-timeout", "500ms")
    async with serving(tmp_path, *words) as served:
        session = await served.open()
        first = await held(served, session, 1)
        second = call(served, {**session, "accept": "application/json"}, 2, "x/echo", n=2)
        facts = (await first).json()["error"]["data"]["mcpbridge"]
        assert facts["reason"] == "timeout"
        # The server still works on the first one: its answer frees the place.
        await answered(served, "h1")
        assert (await second).json()["result"] == {"n": 2}


@proves("fault 56")
async def test_a_cancelled_call_keeps_its_place_until_the_child_is_done(tmp_path: Path) -> None:
    """Its client has its end at once; the next call goes on when the child answers."""
    words = ("--max-calls-per-child", "1", "--queue-timeout", LONG)
    async with serving(tmp_path, *words) as served:
        session = await served.open()
        first = await held(served, session, 1)
        await served.tell(session, "cancelled", requestId=1)
        assert (await first).json()["error"]["code"] == -32800
        second = call(served, session, 2, "x/echo", n=2)
        await settled(served)
        assert served.heard("x/echo") == []
        await answered(served, "h1")
        async with asyncio.timeout(SOON_S):
            assert (await second).json()["result"] == {"n": 2}


@proves("fault 5")
async def test_calls_that_wait_are_told_when_their_child_ends(tmp_path: Path) -> None:
    """The one that it worked on may have run, the others have not."""
    words = ("--max-calls-per-child", "1", "--queue-timeout", LONG)
    async with serving(tmp_path, *words) as served:
        session = await served.own()
        first = call(served, session, 1, "x/hold", name="h", lines=[])
        await served.until_heard('"h"')
        second = call(served, session, 2, "x/echo")
        await settled(served)
        await served.bridge.logged("child.started", count=2)
        (pid,) = [int(p.name) for p in tmp_path.iterdir() if b'"h"' in p.read_bytes()]
        os.kill(pid, signal.SIGKILL)
        for task, executed in ((first, "maybe"), (second, "no")):
            facts = (await task).json()["error"]["data"]["mcpbridge"]
            assert (facts["reason"], facts["executed"]) == ("child_exited", executed)
            assert facts["retryable"] is (executed == "no")


@proves("fault 84")
async def test_over_the_calls_of_the_process_none_is_taken(tmp_path: Path) -> None:
    """At once: an error in a session, 503 outside; room again when a call has ended."""
    async with serving(tmp_path, "--max-calls", "2") as served:
        session = await served.open()
        first, second = [await held(served, session, number) for number in (1, 2)]
        assert_capacity(await served.post(session, rpc(3, "x/echo")), "--max-calls 2")
        assert_capacity(await served.post({}, rpc(4, "x/echo")), "--max-calls 2", 503)
        message = rpc(5, "tools/call", {"name": "x", "_meta": meta()})
        refused = await served.post(headers_of(message), message)
        assert_capacity(refused, "--max-calls 2", 503)
        line = {"jsonrpc": "2.0", "id": served.heard("x/hold")[0]["id"], "result": {}}
        await served.tell(session, "x-say", lines=[json.dumps(line)])
        assert (await first).status_code == 200
        assert await served.ask(session, "x/echo", n=1) == {"n": 1}
        await served.delete(session)
        assert (await second).json()["error"]["data"]["mcpbridge"]["reason"] == "session_closed"


@proves("fault 85")
async def test_a_session_has_so_many_streams_and_no_more(tmp_path: Path) -> None:
    """429 to another GET, an error to a call that could become one; room when one ends."""
    async with serving(tmp_path, "--max-streams", "2") as served:
        session = await served.open()
        async with reading(served.client, session):
            async with reading(served.client, session):
                refused = await served.client.get("/mcp", headers=session)
                assert_capacity(refused, "--max-streams 2", 429)
                assert_capacity(await served.post(session, rpc(1, "x/echo")), "--max-streams 2")
                plain = {**session, "accept": "application/json"}
                assert await served.ask(plain, "x/echo", n=1) == {"n": 1}
                assert await served.ask(await served.open(), "x/echo", n=2) == {"n": 2}
            await settled(served)
            assert await served.ask(session, "x/echo", n=3) == {"n": 3}


@proves("fault 28", "fault 75")
async def test_messages_are_nested_so_deep_and_no_deeper(tmp_path: Path) -> None:
    """Those of clients and of the server; brackets in a text are not."""
    async with serving(tmp_path, "--max-json-depth", "32") as served:
        session = await served.open()

        def nested(depth: int) -> bytes:
            value = b"[" * depth + b'"[[[{{{\\"[["' + b"]" * depth
            return b'{"jsonrpc":"2.0","id":1,"method":"x/echo","params":{"a":%b}}' % value

        headers = {**session, "content-type": "application/json"}
        answer = await served.client.post("/mcp", content=nested(30), headers=headers)
        assert answer.json()["result"]
        for depth in (31, 600, 100_000):
            for body in (nested(depth), b"[%b]" % nested(depth)):
                answer = await served.client.post("/mcp", content=body, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)
                assert "--max-json-depth 32" in answer.json()["error"]["message"]
        first = await held(served, session, 1)
        (number,) = [message["id"] for message in served.heard("x/hold")]
        result = "[" * 31 + "]" * 31
        line = f'{{"jsonrpc":"2.0","id":{number},"result":{{"a":{result}}}}}'
        await served.tell(session, "x-say", lines=[line])
        error = (await first).json()["error"]
        assert error["data"]["mcpbridge"]["reason"] == "bad_child_message"
        assert "--max-json-depth 32" in error["message"]
        assert await served.ask(session, "x/echo", n=1) == {"n": 1}


@proves("fault 32", "fault 54")
@pytest.mark.parametrize(
    ("words", "most"),
    [(("--stream-events", "10"), 10), (("--stream-buffer", "4KiB"), 4)],
    ids=["events", "bytes"],
)
async def test_a_stream_keeps_so_much_for_who_reads_later(
    tmp_path: Path, words: tuple[str, str], most: int
) -> None:
    """The newest; the oldest notifications go first and are counted."""
    async with serving(tmp_path, *words) as served:
        session = await served.own()
        await served.say(session, note("x/flood", n="#", data="x" * 1000), times=100)
        async with reading(served.client, session) as listening:
            blocks = await listening.some(most if most > 4 else 3)
            numbers = [int(block.message["params"]["n"]) for block in blocks]
            assert numbers == list(range(100 - len(numbers), 100))
        assert await served.bridge.terminate() == 0
        (end,) = await served.bridge.logged("serve.ended")
        assert end["counts"]["shed_notification"] == 100 - len(numbers)
