"""A call of a legacy client on a child of 2026-07-28: its rounds, and what ends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.round_trips import MAX_ROUNDS, RoundTrip
from mcpbridge.bridge.legacy.server_requests import ServerRequestSender
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.channels.off_loop import LONG_BYTES
from mcpbridge.rules.faults import Unavailable, cancelled, child_exited
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.wire.json_object import MAX_ELEMENTS
from mcpbridge.wire.messages import Failure, Reply, Request, Result, quoted
from tests.bridge.calls.test_exchange import FakeScope
from tests.bridge.legacy.parts import ASKED, lease_on_memory
from tests.bridge.playbook import arrived, bounded

ROOTS = {"method": "roots/list"}
YES = b'{"roots":[]}'


def wants(*keys: str, state: str | None = "s", question: Any = ROOTS) -> bytes:
    """A result that asks for input under these keys."""
    found: dict[str, Any] = {"resultType": "input_required"}
    if keys:
        found["inputRequests"] = dict.fromkeys(keys, question)
    if state is not None:
        found["requestState"] = state
    return json.dumps(found).encode()


class Trip:
    """A call, the child that gets its rounds, and its client."""

    def __init__(self, method: str = "tools/call", params: bytes = b'{"name":"x"}') -> None:
        self.scope = FakeScope()
        self.exchange = Exchange(
            Request(b"7", method, params), self.scope, 0.0, streams=True, stream=None
        )
        self.lease, self.far = lease_on_memory(shared=True)
        self.next: Lease | None = None
        self.asked: list[tuple[Request, Exchange]] = []
        self.over: list[Exchange] = []
        self.changed: frozenset[str] = frozenset()
        self.later: list[tuple[Any, ...]] = []
        self.round = RoundTrip(
            self.lease.mux,
            self.exchange,
            ClientState(ASKED, 0.0),
            self._find,
            self,
            self,
            lambda *work: self.later.append(work),
        )
        self.round.begin()

    async def _find(self) -> Lease:
        if self.next is None:
            raise Unavailable(child_exited(None, "no"))
        return self.next

    def ask_for_call(
        self, request: Request, asker: ServerRequestSender, exchange: Exchange
    ) -> None:
        """See `CallServerRequests`."""
        assert asker is self.round
        self.asked.append((request, exchange))

    def call_over(self, exchange: Exchange) -> None:
        """See `CallServerRequests`."""
        self.over.append(exchange)

    def tools_changed(self, names: frozenset[str]) -> None:
        """See `Lists`."""
        self.changed |= names

    def wraps(self, tool: str | None) -> bool:
        """See `Lists`."""
        return False

    def says(self, reply: Reply) -> None:
        """The child answers the round."""
        self.round.receive(Answered(self.round, reply, 1))

    async def goes_on(self) -> None:
        """Run what was to run later: the next round begins."""
        work, *args = self.later.pop(0)
        await work(*args)

    @contextmanager
    def next_child(self) -> Iterator[MemoryChannel]:
        """Another child takes the next round; its end of the channel."""
        self.next, far = lease_on_memory(shared=True)
        yield far

    @property
    def problem(self) -> str:
        """The message of the final error."""
        assert isinstance(self.exchange.reply, Failure)
        return str(json.loads(self.exchange.reply.error)["message"])


async def round_of(far: MemoryChannel) -> dict[str, Any]:
    """The params of the one request that has come to a child."""
    (request,) = await arrived(far)
    params: dict[str, Any] = json.loads(request.params)
    return params


@bounded
async def test_a_call_without_questions_is_one_round() -> None:
    """Sent with an envelope, answered without the members of the newer revision."""
    trip = Trip()
    params = await round_of(trip.far)
    assert (params["name"], sorted(params)) == ("x", ["_meta", "name"])
    trip.says(Result(b"7", b'{"resultType":"complete","content":[]}'))
    assert trip.exchange.reply == Result(b"7", b'{"content":[]}')


@bounded
async def test_the_next_round_begins_when_all_questions_are_answered() -> None:
    """At the child that serves then, with the answers and the state of the round before."""
    trip = Trip()
    await round_of(trip.far)
    trip.says(Result(b"7", wants("a", "b")))
    assert [(each.id, each.method) for each, _ in trip.asked] == [
        (b'"a"', "roots/list"),
        (b'"b"', "roots/list"),
    ]
    trip.round.send(Result(quoted("a"), YES))
    assert trip.later == []
    trip.round.send(Result(quoted("b"), YES))
    with trip.next_child() as far:
        await trip.goes_on()
        params = await round_of(far)
    assert params["inputResponses"] == {"a": {"roots": []}, "b": {"roots": []}}
    assert params["requestState"] == "s"
    assert await arrived(trip.far) == []
    trip.says(Result(b"7", b"{}"))
    assert trip.exchange.reply == Result(b"7", b"{}")


@bounded
async def test_answers_are_kept_once_and_for_their_round_alone() -> None:
    """A second answer to a question, or one to a question of no round, changes nothing."""
    trip = Trip()
    await round_of(trip.far)
    trip.says(Result(b"7", wants("a", "b", state=None)))
    for key, value in (("a", b"1"), ("a", b"2"), ("z", b"3")):
        trip.round.send(Result(quoted(key), value))
    assert (trip.later, trip.exchange.kept) == ([], 1)
    trip.round.send(Result(quoted("b"), b"4"))
    with trip.next_child() as far:
        await trip.goes_on()
        params = await round_of(far)
        assert params["inputResponses"] == {"a": 1, "b": 4}
        assert "requestState" not in params
        trip.says(Result(b"7", wants("c")))
        trip.round.send(Result(quoted("c"), b"5"))
        await trip.goes_on()
        assert (await round_of(far))["inputResponses"] == {"c": 5}
    trip.says(Result(b"7", b"{}"))
    assert trip.scope.account.held == 0, "what was kept for the rounds is let go"


@bounded
async def test_a_question_that_its_client_cannot_answer_fails_the_call() -> None:
    """The other questions are taken back; an answer that comes later finds the call over."""
    trip = Trip()
    trip.says(Result(b"7", wants("a", "b")))
    trip.round.send(Failure(quoted("a"), b'{"code":-1,"message":"no"}'))
    assert trip.exchange.reply is None, "a task answers: the question may have been taken back"
    await trip.goes_on()
    assert trip.problem == "the client could not answer a question of the MCP server"
    assert trip.over == [trip.exchange]
    trip.round.send(Failure(quoted("b"), b'{"code":-1,"message":"no"}'))
    await trip.goes_on()
    assert trip.over == [trip.exchange]


@pytest.mark.parametrize(
    ("method", "result", "problem"),
    [
        ("tools/list", wants("a"), "asked during a call that may not ask"),
        ("tools/call", b'{"resultType":"x"}', "a result of kind 'x'"),
        (
            "tools/call",
            wants("a", question={"method": "x/y"}),
            "revision does not know x/y",
        ),
    ],
)
@bounded
async def test_a_result_that_no_client_understands_fails_the_call(
    method: str, result: bytes, problem: str
) -> None:
    """Its client learns what the server did."""
    trip = Trip(method, b"{}")
    trip.says(Result(b"7", result))
    assert problem in trip.problem
    assert trip.over == [trip.exchange]


@bounded
async def test_a_server_that_asks_without_end_is_stopped() -> None:
    """After as many rounds as deployed clients allow."""
    trip = Trip()
    with trip.next_child():
        for number in range(MAX_ROUNDS):
            trip.says(Result(b"7", wants("a")))
            trip.round.send(Result(quoted("a"), YES))
            await trip.goes_on()
            assert trip.exchange.reply is None, number
        trip.says(Result(b"7", wants("a")))
    assert f"more than {MAX_ROUNDS} times" in trip.problem


@bounded
async def test_no_round_is_sent_for_a_call_that_is_over() -> None:
    """Its client has cancelled while the next child was sought."""
    trip = Trip()
    await round_of(trip.far)
    trip.says(Result(b"7", wants("a")))
    trip.round.send(Result(quoted("a"), YES))
    trip.exchange.abandon(cancelled())
    assert await arrived(trip.far) == [], "the child has answered this round: nothing to cancel"
    with trip.next_child() as far:
        await trip.goes_on()
        assert await arrived(far) == []


@bounded
async def test_without_a_child_for_the_next_round_the_call_fails() -> None:
    """With the fault of the child."""
    trip = Trip()
    trip.says(Result(b"7", wants("a")))
    trip.round.send(Result(quoted("a"), YES))
    await trip.goes_on()
    assert trip.exchange.fault == child_exited(None, "no")


@bounded
async def test_errors_and_lists_of_tools_are_put_in_the_words_of_the_client() -> None:
    """An error about the envelope concerns what the bridge wrote."""
    failing, listing = Trip(), Trip("tools/list", b"{}")
    failing.says(Failure(b"7", b'{"code":-5,"message":"m"}'))
    assert failing.exchange.reply == Failure(b"7", b'{"code":-5,"message":"m"}')
    listing.says(Result(b"7", b'{"tools":[]}'))
    assert listing.exchange.reply == Result(b"7", b'{"tools":[]}')


@bounded
async def test_a_long_result_is_translated_off_the_loop() -> None:
    """Until then the call has no answer, and what ends it in between is its answer."""
    filler = b"x" * LONG_BYTES
    long = b'{"resultType":"complete","content":[],"a":"%b"}' % filler
    trip = Trip()
    trip.says(Result(b"1", long))
    assert trip.scope.finished == []
    await trip.goes_on()
    assert trip.exchange.reply == Result(b"7", b'{"content":[],"a":"%b"}' % filler)
    trip = Trip()
    trip.says(Result(b"1", long))
    trip.exchange.abandon(cancelled())
    first = trip.exchange.reply
    await trip.goes_on()
    assert trip.exchange.reply is first
    assert trip.scope.finished == [trip.exchange]


@bounded
async def test_a_long_list_of_tools_is_remembered_where_it_was_changed() -> None:
    """As a short one is."""
    for filler in (b"x", b"x" * LONG_BYTES):
        trip = Trip("tools/list", b"{}")
        tool = b'{"name":"n","outputSchema":{"type":"array"},"description":"%b"}' % filler
        trip.says(Result(b"1", b'{"resultType":"complete","tools":[%b]}' % tool))
        if trip.later:
            await trip.goes_on()
        assert isinstance(trip.exchange.reply, Result)
        assert json.loads(trip.exchange.reply.result)["tools"][0]["name"] == "n"
        assert trip.changed == {"n"}


@bounded
async def test_a_long_result_that_cannot_be_translated_is_an_error() -> None:
    """The client is told why."""
    trip = Trip()
    content = b",".join([b"1"] * (MAX_ELEMENTS + 1))
    trip.says(
        Result(
            b"1",
            b'{"structuredContent":[],"content":[%b],"a":"%b"}' % (content, b"x" * LONG_BYTES),
        )
    )
    await trip.goes_on()
    assert "more than" in trip.problem
