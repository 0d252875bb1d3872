"""A call that waits for its client's answers: rounds, retries, and each end that it may have."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.modern import parked_call
from mcpbridge.bridge.modern.parked_call import ParkedCall
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import child_exited
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.wire.messages import Message, Notification, Request, encode, whole
from tests.bridge.calls.test_exchange import FakeScope
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import bounded, message, turns

META = RequestMeta(
    "2026-07-28",
    b'{"roots":{},"elicitation":{}}',
    frozenset(("roots", "elicitation")),
    True,
    True,
    None,
)
ROOTS = '{"id":"r%d","method":"roots/list"}'
ELICITATION = (
    '{"id":"e","method":"elicitation/create","params":{"message":"?","requestedSchema":'
    '{"type":"object","properties":{}}}}'
)


class CallSetup:
    """A parked call between its child and the exchanges of its client."""

    def __init__(self) -> None:
        self.lease, self.far = lease_on_memory(shared=False)
        self.handed: list[tuple[list[str], Exchange]] = []
        self.over = 0
        request = Request(b"0", "tools/call", b'{"name":"x"}')
        self.call = ParkedCall(
            self.lease, request, META, self._hand_over, self._end, Account(), Budget()
        )
        self._running = asyncio.create_task(self.lease.mux.run())

    def _hand_over(self, call: ParkedCall, attempt: Exchange) -> None:
        call.park(1.0)
        self.handed.append((list(call.input_requests), attempt))

    def _end(self, call: ParkedCall) -> None:
        self.over += 1

    def attempt(self, number: int = 1, token: bytes = b'"t"') -> Exchange:
        """A request of the client, under its own id and progress token."""
        params = b'{"_meta":{"progressToken":%b}}' % token
        request = Request(b"%d" % number, "tools/call", params)
        return Exchange(request, FakeScope(), 0.0, streams=True, stream=None)

    async def says(self, *texts: str) -> None:
        """The child says this."""
        for text in texts:
            self.far.send(message(text))
        await turns()

    async def got(self) -> list[Any]:
        """What the child has got since, without notifications."""
        self.far.put(Notification("end"))
        received: list[Message] = await self.far.receive()  # type: ignore[assignment]
        return [json.loads(encode(each)) for each in received if not isinstance(each, Notification)]

    async def close(self) -> None:
        """The process ends."""
        self.far.close()
        await self._running


def answer_of(exchange: Exchange) -> Any:
    """The result or error that a client gets."""
    assert exchange.reply is not None
    found = json.loads(encode(exchange.reply))
    return found["id"], found.get("result", found.get("error", {}).get("data"))


@bounded
async def test_a_call_without_questions_is_answered_under_the_clients_id() -> None:
    """Progress before it, under the client's own token."""
    setup = CallSetup()
    attempt = setup.attempt(7)
    setup.call.begin(attempt)
    await setup.says(
        '{"method":"notifications/progress","params":{"progressToken":1,"progress":5}}',
        '{"id":1,"result":{"good":true}}',
    )
    assert (answer_of(attempt), setup.over) == ((7, {"good": True}), 1)
    await setup.close()


@bounded
async def test_progress_has_the_token_of_the_attempt_that_is_open() -> None:
    """Each attempt brings its own."""
    setup = CallSetup()
    setup.lease.mux.attach(setup.call)
    setup.call.next_attempt(setup.attempt(token=b"5"), META)
    progress = Notification("notifications/progress", b'{"progressToken":1,"progress":5}')
    second = setup.attempt(token=b'"two"')
    setup.call.next_attempt(second, META)
    setup.call._progressed(progress)
    assert second.stream is not None
    (entry,) = second.stream.log.after(0)
    assert json.loads(whole(entry.payload))["params"] == {"progressToken": "two", "progress": 5}
    await setup.close()


@bounded
async def test_questions_of_one_moment_are_handed_over_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the order in which the child asked; the call is parked then."""
    over = asyncio.Event()

    async def sleep(_: float) -> None:
        await over.wait()

    monkeypatch.setattr(parked_call, "anyio", SimpleNamespace(sleep=sleep, Event=asyncio.Event))
    setup = CallSetup()
    attempt = setup.attempt()
    setup.call.begin(attempt)
    gathering = asyncio.create_task(setup.call.gather(attempt))
    await setup.says(ROOTS % 1)
    await setup.says(ROOTS % 2)
    assert setup.handed == []
    over.set()
    await gathering
    assert setup.handed == [(["i1", "i2"], attempt)]
    assert (setup.call.attempt, setup.call.parked_at, setup.call.over) == (None, 1.0, False)
    await setup.close()


@bounded
async def test_a_question_that_is_taken_back_at_once_is_not_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attempt stays open, and its answer ends the wait."""
    monkeypatch.setattr(parked_call, "GATHER_S", 0.0)
    setup = CallSetup()
    attempt = setup.attempt()
    setup.call.begin(attempt)
    gathering = asyncio.create_task(setup.call.gather(attempt))
    await setup.says(ROOTS % 1, '{"method":"notifications/cancelled","params":{"requestId":"r1"}}')
    await setup.says('{"id":1,"result":{}}')
    await gathering
    assert (setup.handed, answer_of(attempt)) == ([], (1, {}))
    await setup.close()


@bounded
async def test_each_answer_goes_to_the_question_that_it_is_for() -> None:
    """Under the child's own id, in the order of the client."""
    setup = CallSetup()
    setup.call.begin(setup.attempt())
    await setup.says(ROOTS % 1, ROOTS % 2)
    await setup.got()
    setup.call.answer("i2", b'{"roots":[2]}')
    setup.call.answer("i1", b'{"roots":[1]}')
    assert [(each["id"], each["result"]) for each in await setup.got()] == [
        ("r2", {"roots": [2]}),
        ("r1", {"roots": [1]}),
    ]
    assert setup.call.input_requests == {}
    await setup.close()


@pytest.mark.parametrize("fails", [True, False])
@bounded
async def test_an_end_while_the_client_is_away_is_kept_for_its_next_attempt(fails: bool) -> None:
    """And for another one: the answer may be lost on the way."""
    setup = CallSetup()
    setup.call.begin(setup.attempt())
    setup.call.park(1.0)
    if fails:
        setup.lease.mux.fail_all(child_exited(None, "maybe"))
    else:
        await setup.says('{"id":1,"result":{"late":1}}')
    assert setup.call.over
    for number in (2, 3):
        attempt = setup.attempt(number)
        setup.call.next_round(attempt, META)
        request_id, content = answer_of(attempt)
        assert request_id == number
        assert content == {"late": 1} if not fails else "mcpbridge" in content
    await setup.close()


@bounded
async def test_a_question_that_the_client_does_not_offer_is_declined() -> None:
    """The call goes on; nothing is handed over."""
    setup = CallSetup()
    setup.call.begin(setup.attempt())
    await setup.says('{"id":"s","method":"sampling/createMessage","params":{}}')
    _, declined = await setup.got()
    assert (declined["id"], setup.call.input_requests) == ("s", {})
    assert "error" in declined
    await setup.close()


@bounded
async def test_giving_up_declines_the_questions_and_cancels_the_call() -> None:
    """A dialog is cancelled as its user would; any other question is an error."""
    setup = CallSetup()
    setup.call.begin(setup.attempt())
    await setup.says(ROOTS % 1, ELICITATION)
    await setup.got()
    setup.call.abandon("the client has left")
    setup.far.put(Notification("end"))
    received: list[Message] = await setup.far.receive()  # type: ignore[assignment]
    roots, dialog, cancelled, _ = (json.loads(encode(each)) for each in received)
    assert (roots["id"], "error" in roots) == ("r1", True)
    assert (dialog["id"], dialog["result"]) == ("e", {"action": "cancel"})
    assert cancelled["params"] == {"requestId": 1, "reason": "the client has left"}
    assert (setup.over, setup.lease.mux.in_flight) == (1, 0)
    await setup.close()


@bounded
async def test_nothing_of_the_child_is_taken_after_the_end() -> None:
    """The next call on this child has its own listeners."""
    setup = CallSetup()
    setup.call.begin(setup.attempt())
    await setup.says('{"id":1,"result":{}}', ROOTS % 1)
    assert setup.call.input_requests == {}
    await setup.close()


@bounded
async def test_each_call_has_a_key_that_cannot_be_guessed() -> None:
    """It names the call in the state that the client brings back."""
    setups = [CallSetup() for _ in range(3)]
    found = {setup.call.key for setup in setups}
    assert len(found) == 3
    assert {len(key) for key in found} == {32}
    for setup in setups:
        await setup.close()
