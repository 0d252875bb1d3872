"""What sessions ask of one child together, and what passes where a child is a session's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import messages, rpc
from tests.support.proofs import proves
from tests.support.questioner_bridge import Headers, Served, note, result_of, serving
from tests.support.raw_http import Events, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that waits long for a first word."""
    async with serving(tmp_path_factory.mktemp("record"), "--json-window", "60s") as some:
        yield some


def log(level: str, data: Any = None) -> str:
    """A log message of the child."""
    return note("message", level=level, data=data)


def updated(uri: str) -> str:
    """The line that says that a resource has changed."""
    return note("resources/updated", uri=uri)


def levels(served: Served) -> list[str]:
    """The log levels that children were asked for, in order."""
    return [request["params"]["level"] for request in served.heard("logging/setLevel")]


def asked_for(served: Served, uri: str) -> list[str]:
    """What children were asked about a resource, in order: `subscribe`, `unsubscribe`."""
    return [
        each["method"].partition("/")[2]
        for each in served.heard()
        if each.get("method") in (SUBSCRIBE, UNSUBSCRIBE) and each["params"]["uri"] == uri
    ]


async def logs_of(served: Served, session: Headers, *lines: str) -> list[str]:
    """The levels of the log messages that reach the only caller while the child says lines."""
    answer = await served.post(session, rpc(1, "x/say", {"lines": lines}))
    *said, end = messages(answer.text)
    assert end == result_of(1, {})
    return [message["params"]["level"] for message in said]


@proves("C79")
async def test_the_most_verbose_level_wins_and_each_session_gets_its_own(served: Served) -> None:
    """The child is asked for what any client wants; none gets more than it asked for."""
    loud, quiet, unset = [await served.open() for _ in range(3)]
    everything = [log(level) for level in ("debug", "info", "error")]
    assert await served.ask(quiet, "logging/setLevel", level="error") == {}
    assert levels(served) == ["info"], "sessions that asked for none are not deprived"
    assert await served.ask(loud, "logging/setLevel", level="debug", extra=[1]) == {}
    assert await served.ask(quiet, "logging/setLevel", level="warning") == {}
    assert levels(served) == ["info", "debug", "debug"]
    assert served.heard("logging/setLevel")[1]["params"] == {"level": "debug", "extra": [1]}
    assert await logs_of(served, loud, *everything) == ["debug", "info", "error"]
    assert await logs_of(served, quiet, *everything) == ["error"]
    assert "error" in await logs_of(served, unset, *everything)
    await served.delete(loud)
    assert await served.ask(quiet, "logging/setLevel", level="error") == {}
    assert levels(served)[-1] == "info", "who is gone wants nothing"
    for session in (quiet, unset):
        await served.delete(session)


async def test_a_level_on_its_way_counts_already(served: Served) -> None:
    """Another session's request that overtakes the answer does not undo it."""
    loud, quiet = await served.open(), await served.open()
    before = len(levels(served))
    message = rpc(1, "logging/setLevel", {"level": "debug", "hold": "level"})
    call = asyncio.create_task(served.post(loud, message))
    await served.until_heard('"hold":"level"')
    assert await served.ask(quiet, "logging/setLevel", level="error") == {}
    assert levels(served)[before:] == ["debug", "debug"]
    assert await served.ask(quiet, "x/release", name="level") == {"released": 1}
    assert (await call).json() == result_of(1, {"held": "level"})
    for session in (loud, quiet):
        await served.delete(session)


@proves("fault 45", "C10")
async def test_a_log_message_reaches_the_caller_while_there_is_only_one(served: Served) -> None:
    """With two calls in flight, or none, it could be any client's."""
    one, other = await served.open(), await served.open()
    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(streaming(served.client, session))
            for session in (one, other)
        ]
        call = asyncio.create_task(served.post(other, rpc(1, "x/hold", {"name": "beside"})))
        await served.until_heard('"beside"')
        assert await logs_of(served, one, log("error", "whose?")) == []
        assert await served.ask(one, "x/release", name="beside") == {"released": 1}
        assert (await call).json()["result"] == {"held": "beside"}
        await served.say(one, log("error", "nobody's"))
        assert await logs_of(served, one, log("error", "mine")) == ["error"]
        await served.say(one, note("tools/list_changed"))
        for listening in listeners:
            said = await listening.next()
            assert said["method"] == "notifications/tools/list_changed", "and nothing before it"
    for session in (one, other):
        await served.delete(session)


@proves("fault 45")
async def test_subscriptions_are_counted_for_each_resource(served: Served) -> None:
    """Asked for once, given back with the last; updates to subscribers only."""
    first, second, third = [await served.open() for _ in range(3)]
    uri = "file:///counted"
    async with AsyncExitStack() as stack:
        heard: list[Events] = [
            await stack.enter_async_context(streaming(served.client, session))
            for session in (first, second, third)
        ]
        for session in (first, second, first):
            assert await served.ask(session, SUBSCRIBE, uri=uri) == {}
        assert asked_for(served, uri)[:1] == ["subscribe"]
        assert UNSUBSCRIBE.partition("/")[2] not in asked_for(served, uri)
        await served.say(third, updated(uri), updated(f"{uri}/part"), updated(f"{uri}less"))
        for listening in heard[:2]:
            uris = [(await listening.next())["params"]["uri"] for _ in range(2)]
            assert uris == [uri, f"{uri}/part"]
        assert await served.ask(third, UNSUBSCRIBE, uri=uri) == {}, "never subscribed: no matter"
        assert await served.ask(first, UNSUBSCRIBE, uri=uri) == {}
        assert "unsubscribe" not in asked_for(served, uri), "the second still wants it"
        await served.say(third, updated(uri), note("prompts/list_changed"))
        assert (await heard[1].next())["params"]["uri"] == uri
        for listening in heard:
            assert (await listening.next())["method"] == "notifications/prompts/list_changed"
        assert await served.ask(second, UNSUBSCRIBE, uri=uri) == {}
        assert asked_for(served, uri)[-1] == "unsubscribe"
    for session in (first, second, third):
        await served.delete(session)


async def test_with_its_last_subscriber_a_subscription_ends(served: Served) -> None:
    """A session that ends gives back what no other client wants, and only that."""
    leaving, staying = await served.open(), await served.open()
    for uri in ("u:both", "u:one"):
        assert await served.ask(leaving, SUBSCRIBE, uri=uri) == {}
    assert await served.ask(staying, SUBSCRIBE, uri="u:both") == {}
    await served.delete(leaving)
    await served.until_heard("u:one", 2)
    assert asked_for(served, "u:one") == ["subscribe", "unsubscribe"]
    assert await served.ask(staying, "x/echo", n=1) == {"n": 1}
    assert asked_for(served, "u:both") == ["subscribe"]
    await served.delete(staying)
    await served.until_heard("u:both", 2)
    assert asked_for(served, "u:both") == ["subscribe", "unsubscribe"]


async def test_a_subscription_survives_one_that_is_being_given_back(served: Served) -> None:
    """Who subscribes while another's unsubscribe is on its way is subscribed after it."""
    leaving, coming = await served.open(), await served.open()
    uri = "u:crossing"
    assert await served.ask(leaving, SUBSCRIBE, uri=uri) == {}
    message = rpc(1, UNSUBSCRIBE, {"uri": uri, "hold": "giving"})
    call = asyncio.create_task(served.post(leaving, message))
    await served.until_heard('"hold":"giving"')
    assert await served.ask(coming, SUBSCRIBE, uri=uri) == {}
    assert await served.ask(coming, "x/release", name="giving") == {"released": 1}
    assert (await call).status_code == 200
    assert asked_for(served, uri) == ["subscribe", "unsubscribe", "subscribe"]
    message = rpc(2, SUBSCRIBE, {"uri": "u:early", "hold": "asking"})
    call = asyncio.create_task(served.post(coming, message))
    await served.until_heard('"hold":"asking"')
    assert await served.ask(leaving, UNSUBSCRIBE, uri="u:early") == {}
    assert asked_for(served, "u:early") == ["subscribe"], "a client is about to have it"
    assert await served.ask(leaving, "x/release", name="asking") == {"released": 1}
    await call
    for session in (leaving, coming):
        await served.delete(session)


async def test_a_subscription_that_was_refused_is_none(served: Served) -> None:
    """The child's error passes, the next one asks again, and no updates come."""
    session, other = await served.open(), await served.open()
    for each in (session, other):
        answer = await served.post(each, rpc(1, SUBSCRIBE, {"uri": "bad:x"}))
        assert answer.json()["error"] == {"code": -32002, "message": "no such resource"}
    assert asked_for(served, "bad:x") == ["subscribe"] * 2
    async with streaming(served.client, session) as listening:
        await served.say(session, updated("bad:x"), note("tools/list_changed"))
        assert (await listening.next())["method"] == "notifications/tools/list_changed"
    for each in (session, other):
        await served.delete(each)


PASSING = [
    note("message", level="debug", data={"a": 1}),
    note("resources/updated", uri="never:asked-for"),
    note("elicitation/complete", elicitationId="e-1"),
    note("tasks/status", taskId="t-1", status="working"),
    note("x/anything", deep=[{"b": None}]),
]


@proves("C77", "C79", "C10")
async def test_what_the_child_of_one_session_says_reaches_that_session(served: Served) -> None:
    """All of it, unknown ones too, and nothing else."""
    own, other, shared = await served.own(), await served.own(), await served.open()
    async with AsyncExitStack() as stack:
        heard: list[Events] = [
            await stack.enter_async_context(streaming(served.client, session))
            for session in (own, other, shared)
        ]
        await served.say(own, *PASSING)
        assert [await heard[0].next() for _ in PASSING] == [json.loads(line) for line in PASSING]
        for session in (other, shared):
            await served.say(session, note("tools/list_changed"))
        for listening in heard[1:]:
            assert (await listening.next())["method"] == "notifications/tools/list_changed"
    for session in (own, other, shared):
        await served.delete(session)


@proves("fault 45", "C77")
async def test_what_a_shared_child_says_of_nobody_knows_whom_reaches_nobody(
    served: Served,
) -> None:
    """It may be another client's business."""
    session = await served.open()
    async with streaming(served.client, session) as listening:
        await served.say(session, *PASSING, note("tools/list_changed"))
        assert (await listening.next())["method"] == "notifications/tools/list_changed"
    await served.delete(session)


@proves("C77")
@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_a_task_reports_after_its_call_was_answered(served: Served, kind: str) -> None:
    """Under the token of its call; `tasks/*` pass as they are."""
    session = await (served.own("2025-11-25") if kind == "own" else served.open("2025-11-25"))
    task = {"ttl": 60000, "kind": kind}
    meta = {"progressToken": f"t-{kind}"}
    assert (await served.ask(session, "tools/call", task=task, _meta=meta))["task"] == task
    (call,) = [c for c in served.heard("tools/call") if c["params"]["task"] == task]
    number = call["params"]["_meta"]["progressToken"]
    async with streaming(served.client, session) as listening:
        await served.say(session, note("progress", progressToken=number, progress=1))
        said = await listening.next()
        assert said["params"] == {"progressToken": f"t-{kind}", "progress": 1}
        for method in ("tasks/get", "tasks/result", "tasks/list", "tasks/cancel"):
            assert await served.ask(session, method, taskId="t", x=1) == {"taskId": "t", "x": 1}
        await served.say(session, note("progress", progressToken=number, progress=2))
        assert (await listening.next())["params"]["progress"] == 2
    await served.delete(session)


@proves("C79")
async def test_whatever_a_client_says_to_its_own_child_passes(served: Served) -> None:
    """Methods, notifications and members that the bridge does not know, byte for byte."""
    session = await served.own()
    params = b'{"n":1.0,"big":12345678901234567890,"b":[{"\\ud800":null}],"a":-0.0}'
    for head in (b'"id":"x","method":"x/custom"', b'"method":"notifications/x-custom"'):
        body = b'{"jsonrpc":"2.0",%b,"params":%b,"extra":{"k":[1]}}' % (head, params)
        headers = {**session, "content-type": "application/json"}
        answer = await served.client.post("/mcp", content=body, headers=headers)
        assert answer.status_code in (200, 202)
    await served.ask(session, "x/echo")
    lines = b"".join(path.read_bytes() for path in served.folder.iterdir()).splitlines()
    passed = [line for line in lines if b"x-custom" in line or b"x/custom" in line]
    assert [params in line and b'"extra":{"k":[1]}' in line for line in passed] == [True, True]
    await served.delete(session)
