"""Calls of 2026-07-28 on legacy children: which child, which rounds, and every way to end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.supervisor import Ready, State, Supervisor
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.modern import parked_call
from mcpbridge.bridge.modern.emulation import CallScope, EmulatedCalls, ParkSettings
from mcpbridge.bridge.modern.parking import Parking
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.rules.faults import PoolExhausted, timed_out
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.rules.supervision.isolation import Isolation
from mcpbridge.wire.messages import Notification, Request
from tests.bridge.fake_server import (
    LEGACY,
    SILENT,
    FakeProcess,
    FakeServer,
    content_of,
    leased,
    params_of,
    profile_of,
    reason_of,
    until,
)
from tests.bridge.legacy.parts import context_of
from tests.bridge.playbook import bounded, turns

CALL = "tools/call"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
GOOD: dict[str, Any] = {"content": []}
PLAIN = RequestMeta("2026-07-28", b"{}", frozenset(), False, False, None)
ROOTS = RequestMeta("2026-07-28", b'{"roots":{}}', frozenset(("roots",)), False, False, None)
INVALID = -32602


class Emulated:
    """Emulated calls, the shared child, and the children that single calls get."""

    def __init__(self, server: FakeServer, tasks: TaskGroup, isolation: Isolation) -> None:
        self.server = server
        self.context = context_of(tasks.start_soon)
        self.shared: Lease
        self.own: list[tuple[Lease, FakeProcess]] = []
        self.may_take = anyio.Event()
        self.may_take.set()
        self.full = False
        self.fallen_back = 0
        self.given_back: list[Lease] = []
        self.discarded: list[Lease] = []
        self.expired: list[float] = []
        self.state: State
        self._tasks = tasks
        self.calls = EmulatedCalls(
            self.context,
            cast(Supervisor, self),
            cast(ChildSource, self),
            cast(WarmPool, self),
            isolation,
            ParkSettings(),
            RequestStateCodec(None),
            Parking(8, lambda: None),
        )

    async def start(self) -> None:
        """Start the shared child."""
        profile = profile_of(LEGACY)
        self.shared, self.process = await leased(self._tasks, self.server, profile)
        self.state = Ready(self.shared)

    @property
    def usable(self) -> Lease | None:
        """See `Supervisor`."""
        return None if self.shared.mux.shut else self.shared

    async def lease(self) -> Lease:
        """See `Supervisor`."""
        return self.shared

    async def take(self, envelope: RequestMeta, caller: bytes = b"") -> Lease:
        """See `WarmPool`."""
        await self.may_take.wait()
        if self.full:
            raise PoolExhausted(1)
        made = await leased(self._tasks, self.server, profile_of(LEGACY), shared=False)
        self.own.append(made)
        return made[0]

    def give_back(self, lease: Lease, now: float) -> None:
        """See `WarmPool`."""
        self.given_back.append(lease)

    def discard(self, lease: Lease) -> None:
        """See `WarmPool`."""
        self.discarded.append(lease)

    def expire(self, now: float) -> None:
        """See `WarmPool`."""
        self.expired.append(now)

    def fell_back(self) -> None:
        """See `ChildSource`."""
        self.fallen_back += 1

    def call(
        self, envelope: RequestMeta = PLAIN, number: int = 7, method: str = CALL, **params: Any
    ) -> Exchange:
        """A client sends a request."""
        text = json.dumps({"_meta": ENVELOPE, "name": "x", **params}).encode()
        request = Request(b"%d" % number, method, text)
        return self.calls.call(request, envelope, self.shared, streams=True)

    def retry(self, asked: Exchange, number: int = 8, **answers: Any) -> Exchange:
        """The client sends a call again with answers to what it was asked."""
        state = content_of(asked)["requestState"]
        return self.call(ROOTS, number, requestState=state, inputResponses=answers)

    async def answered(self, exchange: Exchange) -> Any:
        """What the client gets."""
        await until(lambda: exchange.reply)
        return content_of(exchange)

    async def asked(self, *, questions: int = 1) -> Exchange:
        """A call during which its child asks for the roots, handed over to its client."""
        exchange = self.call(ROOTS)
        await until(lambda: self.own and self.own[-1][1].asked_for(CALL))
        for number in range(questions):
            self.own[-1][1].says(Request(b'"q%d"' % number, "roots/list"))
        await self.answered(exchange)
        return exchange


@asynccontextmanager
async def emulated(
    isolation: Isolation = Isolation.AUTO, **answers: Any
) -> AsyncIterator[Emulated]:
    """Emulated calls on a server that answers so, until the block ends."""
    found = {name.replace("_", "/"): answer for name, answer in answers.items()}
    server = FakeServer(LEGACY, {CALL: GOOD, "logging/setLevel": {}}, found)
    async with anyio.create_task_group() as tasks:
        made = Emulated(server, tasks, isolation)
        await made.start()
        yield made
        tasks.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are handed over without a wait for more."""
    monkeypatch.setattr(parked_call, "GATHER_S", 0.0)


@bounded
async def test_a_client_that_cannot_be_asked_is_served_by_the_shared_child() -> None:
    """Which gets nothing of the newer revision; its result is completed for the client."""
    async with emulated() as made:
        exchange = made.call(arguments={"a": 1})
        assert made.context.drain.in_flight == 1
        result = await made.answered(exchange)
        assert result["resultType"] == "complete"
        (sent,) = made.process.asked_for(CALL)
        assert params_of(sent) == {"name": "x", "arguments": {"a": 1}}
        assert (made.own, made.context.drain.in_flight, made.calls.busy) == ([], 0, False)


@pytest.mark.parametrize(
    ("isolation", "method", "own"),
    [
        (Isolation.AUTO, CALL, 1),
        (Isolation.SESSION, CALL, 1),
        (Isolation.SHARED, CALL, 0),
        (Isolation.AUTO, "tools/list", 0),
    ],
)
@bounded
async def test_a_call_that_may_ask_its_client_has_a_child_for_itself(
    isolation: Isolation, method: str, own: int
) -> None:
    """Which is given back when the call is over, for the next call."""
    async with emulated(isolation, tools_list={"tools": []}) as made:
        await made.answered(made.call(ROOTS, method=method))
        assert len(made.own) == own
        assert made.given_back == [lease for lease, _ in made.own]
        assert len(made.process.asked_for(method)) == 1 - own


@bounded
async def test_a_question_goes_to_the_client_and_its_answer_to_the_child() -> None:
    """In a second request; that one gets the answer of the call."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked()
        content = content_of(asked)
        assert content["resultType"] == "input_required"
        assert content["inputRequests"]["i1"]["method"] == "roots/list"
        assert made.calls.busy
        retry = made.retry(asked, i1={"roots": []})
        _, process = made.own[0]
        await until(lambda: len(process.got) == 2)
        process.answer(process.asked_for(CALL)[0], GOOD)
        assert (await made.answered(retry))["resultType"] == "complete"
        assert retry.reply is not None
        assert (retry.reply.id, len(made.own), made.calls.busy) == (b"8", 1, False)
        assert made.given_back == [made.own[0][0]]


@bounded
async def test_a_client_is_asked_again_for_what_it_has_not_answered() -> None:
    """The child gets what was answered; the call waits for the rest."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked(questions=2)
        assert set(content_of(asked)["inputRequests"]) == {"i1", "i2"}
        again = await made.answered(made.retry(asked, i1={"roots": []}))
        assert set(again["inputRequests"]) == {"i2"}


@bounded
async def test_the_answer_is_kept_for_a_client_that_has_lost_it() -> None:
    """For a while; then the call is not known any more."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked()
        first = made.retry(asked, i1={"roots": []})
        _, process = made.own[0]
        await until(lambda: len(process.got) == 2)
        process.answer(process.asked_for(CALL)[0], GOOD)
        await made.answered(first)
        assert await made.answered(made.retry(asked, 9)) == await made.answered(first)
        made.calls.sweep(anyio.current_time() + 30.0, lambda each, now: None)
        assert "resultType" in await made.answered(made.retry(asked, 10))
        made.calls.sweep(anyio.current_time() + 90.0, lambda each, now: None)
        assert (await made.answered(made.retry(asked, 11)))["code"] == INVALID
        assert (len(made.expired), made.discarded) == (2, [])


@bounded
async def test_a_state_fits_its_own_request_only() -> None:
    """Not one with other arguments, and not a text that the bridge did not write."""
    async with emulated(tools_call=SILENT) as made:
        state = content_of(await made.asked())["requestState"]
        for params in ({"requestState": state, "arguments": {"b": 2}}, {"requestState": "x"}):
            assert (await made.answered(made.call(ROOTS, **params)))["code"] == INVALID
        assert made.own[0][1].methods == [CALL]


@bounded
async def test_an_old_round_cannot_be_answered_again() -> None:
    """Its questions have had their answers."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked()
        made.retry(asked, i1={"roots": []})
        await until(lambda: len(made.own[0][1].got) == 2)
        made.own[0][1].says(Request(b'"q9"', "roots/list"))
        again = await made.answered(made.retry(asked, 9, i2={"roots": []}))
        assert "not waiting" in again["message"]


@bounded
async def test_the_log_level_of_a_request_is_set_on_its_child_before_the_call() -> None:
    """Once: others that want no more find it set."""
    loud = RequestMeta("2026-07-28", b"{}", frozenset(), False, False, "debug")
    async with emulated() as made:
        await made.answered(made.call(loud))
        await made.answered(made.call(loud))
        await made.answered(made.call())
        assert made.process.methods == ["logging/setLevel", CALL, CALL, CALL]
        assert params_of(made.process.got[0]) == {"level": "debug"}


@pytest.mark.parametrize("isolation", [Isolation.AUTO, Isolation.SESSION])
@bounded
async def test_if_all_places_are_taken_the_shared_child_serves_unless_it_must_not(
    isolation: Isolation,
) -> None:
    """Serving a call without questions is better than refusing it, but not with `session`."""
    async with emulated(isolation) as made:
        made.full = True
        exchange = made.call(ROOTS)
        content = await made.answered(exchange)
        if isolation is Isolation.AUTO:
            assert (content["resultType"], made.fallen_back) == ("complete", 1)
        else:
            assert (reason_of(exchange), exchange.refused) == ("capacity", True)
            assert made.process.got == []


@bounded
async def test_a_client_that_leaves_before_its_child_is_there_gives_it_back_unused() -> None:
    """The next call may have it, which has been told nothing."""
    async with emulated() as made:
        made.may_take = anyio.Event()
        exchange = made.call(ROOTS)
        await turns()
        made.calls.cancel(exchange)
        assert reason_of(exchange) == "cancelled"
        made.may_take.set()
        await until(lambda: made.given_back)
        assert (made.own[0][1].got, made.calls.busy) == ([], False)


@bounded
async def test_a_client_that_leaves_during_its_call_ends_the_child() -> None:
    """What the child still asks must not reach another client."""
    async with emulated(tools_call=SILENT) as made:
        exchange = made.call(ROOTS)
        await until(lambda: made.own and made.own[0][1].asked_for(CALL))
        made.calls.cancel(exchange)
        lease, process = made.own[0]
        await until(lambda: len(process.got) == 2)
        assert (made.discarded, made.given_back, made.calls.busy) == ([lease], [], False)
        assert process.methods == [CALL, "notifications/cancelled"]


@bounded
async def test_a_parked_call_whose_client_does_not_answer_ends_in_time() -> None:
    """Its child is ended, and a late answer is told so."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked()
        now = anyio.current_time()
        made.calls.sweep(now + 500.0, lambda each, at: None)
        assert made.discarded == []
        made.calls.sweep(now + 700.0, lambda each, at: None)
        assert made.discarded == [made.own[0][0]]
        late = await made.answered(made.retry(asked, i1={"roots": []}))
        assert "not waiting" in late["message"]


@bounded
async def test_a_call_that_takes_too_long_ends_with_its_child() -> None:
    """Both that of the shared child, which goes on, and that of a child for itself."""
    fault = timed_out("--request-timeout", 5.0)
    async with emulated(tools_call=SILENT) as made:
        shared, own = made.call(), made.call(ROOTS)
        await until(lambda: made.own and made.own[0][1].asked_for(CALL))
        made.calls.sweep(5.0, lambda each, now: fault)
        assert (shared.fault, own.fault) == (fault, fault)
        assert (made.discarded, made.usable) == ([made.own[0][0]], made.shared)


@bounded
async def test_a_call_that_was_ended_for_want_of_memory_tells_its_retry() -> None:
    """Which has come with the answers of its user."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked()
        (holder,) = made.calls.holders
        assert (holder.kind, holder.held > 0) == ("parked_call", True)
        holder.cut()
        retry = made.retry(asked, i1={"roots": []})
        await until(lambda: retry.reply)
        assert (reason_of(retry), retry.refused) == ("memory", True)
        assert (made.calls.holders, made.discarded) == ([], [made.own[0][0]])


@bounded
async def test_finished_calls_are_let_go_when_memory_is_short() -> None:
    """And not those that a client waits for."""
    async with emulated(tools_call=SILENT) as made:
        asked = await made.asked()
        assert made.calls.shed() == 0
        made.retry(asked, i1={"roots": []})
        process = made.own[0][1]
        await until(lambda: len(process.got) == 2)
        process.answer(process.asked_for(CALL)[0], GOOD)
        await until(lambda: made.given_back)
        assert made.calls.shed() > 0
        assert (made.calls.shed(), made.calls.holders) == (0, [])


@bounded
async def test_the_end_of_the_process_ends_every_call() -> None:
    """Open ones with an error, parked ones with their child."""
    async with emulated(tools_call=SILENT) as made:
        await made.asked()
        shared = made.call()
        made.calls.cut_off()
        assert (reason_of(shared), made.discarded) == ("shutdown", [made.own[0][0]])
        assert (made.calls.busy, made.context.drain.in_flight) == (False, 0)


@pytest.mark.parametrize("accepts", [True, False])
@bounded
async def test_pages_that_the_user_must_visit_are_asked_for_before_the_call_begins_again(
    accepts: bool,
) -> None:
    """As an error of 2025-11-25 demands; without the ability the client learns what it lacks."""
    page = {"mode": "url", "elicitationId": "e", "url": "https://a.example", "message": "log in"}
    error = {"code": -32042, "message": "log in", "data": {"elicitations": [page]}}
    able = RequestMeta(
        "2026-07-28", b'{"elicitation":{"url":{}}}', frozenset(("elicitation",)), True, False, None
    )
    async with emulated(tools_call=error) as made:
        lacks = await made.answered(made.call(ROOTS))
        assert (lacks["code"], lacks["data"]) == (
            -32021,
            {"requiredCapabilities": {"elicitation": {"url": {}}}},
        )
        asked = await made.answered(made.call(able))
        assert asked["inputRequests"]["i1"]["params"]["url"] == "https://a.example"
        made.server.answers[CALL] = GOOD
        answer = {"i1": {"action": "accept" if accepts else "decline"}}
        retry = made.call(able, 8, requestState=asked["requestState"], inputResponses=answer)
        content = await made.answered(retry)
        assert (content["resultType"], content.get("isError")) == (
            "complete",
            None if accepts else True,
        )
        sent = [each for _, process in made.own for each in process.asked_for(CALL)]
        assert len(sent) == (3 if accepts else 2)


@bounded
async def test_over_the_limit_a_call_is_refused() -> None:
    """Before any child has it."""
    async with emulated() as made:
        made.context.drain.call_started()
        limited = msgspec.structs.replace(made.context, max_calls=1, undivided_calls=1)
        calls = EmulatedCalls(
            limited,
            cast(Supervisor, made),
            cast(ChildSource, made),
            cast(WarmPool, made),
            Isolation.AUTO,
            ParkSettings(),
            RequestStateCodec(None),
            Parking(8, lambda: None),
        )
        exchange = calls.call(Request(b"1", CALL, b"{}"), PLAIN, made.shared, streams=True)
        assert (reason_of(exchange), exchange.refused, made.process.got) == ("capacity", True, [])


@pytest.mark.parametrize(
    ("wanted", "level", "admits"),
    [(None, "error", False), ("info", "error", True), ("info", "debug", False)],
)
@bounded
async def test_a_request_gets_the_log_messages_that_it_asked_for(
    wanted: str | None, level: str, admits: bool
) -> None:
    """At its own level, whatever others have set on the child."""
    envelope = RequestMeta("2026-07-28", b"{}", frozenset(), False, False, wanted)
    async with anyio.create_task_group() as tasks:
        scope = CallScope(context_of(tasks.start_soon), envelope, set())
        said = Notification("notifications/message", b'{"level":"%b"}' % level.encode())
        assert scope.admits(said) is admits
