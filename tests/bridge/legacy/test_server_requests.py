"""Requests of a child to its client: asked once, answered by this client alone, or given up."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.legacy.server_requests import MAX_OPEN, ServerRequests
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Message, Notification, Request, Result, encode, whole
from tests.bridge.calls.test_exchange import FakeScope, exchange_of
from tests.bridge.playbook import bounded

ROOTS = Request(b'"r"', "roots/list")
SAMPLING = Request(b"5", "sampling/createMessage", b"{}")


class Asker:
    """The child, which remembers what it was answered."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def send(self, message: Message) -> None:
        """An answer."""
        self.got.append(json.loads(encode(message)))


class Session:
    """The open requests of one session, whose client offers its roots."""

    def __init__(self) -> None:
        self.meters, self.asker = Meters(), Asker()
        self.standalone = Stream(Window(), self.meters)
        self.later: list[tuple[Any, ...]] = []
        self.open = ServerRequests(
            ServerRequestTable(itertools.count(101)),
            frozenset(("roots",)),
            self.standalone,
            self.meters,
            lambda *work: self.later.append(work),
            0.0,
            Budget(),
        )

    def ask(self, request: Request = ROOTS, *calls: Exchange) -> None:
        """The child asks while these calls are in flight."""
        self.open.ask(request, self.asker, calls)

    async def expire(self) -> None:
        """The time to deliver the oldest question is over."""
        work, *args = self.later.pop(0)
        await work(*args)


def on(stream: Stream | None) -> list[Any]:
    """The messages on a stream."""
    assert stream is not None
    return [json.loads(whole(entry.payload)) for entry in stream.log.after(0)]


@bounded
async def test_an_answer_goes_to_the_child_under_its_own_id_once() -> None:
    """The client knows another id; a second answer, or an invented one, reaches no child."""
    session = Session()
    session.ask()
    (asked,) = on(session.standalone)
    assert (asked["id"], asked["method"]) == (101, "roots/list")
    session.open.answer(Result(b"102", b"{}"))
    assert session.asker.got == []
    for _ in range(2):
        session.open.answer(Result(b"101", b'{"roots":[]}'))
    assert [(each["id"], each["result"]) for each in session.asker.got] == [("r", {"roots": []})]
    assert session.meters.counts()["unasked_answer"] == 2
    assert not len(session.open)


@bounded
async def test_what_the_client_does_not_offer_is_declined_at_once() -> None:
    """The client sees nothing of it."""
    session = Session()
    session.ask(SAMPLING)
    assert [each["error"]["code"] for each in session.asker.got] == [-32601]
    assert (on(session.standalone), len(session.open)) == ([], 0)


@bounded
async def test_a_question_during_the_only_call_goes_on_its_stream() -> None:
    """With several calls and no listener, on that of the latest."""
    session = Session()
    first, second = exchange_of(FakeScope()), exchange_of(FakeScope())
    session.ask(ROOTS, first)
    session.ask(ROOTS, first, second)
    assert [each["id"] for each in on(first.stream)] == [101]
    assert [each["id"] for each in on(second.stream)] == [102]
    assert on(session.standalone) == []


@pytest.mark.parametrize("calls", [1, 2])
@bounded
async def test_only_a_question_of_one_call_for_certain_ends_with_it(calls: int) -> None:
    """With several calls in flight nothing says which of them it belongs to."""
    session = Session()
    calls_in_flight = [exchange_of(FakeScope()) for _ in range(calls)]
    session.ask(ROOTS, *calls_in_flight)
    session.open.call_over(calls_in_flight[-1])
    assert len(session.open) == (0 if calls == 1 else 1)
    assert len(session.asker.got) == (1 if calls == 1 else 0)
    if calls == 1:
        _, cancelled = on(calls_in_flight[0].stream)
        assert cancelled["params"]["requestId"] == 101


@pytest.mark.parametrize("delivered", [True, False])
@bounded
async def test_a_question_that_no_client_has_read_in_time_is_given_up(delivered: bool) -> None:
    """One that was delivered waits on: a person may have to answer."""
    session = Session()
    session.ask()
    if delivered:
        with session.standalone.attach() as reader:
            await reader.read()
    await session.expire()
    assert len(session.open) == (1 if delivered else 0)
    if not delivered:
        assert "--question-timeout" in session.asker.got[0]["error"]["message"]
        with session.standalone.attach() as reader:
            session.standalone.close()
            assert await reader.read() is None


@bounded
async def test_a_question_that_was_answered_in_time_is_not_given_up_later() -> None:
    """Its number is not used for another, so the timer finds nothing."""
    session = Session()
    session.ask()
    session.open.answer(Result(b"101", b"{}"))
    await session.expire()
    assert len(session.asker.got) == 1


@bounded
async def test_the_child_may_take_a_question_back() -> None:
    """The client is told under the id that it knows; its answer is too late then."""
    session = Session()
    session.ask()
    params = b'{"requestId":"r","reason":"never mind"}'
    notification = Notification("notifications/cancelled", params)
    for _ in range(2):
        session.open.withdraw(Withdrawn(b'"r"', notification), session.asker)
    _, cancelled = on(session.standalone)
    assert cancelled["params"] == {"requestId": 101, "reason": "never mind"}
    session.open.answer(Result(b"101", b"{}"))
    assert session.asker.got == []


@bounded
async def test_the_end_of_the_child_takes_all_questions_back() -> None:
    """No child is sent an answer; the client may close its dialogs; another child's stay open."""
    session, next_child = Session(), Asker()
    session.ask()
    session.ask()
    session.open.ask(ROOTS, next_child, ())
    session.open.child_lost(session.asker)
    cancelled = [each["params"]["requestId"] for each in on(session.standalone)[3:]]
    assert (cancelled, len(session.open), session.asker.got) == ([101, 102], 1, [])
    session.open.answer(Result(b"103", b"{}"))
    assert [each["id"] for each in next_child.got] == ["r"]


@bounded
async def test_a_full_table_declines_until_a_question_is_left_over() -> None:
    """The oldest one whose call has its answer makes room."""
    session = Session()
    over = exchange_of(FakeScope())
    session.ask(ROOTS, over)
    for _ in range(MAX_OPEN - 1):
        session.ask()
    session.ask()
    assert (len(session.open), len(session.asker.got)) == (MAX_OPEN, 1)
    over.answered(Result(b'"a"', b"{}"))
    session.ask()
    assert (len(session.open), len(session.asker.got)) == (MAX_OPEN, 2)
    session.open.answer(Result(b"101", b"{}"))
    assert session.meters.counts()["unasked_answer"] == 1
