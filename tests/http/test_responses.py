"""The bytes of every form of an answer, and what a stream costs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from mcpbridge.bridge.calls.stream import Reader, Stream
from mcpbridge.http.keepalive import KeepAlive, KeepAliveSettings
from mcpbridge.http.request import UNSENT
from mcpbridge.http.responses import (
    SLICE_BYTES,
    EventStream,
    refusal_of,
    send_empty,
    send_json,
    send_late_json,
    send_refusal,
    send_replies,
)
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import EventId, Window
from mcpbridge.rules.faults import Unavailable, capacity
from mcpbridge.rules.mcp.admission import refuse
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Reply, Result, encode
from tests.bridge.playbook import bounded, turns
from tests.http.fakes import Wire, http_request
from tests.support.proofs import proves

HEAD = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
COMMENT = b": keep-alive\n\n"


def stream_of(first_id: EventId | None = None) -> Stream:
    """A stream."""
    return Stream(Window(), Meters(), first_id=first_id)


@asynccontextmanager
async def served(
    stream: Stream, wire: Wire, *, polled: bool = False
) -> AsyncIterator[tuple[Reader, asyncio.Task[None]]]:
    """A response that sends a stream, in its own task as a server runs it."""
    with stream.attach() as reader:
        response = EventStream(reader, [(b"x-more", b"1")], polled=polled)
        task = asyncio.create_task(response.serve(http_request(wire)))
        await turns()
        yield reader, task
        stream.close()
        async with asyncio.timeout(10):
            await task


@proves("C91", "O4")
@bounded
async def test_a_stream_begins_at_once_with_the_head_that_proxies_need() -> None:
    """Before there is anything to say; the content type is exact."""
    wire = Wire()
    async with served(stream_of(), wire):
        assert (wire.status, wire.chunks, wire.ended) == (200, [], False)
        assert {**HEAD, "x-more": "1"}.items() <= wire.headers.items()
        assert "content-length" not in wire.headers
        assert [name for name, _ in wire.sent[0]["headers"]].count(b"content-type") == 1
    assert (wire.chunks, wire.ended) == ([b""], True)


@bounded
async def test_each_message_is_one_event_with_the_payload_as_it_is() -> None:
    """What is ready together goes out together."""
    stream, wire = stream_of(), Wire()
    payload = '{"a":"é😀\\u2028 : data: event:"}'.encode()
    stream.append(payload, sheddable=True)
    stream.append(b"{}", sheddable=True)
    async with served(stream, wire):
        event = b"event: message\ndata: %b\n\n"
        assert wire.chunks == [event % payload + event % b"{}"]
        stream.append(b"[1]", sheddable=True)
        await turns()
        assert wire.chunks[1:] == [event % b"[1]"]
    assert wire.chunks[2:] == [b""]


@proves("C63", "C64")
@bounded
async def test_events_have_ids_where_the_stream_can_be_resumed() -> None:
    """A first one without data only where the client's revision has it."""
    for polled in (False, True):
        stream, wire = stream_of(EventId("ab", 3, 0)), Wire()
        stream.append(b"{}", sheddable=True)
        async with served(stream, wire, polled=polled):
            text = b"".join(wire.chunks).decode()
        events = [event for event in text.split("\n\n") if event]
        assert events[-1] == "id: ab-3-1\nevent: message\ndata: {}"
        primer = [dict(re.findall(r"(?m)^(\w+): ?(.*?)\r?$", event)) for event in events[:-1]]
        assert primer == ([{"id": "ab-3-0", "data": "", "retry": "1000"}] if polled else [])


@bounded
async def test_what_is_there_already_goes_out_with_the_id_to_resume_from() -> None:
    """One event of ASGI, not two; without it the id goes out alone, and at once."""
    before, empty = Wire(), Wire()
    first = EventId("ab", 1, 0)
    stream = stream_of(first)
    stream.append(b"{}", sheddable=False)
    primer = b"id: ab-1-0\ndata: \nretry: 1000\n\n"
    async with served(stream, before, polled=True):
        assert before.chunks == [primer + b"id: ab-1-1\nevent: message\ndata: {}\n\n"]
    async with served(stream_of(first), empty, polled=True):
        assert empty.chunks == [primer]


@bounded
async def test_a_client_that_is_sent_away_is_told_when_to_come_back() -> None:
    """`retry:` and a clean end, only for a revision that knows it."""
    for polled in (False, True):
        stream, wire = stream_of(EventId("ab", 3, 0)), Wire()
        async with served(stream, wire, polled=polled) as (_, task):
            stream.dismiss()
            await task
            assert wire.ended
            last = wire.chunks[-1].decode()
            match = re.fullmatch(r"retry: (\d+)\n\n", last)
            assert (match is not None) == polled
            assert match is None or 500 <= int(match[1]) <= 3000


@proves("fault 55")
@bounded
async def test_a_stream_ends_when_its_client_leaves() -> None:
    """Nothing more is taken from it, so that the next reader gets what comes."""
    stream, wire = stream_of(), Wire()
    async with served(stream, wire) as (_, task):
        wire.leave()
        await task
    assert wire.chunks == []


@proves("fault 85")
@bounded
async def test_an_idle_stream_costs_one_task() -> None:
    """The response; the connection tells it when the client leaves."""
    before = len(asyncio.all_tasks())
    wires = [Wire() for _ in range(10)]
    async with anyio.create_task_group() as tasks:
        streams = [stream_of() for _ in wires]
        for stream, wire in zip(streams, wires, strict=True):
            tasks.start_soon(_serve, stream, wire)
        await turns()
        assert all(wire.sent for wire in wires)
        assert len(asyncio.all_tasks()) - before <= len(wires)
        for stream in streams:
            stream.close()
    assert len(asyncio.all_tasks()) == before


async def _serve(stream: Stream, wire: Wire) -> None:
    with stream.attach() as reader:
        await EventStream(reader).serve(http_request(wire))


@proves("fault 57", "C90")
@bounded
async def test_one_timer_gives_every_open_stream_a_sign_of_life() -> None:
    """A comment on each, the silent older connection too; none when it is closed."""
    assert KeepAliveSettings().every_s <= 15
    keepalive = KeepAlive(every_s=0.01)
    stream, older, newer, closed = stream_of(), Wire(), Wire(), Wire()
    async with asyncio.timeout(10), anyio.create_task_group() as tasks:
        tasks.start_soon(keepalive.run)
        async with served(stream, older) as (first, _), served(stream, newer) as (second, _):
            with keepalive.watching(first), keepalive.watching(second):
                assert keepalive.open == 2
                for wire in (older, newer):
                    await wire.until_chunks(3)
            assert keepalive.open == 0
        async with served(stream_of(), closed):
            await turns()
        tasks.cancel_scope.cancel()
    assert set(older.chunks) | set(newer.chunks) == {COMMENT, b""}
    assert closed.chunks == [b""]


@proves("C94")
@bounded
async def test_late_json_begins_at_once_and_is_one_text_in_the_end() -> None:
    """White space is its sign of life."""
    stream, wire = stream_of(), Wire()
    with stream.attach() as reader:
        task = asyncio.create_task(send_late_json(wire.send, reader, [(b"x-more", b"1")]))
        await turns()
        assert (wire.status, wire.headers["content-type"]) == (200, "application/json")
        assert "content-length" not in wire.headers
        for _ in range(2):
            reader.nudge()
            await turns()
        stream.append(b'{"jsonrpc":"2.0"}', sheddable=False)
        stream.close()
        await task
    assert wire.chunks == [b" ", b" ", b'{"jsonrpc":"2.0"}']
    assert wire.ended
    assert json.loads(b"".join(wire.chunks)) == {"jsonrpc": "2.0"}


@proves("C02")
@bounded
async def test_plain_answers_are_whole_and_say_how_long_they_are() -> None:
    """JSON, and nothing at all."""
    wire = Wire()
    await send_json(wire.send, 200, b"{}", [(b"mcp-session-id", b"s")])
    assert (wire.status, wire.chunks, wire.ended) == (200, [b"{}"], True)
    assert wire.headers == {
        "content-type": "application/json",
        "content-length": "2",
        "mcp-session-id": "s",
    }
    wire = Wire()
    await send_empty(wire.send, 202)
    assert (wire.status, wire.headers, wire.chunks) == (202, {"content-length": "0"}, [b""])


LONG = Result(b"1", b'"%b"' % (b"0123456789" * (SLICE_BYTES // 4)))


@bounded
async def test_a_long_answer_goes_out_in_slices_under_its_whole_length() -> None:
    """Alone and in a batch; other tasks get their turn between two slices."""
    failure = Failure(b"3", b'{"code":1,"message":"no"}')
    batch: list[Reply] = [Result(b"2", b"{}"), LONG, failure]
    whole = b"[%b]" % b",".join(map(encode, batch))
    single: list[Reply] = [LONG]
    for replies, form, text in ((single, False, encode(LONG)), (batch, True, whole)):
        wire = Wire()
        request, unsent = http_request(wire), Account()
        request.scope[UNSENT] = unsent
        task = asyncio.create_task(send_replies(request, 200, replies, batch=form))
        await wire.until_chunks(1)
        assert not wire.ended
        assert unsent.held == len(text), "it counts until it is sent"
        await task
        assert unsent.held == 0
        assert b"".join(wire.chunks) == text
        assert wire.headers["content-length"] == str(len(text))
        assert max(map(len, wire.chunks)) <= SLICE_BYTES


@bounded
async def test_a_short_batch_is_one_piece() -> None:
    """Its answers are joined."""
    wire = Wire()
    await send_replies(
        http_request(wire), 200, [Result(b"1", b"{}"), Result(b"2", b"{}")], batch=True
    )
    one, other = (b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number for number in (1, 2))
    assert wire.chunks == [b"[%b,%b]" % (one, other)]
    wire = Wire()
    await send_replies(http_request(wire), 404, [Result(b"1", b"{}")])
    assert (wire.status, wire.chunks) == (404, [one])


@bounded
async def test_a_long_event_goes_out_in_slices() -> None:
    """And so does a late JSON answer; the text is the same as that of a short one."""
    payload = encode(LONG)
    stream, wire = stream_of(EventId("a", 7, 0)), Wire()
    stream.append(b"{}", sheddable=False)
    stream.answer(payload)
    async with served(stream, wire):
        pass
    event = b"id: %b%d\nevent: message\ndata: %b\n\n"
    prefix = EventId("a", 7, 0).prefix
    assert b"".join(wire.chunks) == event % (prefix, 1, b"{}") + event % (prefix, 2, payload)
    assert max(map(len, wire.chunks)) <= SLICE_BYTES
    stream, wire = stream_of(), Wire()
    stream.answer(payload)
    stream.close()
    with stream.attach() as reader:
        await send_late_json(wire.send, reader)
    assert b"".join(wire.chunks) == payload
    assert max(map(len, wire.chunks)) <= SLICE_BYTES


@proves("C78")
@bounded
async def test_a_refusal_says_what_helps() -> None:
    """The id, Allow, Retry-After, and that the connection ends where a body is unread."""
    wire = Wire()
    await send_refusal(wire.send, refuse(405, -32600, "no", request_id=b'"a"', allow="GET"))
    assert (wire.status, wire.headers["allow"]) == (405, "GET")
    expected = b'{"jsonrpc":"2.0","id":"a","error":{"code":-32600,"message":"no"}}'
    assert wire.chunks == [expected]
    wire = Wire()
    await send_refusal(wire.send, refusal_of(Unavailable(capacity("--flag", 1)), None))
    assert (wire.status, wire.headers["retry-after"]) == (503, "5")
    assert json.loads(wire.chunks[0])["id"] is None
    assert "connection" not in wire.headers
    wire = Wire()
    await send_refusal(wire.send, refuse(413, -32600, "no"))
    assert wire.headers["connection"] == "close"
