"""The child asks its client: who is asked, on which stream, and who may answer.

A questioner's call `x/ask` says lines and is answered with what its client answered, so that one
result tells what reached the child.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import rpc
from tests.support.proofs import proves
from tests.support.questioner_bridge import (
    Headers,
    Served,
    note,
    question,
    reading,
    result_of,
    serving,
)
from tests.support.raw_http import streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

YES = {"action": "accept", "content": {"n": 1}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sampling": ("sampling/createMessage", {"messages": [], "maxTokens": 5}),
    "form": ("elicitation/create", {"message": "?", "requestedSchema": {"type": "object"}}),
    "url": (
        "elicitation/create",
        {"mode": "url", "message": "?", "url": "https://x.example", "elicitationId": "e-1"},
    ),
    "roots": ("roots/list", {"_meta": {"x": "\u2028"}}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that waits long for a first word."""
    async with serving(tmp_path_factory.mktemp("record"), "--json-window", "60s") as some:
        yield some


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge whose questions do not wait long for a stream."""
    folder = tmp_path_factory.mktemp("record")
    async with serving(folder, "--json-window", "0", "--question-timeout", "150ms") as some:
        yield some


def asking(request_id: Any, *lines: str, answers: int = 1) -> dict[str, Any]:
    """A call in which the child asks and waits for that many answers."""
    return rpc(request_id, "x/ask", {"lines": lines, "answers": answers})


@asynccontextmanager
async def held(
    served: Served, session: Headers, request_id: Any, name: str
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A call that the child holds, under a name that no other test uses."""
    message = rpc(request_id, "x/hold", {"name": name})
    call = asyncio.create_task(served.post(session, message))
    await served.until_heard(f'"name":"{name}"')
    try:
        yield call
    finally:
        call.cancel()


async def declined(served: Served, session: Headers, *lines: str) -> Any:
    """What the child is answered by the bridge, while its client hears nothing."""
    answer = await served.post(session, asking("declined", *lines))
    assert answer.headers["content-type"] == "application/json", answer.text
    (reply,) = answer.json()["result"]["answers"]
    return reply


@proves("fault 43", "C15")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_is_on_the_stream_of_the_only_call(served: Served, kind: str) -> None:
    """As the child put it; the answer gets to the child as the client gave it."""
    session = await served.own("2025-11-25")
    method, params = KINDS[kind]
    answer = {**YES, "big": 2**53 + 1, "extra": ["\u2028", None]}
    async with (
        streaming(served.client, session) as listening,
        streaming(served.client, session, asking(1, question(0, method, **params))) as calling,
    ):
        asked = await calling.next()
        assert (asked["method"], asked["params"]) == (method, params)
        await served.reply(session, asked["id"], answer)
        assert await calling.rest() == [result_of(1, {"answers": [result_of(0, answer)]})]
        await served.delete(session)
        assert await listening.rest() == []


@proves("C15")
@pytest.mark.parametrize("child_id", [0, 1, -7, 2**53 + 1, "", "0", "q\u2028\n"], ids=repr)
async def test_the_child_hears_the_answer_under_its_own_id(served: Served, child_id: Any) -> None:
    """Whatever it is; towards the client it is a number of the bridge's own."""
    session = await served.own()
    async with streaming(served.client, session, asking("c", question(child_id))) as calling:
        asked = await calling.next()
        assert isinstance(asked["id"], int)
        error = {"code": -1, "message": "user left", "data": {"why": [1]}}
        body = {"jsonrpc": "2.0", "id": asked["id"], "error": error}
        assert (await served.post(session, body)).status_code == 202
        (end,) = await calling.rest()
    (reply,) = end["result"]["answers"]
    assert reply == {"jsonrpc": "2.0", "id": child_id, "error": error}
    assert type(reply["id"]) is type(child_id)
    await served.delete(session)


@proves("C15")
async def test_questions_of_one_call_are_told_apart(served: Served) -> None:
    """Several at once, answered in another order, each under its id."""
    session = await served.own()
    lines = [question(number) for number in range(3)]
    async with streaming(served.client, session, asking(1, *lines, answers=3)) as calling:
        ids = [(await calling.next())["id"] for _ in lines]
        assert len(set(ids)) == 3
        for number in (2, 0, 1):
            await served.reply(session, ids[number], {"n": number})
        (end,) = await calling.rest()
    assert end["result"]["answers"] == [result_of(n, {"n": n}) for n in (2, 0, 1)]
    await served.delete(session)


@proves("fault 95", "C16")
async def test_nobody_else_answers_for_a_client(served: Served) -> None:
    """Another session, no session, an unknown id, a second answer."""
    mine, theirs, shared = await served.own(), await served.own(), await served.open()
    async with (
        streaming(served.client, mine, asking(1, question(0))) as calling,
        streaming(served.client, theirs, asking(1, question(0))) as other,
    ):
        asked, elsewhere = await calling.next(), await other.next()
        assert asked["id"] != elsewhere["id"]
        forged = {"forged": True}
        for stranger in (theirs, shared):
            await served.reply(stranger, asked["id"], forged)
        answer = await served.post({}, result_of(asked["id"], forged))
        assert answer.status_code == 400
        for unknown in (0, asked["id"] + 1000, "x", -asked["id"], ""):
            await served.reply(mine, unknown, forged)
        await served.ask(mine, "x/echo")
        await served.reply(mine, asked["id"], {"true": 1})
        await served.reply(mine, asked["id"], forged)
        await served.reply(theirs, elsewhere["id"], {"true": 2})
        for stream, right in ((calling, 1), (other, 2)):
            (end,) = await stream.rest()
            assert end["result"]["answers"] == [result_of(0, {"true": right})]
        await served.ask(mine, "x/echo")
        await served.ask(theirs, "x/echo")
    assert not [each for each in served.heard() if each.get("result") == forged]
    for session in (mine, theirs, shared):
        await served.delete(session)


@proves("C15")
async def test_with_no_call_in_flight_the_listener_is_asked(served: Served) -> None:
    """And answers, though the question came on another stream than any call of its."""
    session = await served.own()
    async with streaming(served.client, session) as listening:
        await served.say(session, question("alone"))
        asked = await listening.next()
        await served.reply(session, asked["id"], {"at": "listener"})
        await served.until_heard('"at":"listener"')
        assert result_of("alone", {"at": "listener"}) in served.heard()
        await served.delete(session)


@proves("fault 43", "C15")
async def test_with_several_calls_the_listener_is_asked_else_the_latest_call(
    served: Served,
) -> None:
    """The table: two calls in flight, with and without a client that listens."""
    session = await served.own()
    async with held(served, session, 1, "older") as older:
        async with streaming(served.client, session) as listening:
            message = asking(2, question("q"))
            latest = asyncio.create_task(served.post(session, message))
            asked = await listening.next()
            await served.reply(session, asked["id"], {"by": "listener"})
            assert (await latest).json()["result"]["answers"] == [
                result_of("q", {"by": "listener"})
            ]
        await served.turns()
        async with streaming(served.client, session, asking(3, question("q"))) as calling:
            asked = await calling.next()
            await served.reply(session, asked["id"], {"by": "latest"})
            (end,) = await calling.rest()
            assert end["result"]["answers"] == [result_of("q", {"by": "latest"})]
        await served.ask(session, "x/release", name="older")
        assert (await older).json() == result_of(1, {"held": "older"})
    await served.delete(session)


@proves("fault 43", "C15")
@pytest.mark.parametrize(
    ("abilities", "method"),
    [
        ({"elicitation": {}}, "sampling/createMessage"),
        ({"elicitation": {}}, "roots/list"),
        ({"roots": {}, "sampling": {}}, "elicitation/create"),
    ],
)
async def test_a_client_is_not_asked_for_what_it_does_not_offer(
    served: Served, abilities: Any, method: str
) -> None:
    """The child is told at once, under its id, that there is no such method."""
    session = await served.open(**abilities)
    async with streaming(served.client, session) as listening:
        reply = await declined(served, session, question("no", method))
        assert (reply["id"], reply["error"]["code"]) == ("no", -32601)
        await served.delete(session)
        assert await listening.rest() == []


@proves("fault 44")
async def test_a_shared_child_cannot_ask_anybody(served: Served) -> None:
    """Not even the only caller."""
    session = await served.open()
    for headers in (session, {}):
        reply = await declined(served, headers, question(0, "roots/list"))
        assert (reply["id"], reply["error"]["code"]) == (0, -32601)
    await served.delete(session)


@proves("C79")
async def test_a_question_of_an_unknown_kind_passes(served: Served) -> None:
    """The child's own extensions reach its client, and the answers it."""
    session = await served.own()
    line = question(5, "x/what", deep=[{"a": None}])
    async with streaming(served.client, session, asking(1, line)) as calling:
        asked = await calling.next()
        assert (asked["method"], asked["params"]) == ("x/what", {"deep": [{"a": None}]})
        await served.reply(session, asked["id"], [1, 2])
        (end,) = await calling.rest()
        assert end["result"]["answers"] == [result_of(5, [1, 2])]
    await served.delete(session)


@proves("C73")
async def test_ping_of_the_child_is_answered_without_its_client(served: Served) -> None:
    """With no client there to hear it, also with id 0."""
    session = await served.own()
    deaf = {**session, "accept": "application/json"}
    assert await declined(served, deaf, question(0, "ping")) == result_of(0, {})
    async with streaming(served.client, session) as listening:
        await served.delete(session)
        assert await listening.rest() == []


@proves("C15")
async def test_a_question_may_be_taken_back(served: Served) -> None:
    """The client hears so on the stream where it was asked; its late answer is dropped."""
    session = await served.own()
    async with (
        streaming(served.client, session) as listening,
        streaming(served.client, session, asking(1, question("back"))) as calling,
    ):
        asked = await calling.next()
        back = note("cancelled", requestId="back", reason="enough", extra=1)
        await served.tell(session, "x-say", lines=[back, question("next")])
        withdrawn, following = await calling.next(), await calling.next()
        assert withdrawn["method"] == "notifications/cancelled"
        assert withdrawn["params"] == {"requestId": asked["id"], "reason": "enough", "extra": 1}
        await served.reply(session, asked["id"], {"late": True})
        await served.reply(session, following["id"], {"good": True})
        (end,) = await calling.rest()
        assert end["result"]["answers"] == [result_of("next", {"good": True})]
        await served.tell(session, "x-say", lines=[note("cancelled", requestId="never")])
        await served.delete(session)
        assert await listening.rest() == []


@proves("C76")
async def test_the_question_of_a_cancelled_call_is_asked_no_more(served: Served) -> None:
    """The client is told on the call's stream; the child gets an error for it."""
    session = await served.own()
    async with streaming(served.client, session, asking(1, question("nested"))) as calling:
        asked = await calling.next()
        await served.tell(session, "cancelled", requestId=1, reason="leaves")
        told = await calling.next()
        assert (told["method"], told["params"]["requestId"]) == (
            "notifications/cancelled",
            asked["id"],
        )
        (end,) = await calling.rest()
        (reply,) = end["result"]["answers"]
        assert (reply["id"], reply["error"]["code"]) == ("nested", -32601)
    await served.until_heard('"reason":"leaves"')
    await served.delete(session)


@proves("C15", "C64")
async def test_a_question_that_was_lost_on_its_way_is_asked_again_on_resume(
    served: Served,
) -> None:
    """With the same id, and only to a client that resumes: no client sees two dialogs unasked."""
    session = await served.own("2025-11-25")
    async with reading(served.client, session, asking(1, question(0))) as broken:
        primer, first = await broken.some(2)
    async with reading(served.client, session) as listening:
        async with reading(served.client, session, after=primer.id) as resumed:
            _, again = await resumed.some(2)
            assert (again.id, again.message) == (first.id, first.message)
            await served.reply(session, again.message["id"], YES)
            (end,) = await resumed.rest()
            assert end.message["result"]["answers"] == [result_of(0, YES)]
        await served.delete(session)
        assert len(await listening.rest()) == 1, "its first event alone"


@proves("fault 5")
async def test_open_questions_end_with_the_child(served: Served) -> None:
    """The call gets its error, the listener hears which question is off."""
    session = await served.own()
    async with (
        streaming(served.client, session) as listening,
        streaming(served.client, session, asking(1, question(0))) as calling,
    ):
        asked = await calling.next()
        await served.post(session, rpc(2, "x/die"))
        (end,) = await calling.rest()
        assert end["error"]["data"]["mcpbridge"]["reason"] == "child_exited"
        off = await listening.next()
        assert (off["method"], off["params"]["requestId"]) == (
            "notifications/cancelled",
            asked["id"],
        )
        await served.reply(session, asked["id"], {"to": "the dead"})
        assert await served.ask(session, "x/echo", n=1) == {"n": 1}
    assert not [each for each in served.heard() if each.get("result") == {"to": "the dead"}]
    await served.delete(session)


@proves("fault 43")
async def test_open_questions_of_a_session_are_bounded(served: Served) -> None:
    """64 are put to the client, what is over is declined at once, under its id."""
    session = await served.own()
    lines = [question(number) for number in range(70)]
    async with streaming(served.client, session, asking(1, *lines, answers=6)) as calling:
        found = await calling.rest()
    assert [message["method"] for message in found[:-1]] == ["elicitation/create"] * 64
    replies = found[-1]["result"]["answers"]
    assert [reply["id"] for reply in replies] == list(range(64, 70))
    assert {reply["error"]["code"] for reply in replies} == {-32601}
    async with streaming(served.client, session, asking(2, question("more"), answers=2)) as calling:
        asked = await calling.next()
        assert asked["method"] == "elicitation/create", "one whose call is over makes room"
        await served.reply(session, asked["id"], YES)
        (end,) = await calling.rest()
        given_up, answered = end["result"]["answers"]
        assert (given_up["id"], given_up["error"]["code"]) == (0, -32601)
        assert answered == result_of("more", YES)
    await served.delete(session)


@proves("C74")
@pytest.mark.slow
async def test_a_client_without_streams_is_not_waited_for(impatient: Served) -> None:
    """The child gets an error when the time is up, and the client its answer."""
    session = await impatient.own()
    deaf = {**session, "accept": "application/json"}
    answer = await impatient.post(deaf, asking(1, question("deaf")))
    (reply,) = answer.json()["result"]["answers"]
    assert reply["id"] == "deaf"
    assert reply["error"]["data"]["mcpbridge"]["reason"] == "question_undelivered"
    async with streaming(impatient.client, session) as listening:
        await impatient.say(session, note("tools/list_changed"))
        said = await listening.next()
        assert said["method"] == "notifications/tools/list_changed", "it is asked no more"
        await impatient.delete(session)
        assert await listening.rest() == []


@proves("fault 43", "C74")
async def test_a_question_waits_for_a_stream_that_comes_in_time(served: Served) -> None:
    """Queued while no client listens, asked as soon as one does."""
    session = await served.own()
    deaf = {**session, "accept": "application/json"}
    call = asyncio.create_task(served.post(deaf, asking(1, question("queued-q"))))
    await served.until_heard("queued-q")
    async with streaming(served.client, session) as listening:
        asked = await listening.next()
        await served.reply(session, asked["id"], YES)
        assert (await call).json() == result_of(1, {"answers": [result_of("queued-q", YES)]})
        await served.delete(session)
        assert await listening.rest() == []


@proves("C74")
@pytest.mark.slow
async def test_once_delivered_a_question_has_time(impatient: Served) -> None:
    """A person may be at the other end: the time limit is for the delivery alone."""
    session = await impatient.own()
    async with streaming(impatient.client, session) as listening:
        await impatient.say(session, question("slow"))
        asked = await listening.next()
        # Another question, which no client hears, runs into the limit.
        other = await impatient.own()
        deaf = {**other, "accept": "application/json"}
        answer = await impatient.post(deaf, asking(1, question("deaf")))
        assert "question_undelivered" in answer.text
        await impatient.reply(session, asked["id"], {"took": "long"})
        await impatient.until_heard('"took":"long"')
    for each in (session, other):
        await impatient.delete(each)
