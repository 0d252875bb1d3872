"""Whatever happens in whatever order, the bridge keeps its service levels: a model says which.

Hypothesis plays clients, children and the clock against a whole bridge in memory. After every step
no call may have an answer that the model does not allow, nor two, nor another's; and none may be
without one that the model says is over. In the end nothing may be left.
HYPOTHESIS_PROFILE=deep, MCPBRIDGE_MODEL_EXAMPLES and MCPBRIDGE_MODEL_STEPS make it longer.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcpbridge.rules.supervision.lifecycle import DrainEvent, DrainState
from mcpbridge.wire.messages import Result
from tests.model.model import DUPLICATE, RESULT, Call, Model, ModelSession, verdict_of
from tests.model.world import MAX_SESSIONS, FakeChild, World, progress_of
from tests.support.bridge_process import initialize as hello
from tests.support.bridge_process import rpc

IDS: tuple[int | str, ...] = (0, "0", 1)
REVISION = "2025-11-25"
TICKS_S = (0.3, 1.2, 6.0, 22.0)
START_S = 100
"""A start takes up to the longest back-off; --start-timeout is 60 s."""
CHANCE = st.integers(0, 1_000_000)


class Clients(RuleBasedStateMachine):
    """Every rule is something a client, a child, the clock or the operator does."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model = Model()
        self._nonces = itertools.count()

    @initialize()
    def begin(self) -> None:
        """The shared child is there."""
        assert len(self.world.living) == 1

    @rule(own=st.booleans())
    def open(self, own: bool) -> None:
        """A client says initialize; `own` offers sampling and so gets a child for itself."""
        capabilities: dict[str, Any] = {"sampling": {}} if own else {}
        message = hello(0, REVISION, capabilities)
        full = len(self.model.open_sessions) >= MAX_SESSIONS
        refused = not self.world.bridge.drain.accepts_sessions
        refused = refused or (full and not self.model.may_make_room())
        http = self.world.request("POST", (), message)
        if full and not refused:
            self._made_room()
        for _ in range(START_S):
            if http.wire.ended:
                break
            # Its child is being started again: the answer comes with it.
            self.world.pass_time(1)
            self._passed()
        if refused:
            assert http.wire.status == 503, http.messages
            return
        (answer,) = http.messages
        assert http.wire.status == 200, answer
        session = ModelSession(http.wire.headers["mcp-session-id"], own, self.world.loop.now)
        assert session.id not in {other.id for other in self.model.sessions}
        self.model.sessions.append(session)
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert self._request("POST", session, told).wire.status == 202

    @precondition(lambda self: self.model.sessions)
    @rule(which=CHANCE, request_id=st.sampled_from(IDS), progress=st.booleans())
    def call(self, which: int, request_id: int | str, progress: bool) -> None:
        """A client calls a tool, under an id that may be in flight already."""
        session = pick(self.model.sessions, which)
        nonce, now = f"n{next(self._nonces)}", self.world.loop.now
        params: dict[str, Any] = {"name": "echo", "arguments": {"text": nonce}}
        if progress:
            params["_meta"] = {"progressToken": 1}
        doubled = any(call.request_id == request_id for call in session.open_calls)
        http = self._request("POST", session, rpc(request_id, "tools/call", params))
        if session.closed:
            assert http.wire.status in (404, 503)
            return
        call = Call(session, request_id, nonce, now, now, [http])
        session.calls.append(call)
        session.used = True
        if doubled:
            call.allowed, call.over = {DUPLICATE}, True
        elif not any(nonce in child.calls for child in self.world.children):
            # It waits for a child, which may never be given it, or not be started any more.
            call.allowed |= {"child_exited", "draining"}

    @precondition(lambda self: self._asked())
    @rule(which=CHANCE)
    def answer(self, which: int) -> None:
        """A child answers a call, perhaps one that no client waits for any more."""
        child, nonce = pick(self._asked(), which)
        request = child.calls.pop(nonce)
        text = {"content": [{"type": "text", "text": nonce}]}
        child.say(Result(request.id, json.dumps(text).encode()))
        if which % 5 == 0:  # and once more
            child.say(Result(request.id, b'{"content":[{"type":"text","text":"twice"}]}'))
        call = self._call(nonce)
        if not call.over:
            call.allowed.add(RESULT)
            call.over = True
            self._used(call.session)
        self.world.settle()

    @precondition(lambda self: self._asked())
    @rule(which=CHANCE)
    def report(self, which: int) -> None:
        """A child reports progress."""
        child, nonce = pick(self._asked(), which)
        request = child.calls[nonce]
        if b"progressToken" in (request.params or b""):
            child.say(progress_of(request, 1))
            self._call(nonce).heard_at = self.world.loop.now
            self.world.settle()

    @precondition(lambda self: self.model.open_calls)
    @rule(which=CHANCE)
    def cancel(self, which: int) -> None:
        """A client cancels a call."""
        call = pick(self.model.open_calls, which)
        params = {"requestId": call.request_id}
        told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        given = any(call.nonce in child.calls for child in self.world.living)
        assert self._request("POST", call.session, told).wire.status == 202
        call.cancelled_at = call.cancelled_at or self.world.loop.now
        call.allowed.add("cancelled")
        call.over = call.over or not given

    @precondition(lambda self: self.model.open_calls)
    @rule(which=CHANCE)
    def disconnect(self, which: int) -> None:
        """A client's connection breaks; the call goes on."""
        call = pick(self.model.open_calls, which)
        if call.https[-1].connected:
            call.https[-1].leave()
            self.world.settle()

    @precondition(lambda self: self._resumable())
    @rule(which=CHANCE)
    def resume(self, which: int) -> None:
        """A client comes back for the rest, from the last event it saw."""
        call = pick(self._resumable(), which)
        ids = [http.last_event_id for http in call.https if http.last_event_id]
        http = self._request("GET", call.session, None, ("last-event-id", ids[-1]))
        assert http.wire.status in (200, 405), http.messages
        if http.wire.status == 200:
            call.https.append(http)
        else:
            assert call.over

    @precondition(lambda self: self.model.open_sessions)
    @rule(which=CHANCE)
    def listen(self, which: int) -> None:
        """A client opens its standalone stream."""
        session = pick(self.model.open_sessions, which)
        before = session.last_used
        http = self._request("GET", session, None)
        if self.world.bridge.drain.accepts_sessions:
            assert http.wire.status == 200
            session.listeners.append(http)
        else:
            assert http.wire.status == 503
            session.last_used = before  # what is refused is not a use of the session

    @precondition(lambda self: self.model.open_sessions)
    @rule(which=CHANCE)
    def delete(self, which: int) -> None:
        """A client ends its session."""
        session = pick(self.model.open_sessions, which)
        session.close("session_closed")
        assert self._request("DELETE", session, None).wire.status == 200

    @precondition(lambda self: self.world.living)
    @rule(which=CHANCE)
    def kill(self, which: int) -> None:
        """A child ends by itself."""
        child = pick(self.world.living, which)
        self.model.died(child)
        child.crash()
        self.world.settle()

    @rule(seconds=st.sampled_from(TICKS_S))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.pass_time(seconds)
        self._passed()

    @precondition(lambda self: self.world.bridge.drain.state is not DrainState.CUTOFF)
    @rule(chance=st.integers(0, 5))
    def drain(self, chance: int) -> None:
        """The end goes one phase on; not often, or nothing else would be played."""
        if chance == 0:
            self._drain_on()

    @invariant()
    def answers_are_allowed(self) -> None:
        """Exactly one to each call that is over, under its own id, with its own text."""
        for call in self.model.calls:
            answers = call.answers
            assert len(answers) <= 1, (call, answers)
            ids = [event_id for http in call.https for event_id in http.event_ids]
            assert len(set(ids)) == len(ids), (call, ids)
            for answer in answers:
                assert answer["id"] == call.request_id
                assert type(answer["id"]) is type(call.request_id)
                assert verdict_of(answer) in call.allowed, (call, answer)
                assert verdict_of(answer) != RESULT or call.nonce in json.dumps(answer)
                call.over = True
            assert answers or not (call.over and call.https[-1].connected), call

    @invariant()
    def streams_of_sessions_carry_no_answers(self) -> None:
        """What belongs to a call is on its own stream."""
        for session in self.model.sessions:
            heard = [m for http in session.listeners for m in http.messages]
            assert not [message for message in heard if "method" not in message]

    @invariant()
    def tables_are_bounded(self) -> None:
        """By what is open, not by what ever was."""
        bridge = self.world.bridge
        waiting = len(self.model.open_calls)
        assert bridge.drain.in_flight == waiting
        assert sum(lease.mux.in_flight for lease in self.world.child_pool.leases) <= waiting
        assert len(bridge.sessions) == len(self.model.open_sessions) <= MAX_SESSIONS
        assert len(self.world.living) <= 1 + sum(
            session.own for session in self.model.open_sessions
        )
        assert self.world.failures == []

    def teardown(self) -> None:
        """The rest of the end; everything is released."""
        try:
            while self.world.bridge.drain.state is not DrainState.CUTOFF:
                self._drain_on()
            self.answers_are_allowed()
            self.tables_are_bounded()
            bridge = self.world.bridge
            assert (bridge.drain.in_flight, len(bridge.sessions)) == (0, 0)
            assert (self.world.living, self.world.child_pool.children) == ([], 0)
            assert [call for call in self.model.calls if call.connected and not call.answers] == []
        finally:
            left = self.world.close()
        assert left == set()
        assert self.world.keepalive.open == 0
        assert self.world.failures == []

    def _drain_on(self) -> None:
        drain = self.world.bridge.drain
        match drain.state:
            case DrainState.SERVING:
                drain.advance(DrainEvent.SIGNAL)
            case DrainState.LAME_DUCK:
                drain.advance(DrainEvent.LAME_DUCK_OVER)
                self.world.bridge.end_idle_streams()
                self.world.settle()
            case _:
                drain.advance(DrainEvent.DEADLINE)
                for session in self.model.open_sessions:
                    session.close("shutdown")
                self.world.cut_off()

    def _made_room(self) -> None:
        """One session was ended for a newcomer, and it was one that may be."""
        sessions = self.world.bridge.sessions
        gone = [session for session in self.model.open_sessions if sessions.get(session.id) is None]
        assert len(gone) == 1, gone
        assert gone[0] in self.model.may_make_room(), (gone, self.model.open_sessions)
        gone[0].close("session_closed")

    def _passed(self) -> None:
        now = self.world.loop.now
        # In this order: a call that has just been answered keeps its session a while longer.
        self.model.passed(now)
        self.answers_are_allowed()
        for session in self.model.open_sessions:
            gone = self.world.bridge.sessions.get(session.id) is None
            assert not gone or self.model.may_expire(session, now), session
            assert gone or not self.model.must_expire(session, now), session
            if gone:
                session.close("session_closed")
            elif session.busy:
                session.last_used = now

    def _request(
        self, method: str, session: ModelSession, message: Any, *more: tuple[str, str]
    ) -> Any:
        headers = [("mcp-session-id", session.id), ("mcp-protocol-version", REVISION), *more]
        self._used(session)
        return self.world.request(method, headers, message)

    def _used(self, session: ModelSession) -> None:
        session.last_used = self.world.loop.now

    def _asked(self) -> list[tuple[FakeChild, str]]:
        """Every call that a living child has not answered."""
        return [(child, nonce) for child in self.world.living for nonce in child.calls]

    def _call(self, nonce: str) -> Call:
        return next(call for call in self.model.calls if call.nonce == nonce)

    def _resumable(self) -> list[Call]:
        calls = (call for session in self.model.open_sessions for call in session.calls)
        return [
            call
            for call in calls
            if not call.connected and any(http.last_event_id for http in call.https)
        ]


def pick(among: list[Any], which: int) -> Any:
    """One of several, the same for the same number."""
    return among[which % len(among)]


@pytest.mark.slow
@pytest.mark.hypothesis  # which Hypothesis sets on functions only
def test_the_model_holds() -> None:
    """Exactly one answer, no delivery across sessions, bounded tables, nothing left."""
    examples = int(os.environ.get("MCPBRIDGE_MODEL_EXAMPLES") or settings().max_examples)
    steps = int(os.environ.get("MCPBRIDGE_MODEL_STEPS") or 30)
    machine = Clients.TestCase
    machine.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
    )
    machine("runTest").runTest()
    gc.collect()
