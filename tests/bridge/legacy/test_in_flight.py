"""The calls of one session: one answer each, a cancellation that crosses it, ids that are free."""

from __future__ import annotations

import itertools
import json
from typing import Any

import anyio
import pytest

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.in_flight import InFlight
from mcpbridge.bridge.legacy.server_requests import ServerRequests
from mcpbridge.channels.memory import MemoryChannel, memory_pair
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.faults import session_closed
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.wire.messages import Failure, Notification, Request, Result, encode
from tests.bridge.legacy.parts import ASKED, context_of, lease_on_memory
from tests.bridge.playbook import bounded, turns


class Table:
    """A table of calls, and a child that takes them."""

    def __init__(self) -> None:
        self.later: list[tuple[Any, ...]] = []
        """What would run later, in tasks of the bridge."""
        self.context = context_of(lambda *work: self.later.append(work))
        self.client = ClientState(ASKED, 0.0)
        self.streams = ReplayStore(Window(), self.context.meters, lambda: 0.0, resumable=True)
        self.server_requests = ServerRequests(
            ServerRequestTable(itertools.count(1)),
            frozenset(("roots",)),
            self.streams.standalone,
            self.context.meters,
            lambda *work: self.later.append(work),
            30.0,
            self.context.budget,
        )
        self.calls = InFlight(
            "s", self.client, self.streams, self.server_requests, self.context, None, Account()
        )
        lease, self.far = lease_on_memory(shared=False)
        self.mux = lease.mux

    def sent(self, request_id: bytes, method: str = "tools/call") -> Exchange:
        """A call that the child has got."""
        exchange = self.calls.begin(Request(request_id, method), streams=True)
        exchange.submit(self.mux)
        return exchange

    def cancel(self, request_id: str) -> None:
        """The client cancels."""
        params = b'{"requestId":%b,"reason":"why"}' % request_id.encode()
        self.calls.cancel(Notification("notifications/cancelled", params))


async def read(far: MemoryChannel) -> list[bytes]:
    """What the child has got so far."""
    return [encode(each) for each in await far.receive()]  # type: ignore[arg-type]


def error_of(exchange: Exchange) -> Any:
    """The error that answers a call."""
    assert isinstance(exchange.reply, Failure)
    return json.loads(exchange.reply.error)


@bounded
async def test_a_cancelled_call_has_a_moment_for_the_childs_own_answer() -> None:
    """The child is told under its own id; its answer is better than ours, if it comes."""
    table = Table()
    exchange = table.sent(b'"a"')
    table.cancel('"a"')
    _, cancellation = await read(table.far)
    assert json.loads(cancellation)["params"] == {"requestId": 1, "reason": "why"}
    assert exchange.reply is None
    ((work, *args),) = table.later
    exchange.answered(Result(b'"a"', b'"its own"'))
    with anyio.fail_after(5):
        await work(*args)
    assert exchange.reply == Result(b'"a"', b'"its own"')


@bounded
async def test_a_cancelled_call_that_the_child_does_not_answer_ends_all_the_same() -> None:
    """Its stream must not stay open."""
    table = Table()
    exchange = table.sent(b"1")
    table.cancel("1")
    ((work, *args),) = table.later
    await work(*args)
    assert error_of(exchange)["code"] == -32800
    assert table.mux.in_flight == 0
    assert not len(table.calls)


@bounded
async def test_a_call_that_no_child_has_ends_at_once_when_it_is_cancelled() -> None:
    """There is nothing to wait for, and no child is told."""
    table = Table()
    exchange = table.calls.begin(Request(b"1", "tools/call"), streams=True)
    table.cancel("1")
    assert error_of(exchange)["code"] == -32800
    exchange.submit(table.mux)
    assert (table.later, table.mux.in_flight) == ([], 0)


@pytest.mark.parametrize("request_id", ["7", '"1"', "[]", "null"])
@bounded
async def test_a_cancellation_of_no_call_is_counted_and_harms_none(request_id: str) -> None:
    """It may have crossed the answer; an id of another type is another id."""
    table = Table()
    exchange = table.sent(b"1")
    table.cancel(request_id)
    assert table.context.meters.counts() == {"cancel_of_unknown": 1}
    assert (exchange.reply, list(table.calls)) == (None, [exchange])


@bounded
async def test_initialize_cannot_be_cancelled() -> None:
    """The child would serve no session."""
    table = Table()
    exchange = table.sent(b"0", "initialize")
    table.cancel("0")
    assert (exchange.reply, table.later) == (None, [])


@pytest.mark.parametrize("spelling", [b'"a"', b'"\\u0061"'])
@bounded
async def test_an_id_is_taken_until_the_answer_and_free_from_then_on(spelling: bytes) -> None:
    """However it is spelled; the refused request neither ends nor counts as the first one."""
    table = Table()
    first = table.sent(b'"a"')
    second = table.calls.begin(Request(spelling, "tools/call"), streams=True)
    assert error_of(second)["code"] == -32600
    assert (list(table.calls), table.context.drain.calls) == ([first], 1)
    first.answered(Result(b'"a"', b"{}"))
    third = table.calls.begin(Request(spelling, "tools/call"), streams=True)
    assert (third.reply, list(table.calls), table.context.drain.calls) == (None, [third], 1)


@bounded
async def test_the_end_of_the_session_answers_every_call_once() -> None:
    """The drain waits for none of them any more."""
    table = Table()
    calls = [table.sent(b"1"), table.calls.begin(Request(b"2", "x"), streams=False)]
    table.calls.abandon_all(session_closed())
    assert [error_of(each)["data"]["mcpbridge"]["reason"] for each in calls] == [
        "session_closed",
        "session_closed",
    ]
    assert (len(table.calls), table.context.drain.in_flight) == (0, 0)
    await turns()


@pytest.mark.parametrize("granted", [True, False])
@bounded
async def test_a_subscription_counts_once_the_child_has_granted_it(granted: bool) -> None:
    """A refusal leaves none behind."""
    table = Table()
    request = Request(b"1", "resources/subscribe", b'{"uri":"a:1"}')
    exchange = table.calls.begin(request, streams=False)
    table.client.intend(request)
    assert ("a:1" in table.client.subscriptions, table.client.wants("a:1")) == (False, True)
    if granted:
        exchange.answered(Result(b"1", b"{}"))
    else:
        exchange.answered(Failure(b"1", b'{"code":1,"message":""}'))
    assert ("a:1" in table.client.subscriptions) is granted
    assert table.client.wants("a:1") is granted


@bounded
async def test_a_call_that_waits_for_its_turn_ends_at_once_when_it_is_cancelled() -> None:
    """The child never gets it, nor its cancellation."""
    table = Table()
    here, far = memory_pair()
    limits = LoadLimits(max_calls_per_child=1)
    table.mux = Mux(here, table.context.meters, shared=False, max_message_bytes=99, loads=limits)
    table.sent(b"1")
    waiting = table.sent(b"2")
    table.cancel("2")
    assert error_of(waiting)["code"] == -32800
    assert [json.loads(each)["id"] for each in await read(far)] == [1]
    assert table.later == []
