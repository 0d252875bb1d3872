"""The bridge: who is admitted, who gives way, and what each end leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from mcpbridge.bridge import bridge as bridge_module
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.child_pool import ChildPoolSettings
from mcpbridge.bridge.children.health_check import HealthChecker
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.modern.emulation import ParkSettings
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.bridge.tenant import BridgeSettings
from mcpbridge.process.child import Child
from mcpbridge.rules.access.principals import ANONYMOUS, Principal, Secrets
from mcpbridge.rules.faults import Exit, Unavailable
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.mcp.admission import Opening
from mcpbridge.rules.mcp.era_probe import ChildEra
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.supervision.lifecycle import DrainEvent, SessionState
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import OnChildExit
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Notification, Request
from tests.bridge.fake_server import (
    AT_ONCE,
    LEGACY,
    SILENT,
    FakeProcess,
    FakeServer,
    content_of,
    params_of,
    reason_of,
    until,
)
from tests.bridge.legacy.parts import ASKED
from tests.bridge.playbook import bounded, turns

LONG_S = 1000.0
CALL = "tools/call"
PLAIN = ClientProfile(b'{"capabilities":{}}', "2025-11-25", frozenset())
ONE, OTHER = Principal(b"one", "one"), Principal(b"other", "other")


class Bridged:
    """A bridge on a server in memory."""

    def __init__(
        self,
        server: FakeServer,
        sessions: SessionSettings,
        on_exit: OnChildExit,
        budget: Budget | None,
        *,
        header_values: bool,
    ) -> None:
        self.server, self.meters = server, Meters()
        pool = server.pool(spares="0")
        readiness = Readiness()
        self.bridge = Bridge(
            pool,
            EraSupervisors(pool, readiness, AT_ONCE, ChildEra.LEGACY, LONG_S),
            BridgeSettings(
                ChildPoolSettings(max_children=8, spares="0"),
                sessions,
                CallLimits(),
                ParkSettings(),
                EraSettings(),
                on_exit,
                RecyclePolicy(),
            ),
            readiness,
            self.meters,
            CallLog(self.meters),
            RequestStateCodec(None),
            HealthChecker(RecyclePolicy()),
            budget=budget,
            make_child_with_env=self._make_child if header_values else None,
        )

    def _make_child(self, values: Secrets) -> Child:
        return cast(Child, FakeProcess(self.server))

    def begin(
        self, owner: Principal = ANONYMOUS, profile: ClientProfile = PLAIN
    ) -> tuple[Session, Exchange]:
        """A client sends `initialize`."""
        opening = Opening(Request(b"1", "initialize", profile.params), profile)
        return self.bridge.open(opening, owner, streams=True)

    async def open(self, owner: Principal = ANONYMOUS, profile: ClientProfile = PLAIN) -> Session:
        """A session that has initialized."""
        session, exchange = self.begin(owner, profile)
        await until(lambda: exchange.reply)
        assert session.state is SessionState.OPEN
        session.tell(Notification("notifications/initialized"))
        return session

    async def call(self, session: Session, number: int = 7) -> Exchange:
        """A call of a session that its child works on."""
        exchange = session.call(Request(b"%d" % number, CALL, b"{}"), streams=True)
        await until(lambda: exchange.number)
        return exchange

    def refused(self, owner: Principal = ANONYMOUS) -> str:
        """The text with which a further session is refused."""
        with pytest.raises(Unavailable) as raised:
            self.begin(owner)
        return raised.value.fault.message

    def gave_way(self) -> dict[Any, int]:
        """What gave way to others, by kind."""
        return dict(self.meters.tallies.get("gave_way", {}))


@asynccontextmanager
async def bridged(
    on_exit: OnChildExit = OnChildExit.RESTART,
    budget: Budget | None = None,
    *,
    header_values: bool = False,
    answer: Any = SILENT,
    **sessions: Any,
) -> AsyncIterator[Bridged]:
    """A bridge that runs until the block ends; calls stay without an answer."""
    server = FakeServer(LEGACY, {CALL: answer, "logging/setLevel": {}})
    settings = SessionSettings(**sessions)
    made = Bridged(server, settings, on_exit, budget, header_values=header_values)
    async with made.bridge.running():
        yield made
        server.obeys = True
        await made.bridge.cut_off(0)


@bounded
async def test_a_session_exists_for_its_own_principal_only() -> None:
    """Another one learns nothing of it, be it by its id."""
    async with bridged() as made:
        session = await made.open(ONE)
        assert made.bridge.session(session.id, ONE) is session
        assert made.bridge.session(session.id, OTHER) is None
        assert made.bridge.session("x", ONE) is None
        other = await made.open(OTHER)
        assert session.lease is not None
        assert other.lease is not None
        assert session.lease.child.pid != other.lease.child.pid


@bounded
async def test_sessions_of_one_principal_share_a_child_unless_they_can_be_asked() -> None:
    """The child of a single session ends with it, the shared one does not."""
    async with bridged() as made:
        shared, second = await made.open(), await made.open()
        own = await made.open(profile=ASKED)
        assert own.lease is not None
        assert shared.lease is second.lease
        assert shared.lease is not own.lease
        child = own.lease.child
        made.bridge.close(own)
        made.bridge.close(second)
        await child.exited.wait()
        assert [each.pid for each in made.server.running] == [1]


@bounded
async def test_closing_a_session_ends_its_calls_and_its_id() -> None:
    """At the child too, and only once."""
    async with bridged() as made:
        session, other = await made.open(), await made.open()
        exchange, stays = await made.call(session), await made.call(other)
        made.bridge.close(session)
        made.bridge.close(session)
        assert (reason_of(exchange), stays.reply) == ("session_closed", None)
        assert made.bridge.session(session.id, ANONYMOUS) is None
        await until(lambda: "notifications/cancelled" in made.server.processes[0].methods)
        assert made.meters.tallies["sessions_ended"].total() == 1


@bounded
async def test_a_full_bridge_ends_a_session_without_a_call_for_a_newcomer() -> None:
    """If each has one, the newcomer is refused, and told which setting it is."""
    async with bridged(max_sessions=2) as made:
        busy, idle = await made.open(), await made.open()
        await made.call(busy)
        newest = await made.open()
        assert [each.state for each in (busy, idle, newest)] == [
            SessionState.OPEN,
            SessionState.CLOSED,
            SessionState.OPEN,
        ]
        assert made.gave_way() == {"session": 1}
        await made.call(newest)
        assert "--max-sessions 2" in made.refused()
        assert len(made.bridge.sessions) == 2


@bounded
async def test_a_principal_has_its_own_limit() -> None:
    """It does not end its own sessions; others are not concerned."""
    async with bridged(max_per_principal=1) as made:
        session = await made.open(ONE)
        assert "--max-sessions-per-principal 1" in made.refused(ONE)
        await made.open(OTHER)
        assert session.state is SessionState.OPEN


@bounded
async def test_nothing_new_is_begun_when_the_bridge_is_about_to_end() -> None:
    """What there is goes on."""
    async with bridged() as made:
        session = await made.open()
        for event in (DrainEvent.SIGNAL, DrainEvent.LAME_DUCK_OVER):
            made.bridge.drain.advance(event)
        made.refused()
        with pytest.raises(Unavailable):
            await made.bridge.revive("id", PLAIN, ANONYMOUS)
        with pytest.raises(Unavailable), made.bridge.one_stream(ANONYMOUS):
            pass
        with pytest.raises(Unavailable) as raised:
            made.bridge.tenant_of(OTHER)
        assert raised.value.fault.reason == "draining"
        assert made.bridge.tenant_of(ANONYMOUS) is made.bridge.find_tenant(ANONYMOUS)
        assert (await made.call(session)).reply is None


@bounded
async def test_nothing_new_is_begun_while_memory_is_short() -> None:
    """The refusal names the setting."""
    budget = Budget(100_000)
    async with bridged(budget=budget) as made:
        budget.charge(90_000)
        assert "--max-memory" in made.refused()
        with pytest.raises(Unavailable), made.bridge.one_stream(ANONYMOUS):
            pass
        budget.charge(-90_000)
        await made.open()


@bounded
async def test_a_session_of_another_replica_goes_on_under_its_id() -> None:
    """With what its client had asked for."""
    async with bridged() as made:
        record = SessionRecord(initialized=True, level="error", used=True)
        await made.bridge.revive("id", PLAIN, ONE, record)
        session = made.bridge.session("id", ONE)
        assert session is not None
        assert (session.state, session.used, session.client.level) == (
            SessionState.OPEN,
            True,
            "error",
        )
        (asked,) = made.server.running[-1].asked_for("logging/setLevel")
        assert params_of(asked) == {"level": "error"}
        assert (await made.call(session)).reply is None


@bounded
async def test_a_session_that_cannot_be_revived_leaves_nothing_behind() -> None:
    """Its client gets 404 and begins again."""
    async with bridged() as made:
        made.server.broken = True
        with pytest.raises(Unavailable) as raised:
            await made.bridge.revive("id", PLAIN, ONE)
        assert raised.value.fault.reason == "spawn_failed"
        assert (made.bridge.session("id", ONE), len(made.bridge.sessions)) == (None, 0)
        made.server.broken = False


@bounded
async def test_an_old_stream_that_has_not_initialized_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the transport of 2024-11-05; not one that is about to, nor one that awaits an answer."""
    async with bridged(max_sessions=1) as made:
        with ExitStack() as streams:
            first = streams.enter_context(made.bridge.one_stream(ONE))
            with pytest.raises(Unavailable), made.bridge.one_stream(OTHER):
                pass
            monkeypatch.setattr(bridge_module, "_INITIALIZES_S", 0.0)
            calls = await made.bridge.tenant_of(ONE).sessionless()
            exchange = calls.call(Request(b"7", CALL, b"{}"), streams=True, stream=first)
            with pytest.raises(Unavailable), made.bridge.one_stream(OTHER):
                pass
            made.bridge.hang_up(first, ONE)
            assert (reason_of(exchange), made.bridge.awaits(first, ONE)) == (
                "session_closed",
                False,
            )
            streams.enter_context(made.bridge.one_stream(OTHER))
            assert (first.log.closed, made.gave_way()) == (True, {"session": 1})


@pytest.mark.parametrize("on_exit", [OnChildExit.RESTART, OnChildExit.END])
@bounded
async def test_the_end_of_a_child_ends_its_sessions_if_the_operator_says_so(
    on_exit: OnChildExit,
) -> None:
    """Else the next one serves them; calls in flight fail in either case."""
    async with bridged(on_exit) as made:
        session, own = await made.open(), await made.open(profile=ASKED)
        exchange = await made.call(session)
        made.server.processes[0].end(Exit(code=1))
        await until(lambda: exchange.reply)
        assert reason_of(exchange) == "child_exited"
        kept = on_exit is OnChildExit.RESTART
        expected = SessionState.OPEN if kept else SessionState.CLOSED
        assert (session.state, own.state) == (expected, SessionState.OPEN)
        if kept:
            assert (await made.call(session, 8)).reply is None


@bounded
async def test_sessions_that_are_not_used_expire_and_calls_that_take_too_long_end() -> None:
    """A session with a call is used."""
    async with bridged(unused_timeout_s=30.0, idle_timeout_s=1800.0) as made:
        unused, used, busy = await made.open(), await made.open(), await made.open()
        made.server.answers[CALL] = {}
        answered = used.call(Request(b"1", CALL, b"{}"), streams=True)
        await until(lambda: answered.reply)
        made.server.answers[CALL] = SILENT
        exchange = await made.call(busy)
        now = anyio.current_time()
        await made.bridge._sweep(now + 60.0)
        assert [each.state for each in (unused, used, busy)] == [
            SessionState.CLOSED,
            SessionState.OPEN,
            SessionState.OPEN,
        ]
        assert exchange.reply is None
        await made.bridge._sweep(now + 1900.0)
        assert (used.state, busy.state) == (SessionState.CLOSED, SessionState.OPEN)
        assert reason_of(exchange) == "timeout"


@bounded
async def test_at_the_cut_off_each_call_gets_its_error_and_each_child_ends() -> None:
    """The error says that the bridge ends, not that the child has."""
    async with bridged() as made:
        session, own = await made.open(), await made.open(profile=ASKED)
        calls = await made.bridge.tenant_of(ANONYMOUS).sessionless()
        outside = calls.call(Request(b"7", CALL, b"{}"), streams=True)
        exchanges = [await made.call(session), await made.call(own), outside]
        with made.bridge.one_stream(ANONYMOUS) as stream:
            await made.bridge.cut_off(0)
            assert stream.log.closed
        assert [reason_of(each) for each in exchanges] == ["shutdown"] * 3
        assert (made.server.running, len(made.bridge.sessions)) == ([], 0)


@bounded
async def test_children_that_are_killed_do_not_fail_the_calls() -> None:
    """They have failed before, with the shutdown."""
    async with bridged() as made:
        exchange = await made.call(await made.open())
        made.server.obeys = False
        made.bridge.kill_children()
        assert (reason_of(exchange), made.server.running) == ("shutdown", [])


@bounded
async def test_the_fullest_part_says_how_full_the_bridge_is() -> None:
    """The first process does not count, since it serves any number of sessions."""
    budget = Budget(1_000_000)
    async with bridged(budget=budget, max_sessions=10) as made:
        await made.bridge.eras.first_lease()
        assert made.bridge.fill == 0
        await made.open()
        assert made.bridge.fill == pytest.approx(1 / 10)
        await made.open(profile=ASKED)
        await made.open(profile=ASKED)
        assert made.bridge.fill == pytest.approx(3 / 10)
        await made.open(profile=ASKED)
        assert made.bridge.fill == pytest.approx(3 / 7)
        budget.charge(900_000)
        assert made.bridge.fill > 0.9
        budget.charge(-900_000)


@bounded
async def test_a_bridge_that_rests_has_no_children_and_all_its_sessions() -> None:
    """The next call of each starts one, which knows what the session had asked of the last."""
    async with bridged() as made:
        session, own = await made.open(), await made.open(profile=ASKED)
        made.bridge.rest()
        await until(lambda: not made.server.running)
        assert len(made.bridge.sessions) == 2
        for each in (session, own):
            exchange = await made.call(each)
            assert exchange.reply is None
        assert len(made.server.running) == 2


@bounded
async def test_the_end_of_idle_streams_leaves_those_of_calls() -> None:
    """And no child is started again."""
    async with bridged() as made:
        listens, calls = await made.open(), await made.open()
        ended: list[Session] = []

        async def read(session: Session) -> None:
            with session.streams.standalone.attach() as reader:
                while await reader.read() is not None:
                    pass
            ended.append(session)

        reading = asyncio.create_task(read(listens))
        await until(lambda: listens.listened)
        exchange = await made.call(calls)
        exchange.always_stream()
        made.bridge.end_idle_streams()
        await reading
        assert (ended, exchange.reply) == ([listens], None)
        assert exchange.stream is not None
        assert not exchange.stream.log.closed
        made.server.processes[0].end(Exit(code=1))
        await until(lambda: exchange.reply)
        await turns()
        assert made.server.running == []


@bounded
async def test_a_principal_with_many_values_for_the_environment_is_refused() -> None:
    """As long as all of its sets are in use."""
    async with bridged(header_values=True, max_header_values=1) as made:
        first, second = (
            Principal(value.encode(), "x", env=Secrets((("T", value),)), account=b"a")
            for value in "12"
        )
        assert made.bridge.readiness.ready
        session = await made.open(first)
        with pytest.raises(Unavailable) as raised:
            made.begin(second)
        assert "--max-header-values 1" in raised.value.fault.message
        assert session.state is SessionState.OPEN


@bounded
async def test_the_heaviest_session_can_be_ended_for_want_of_memory() -> None:
    """Its calls learn why."""
    async with bridged() as made:
        session = await made.open()
        exchange = await made.call(session)
        found = [each for group in made.bridge._holders() for each in group]
        (holder,) = [each for each in found if each.kind == "session"]
        holder.cut()
        assert (reason_of(exchange), session.state) == ("memory", SessionState.CLOSED)


@bounded
async def test_a_bug_in_the_task_of_a_session_ends_that_session() -> None:
    """Its state is unknown; the others go on."""
    async with bridged() as made:
        session, other = await made.open(), await made.open()
        exchange = await made.call(session)
        made.bridge._failed(session)
        assert (reason_of(exchange), other.state) == ("bridge_failed", SessionState.OPEN)


@bounded
async def test_whether_a_client_is_waited_for_is_known() -> None:
    """By calls in flight, and by the requests that each child has got."""
    async with bridged() as made:
        session = await made.open()
        before = dict(made.bridge.activity)
        busy = [made.bridge.busy]
        exchange = await made.call(session)
        busy.append(made.bridge.busy)
        (pid,) = before
        assert dict(made.bridge.activity) == {pid: before[pid] + 1}
        process = made.server.processes[0]
        await until(lambda: process.asked_for(CALL))
        process.answer(process.asked_for(CALL)[0], {})
        await until(lambda: exchange.reply)
        assert (content_of(exchange), busy) == ({}, [False, True])
        assert not made.bridge.busy
