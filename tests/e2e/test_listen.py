"""`subscriptions/listen` of 2026-07-28, over children of either era."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import eventually
from tests.support.modern_client import SUBSCRIPTION, Stateless, progress, remark, serving
from tests.support.proofs import proves
from tests.support.raw_http import Events

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOOLS = {"toolsListChanged": True}
ACK = "notifications/subscriptions/acknowledged"
KINDS = ("legacy", "modern")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stateless]:
    """A bridge over a server of one era."""
    kind = request.param
    async with serving(kind, tmp_path_factory.mktemp(kind), "--child-era", kind) as served:
        yield served


def listen(served: Stateless, wanted: Any, request_id: Any) -> Any:
    """A request that listens."""
    return served.request("subscriptions/listen", {"notifications": wanted}, id=request_id)


async def acknowledged(events: Events, request_id: Any) -> Any:
    """What is honoured, which is told first and tagged with the very id."""
    first = await events.next()
    assert first["method"] == ACK
    assert tag_of(first) == request_id
    assert type(tag_of(first)) is type(request_id)
    return first["params"]["notifications"]


def tag_of(message: Any) -> Any:
    """The listen that a message is for."""
    return message.get("params", message.get("result"))["_meta"][SUBSCRIPTION]


def told(message: Any) -> Any:
    """What a message says, and to which listen."""
    return message["method"], message["params"].get("uri"), tag_of(message)


def is_native(served: Stateless) -> bool:
    """The child speaks 2026-07-28."""
    return served.heard("initialize") == []


@proves("fault 46", "C37", "C41")
@pytest.mark.parametrize("request_id", [1, "1", "", 0])
async def test_what_is_honoured_comes_first_and_all_is_tagged(
    either: Stateless, request_id: Any
) -> None:
    """Only what was asked for, each message with the listen's own id."""
    wanted = {**TOOLS, "resourceSubscriptions": ["a:b"]}
    async with either.stream(listen(either, wanted, request_id)) as events:
        assert "mcp-session-id" not in events.response.headers
        assert events.response.headers["x-accel-buffering"] == "no"
        assert await acknowledged(events, request_id) == wanted
        news = [
            ["prompts/list_changed", {}],
            ["resources/updated", {"uri": "c:d"}],
            ["resources/list_changed", {}],
            ["resources/updated", {"uri": "a:b"}],
            ["tools/list_changed", {}],
        ]
        await either.do(news=news)
        assert told(await events.next()) == (
            "notifications/resources/updated",
            "a:b",
            request_id,
        )
        assert told(await events.next()) == (
            "notifications/tools/list_changed",
            None,
            request_id,
        )


@proves("C38")
async def test_progress_and_log_are_not_for_listens(either: Stateless) -> None:
    """They belong to calls, and a listen never counts as one."""
    async with either.stream(listen(either, TOOLS, "quiet")) as events:
        await acknowledged(events, "quiet")
        wishes = {"say": [progress(1), remark("alert")], "news": [["tools/list_changed", {}]]}
        message = either.request(
            "tools/call", {"name": "do", "arguments": wishes}, token="t", level="info"
        )
        async with either.stream(message) as call:
            methods = [m.get("method") for m in await call.rest()]
        assert methods == ["notifications/progress", "notifications/message", None]
        assert (await events.next())["method"] == "notifications/tools/list_changed"


@proves("C39")
async def test_the_end_of_one_listen_is_the_end_of_no_other(either: Stateless) -> None:
    """Each has its own copies; the child is told what no client wants any more."""
    wanted = {"resourceSubscriptions": ["x:y"]}
    updated: Any = [["resources/updated", {"uri": "x:y"}]]
    async with either.stream(listen(either, wanted, "stays")) as stays:
        await acknowledged(stays, "stays")
        async with either.stream(listen(either, wanted, 7)) as leaves:
            await acknowledged(leaves, 7)
            await either.do(news=updated)
            assert tag_of(await stays.next()) == "stays"
            assert tag_of(await leaves.next()) == 7
        gone = int(is_native(either))
        await eventually(lambda: ended(either) == gone, "the child knows")
        await either.do(news=updated)
        assert tag_of(await stays.next()) == "stays"
        assert ended(either) == gone
    await eventually(lambda: ended(either) == gone + 1, "the last one has ended")


def ended(served: Stateless) -> int:
    """How often the child was told that a client does not want `x:y` any more."""
    if not is_native(served):
        return sum(m["params"]["uri"] == "x:y" for m in served.heard("resources/unsubscribe"))
    listens = [m["id"] for m in served.heard("subscriptions/listen") if "x:y" in str(m)]
    cancelled = served.heard("notifications/cancelled")
    return sum(m["params"]["requestId"] in listens for m in cancelled)


@proves("C37")
@pytest.mark.parametrize(
    "wanted",
    [
        {},
        None,
        [],
        {"toolsListChanged": "yes"},
        {"resourceSubscriptions": "a:b"},
        {"resourceSubscriptions": [1, None]},
        {"unknown": True},
        {"promptsListChanged": True},
        {"resourceSubscriptions": ["bad:x"]},
    ],
    ids=str,
)
async def test_what_cannot_be_honoured_is_left_out(handshake: Stateless, wanted: Any) -> None:
    """What no server offers, or what is unknown, is not in the acknowledgement."""
    async with handshake.stream(listen(handshake, wanted, 1)) as events:
        assert await acknowledged(events, 1) == {}


@proves("C37")
async def test_parts_of_a_resource_and_repeated_wishes(handshake: Stateless) -> None:
    """A client that wants a resource hears about its parts; wanting it twice is wanting it."""
    wanted = {"resourceSubscriptions": ["f:/a", "f:/a", "bad:x"], "promptsListChanged": True}
    async with handshake.stream(listen(handshake, wanted, 1)) as events:
        assert await acknowledged(events, 1) == {"resourceSubscriptions": ["f:/a"]}
        news = [["resources/updated", {"uri": uri}] for uri in ("f:/ab", "f:/a/b", "f:/a")]
        await handshake.do(news=news)
        assert told(await events.next())[1] == "f:/a/b"
        assert told(await events.next())[1] == "f:/a"
    subscribed = [m for m in handshake.heard("resources/subscribe") if "f:/a" in str(m)]
    assert len(subscribed) == 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def handshake(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stateless]:
    """A bridge over a server with a handshake."""
    folder = tmp_path_factory.mktemp("legacy")
    async with serving("legacy", folder, "--child-era", "legacy") as served:
        yield served


@proves("C55", "C40", "C86")
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_listens_outlive_a_child_or_end_well(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """After the end of the child the next one serves; listens go on or get their result."""
    folder = tmp_path_factory.mktemp(kind)
    async with serving(kind, folder, "--child-era", kind, "--max-sessions", "2") as served:
        discovered = await served.result("server/discover")
        wanted = {**TOOLS, "resourceSubscriptions": ["a:b"]}
        async with served.stream(listen(served, wanted, "l")) as events:
            assert await acknowledged(events, "l") == wanted
            await served.error("tools/call", {"name": "do", "arguments": {"exit": 1}})
            await served.bridge.logged("child.ready", count=2)
            assert (await served.do())["resultType"] == "complete"
            if kind == "modern":
                assert_result(await events.next(), "l")
                assert await events.next() is None
            else:
                # What may have changed since then is said to have changed.
                assert told(await events.next()) == (
                    "notifications/tools/list_changed",
                    None,
                    "l",
                )
                await served.do(news=[["resources/updated", {"uri": "a:b"}]])
                while (message := await events.next())["method"].endswith("list_changed"):
                    pass
                assert told(message) == ("notifications/resources/updated", "a:b", "l")
        again = await served.result("server/discover")
        for result in (discovered, again):
            result["_meta"] = None
        assert again == discovered
        first, second = listen(served, TOOLS, 1), listen(served, TOOLS, 2)
        async with served.stream(first) as one, served.stream(second) as two:
            assert [await acknowledged(one, 1), await acknowledged(two, 2)] == [TOOLS, TOOLS]
            assert (await served.send(listen(served, TOOLS, 3))).status_code == 503
            served.bridge.signal(signal.SIGTERM)
            for events, request_id in ((one, 1), (two, 2)):
                assert_result(await events.next(), request_id)
                assert await events.next() is None
        assert await served.bridge.ended() == 0


def assert_result(message: Any, request_id: Any) -> None:
    """The good end of a listen."""
    assert message["id"] == request_id
    assert message["result"]["resultType"] == "complete"
    assert tag_of(message) == request_id


@proves("C37", "C45")
@pytest.mark.slow
async def test_calls_do_not_count_as_listens(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A child of this revision serves calls and listens by one pipe; the limit is for listens."""
    folder = tmp_path_factory.mktemp("limit")
    era = ("--child-era", "modern")
    async with serving("modern", folder, *era, "--max-sessions", "1") as served:
        held = asyncio.create_task(served.do(hold="h"))
        await served.until_heard("tools/call")
        async with served.stream(listen(served, TOOLS, 1)) as events:
            await acknowledged(events, 1)
        await served.do(release="h")
        assert (await held)["resultType"] == "complete"


@proves("fault 131")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_listen_names_a_bounded_number_of_resources(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """One too many is refused, and so is a name that is too long; the child gets neither."""
    folder = tmp_path_factory.mktemp(kind)
    async with serving(kind, folder, "--child-era", kind, "--max-subscriptions", "2") as served:
        for uris, problem in (
            (["a:1", "a:2", "a:3"], "more than 2 elements (--max-subscriptions)"),
            (["a:" + "b" * 9000], "has 9002 bytes (at most 8192)"),
        ):
            refused = await served.send(listen(served, {"resourceSubscriptions": uris}, 1))
            assert refused.status_code == 400
            assert problem in refused.json()["error"]["message"]
        wanted = {"resourceSubscriptions": ["a:1", "a:2"]}
        async with served.stream(listen(served, wanted, 1)) as events:
            assert await acknowledged(events, 1) == wanted
        assert "a:3" not in str(served.heard("resources/subscribe"))


async def test_a_listen_that_waits_for_its_grants_counts_and_ends_with_its_client(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The child is asked for some at a time, and for no more when the client has left."""
    folder = tmp_path_factory.mktemp("mute")
    flags = ("--child-era", "legacy", "--max-sessions", "1")
    async with serving("legacy", folder, *flags) as served:
        wanted = {"resourceSubscriptions": [f"mute:{number}" for number in range(100)]}
        asks = asyncio.create_task(served.send(listen(served, wanted, 1)))
        await eventually(lambda: subscribed(served) == 32, "some are asked for")
        assert (await served.send(listen(served, TOOLS, 2))).status_code == 503
        asks.cancel()
        await asyncio.wait([asks])
        taken_back = "resources/unsubscribe"
        await eventually(lambda: len(served.heard(taken_back)) == 32, "all are taken back")
        async with served.stream(listen(served, TOOLS, 3)) as events:
            assert await acknowledged(events, 3) == TOOLS
        assert subscribed(served) == 32


def subscribed(served: Stateless) -> int:
    """How often the child was asked for a resource."""
    return len(served.heard("resources/subscribe"))
