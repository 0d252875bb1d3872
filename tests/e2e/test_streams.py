"""Event streams: what begins one, ids, resuming, old age, and what waits while no client listens.

Every bridge here answers at once with a stream (`--json-window 0`) and every session has its own
child unless the test says otherwise, so that what the child says belongs to that session.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import bridge, initialize, open_session, rpc
from tests.support.proofs import proves
from tests.support.questioner_bridge import (
    ASKED,
    Block,
    Headers,
    Served,
    note,
    reading,
    result_of,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEWEST = "2025-11-25"
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", NEWEST)
STREAM = {"accept": "text/event-stream"}
CHANGED = "tools/list_changed"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that answers with a stream at once."""
    async with serving(tmp_path_factory.mktemp("record"), "--json-window", "0") as some:
        yield some


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aging(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that ends the connections of calls when they are old."""
    folder = tmp_path_factory.mktemp("record")
    words = ("--json-window", "0", "--max-stream-age", "100ms", "--question-timeout", "200ms")
    async with serving(folder, *words) as some:
        yield some


def hold(request_id: Any, name: str, **more: Any) -> dict[str, Any]:
    """A call that the child holds, with progress under the token `name`."""
    return rpc(request_id, "x/hold", {"name": name, "_meta": {"progressToken": name}, **more})


def is_primer(block: Block | None) -> bool:
    """An event with an id, a time to come back and empty data."""
    return block is not None and block.fields.get("data") == "" and "retry" in block.fields


def steps(blocks: list[Block]) -> list[tuple[str, int]]:
    """Token and value of the progress in events."""
    params = [block.message["params"] for block in blocks]
    return [(each["progressToken"], each["progress"]) for each in params]


async def refused(served: Served, headers: Headers, after: str) -> int:
    """The status of a resume that is refused."""
    answer = await served.client.get("/mcp", headers={**headers, "last-event-id": after})
    assert answer.headers["content-type"] == "application/json"
    assert "mcp-session-id" not in answer.headers
    return answer.status_code


@proves("C63")
@pytest.mark.parametrize("revision", REVISIONS)
async def test_streams_are_primed_for_clients_that_can_read_it(
    served: Served, revision: str
) -> None:
    """First event with id, empty data and `retry`; on initialize by what is asked for."""
    primed = revision == NEWEST
    opening = initialize("open", revision, ASKED)
    async with reading(served.client, STREAM, opening) as blocks:
        found = await blocks.rest()
        assert is_primer(found[0]) is primed
        assert found[-1].message["id"] == "open"
        assert len(found) == 1 + primed
        named = {"mcp-session-id": blocks.response.headers["mcp-session-id"], **STREAM}
    async with reading(served.client, named, rpc(1, "x/echo", {})) as blocks:
        found = await blocks.rest()
        assert is_primer(found[0]) is primed
        assert found[-1].message == result_of(1, {})
    async with reading(served.client, named) as blocks:
        await served.say(named | {"accept": "*/*"}, note(CHANGED))
        first = await blocks.next()
        assert is_primer(first) is primed
        said = await blocks.next() if primed else first
        assert said is not None
        assert said.message["method"] == "notifications/" + CHANGED
        await served.delete(named)
        assert await blocks.rest() == []


@pytest.mark.parametrize("revision", [date for date in REVISIONS if date != NEWEST])
async def test_a_listening_stream_says_something_at_once(served: Served, revision: str) -> None:
    """Proxies hold a head back until the first byte; nothing else is said."""
    named = await open_session(served.client, revision)
    async with served.client.stream("GET", "/mcp", headers={**named, **STREAM}) as response:
        async for chunk in response.aiter_raw():
            assert chunk == b": keep-alive\n\n"
            break


@proves("C90")
@pytest.mark.slow
async def test_a_silent_stream_has_a_comment_as_often_as_the_operator_says() -> None:
    """Lines end with LF alone."""
    async with bridge("--sse-keep-alive", "1s") as running, running.client() as client:
        named = await open_session(client)
        async with client.stream("GET", "/mcp", headers={**named, **STREAM}) as response:
            chunks = response.aiter_raw()
            assert [await anext(chunks) for _ in range(3)] == [b": keep-alive\n\n"] * 3


@proves("C72")
async def test_how_a_client_finds_out_which_transport_is_spoken(served: Served) -> None:
    """A valid opening is taken in every variant; a bare GET is 400 and no other transport."""
    variants: tuple[dict[str, str], ...] = (
        {},
        {"accept": "*/*"},
        {"accept": "text/event-stream"},
        {"accept": "application/json;q=0.5"},
        {"content-type": "application/json; charset=utf-8"},
        {"mcp-protocol-version": "2024-11-05", "last-event-id": "x", "x-own": "1"},
    )
    for number, variant in enumerate(variants):
        opening = initialize(number, REVISIONS[number % len(REVISIONS)])
        answer = await served.client.post("/mcp", json=opening, headers=variant)
        assert answer.status_code == 200, variant
        await served.delete({"mcp-session-id": answer.headers["mcp-session-id"]})
    for path in ("/mcp", "/"):
        answer = await served.client.get(path, headers=STREAM)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"
        assert "endpoint" not in answer.text


@proves("fault 58", "C64")
@pytest.mark.slow
async def test_a_resumed_stream_goes_on_after_the_event_named_and_then_lives(
    served: Served,
) -> None:
    """Only that stream's events, each once, in order; ids are unique in the session."""
    session = await served.own(NEWEST)
    seen: list[Block] = []
    async with reading(served.client, session, hold(2, "b")) as other:
        async with reading(served.client, session, hold(1, "a")) as broken:
            for name in ("a", "b", "a", "b"):
                await served.ask(session, "x/step", name=name)
            primer, *two = await broken.some(3)
            assert steps(two) == [("a", 1), ("a", 3)]
        await served.ask(session, "x/step", name="a", times=2)
        async with reading(served.client, session, after=two[0].id) as resumed:
            again, *replayed = await resumed.some(4)
            assert (again.fields["data"], again.id) == ("", two[0].id)
            assert steps(replayed) == [("a", 3), ("a", 5), ("a", 6)]
            assert replayed[0].id == two[1].id
            await served.ask(session, "x/step", name="a")
            live = await resumed.some(1)
            assert steps(live) == [("a", 7)]
            await served.ask(session, "x/release", name="a")
            *_, last = tail = await resumed.rest()
            assert [block.message for block in tail] == [result_of(1, {"held": "a"})]
            seen += [primer, *two, *replayed[1:], *live, last]
        await served.ask(session, "x/release", name="b")
        rest = await other.rest()
        assert steps(rest[1:-1]) == [("b", 2), ("b", 4)]
        assert rest[-1].message["id"] == 2
        seen += rest
    ids = [block.id for block in seen]
    assert len(set(ids)) == len(ids)
    await served.delete(session)


@proves("fault 58", "C64")
async def test_the_listening_stream_is_resumed_after_the_event_named(served: Served) -> None:
    """What a broken connection swallowed comes again, then what waited, then the new."""
    session = await served.own(NEWEST)
    async with reading(served.client, session) as broken:
        await served.say(session, note("x", n="#"), times=3)
        events = (await broken.some(4))[1:]
    await served.say(session, note("x", n="late"))
    async with reading(served.client, session, after=events[0].id) as resumed:
        found = (await resumed.some(4))[1:]
        assert [block.message["params"]["n"] for block in found] == ["1", "2", "late"]
        assert [block.id for block in found[:2]] == [block.id for block in events[1:]]
        await served.say(session, note("x", n="live"))
        assert [b.message["params"]["n"] for b in await resumed.some(1)] == ["live"]
    async with reading(served.client, session) as fresh:
        await served.say(session, note("x", n="fresh"))
        assert [b.message["params"]["n"] for b in (await fresh.some(2))[1:]] == ["fresh"]
        await served.delete(session)
        assert await fresh.rest() == []


@proves("C10", "C64")
@pytest.mark.slow
async def test_who_resumes_a_running_stream_takes_it_over(served: Served) -> None:
    """The connection that is left behind hears nothing twice and takes over again."""
    session = await served.own(NEWEST)
    async with reading(served.client, session, hold(1, "t")) as older:
        await served.ask(session, "x/step", name="t")
        primer, first = await older.some(2)
        async with reading(served.client, session, after=primer.id) as newer:
            assert steps((await newer.some(2))[1:]) == steps([first])
            await served.ask(session, "x/step", name="t")
            assert steps(await newer.some(1)) == [("t", 2)]
        await served.turns()
        await served.ask(session, "x/step", name="t")
        await served.ask(session, "x/release", name="t")
        found = await older.rest()
        assert steps(found[:-1]) == [("t", 3)]
        assert found[-1].message["id"] == 1
    await served.delete(session)


@proves("fault 59", "C65")
@pytest.mark.slow
async def test_nothing_of_another_session_is_ever_replayed(served: Served) -> None:
    """A foreign id is 400, with no data; the one it belongs to loses nothing."""
    mine, theirs = await served.own(NEWEST), await served.own(NEWEST)
    shared = await served.open(NEWEST)
    async with reading(served.client, mine, hold(1, "f")) as events:
        (primer,) = await events.some(1)
    async with reading(served.client, mine) as events:
        (listening,) = await events.some(1)
    await served.ask(mine, "x/step", name="f")
    for event_id in (primer.id, listening.id):
        for stranger in (theirs, shared):
            assert await refused(served, stranger, event_id) == 400
    async with reading(served.client, mine, after=primer.id) as events:
        assert steps((await events.some(2))[1:]) == [("f", 1)]
    assert await refused(served, {**mine, "mcp-session-id": "0" * 64}, primer.id) == 404
    for session in (mine, theirs, shared):
        await served.delete(session)
    assert await refused(served, mine, primer.id) == 404


@proves("fault 59", "C66")
@pytest.mark.parametrize(
    "garbage", ["zzz", "0", "", "-1-1", "\u00ff\u00fe", "a-0-99999999999999999999", "1" * 4000]
)
async def test_an_id_of_nobody_opens_a_fresh_stream_that_stays_open(
    served: Served, garbage: str
) -> None:
    """200, never 404, and never one that ends with nothing."""
    session = await served.own(NEWEST)
    async with reading(served.client, session, after=garbage) as events:
        await served.say(session, note(CHANGED))
        primer, said = await events.some(2)
        assert is_primer(primer)
        assert said.message["method"] == "notifications/" + CHANGED
    await served.delete(session)


@proves("fault 59", "C66")
async def test_a_stream_that_never_was_is_not_to_be_resumed(served: Served) -> None:
    """405 for a stream of this session that it does not know, with the verbs that do."""
    session = await served.own(NEWEST)
    async with reading(served.client, session, rpc(1, "x/echo")) as events:
        tag, stream, _ = (await events.rest())[0].id.split("-")
    later = int(stream) + 1
    for unknown in (f"{tag}-{later}-0", f"{tag}-99999-1", f"{tag}-{stream}-99"):
        assert await refused(served, session, unknown) == 405
    answer = await served.client.get("/mcp", headers={**session, "last-event-id": unknown})
    assert answer.headers["allow"] == "GET, POST, DELETE"
    async with reading(served.client, session, after=f"{tag}-0-99") as events:
        await served.say(session, note(CHANGED))
        assert len(await events.some(2)) == 2, "a future place on the listening stream is now"
    await served.delete(session)


@proves("fault 55", "C68", "C11")
@pytest.mark.slow
async def test_an_answer_that_was_lost_on_its_way_is_there_to_be_fetched(served: Served) -> None:
    """200 with the rest and the end; to a client that has it all 405, each time."""
    session = await served.own(NEWEST)
    async with reading(served.client, session, hold(1, "l")) as broken:
        (primer,) = await broken.some(1)
    await served.ask(session, "x/step", name="l")
    assert await served.ask(session, "x/release", name="l") == {"released": 1}
    for _ in range(2):
        async with reading(served.client, session, after=primer.id) as resumed:
            again, step, last = await resumed.rest()
            assert is_primer(again)
            assert (steps([step]), last.message) == ([("l", 1)], result_of(1, {"held": "l"}))
    async with reading(served.client, session, after=step.id) as resumed:
        assert [block.message["id"] for block in (await resumed.rest())[1:]] == [1]
    for _ in range(2):
        assert await refused(served, session, last.id) == 405
    await served.delete(session)


@proves("C63", "C68")
async def test_clients_before_priming_resume_as_well(served: Served) -> None:
    """Their events have ids, and neither a first event without data nor `retry`."""
    session = await served.own("2025-03-26")
    async with reading(served.client, session, hold(1, "o")) as broken:
        await served.ask(session, "x/step", name="o")
        (step,) = await broken.some(1)
    await served.ask(session, "x/step", name="o")
    await served.ask(session, "x/release", name="o")
    async with reading(served.client, session, after=step.id) as resumed:
        found = await resumed.rest()
        assert steps(found[:1]) == [("o", 2)]
        assert [set(block.fields) for block in found] == [{"id", "event", "data"}] * 2
    assert await refused(served, session, found[-1].id) == 405
    await served.delete(session)


@proves("C66")
@pytest.mark.slow
async def test_finished_streams_are_kept_up_to_a_number(served: Served) -> None:
    """The newest 64 can be resumed; an older one is over: 405."""
    session = await served.own(NEWEST)
    primers = []
    for number in range(70):
        async with reading(served.client, session, rpc(number, "x/echo", {})) as events:
            primers.append((await events.rest())[0].id)
    for number in (0, 4):
        assert await refused(served, session, primers[number]) == 405
    for number in (7, 69):
        async with reading(served.client, session, after=primers[number]) as resumed:
            assert (await resumed.rest())[-1].message["id"] == number
    await served.delete(session)


@proves("C68")
@pytest.mark.slow
async def test_finished_streams_are_kept_up_to_a_size(served: Served) -> None:
    """4 MiB of a session's: the oldest goes first, and the newest answer stays."""
    session = await served.own(NEWEST)
    primers = []
    for number in range(4):
        params = {"text": "x" * (3 << 19)}
        async with reading(served.client, session, rpc(number, "x/echo", params)) as events:
            primers.append((await events.rest())[0].id)
    assert await refused(served, session, primers[0]) == 405
    async with reading(served.client, session, after=primers[3]) as resumed:
        assert (await resumed.rest())[-1].message["id"] == 3
    await served.delete(session)


@proves("C67")
@pytest.mark.slow
async def test_an_old_connection_is_ended_and_its_client_comes_back(aging: Served) -> None:
    """After an id, with `retry`, for clients that know of it; others keep theirs."""
    session, older = await aging.own(NEWEST), await aging.own("2025-06-18")
    async with (
        reading(aging.client, older, hold(1, "old")) as kept,
        reading(aging.client, session) as listening,
    ):
        async with reading(aging.client, session, hold(1, "age")) as first:
            primer, leave = await first.rest()
        for _ in range(2):
            assert is_primer(primer)
            assert set(leave.fields) == {"retry"}
            assert 500 <= int(leave.fields["retry"]) <= 3000
            async with reading(aging.client, session, after=primer.id) as resumed:
                primer, leave = await resumed.rest()
        await aging.ask(session, "x/release", name="age")
        async with reading(aging.client, session, after=primer.id) as resumed:
            assert (await resumed.rest())[-1].message == result_of(1, {"held": "age"})
        await aging.ask(older, "x/release", name="old")
        (answer,) = await kept.rest()
        assert answer.message == result_of(1, {"held": "old"})
        await aging.say(session, note(CHANGED))
        assert len(await listening.some(2)) == 2, "who only listens is left in peace"
    for each in (session, older):
        await aging.delete(each)


@proves("fault 41", "C76")
@pytest.mark.slow
async def test_a_cancelled_call_ends_its_stream_with_an_error(served: Served) -> None:
    """Also where the child says nothing more; its late answer reaches no client."""
    session = await served.own(NEWEST)
    async with reading(served.client, session, hold(1, "c")) as events:
        assert is_primer(await events.next())
        await served.tell(session, "cancelled", requestId=1)
        (end,) = await events.rest()
        assert (end.message["id"], end.message["error"]["code"]) == (1, -32800)
    assert await refused(served, session, end.id) == 405
    async with reading(served.client, session, hold(1, "again")) as events:
        assert await served.ask(session, "x/release", name="c") == {"released": 1}
        await served.ask(session, "x/release", name="again")
        found = await events.rest()
        assert [block.message for block in found[1:]] == [result_of(1, {"held": "again"})]
    await served.delete(session)


@proves("C09", "C10")
async def test_each_message_is_on_one_stream_of_a_session(served: Served) -> None:
    """With two calls and a listener: progress and answers here, all else there."""
    session = await served.own()
    async with (
        reading(served.client, session) as listening,
        reading(served.client, session, hold(1, "one")) as one,
        reading(served.client, session, hold(2, "two")) as two,
    ):
        for name in ("one", "two"):
            await served.ask(session, "x/step", name=name)
        lines = [note(CHANGED), note("message", level="info", data="d"), note("x/y", n=1)]
        await served.say(session, *lines)
        for name in ("one", "two"):
            await served.ask(session, "x/release", name=name)
        assert [len(await one.rest()), len(await two.rest())] == [2, 2]
        said = [block.message["method"] for block in await listening.some(3)]
        assert said == ["notifications/" + name for name in (CHANGED, "message", "x/y")]
        await served.delete(session)
        assert await listening.rest() == []


@proves("fault 32", "C75")
async def test_what_is_said_to_nobody_waits_for_the_next_listener(served: Served) -> None:
    """In order; that a list or a resource changed is said once."""
    session = await served.own()
    lines = [
        note("x/n", n="#"),
        note(CHANGED),
        note("resources/list_changed"),
        note("resources/updated", uri="u:1"),
        note("resources/updated", uri="u:2"),
    ]
    await served.say(session, *lines, times=100)
    async with reading(served.client, session) as listening:
        found = [block.message for block in await listening.some(104)]
        once = [message["method"] for message in found[:5]]
        assert once == [
            f"notifications/{name}"
            for name in (
                "x/n",
                CHANGED,
                "resources/list_changed",
                "resources/updated",
                "resources/updated",
            )
        ]
        rest = [message["params"].get("n") for message in found[5:]]
        assert rest == [str(number) for number in range(1, 100)]
        await served.say(session, note(CHANGED))
        (again,) = await listening.some(1)
        assert again.message["method"] == "notifications/" + CHANGED, "this one is news again"
        await served.delete(session)
        assert await listening.rest() == []


@proves("fault 32", "C75")
@pytest.mark.slow
async def test_what_waits_is_bounded_and_a_change_is_never_lost(tmp_path: Path) -> None:
    """The oldest of too many go, counted; a change said again after that is kept."""
    async with serving(tmp_path) as served:
        session = await served.own()
        await served.say(session, note(CHANGED))
        await served.say(session, note("x/n", n="#"), times=1500)
        await served.say(session, note(CHANGED))
        await served.delete(await served.own())
        async with reading(served.client, session) as listening:
            found = [block.message for block in await listening.some(1000)]
            assert found[-1]["method"] == "notifications/" + CHANGED
            numbers = [int(message["params"]["n"]) for message in found[:-1]]
            assert numbers == list(range(501, 1500))
            await served.delete(session)
            assert await listening.rest() == []
        assert await served.bridge.terminate() == 0
        (end,) = await served.bridge.logged("serve.ended")
        assert end["counts"]["shed_notification"] == 502
        assert re.fullmatch(r"\d+", str(end["counts"].get("coalesced_notification", 0)))


@proves("fault 5", "fault 7")
@pytest.mark.slow
async def test_a_child_that_dies_ends_the_streams_of_its_calls_only(served: Served) -> None:
    """Each with its error; the listener stays, and the session has a new child."""
    session = await served.own(NEWEST)
    async with (
        reading(served.client, session) as listening,
        reading(served.client, session, hold(1, "d")) as dying,
    ):
        answer = await served.post(session, rpc(2, "x/die"))
        assert '"reason":"child_exited"' in answer.text
        found = await dying.rest()
        assert found[-1].message["error"]["data"]["mcpbridge"]["reason"] == "child_exited"
        assert await refused(served, session, found[-1].id) == 405
        assert await served.ask(session, "x/echo", n=1) == {"n": 1}
        said = await listening.some(2)
        assert said[1].message["method"].endswith("list_changed")
    await served.delete(session)
