"""One principal's children, sessions and calls, and the table of all principals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from anyio.abc import TaskGroup

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.children.tenant_pool import TenantPool
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.bridge.modern.emulation import ParkSettings
from mcpbridge.bridge.modern.parking import Parking
from mcpbridge.bridge.modern.request_state import RequestState, RequestStateCodec
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.bridge.tenant import IDLE_S, SETTLED_S, BridgeSettings, Tenant, TenantRegistry
from mcpbridge.process.child import Child
from mcpbridge.rules.access.principals import Principal, Secrets
from mcpbridge.rules.faults import Exit, Fault, Unavailable, shutdown
from mcpbridge.rules.mcp.era_probe import ChildEra, ServerEras
from mcpbridge.rules.supervision.lifecycle import DrainEvent
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import OnChildExit
from mcpbridge.wire.messages import Request
from tests.bridge.fake_server import (
    AT_ONCE,
    LEGACY,
    SILENT,
    FakeProcess,
    FakeServer,
    content_of,
    params_of,
    reason_of,
    running_pool,
    until,
)
from tests.bridge.legacy.parts import context_of
from tests.bridge.playbook import bounded, turns

LONG_S = 1000.0
CALL, SET_LEVEL, SUBSCRIBE = "tools/call", "logging/setLevel", "resources/subscribe"
SETTINGS = BridgeSettings(
    ChildPoolSettings(),
    SessionSettings(),
    CallLimits(),
    ParkSettings(),
    EraSettings(),
    OnChildExit.RESTART,
    RecyclePolicy(),
)
ONE, OTHER = Principal(b"one", "one"), Principal(b"other", "other")


def with_value(value: str, account: bytes = b"a") -> Principal:
    """A principal that brings a value for the environment of its children."""
    key = account + value.encode()
    return Principal(key, "env", env=Secrets((("TOKEN", value),)), account=account)


class Tenanted:
    """A tenant on a legacy server."""

    def __init__(self, server: FakeServer, pool: ChildPool, tasks: TaskGroup) -> None:
        self.server, self.context = server, context_of(tasks.start_soon)
        self.eras = EraSupervisors(pool, Readiness(), AT_ONCE, ChildEra.LEGACY, LONG_S)
        self.tenant = Tenant(
            self.eras,
            pool,
            self.context,
            SETTINGS,
            RequestStateCodec(None),
            Parking(8, lambda: None),
            lambda session: None,
        )

    async def call(self, method: str = CALL, params: bytes = b"{}") -> Exchange:
        """A client without a session sends a request."""
        calls = await self.tenant.sessionless()
        return calls.call(Request(b"7", method, params), streams=True)

    async def answered(self, method: str = CALL, params: bytes = b"{}") -> Any:
        """What the client gets."""
        exchange = await self.call(method, params)
        await until(lambda: exchange.reply)
        return content_of(exchange)


@asynccontextmanager
async def tenanted(*, runs: bool = True, **answers: Any) -> AsyncIterator[Tenanted]:
    """A tenant until the block ends."""
    found = {name.replace("_", "/"): answer for name, answer in answers.items()}
    server = FakeServer(LEGACY, {CALL: {}, SET_LEVEL: {}, SUBSCRIBE: {}}, found)
    async with running_pool(server) as pool, anyio.create_task_group() as tasks:
        made = Tenanted(server, pool, tasks)
        if runs:
            tasks.start_soon(made.tenant.run)
        yield made
        tasks.cancel_scope.cancel()


@bounded
async def test_calls_without_a_session_wait_until_it_is_known_which_child_serves_them() -> None:
    """Then they share it."""
    async with tenanted(runs=False) as made, anyio.create_task_group() as tasks:
        assert made.tenant.sessionless_nowait() is None
        waiting = asyncio.create_task(made.answered())
        await turns()
        assert (waiting.done(), made.server.processes) == (False, [])
        tasks.start_soon(made.tenant.run)
        assert await waiting == {}
        assert isinstance(made.tenant.sessionless_nowait(), SessionlessCalls)
        assert await made.answered() == {}
        assert len(made.server.processes) == 1
        tasks.cancel_scope.cancel()


@bounded
async def test_the_next_child_gets_the_state_of_its_clients_before_any_call() -> None:
    """A call could rely on a subscription or a log level."""
    async with tenanted() as made:
        await made.answered(SET_LEVEL, b'{"level":"error"}')
        await made.answered(SUBSCRIBE, b'{"uri":"a:1"}')
        made.server.processes[0].end(Exit(code=1))
        await until(lambda: made.eras.legacy.usable is None)
        assert await made.answered() == {}
        second = made.server.processes[1]
        restored = ["initialize", "notifications/initialized", SET_LEVEL, SUBSCRIBE]
        assert second.methods == [*restored, CALL]
        assert params_of(second.asked_for(SET_LEVEL)[0]) == {"level": "error"}


@bounded
async def test_what_the_last_calls_of_a_replaced_child_change_is_told_to_the_next() -> None:
    """It serves already while they run."""
    async with tenanted(resources_subscribe=SILENT) as made:
        await made.answered()
        first = made.server.processes[0]
        late = await made.call(SUBSCRIBE, b'{"uri":"a:1"}')
        await until(lambda: first.asked_for(SUBSCRIBE))
        lease = made.eras.legacy.usable
        assert lease is not None
        made.eras.replace(lease)
        await until(lambda: made.eras.legacy.usable not in (None, lease))
        assert await made.answered() == {}
        second = made.server.processes[1]
        assert (second.asked_for(SUBSCRIBE), len(second.asked_for(CALL))) == ([], 1)
        made.server.answers[SUBSCRIBE] = {}
        first.answer(first.asked_for(SUBSCRIBE)[0], {})
        await until(lambda: late.reply and second.asked_for(SUBSCRIBE))
        await until(lambda: first.asked)


@bounded
async def test_a_tenant_is_in_use_while_a_call_is_open() -> None:
    """Its idle time begins with its end."""
    async with tenanted(tools_call=SILENT) as made:
        tenant = made.tenant
        await made.answered(SET_LEVEL, b'{"level":"error"}')
        tenant.touch(100.0)
        assert (tenant.in_use, tenant.idle_s(130.0)) == (False, 30.0)
        exchange = await made.call(params=b'{"x":"%b"}' % (b"x" * 100_000))
        await until(lambda: made.server.processes[0].asked_for(CALL))
        assert (tenant.in_use, list(tenant.in_flight)) == (True, [exchange])
        assert [(each.kind, each.held >= 100_000) for each in tenant.holders] == [("call", True)]
        assert tenant.idle_s(200.0) == 0
        made.server.processes[0].answer(made.server.processes[0].asked_for(CALL)[0], {})
        await until(lambda: exchange.reply)
        assert (tenant.in_use, tenant.idle_s(210.0), tenant.holders) == (False, 10.0, [])


@bounded
async def test_calls_whose_answers_go_to_a_stream_end_with_it() -> None:
    """And no others."""
    async with tenanted(tools_call=SILENT) as made:
        calls = await made.tenant.sessionless()
        window, meters = made.context.window, made.context.meters
        ends, stays = Stream(window, meters), Stream(window, meters)
        exchanges = [
            calls.call(Request(b"%d" % number, CALL, b"{}"), streams=True, stream=stream)
            for number, stream in enumerate((ends, stays), 1)
        ]
        assert made.tenant.awaits(ends)
        made.tenant.hang_up(ends)
        assert not made.tenant.awaits(ends)
        assert made.tenant.awaits(stays)
        assert (reason_of(exchanges[0]), exchanges[1].reply) == ("session_closed", None)


@bounded
async def test_the_states_of_a_tenant_are_bound_to_its_principal() -> None:
    """Another one cannot use them."""
    async with tenanted(runs=False) as made:
        codec = RequestStateCodec(None)
        state = RequestState("p", 0, CALL, "d", expires_at=10.0)
        made.tenant.claim(ONE)
        text = made.tenant.state_codec.encode(state)
        assert made.tenant.state_codec.decode(text, 0.0) == state
        made.tenant.claim(OTHER)
        assert made.tenant.state_codec.decode(text, 0.0) is None
        assert codec.decode(text, 0.0) is None


@bounded
async def test_leaving_ends_calls_and_run() -> None:
    """No further child is started."""
    async with tenanted(runs=False, tools_call=SILENT) as made:
        running = asyncio.create_task(made.tenant.run())
        exchange = await made.call()
        made.tenant.leave(shutdown())
        await running
        assert (reason_of(exchange), made.tenant.in_use) == ("shutdown", False)


@bounded
async def test_nothing_begins_when_the_bridge_is_about_to_end() -> None:
    """With or without a wait."""
    async with tenanted() as made:
        for event in (DrainEvent.SIGNAL, DrainEvent.LAME_DUCK_OVER):
            made.context.drain.advance(event)
        with pytest.raises(Unavailable):
            made.tenant.sessionless_nowait()
        with pytest.raises(Unavailable) as raised:
            await made.tenant.sessionless()
        assert raised.value.fault.reason == "draining"


class FakeEras:
    """A fake of a tenant's supervisors, with what a registry uses."""

    def __init__(self, verdict: ServerEras | None = None) -> None:
        self.verdict = verdict
        self.gave_up = anyio.Event()
        self.made: list[ChildSource] = []

    def another(self, child_pool: ChildSource) -> FakeEras:
        """See `EraSupervisors`."""
        self.made.append(child_pool)
        return FakeEras()


class FakeTenant:
    """A fake of a tenant, with what a registry uses."""

    def __init__(self, eras: FakeEras, source: ChildSource) -> None:
        self.eras, self.source = eras, source
        self.idle, self.runs = 0.0, False
        self.owners: list[Principal] = []
        self.left: list[Fault] = []

    def idle_s(self, now: float) -> float:
        """See `Tenant`."""
        return self.idle

    def claim(self, principal: Principal) -> None:
        """See `Tenant`."""
        self.owners.append(principal)

    async def run(self) -> None:
        """See `Tenant`."""
        self.runs = True

    def leave(self, fault: Fault) -> None:
        """See `Tenant`."""
        self.left.append(fault)


class Registered:
    """A registry with a first tenant, if it has one."""

    def __init__(
        self, server: FakeServer, pool: ChildPool, tasks: TaskGroup, *, first: bool
    ) -> None:
        self.server, self.pool = server, pool
        self.eras = FakeEras()
        self.values: list[Secrets] = []
        self.first = FakeTenant(self.eras, pool) if first else None
        self.registry = TenantRegistry(
            pool,
            cast(Tenant, self.first),
            cast(Callable[[EraSupervisors, ChildSource], Tenant], FakeTenant),
            cast(EraSupervisors, self.eras),
            self._make_child,
            tasks.start_soon,
        )

    def _make_child(self, values: Secrets) -> Child:
        self.values.append(values)
        return cast(Child, FakeProcess(self.server))

    def give(self, principal: Principal) -> FakeTenant:
        """The tenant of a principal that has none."""
        return cast(FakeTenant, self.registry.give(principal))

    async def child_of(self, tenant: FakeTenant) -> Lease:
        """A child that is started for a tenant."""
        return await cast(TenantPool, tenant.source).own()


@asynccontextmanager
async def registered(*, first: bool = True) -> AsyncIterator[Registered]:
    """A registry until the block ends."""
    server = FakeServer(LEGACY)
    async with running_pool(server) as pool, anyio.create_task_group() as tasks:
        yield Registered(server, pool, tasks, first=first)
        tasks.cancel_scope.cancel()


@bounded
async def test_the_first_principal_gets_the_first_tenant_and_each_other_one_its_own() -> None:
    """With its own children, which run at once."""
    async with registered() as made:
        assert [*made.registry] == [made.first]
        assert made.registry.find(ONE) is None
        first, other = made.give(ONE), made.give(OTHER)
        assert first is made.first
        assert [*made.registry] == [first, other]
        assert made.registry.find(OTHER) is cast(Tenant, other)
        assert (first.owners, other.owners) == ([ONE], [OTHER])
        assert isinstance(other.source, TenantPool)
        await until(lambda: other.runs)


@bounded
async def test_a_principal_with_values_for_the_environment_never_gets_the_first_tenant() -> None:
    """Its children were started without them."""
    async with registered() as made:
        tenant = made.give(with_value("secret"))
        assert tenant is not made.first
        await made.child_of(tenant)
        await made.child_of(made.give(OTHER))
        assert made.values == [Secrets((("TOKEN", "secret"),))]


@bounded
async def test_what_one_tenant_knows_of_the_server_the_next_need_not_ask() -> None:
    """All run the same program."""
    async with registered(first=False) as made:
        first = made.give(ONE)
        second = made.give(OTHER)
        second.eras.verdict = ServerEras(legacy=True, modern=False)
        third = made.give(with_value("x"))
        assert made.eras.made == [first.source, second.source]
        assert second.eras.made == [third.source]


@bounded
async def test_an_account_has_a_limited_number_of_sets_of_values() -> None:
    """The one that is unused for longest makes room, unless a call may be on its way."""
    async with registered() as made:
        one, two = (made.give(with_value(value)) for value in "12")
        new = with_value("3")
        assert not made.registry.admit(new, 2, 0.0)
        one.idle, two.idle = SETTLED_S, SETTLED_S + 1
        assert made.registry.admit(with_value("3", b"b"), 2, 0.0), "another account's do not count"
        assert made.registry.admit(OTHER, 0, 0.0), "it brings no values"
        assert (one.left, two.left) == ([], [])
        assert made.registry.admit(new, 2, 0.0)
        assert ([each.reason for each in two.left], one.left) == (["session_closed"], [])
        assert made.registry.find(with_value("2")) is None
        assert made.registry.admit(new, 2, 0.0), "there is room now"


@bounded
async def test_tenants_that_are_not_used_are_removed_with_their_children() -> None:
    """Those whose child keeps failing are left to the caller; the first one always stays."""
    async with registered() as made:
        first, used, unused, failed = (
            made.give(Principal(key, "x")) for key in (b"1", b"2", b"3", b"4")
        )
        lease = await made.child_of(unused)
        for each in (first, unused, failed):
            each.idle = IDLE_S + 1
        failed.eras.gave_up.set()
        assert made.registry.sweep(0.0) == [cast(Tenant, failed)]
        await lease.child.exited.wait()
        assert [bool(each.left) for each in (first, used, unused, failed)] == [
            False,
            False,
            True,
            False,
        ]
        assert [*made.registry] == [first, used, failed]
        assert made.registry.sweep(0.0) == [cast(Tenant, failed)]


@bounded
async def test_the_tenant_that_is_unused_for_longest_gives_its_children_for_others() -> None:
    """Of those whose children may give way at all, and not one that has just been used."""
    async with registered() as made:
        made.give(ONE)
        tenants = [made.give(Principal(key, "x")) for key in (b"2", b"3", b"4")]
        leases = [await made.child_of(each) for each in tenants[:2]]
        spared = {leases[1]}

        def evict() -> Collection[Lease]:
            return made.registry.evict_idle(lambda lease: None if lease in spared else 0)

        tenants[0].idle, tenants[1].idle, tenants[2].idle = 5.0, 9.0, 99.0
        assert list(evict()) == [leases[0]]
        assert [bool(each.left) for each in tenants] == [True, False, False]
        assert list(evict()) == []
        spared.clear()
        tenants[1].idle = SETTLED_S / 2
        assert list(evict()) == []
        tenants[1].idle = SETTLED_S
        assert list(evict()) == [leases[1]]
