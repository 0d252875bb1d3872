"""Batches: all the answers where 2025-03-26 was negotiated, refused everywhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import initialize, messages, rpc
from tests.support.proofs import proves
from tests.support.questioner_bridge import Headers, Served, question, reading, result_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCHING = "2025-03-26"
TOLD = {"jsonrpc": "2.0", "method": "notifications/x-told", "params": {}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that waits long for a first word."""
    async with serving(tmp_path_factory.mktemp("record"), "--json-window", "60s") as some:
        yield some


def echo(request_id: Any) -> dict[str, Any]:
    """A call that gets its own id back as a result."""
    return rpc(request_id, "x/echo", {"of": request_id})


def by_id(answers: list[Any]) -> dict[str, Any]:
    """Answers by the text of their id."""
    found = {json.dumps(answer["id"]): answer for answer in answers}
    assert len(found) == len(answers), "each id is answered once"
    return found


async def refusal(served: Served, headers: Headers, body: Any) -> Any:
    """The error of a batch that is refused, of which the child hears nothing."""
    await served.ask(headers, "x/echo")
    before = len(served.heard())
    answer = await served.post(headers, body)
    assert answer.status_code == 400, answer.text
    assert "mcp-session-id" not in answer.headers
    await served.ask(headers, "x/echo")
    assert len(served.heard()) == before + 1, "only what was asked just now"
    return answer.json()["error"]


@proves("fault 70", "C61")
@pytest.mark.parametrize("kind", ["own", "shared"])
async def test_every_request_of_a_batch_is_answered(served: Served, kind: str) -> None:
    """Each answer is its own event, among notifications too."""
    session = await (served.own(BATCHING) if kind == "own" else served.open(BATCHING))
    ids = [0, "", "1", 1, 2**53, "\u2028"]
    batch = [TOLD, *map(echo, ids), rpc("sub", "resources/subscribe", {"uri": "u"}), TOLD]
    async with reading(served.client, session, batch) as blocks:
        found = [block.message for block in await blocks.rest()]
    expected = [result_of(each, {"of": each}) for each in ids] + [result_of("sub", {})]
    assert by_id(found) == by_id(expected)
    await served.delete(session)


@proves("C61")
@pytest.mark.parametrize("accept", ["application/json", "*/*"])
async def test_a_client_without_streams_gets_an_array(served: Served, accept: str) -> None:
    """Of all the answers, also where there is one."""
    session = {**await served.open(BATCHING), "accept": accept}
    for count in (1, 100):
        answer = await served.post(session, [echo(number) for number in range(count)])
        assert answer.headers["content-type"] == "application/json"
        expected = [result_of(number, {"of": number}) for number in range(count)]
        assert by_id(answer.json()) == by_id(expected)
    await served.delete(session)


@proves("C61", "C46")
async def test_notifications_alone_are_taken_in_order(served: Served) -> None:
    """202 with nothing in it; the child reads them as they stood."""
    session = await served.own(BATCHING)
    batch = [{**TOLD, "params": {"n": number}} for number in range(5)]
    answer = await served.post(session, batch)
    assert (answer.status_code, answer.content) == (202, b"")
    await served.ask(session, "x/echo")
    told = [each["params"]["n"] for each in served.heard("notifications/x-told") if each["params"]]
    assert told == list(range(5))
    await served.delete(session)


@proves("C61", "C16")
async def test_answers_in_a_batch_reach_the_child(served: Served) -> None:
    """202; each under the child's id, and one that was not asked for does not."""
    session = await served.own(BATCHING)
    params = {"lines": [question("a"), question("b")], "answers": 2}
    async with reading(served.client, session, rpc(1, "x/ask", params)) as blocks:
        first, second = [block.message["id"] for block in await blocks.some(2)]
        batch = [result_of(second, {"n": 2}), result_of(987654, {}), result_of(first, {"n": 1})]
        answer = await served.post(session, batch)
        assert (answer.status_code, answer.content) == (202, b"")
        (end,) = await blocks.rest()
        answers = [result_of("b", {"n": 2}), result_of("a", {"n": 1})]
        assert end.message["result"]["answers"] == answers
    await served.delete(session)


@proves("C61")
async def test_a_bad_batch_is_refused_whole(served: Served) -> None:
    """Empty, too long, with initialize, twice the same id, mixed with answers."""
    session = await served.own(BATCHING)
    bad: list[list[Any]] = [
        [],
        [echo(number) for number in range(101)],
        [echo(1), initialize(2, BATCHING)],
        [echo(1), echo("1"), echo(1)],
        [echo(1), result_of(2, {})],
        [echo(1), 7],
        [echo(1), [echo(2)]],
        [echo(1), {"jsonrpc": "2.0", "id": None, "method": "ping"}],
        [echo(1), {"jsonrpc": "2.0", "id": 2}],
        [echo(1), rpc(2, "notifications/cancelled", {"requestId": 1})],
    ]
    for batch in bad:
        assert (await refusal(served, session, batch))["code"] == -32600, batch
    await served.delete(session)


@proves("fault 70", "C62")
@pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18", "2025-11-25", None])
async def test_elsewhere_there_are_no_batches(served: Served, revision: str | None) -> None:
    """Neither in sessions of other revisions nor outside of sessions."""
    session = await served.open(revision) if revision else {}
    for batch in ([echo(1)], [TOLD], [echo(1), echo(2)], [], [initialize(1, BATCHING)]):
        assert (await refusal(served, session, batch))["code"] == -32600
    if session:
        await served.delete(session)


@proves("fault 61", "C61")
async def test_an_id_in_flight_fails_alone(served: Served) -> None:
    """The others of the batch are answered, and so is the call that has the id."""
    session = await served.open(BATCHING)
    call = asyncio.create_task(served.post(session, rpc(1, "x/hold", {"name": "twice"})))
    await served.until_heard('"name":"twice"')
    for accept in ("application/json", session["accept"]):
        answer = await served.post({**session, "accept": accept}, [echo(1), echo(2)])
        body = messages(answer.text)
        answers = by_id(body[0] if isinstance(body[0], list) else body)
        assert answers["1"]["error"]["code"] == -32600
        assert answers["2"] == result_of(2, {"of": 2})
    assert await served.ask(session, "x/release", name="twice") == {"released": 1}
    assert (await call).json() == result_of(1, {"held": "twice"})
    await served.delete(session)


@proves("C61", "C64", "C68", "C11")
async def test_a_batch_whose_connection_broke_goes_on_and_is_resumed(served: Served) -> None:
    """One stream carries all its answers, and is over with the last."""
    session = await served.own(BATCHING)
    batch = [echo("first"), *(rpc(n, "x/hold", {"name": "broken"}) for n in range(2))]
    async with reading(served.client, session, batch) as blocks:
        (first,) = await blocks.some(1)
        assert first.message["id"] == "first"
    assert await served.ask(session, "x/release", name="broken") == {"released": 2}
    async with reading(served.client, session, after=first.id) as resumed:
        rest = await resumed.rest()
    assert sorted(block.message["id"] for block in rest) == [0, 1]
    headers = {**session, "last-event-id": rest[-1].id}
    assert (await served.client.get("/mcp", headers=headers)).status_code == 405
    await served.delete(session)


@proves("fault 5", "C61")
async def test_a_child_that_dies_leaves_no_answer_of_a_batch_out(served: Served) -> None:
    """Every id has its answer, good or not, and the stream ends."""
    for accept in ("application/json", "application/json, text/event-stream"):
        session = {**await served.own(BATCHING), "accept": accept}
        batch = [echo("before"), rpc(1, "x/hold", {"name": "never"}), rpc(2, "x/die"), echo(3)]
        answer = await served.post(session, batch)
        body = messages(answer.text)
        answers = by_id(body[0] if isinstance(body[0], list) else body)
        assert answers.pop('"before"')["result"] == {"of": "before"}
        assert sorted(answers) == ["1", "2", "3"]
        for failed in answers.values():
            assert failed["error"]["data"]["mcpbridge"]["reason"] == "child_exited"
        await served.delete(session)


async def test_a_batch_of_the_child_is_taken_apart(served: Served) -> None:
    """Its line holds an answer, a question and a notification; each goes its way."""
    session = await served.own(BATCHING)
    line = json.dumps([json.loads(question("in")), TOLD, {"jsonrpc": "2.0", "id": 99, "result": 1}])
    params = {"lines": [line], "answers": 1}
    async with (
        reading(served.client, session) as listening,
        reading(served.client, session, rpc(1, "x/ask", params)) as blocks,
    ):
        (asked,) = await blocks.some(1)
        (told,) = await listening.some(1)
        assert told.message == TOLD
        await served.reply(session, asked.message["id"], {"ok": 1})
        (end,) = await blocks.rest()
        assert end.message["result"]["answers"] == [result_of("in", {"ok": 1})]
    await served.delete(session)
