"""Legacy clients in front of a server that knows only 2026-07-28 (`tests/children/modern.py`).

Every revision over Streamable HTTP, and two over HTTP+SSE; what the child was told is read from
its record.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.support.bridge_process import RunningBridge, bridge, child, eventually, initialize, rpc
from tests.support.mcp_clients import (
    ASKED,
    KEY,
    MODERN,
    YES,
    McpSession,
    Streamable,
    answered,
    called,
    enveloped,
    one_stream,
    streamable,
    text_in,
    tool,
    until,
)
from tests.support.proofs import proves
from tests.support.raw_http import recorded

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ENDED = -32603
CALL = "tools/call"
WAYS = {
    "2025-03-26": ("http", "2025-03-26"),
    "2025-06-18": ("http", "2025-06-18"),
    "2025-11-25": ("http", "2025-11-25"),
    "sse": ("sse", "2024-11-05"),
    "sse-newest": ("sse", "2025-11-25"),
}
FORM = {
    "method": "elicitation/create",
    "params": {"message": "who?", "requestedSchema": {"type": "object"}},
}
PAGE = {
    "method": "elicitation/create",
    "params": {"mode": "url", "message": "go", "url": "https://x.example"},
}
SAMPLE = {
    "method": "sampling/createMessage",
    "params": {"messages": [], "maxTokens": 5, "x": "\u2028"},
}
ROOTS = {"method": "roots/list", "params": {}}


class Served(NamedTuple):
    """A bridge over one modern child, and the folder of its record."""

    bridge: RunningBridge
    folder: Path

    def heard(self, method: str) -> list[Any]:
        """What the children have read so far, of one method."""
        lines = [json.loads(line) for line in recorded(self.folder).splitlines()]
        return [line for line in lines if line.get("method") == method]

    def listens(self) -> list[Any]:
        """The filters of all listens so far."""
        return [line["params"]["notifications"] for line in self.heard("subscriptions/listen")]


@asynccontextmanager
async def serving(folder: Path, *words: str) -> AsyncIterator[Served]:
    """A bridge that is told the era of its server."""
    command = ("--child-era", "modern", "--", *child("modern", str(folder), *words))
    async with bridge(*command) as running:
        yield Served(running, folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """The bridge that most tests share."""
    async with serving(tmp_path_factory.mktemp("record")) as some:
        yield some


@asynccontextmanager
async def connected(served: Served, name: str) -> AsyncIterator[McpSession]:
    """A client that can be asked anything."""
    way, revision = WAYS[name]
    if way == "sse":
        async with one_stream(served.bridge, revision, ASKED) as mcp_session:
            yield mcp_session
    else:
        async with streamable(served.bridge, revision, ASKED) as some:
            yield some


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(WAYS))
async def mcp_session(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[McpSession]:
    """A client that can be asked anything, in each way in turn."""
    async with connected(served, request.param) as some:
        yield some


@pytest_asyncio.fixture(loop_scope="module", params=["2025-11-25", "sse-newest"])
async def newest(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[McpSession]:
    """A client of the newest legacy revision, on either transport, for one test."""
    async with connected(served, request.param) as some:
        yield some


def asks(**questions: Any) -> dict[str, Any]:
    """A call in which the child asks this, and remembers nothing."""
    return tool("ask", questions=questions)


@proves("C81")
@pytest.mark.parametrize(
    ("requested", "agreed"),
    [
        *[(each, each) for each in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")],
        (MODERN, "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ],
)
async def test_initialize_is_answered_from_what_the_child_says_of_itself(
    served: Served, requested: str, agreed: str
) -> None:
    """A revision of the handshake, never a modern one; no extension that is lost."""
    async with served.bridge.client() as client:
        answer = await client.post("/mcp", json=initialize(7, requested))
    said = answer.json()
    assert (said["id"], answer.headers["mcp-session-id"] != "") == (7, True)
    result = said["result"]
    assert result.pop("serverInfo")["name"] == "modern"
    assert result == {
        "protocolVersion": agreed,
        "capabilities": {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"subscribe": True},
            "logging": {},
            "extensions": {"example/other": {}},
        },
        "instructions": "ask me",
    }
    assert served.heard("initialize") == []


@proves("C82", "C85")
async def test_each_request_has_its_envelope(served: Served, mcp_session: McpSession) -> None:
    """Revision, capabilities and name of the client; its own keys stay."""
    given = {"_meta": {"own": [1]}, "deep": {"n": 1.50}}
    echo = (await answered(mcp_session, "x/echo", given))["echo"]
    assert echo["deep"] == {"n": 1.5}
    assert echo["_meta"].pop(KEY + "clientInfo") == {"name": "test", "version": "1"}
    assert echo["_meta"].pop(KEY + "clientCapabilities") == ASKED
    assert echo["_meta"] == {"own": [1], KEY + "protocolVersion": MODERN}


@proves("C82")
async def test_results_are_plain(mcp_session: McpSession) -> None:
    """Nothing that only 2026-07-28 knows; what is the child's own stays."""
    result = await answered(mcp_session, CALL, tool("echo", a=[1, "\u2028"]))
    assert result == {
        "content": [{"type": "text", "text": json.dumps({"a": [1, "\u2028"]})}],
        "_meta": {"own": 1},
    }
    assert set(await answered(mcp_session, "tools/list")) == {"tools", "_meta"}


async def test_progress_comes_under_the_clients_own_token(mcp_session: McpSession) -> None:
    """The child has another number for it."""
    params = {**tool("progress", steps=3), "_meta": {"progressToken": "mine"}}
    *steps, last = await called(mcp_session, CALL, params)
    assert [step["params"]["progress"] for step in steps] == [0, 1, 2]
    assert {step["params"]["progressToken"] for step in steps} == {"mine"}
    assert text_in(last["result"]) is True


@proves("C82")
async def test_a_question_is_a_request_and_its_answer_goes_into_a_retry(
    served: Served, mcp_session: McpSession, request: pytest.FixtureRequest
) -> None:
    """Same parameters, a new id, the state byte for byte."""
    state = 's\u2028/+= \\" ' + request.node.name
    params = {**tool("ask", questions={"q": SAMPLE}, state=state), "_meta": {"own": 2}}
    given = {"role": "assistant", "content": {"type": "text", "text": "\u2028"}, "model": "m"}
    asked, last = await called(mcp_session, CALL, params, [given])
    assert (asked["method"], asked["params"]) == (SAMPLE["method"], SAMPLE["params"])
    assert text_in(last["result"]) == {"responses": {"q": given}, "state": state}
    calls = [each for each in served.heard(CALL) if each["params"]["arguments"].get("state")]
    first, second = (each for each in calls if each["params"]["arguments"]["state"] == state)
    assert first["id"] != second["id"]
    added = {"inputResponses": {"q": given}, "requestState": state}
    assert second["params"] == {**first["params"], **added}


@proves("C82")
async def test_no_state_stays_no_state(served: Served, newest: McpSession) -> None:
    """A retry does not invent one."""
    _, last = await called(newest, CALL, asks(q=FORM), [YES])
    assert text_in(last["result"]) == {"responses": {"q": YES}, "state": None}
    assert "requestState" not in served.heard(CALL)[-1]["params"]


@proves("C82")
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_refusal_of_the_user_is_a_value(newest: McpSession, action: str) -> None:
    """The child decides what it means."""
    _, last = await called(newest, CALL, asks(q=FORM), [{"action": action}])
    assert text_in(last["result"])["responses"] == {"q": {"action": action}}


@proves("C82")
async def test_several_questions_are_answered_in_any_order(newest: McpSession) -> None:
    """The call goes on once the last answer is there."""
    request = rpc("many", CALL, asks(a=FORM, b=SAMPLE, c=ROOTS))
    async with newest.calling(request) as following:
        asked = [await following() for _ in range(3)]
        assert len({each["id"] for each in asked}) == 3
        for each in reversed(asked):
            result = {"said to": each["method"]}
            await newest.send({"jsonrpc": "2.0", "id": each["id"], "result": result})
        last = await following()
    assert text_in(last["result"])["responses"] == {
        "a": {"said to": "elicitation/create"},
        "b": {"said to": "sampling/createMessage"},
        "c": {"said to": "roots/list"},
    }


async def test_a_page_to_visit_gets_an_id(newest: McpSession) -> None:
    """2025-11-25 wants one, no client can guess it, and no two are alike."""
    ids = []
    for _ in range(2):
        asked, _ = await called(newest, CALL, asks(q=PAGE), [{"action": "accept"}])
        ids.append(asked["params"].pop("elicitationId"))
        assert asked["params"] == PAGE["params"]
    assert len(set(ids)) == 2
    assert all(len(each) >= 20 for each in ids)


@proves("C82")
async def test_other_requests_may_be_interrupted_too(newest: McpSession) -> None:
    """`prompts/get` asks as tools do; what may not ask fails."""
    _, last = await called(newest, "prompts/get", {"name": "p"}, [YES])
    assert json.loads(last["result"]["messages"][0]["content"]["text"]) == {"who": YES}
    (failed,) = await called(newest, "x/asks")
    assert failed["error"]["code"] == ENDED


@proves("C82")
async def test_ten_rounds_and_no_more(newest: McpSession) -> None:
    """As many as clients of 2026-07-28 go."""
    *_, last = await called(newest, CALL, tool("rounds", count=10), [YES] * 10)
    assert text_in(last["result"]) == 10
    *asked, last = await called(newest, CALL, tool("rounds", count=11), [YES] * 10)
    assert (len(asked), last["error"]["code"]) == (10, ENDED)


@proves("C82")
async def test_a_child_that_only_wants_time_is_asked_again(newest: McpSession) -> None:
    """State and no question: no client is asked, no responses are made up."""
    (last,) = await called(newest, CALL, tool("again", count=2))
    assert text_in(last["result"]) == {"passed": 2, "responses": None}


@proves("C82")
async def test_an_error_of_the_client_fails_its_call(served: Served, newest: McpSession) -> None:
    """No answer is made up; the other question is withdrawn before the stream ends."""
    before = len(served.heard(CALL))
    request = rpc("fails", CALL, asks(a=FORM, b=SAMPLE))
    async with newest.calling(request) as following:
        first, second = await following(), await following()
        error = {"code": -1, "message": "no user"}
        await newest.send({"jsonrpc": "2.0", "id": first["id"], "error": error})
        withdrawn, last = await following(), await following()
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == second["id"]
    assert (last["id"], last["error"]["code"]) == ("fails", ENDED)
    assert len(served.heard(CALL)) == before + 1


@proves("C82")
@pytest.mark.parametrize("count", [1, 3])
async def test_a_call_that_is_cancelled_withdraws_its_questions(
    served: Served, newest: McpSession, count: int
) -> None:
    """Nothing is in flight at the child: it hears nothing; the client's stream ends."""
    before = len(served.heard(CALL)), len(served.heard("notifications/cancelled"))
    questions = {f"q{number}": FORM for number in range(count)}
    async with newest.calling(rpc("gone", CALL, asks(**questions))) as following:
        asked = [(await following())["id"] for _ in range(count)]
        told = {"method": "notifications/cancelled", "params": {"requestId": "gone"}}
        await newest.send({"jsonrpc": "2.0", **told})
        withdrawn = [await following() for _ in range(count)]
        last = await following()
    assert [each["params"]["requestId"] for each in withdrawn] == asked
    assert last["id"] == "gone"
    assert "could not answer" not in last["error"]["message"]
    # An answer that comes too late belongs to no call.
    await newest.send({"jsonrpc": "2.0", "id": asked[0], "result": YES})
    await answered(newest, "ping")
    assert (len(served.heard(CALL)), len(served.heard("notifications/cancelled"))) == (
        before[0] + 1,
        before[1],
    )


async def test_a_call_that_runs_is_cancelled_at_the_child(
    served: Served, newest: McpSession
) -> None:
    """Under the number that the child knows it by."""
    async with newest.calling(rpc("held", CALL, tool("hold"))) as following:
        await eventually(
            lambda: served.heard(CALL)[-1]["params"]["name"] == "hold", "the call is there"
        )
        number = served.heard(CALL)[-1]["id"]
        told = {"method": "notifications/cancelled", "params": {"requestId": "held"}}
        await newest.send({"jsonrpc": "2.0", **told})
        last = await following()
    assert (last["id"], "error" in last) == ("held", True)
    assert served.heard("notifications/cancelled")[-1]["params"]["requestId"] == number
    assert text_in(await answered(newest, CALL, tool("release"))) == 0


@proves("C85")
async def test_what_a_client_does_not_offer_is_neither_declared_nor_asked(served: Served) -> None:
    """The envelope lacks it; a child that asks all the same fails the call."""
    async with streamable(
        served.bridge, "2025-11-25", {"roots": {"listChanged": True}}
    ) as mcp_session:
        echo = (await answered(mcp_session, "x/echo"))["echo"]
        assert echo["_meta"][KEY + "clientCapabilities"] == {"roots": {}}
        (last,) = await called(mcp_session, CALL, asks(q=FORM))
        assert last["error"]["code"] == ENDED
        _, last = await called(mcp_session, CALL, asks(q=ROOTS), [{"roots": []}])
        assert text_in(last["result"])["responses"] == {"q": {"roots": []}}


@proves("C82")
@pytest.mark.parametrize(
    ("revision", "question"), [("2025-03-26", FORM), ("2025-06-18", PAGE)], ids=["form", "page"]
)
async def test_what_a_revision_does_not_know_is_not_asked(
    served: Served, revision: str, question: Any
) -> None:
    """Elicitation came with 2025-06-18, pages to visit with 2025-11-25."""
    async with streamable(served.bridge, revision, ASKED) as mcp_session:
        (last,) = await called(mcp_session, CALL, asks(q=question))
    assert last["error"]["code"] == ENDED


@proves("C83")
async def test_a_log_level_is_kept_and_sent_with_each_request(
    served: Served, mcp_session: McpSession
) -> None:
    """Checked here; the child never gets `logging/setLevel`."""
    levels = ["debug", "warning", "alert"]
    silent = text_in(await answered(mcp_session, CALL, tool("log", levels=levels)))
    assert silent is None
    (bad,) = await called(mcp_session, "logging/setLevel", {"level": "loud"})
    assert bad["error"]["code"] == -32602
    assert await answered(mcp_session, "logging/setLevel", {"level": "warning"}) == {}
    *told, last = await called(mcp_session, CALL, tool("log", levels=levels))
    assert [each["params"]["data"] for each in told] == ["warning", "alert"]
    assert text_in(last["result"]) == "warning"
    assert served.heard("logging/setLevel") == []


@proves("C83")
async def test_ping_and_tasks_are_answered_here(served: Served, mcp_session: McpSession) -> None:
    """The child has neither."""
    assert await answered(mcp_session, "ping") == {}
    (last,) = await called(mcp_session, "tasks/get", {"taskId": "1"})
    assert last["error"]["code"] == -32601
    assert (served.heard("ping"), served.heard("tasks/get")) == ([], [])


@proves("C83")
async def test_notifications_that_the_child_would_not_know_are_swallowed(
    served: Served, mcp_session: McpSession
) -> None:
    """A change of roots, progress of the client: 2026-07-28 has neither."""
    for method in ("roots/list_changed", "progress"):
        told = {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": {}}
        await mcp_session.send(told)
    await answered(mcp_session, CALL, tool("echo"))
    assert served.heard("notifications/roots/list_changed") == []
    assert served.heard("notifications/progress") == []
    assert served.heard("notifications/initialized") == []


@proves("C83")
async def test_a_session_hears_of_changes_and_of_what_it_subscribed(
    served: Served, mcp_session: McpSession
) -> None:
    """A listen is renewed before the old one ends; tags are the child's affair."""
    uri, other = f"file:///{id(mcp_session)}", f"file:///{id(mcp_session)}/other"
    async with mcp_session.listening() as told:
        for each in (uri, other):
            assert await answered(mcp_session, "resources/subscribe", {"uri": each}) == {}
        assert {uri, other} <= set(served.listens()[-1]["resourceSubscriptions"])
        assert served.listens()[-1]["toolsListChanged"] is True
        async with streamable(served.bridge) as someone:
            await answered(someone, CALL, tool("change", lists=["tools"], uris=[uri, other]))
        found = await until(told, lambda each: each.get("params", {}).get("uri") == other)
        mine = [each for each in found if "id" not in each]
        assert [each["method"] for each in mine if "uri" not in each.get("params", {})] == [
            "notifications/tools/list_changed"
        ]
        assert [each["params"] for each in mine if "uri" in each.get("params", {})] == [
            {"uri": uri},
            {"uri": other},
        ]
        assert await answered(mcp_session, "resources/unsubscribe", {"uri": uri}) == {}
        assert served.listens()[-1]["resourceSubscriptions"] == [other]
        async with streamable(served.bridge) as someone:
            await answered(someone, CALL, tool("change", uris=[uri, other]))
        (heard,) = await until(told, lambda each: "uri" in each.get("params", {}))
        assert heard["params"] == {"uri": other}
        assert await answered(mcp_session, "resources/unsubscribe", {"uri": other}) == {}
        assert "resourceSubscriptions" not in served.listens()[-1]


@proves("C83")
async def test_a_resource_that_the_child_does_not_grant_is_an_error(
    served: Served, mcp_session: McpSession
) -> None:
    """What was granted before stays."""
    good = f"file:///{id(mcp_session)}/good"
    assert await answered(mcp_session, "resources/subscribe", {"uri": good}) == {}
    (last,) = await called(mcp_session, "resources/subscribe", {"uri": "file:///bad"})
    assert last["error"]["code"] == -32602
    async with mcp_session.listening() as told, streamable(served.bridge) as someone:
        await answered(someone, CALL, tool("change", uris=[good]))
        await until(told, lambda each: each.get("params", {}).get("uri") == good)
    await answered(mcp_session, "resources/unsubscribe", {"uri": good})


@proves("C83")
async def test_no_event_is_lost_while_a_listen_is_renewed(served: Served) -> None:
    """One resource changes on and on while others are subscribed and left."""
    async with AsyncExitStack() as stack:
        mcp_session = await stack.enter_async_context(streamable(served.bridge))
        someone = await stack.enter_async_context(streamable(served.bridge))
        told = await stack.enter_async_context(mcp_session.listening())
        await answered(mcp_session, "resources/subscribe", {"uri": "file:///kept"})

        async def edit() -> None:
            for number in range(10):
                uri = {"uri": f"file:///{number}"}
                await answered(mcp_session, "resources/subscribe", uri)
                await answered(mcp_session, "resources/unsubscribe", uri)

        editing = asyncio.create_task(edit())
        rounds = 0
        while not editing.done() or rounds < 10:
            rounds += 1
            await answered(someone, CALL, tool("change", uris=["file:///kept"]))
            found = await until(told, lambda each: "uri" in each.get("params", {}))
            assert found[-1]["params"] == {"uri": "file:///kept"}
        await editing


@proves("C55", "C83")
@pytest.mark.parametrize("by", ["result", "cancellation"])
async def test_a_listen_that_the_child_ends_is_opened_again(served: Served, by: str) -> None:
    """It may end one by either; what was subscribed is subscribed again."""
    uri = f"file:///{by}"
    async with streamable(served.bridge) as mcp_session, mcp_session.listening() as told:
        await answered(mcp_session, "resources/subscribe", {"uri": uri})
        before = len(served.listens())
        assert text_in(await answered(mcp_session, CALL, tool("end", by=by))) >= 1
        await eventually(lambda: len(served.listens()) > before, "another listen")
        await until(told, lambda each: each["method"] == "notifications/tools/list_changed")
        await answered(mcp_session, CALL, tool("change", uris=[uri]))
        await until(told, lambda each: each.get("params", {}).get("uri") == uri)


@proves("C40", "C55")
@pytest.mark.parametrize("by", ["result", "cancellation"])
async def test_a_subscription_that_the_child_ends_ends_with_a_result(
    served: Served, by: str
) -> None:
    """For a client of 2026-07-28, on whose stream no cancellation may come."""
    async with enveloped(served.bridge) as mcp_session, mcp_session.listening() as told:
        async with streamable(served.bridge) as someone:
            await answered(someone, CALL, tool("end", by=by))
        last = await told()
        assert last["id"] == "listen"
        assert last["result"]["resultType"] == "complete"
        assert await told() is None


@proves("C84")
async def test_values_that_are_no_objects_are_wrapped_with_their_schema(
    mcp_session: McpSession,
) -> None:
    """Schema and value agree, and there is a text; objects stay as they are."""
    tools = {each["name"]: each for each in (await answered(mcp_session, "tools/list"))["tools"]}
    array = {"type": "array", "items": {"type": "integer"}}
    assert tools["list"]["outputSchema"] == {
        "type": "object",
        "properties": {"result": array},
        "required": ["result"],
    }
    assert tools["record"]["outputSchema"]["properties"] == {"n": {"type": "integer"}}
    assert "outputSchema" not in tools["echo"]
    result = await answered(mcp_session, CALL, tool("list"))
    assert result["structuredContent"] == {"result": [1, 2]}
    assert json.loads(result["content"][0]["text"]) == [1, 2]
    result = await answered(mcp_session, CALL, tool("record"))
    assert result["structuredContent"] == {"n": 1}
    assert len(result["content"]) == 1


@proves("C84")
async def test_errors_about_the_envelope_are_not_the_clients(newest: McpSession) -> None:
    """They are of the bridge's making; others pass."""
    for code, shown in ((-32020, ENDED), (-32021, ENDED), (-32022, ENDED), (-32602, -32602)):
        error = {"code": code, "message": "m", "data": {"d": 1}}
        (last,) = await called(newest, CALL, tool("fail", error=error))
        assert last["error"]["code"] == shown
        data = last["error"]["data"]
        assert data == {"d": 1} or data["original"] == error or "mcpbridge" in data, data


@pytest.mark.parametrize("kind", ["task", "x/unheard"])
async def test_a_result_of_another_kind_is_an_error(newest: McpSession, kind: str) -> None:
    """It was not asked for."""
    (last,) = await called(newest, CALL, tool("odd", kind=kind))
    assert last["error"]["code"] == ENDED


async def test_big_results_pass(newest: McpSession) -> None:
    """Two megabytes."""
    result = await answered(newest, CALL, tool("big", bytes=2_000_000))
    assert len(result["content"][0]["text"]) == 2_000_000


@proves("C82", "C83", "C85")
async def test_two_sessions_share_the_child_and_nothing_else(served: Served) -> None:
    """The same ids, other levels, other abilities, each its own question."""
    async with streamable(served.bridge, "2025-11-25", ASKED) as one, AsyncExitStack() as stack:
        two = await stack.enter_async_context(
            one_stream(served.bridge, "2025-11-25", {"sampling": {}})
        )
        await answered(one, "logging/setLevel", {"level": "error"})
        await answered(two, "logging/setLevel", {"level": "debug"})
        first = await stack.enter_async_context(one.calling(rpc(1, CALL, asks(q=FORM))))
        second = await stack.enter_async_context(two.calling(rpc(1, CALL, asks(q=SAMPLE))))
        for mcp_session, following, answer in ((two, second, {"model": "b"}), (one, first, YES)):
            asked = await following()
            await mcp_session.send({"jsonrpc": "2.0", "id": asked["id"], "result": answer})
            last = await following()
            assert (last["id"], text_in(last["result"])["responses"]) == (1, {"q": answer})
    metas = [each["params"]["_meta"] for each in served.heard(CALL)[-4:]]
    assert {meta[KEY + "logLevel"] for meta in metas} == {"error", "debug"}
    assert {json.dumps(meta[KEY + "clientCapabilities"]) for meta in metas} == {
        json.dumps(ASKED),
        '{"sampling": {}}',
    }


@proves("C82", "C83")
async def test_the_child_dies_and_the_session_goes_on(tmp_path: Path) -> None:
    """A call in flight fails, a question is still answered, the listen is opened again.

    What a question rests on is in `requestState`: the next process takes the answer.
    """
    async with (
        serving(tmp_path) as served,
        streamable(served.bridge, "2025-11-25", ASKED) as mcp_session,
    ):
        await answered(mcp_session, "resources/subscribe", {"uri": "file:///r"})
        async with (
            mcp_session.listening() as told,
            mcp_session.calling(rpc("held", CALL, tool("hold"))) as held,
            mcp_session.calling(rpc("asked", CALL, asks(q=FORM))) as asked,
        ):
            question = await asked()
            (last,) = await called(mcp_session, CALL, tool("die"))
            assert last["error"]["code"] == ENDED
            assert (await held())["error"]["data"]["mcpbridge"]
            await mcp_session.send({"jsonrpc": "2.0", "id": question["id"], "result": YES})
            assert text_in((await asked())["result"])["responses"] == {"q": YES}
            changed = {"tools", "prompts"}
            while changed:
                method = (await told())["method"]
                changed.discard(method.split("/")[1])
            assert len(list(tmp_path.iterdir())) == 2
            assert served.listens()[-1] == {
                "toolsListChanged": True,
                "promptsListChanged": True,
                "resourceSubscriptions": ["file:///r"],
            }
            await answered(mcp_session, CALL, tool("change", uris=["file:///r"]))
            await until(told, lambda each: "uri" in each.get("params", {}))


@proves("C81")
async def test_a_child_without_a_name_gets_one(tmp_path: Path) -> None:
    """Legacy clients insist on both; a child without lists is listened to all the same."""
    async with serving(tmp_path, "--nameless", "--no-lists") as served:
        async with served.bridge.client() as client:
            answer = await client.post("/mcp", json=initialize(1))
        info = answer.json()["result"]["serverInfo"]
        assert info["name"]
        assert info["version"]
        async with streamable(served.bridge) as mcp_session:
            assert isinstance(mcp_session, Streamable)
            assert await answered(mcp_session, "resources/subscribe", {"uri": "file:///x"}) == {}
            assert served.listens()[-1] == {"resourceSubscriptions": ["file:///x"]}
