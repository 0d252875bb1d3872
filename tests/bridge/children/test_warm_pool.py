"""Children for single calls: which call gets which, and when another one is started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.warm_pool import IDLE_S, WarmPool
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.rules.faults import PoolExhausted, Unavailable, child_exited, spawn_failed
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.wire.messages import Request, Result
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import bounded, turns

INTRODUCED = b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"x"}}'


def offering(ability: str) -> RequestMeta:
    """The envelope of a client that offers one ability."""
    capabilities = b'{"%b":{}}' % ability.encode()
    return RequestMeta("2026-07-28", capabilities, frozenset((ability,)), False, True, None)


FORM, OTHER, THIRD = offering("elicitation"), offering("sampling"), offering("roots")
LONG_S = 1000.0


class Source:
    """Starts children in memory, which answer their handshake."""

    def __init__(self, spawn: Any) -> None:
        self._spawn = spawn
        self.started: list[Lease] = []
        self.may_start = anyio.Event()
        self.may_start.set()
        self.fault: Unavailable | None = None
        self.released: list[Lease] = []
        self.idles = 0
        self.holders: dict[Lease, bytes] = {}
        self.callers: list[bytes] = []
        self.wanted: list[bool] = []

    async def own(self, *, wanted: Any = None, caller: bytes = b"") -> Lease:
        """A child, as soon as it may start."""
        self.callers.append(caller)
        await self.may_start.wait()
        self.wanted.append(wanted())
        if self.fault is not None:
            raise self.fault
        lease, far = lease_on_memory(shared=False)
        self.started.append(lease)
        self._spawn(lease.mux.run)
        self._spawn(self._answer, far)
        return lease

    async def _answer(self, far: MemoryChannel) -> None:
        for request in await far.receive():
            assert isinstance(request, Request)
            far.send(Result(request.id, INTRODUCED))

    def pass_on(self, lease: Lease, caller: bytes) -> None:
        """See `ChildSource`."""
        self.holders[lease] = caller

    def idle(self) -> None:
        """See `ChildSource`."""
        self.idles += 1

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """See `ChildSource`."""
        self.released.append(lease)


class Warm:
    """A pool over such a source."""

    def __init__(self, spawn: Any) -> None:
        self.source = Source(spawn)
        self.pool = WarmPool(cast(ChildSource, self.source), LONG_S, spawn)

    def ask(self, envelope: RequestMeta = FORM, caller: bytes = b"a") -> asyncio.Task[Lease]:
        """A call that wants a child."""
        return asyncio.create_task(self.pool.take(envelope, caller))


@asynccontextmanager
async def warm() -> AsyncIterator[Warm]:
    """A pool until the block ends."""
    async with anyio.create_task_group() as tasks:
        yield Warm(tasks.start_soon)
        tasks.cancel_scope.cancel()


@bounded
async def test_a_child_serves_the_next_call_of_a_client_with_the_same_capabilities() -> None:
    """They are part of its handshake: a client with others needs another child."""
    async with warm() as made:
        first = await made.ask()
        made.pool.give_back(first, 0.0)
        assert made.source.idles == 1
        again = await made.ask(caller=b"b")
        assert (again, made.source.holders) == (first, {first: b"b"})
        made.pool.give_back(first, 0.0)
        other = await made.ask(OTHER)
        assert other is not first
        assert made.source.started == [first, other]


@bounded
async def test_a_second_call_waits_for_the_child_of_the_first_before_one_is_started() -> None:
    """It counts for the client that uses it then."""
    async with warm() as made:
        first = await made.ask()
        # If it is asked for one all the same, because the machine is slow.
        made.source.may_start = anyio.Event()
        waiting = made.ask(caller=b"b")
        await turns()
        assert not waiting.done()
        made.pool.give_back(first, 0.0)
        assert await waiting is first
        assert (made.source.started, made.source.holders[first]) == ([first], b"b")
        assert made.pool.idle == []


@bounded
async def test_a_start_that_no_call_needs_any_more_waits_for_the_next_call() -> None:
    """The call took a child that became free while the other one started."""
    async with warm() as made:
        first = await made.ask()
        made.source.may_start = anyio.Event()
        other = made.ask(OTHER)
        await turns()
        assert made.source.callers == [b"a", b"a"]
        made.source.may_start.set()
        second = await other
        made.pool.give_back(first, 1.0)
        made.pool.give_back(second, 2.0)
        assert made.pool.idle == [(1.0, first), (2.0, second)]
        assert made.source.wanted == [True, True]


@bounded
async def test_a_start_that_fails_fails_the_call_that_waits() -> None:
    """With the same fault; the next call starts another."""
    async with warm() as made:
        made.source.fault = PoolExhausted(3)
        with pytest.raises(PoolExhausted):
            await made.ask()
        made.source.fault = None
        assert await made.ask() is made.source.started[0]


@bounded
async def test_a_handshake_that_fails_gives_the_child_back() -> None:
    """It must not hold a place."""
    async with warm() as made:
        made.source.may_start = anyio.Event()
        waiting = made.ask()
        await turns()
        made.source.may_start.set()
        while not made.source.started:
            await turns(1)
        (lease,) = made.source.started
        lease.mux.fail_all(child_exited(None, "maybe"))
        with pytest.raises(Unavailable):
            await waiting
        assert made.source.released == [lease]


@bounded
async def test_a_child_that_is_gone_serves_no_further_call() -> None:
    """Neither one that ended while it waited, nor one that ended with its call."""
    async with warm() as made:
        first = await made.ask()
        made.pool.give_back(first, 0.0)
        first.mux.fail_all(child_exited(None, "maybe"))
        second = await made.ask()
        assert second is not first
        second.mux.fail_all(child_exited(None, "maybe"))
        made.pool.give_back(second, 0.0)
        assert made.pool.idle == []


@bounded
async def test_a_child_that_is_due_to_be_recycled_ends_after_its_call() -> None:
    """One that waits ends with the next look."""
    async with warm() as made:
        busy = await made.ask()
        busy.recycle()
        made.pool.give_back(busy, 0.0)
        idle = await made.ask()
        made.pool.give_back(idle, 0.0)
        idle.recycle()
        made.pool.expire(1.0)
        assert (made.source.released, made.pool.idle) == ([busy, idle], [])


@bounded
async def test_a_child_waits_for_a_call_for_a_while() -> None:
    """Then it ends."""
    async with warm() as made:
        lease = await made.ask()
        made.pool.give_back(lease, 10.0)
        made.pool.expire(10.0 + IDLE_S)
        assert made.source.released == []
        made.pool.expire(10.5 + IDLE_S)
        assert (made.source.released, made.pool.idle) == ([lease], [])


@bounded
async def test_after_a_renewal_no_call_gets_a_child_from_before() -> None:
    """Those with a call finish it, and one that was just starting serves its call alone."""
    async with warm() as made:
        idle = await made.ask()
        busy = await made.ask(OTHER)
        made.pool.give_back(idle, 0.0)
        made.source.may_start = anyio.Event()
        starting = made.ask(THIRD)
        await turns()
        made.pool.renew()
        assert made.source.released == [idle]
        made.source.may_start.set()
        late = await starting
        made.pool.give_back(busy, 0.0)
        made.pool.give_back(late, 0.0)
        assert (made.source.released, made.pool.idle) == ([idle, busy, late], [])


@bounded
async def test_a_child_that_is_lent_or_discarded_serves_no_further_call() -> None:
    """The pool of all children ends it."""
    async with warm() as made:
        lent, discarded = await made.ask(), await made.ask(OTHER)
        made.pool.give_back(lent, 0.0)
        assert made.pool.lend(lent) is lent
        made.pool.discard(discarded)
        assert (made.pool.idle, made.source.released) == ([], [discarded])
        assert await made.ask() is not lent


@bounded
async def test_of_two_calls_and_one_start_that_fails_one_is_told() -> None:
    """The other one still has a start under way."""
    async with warm() as made:
        first = await made.ask()
        made.source.may_start = anyio.Event()
        waiting = [made.ask(caller=b"b"), made.ask(caller=b"c")]
        await turns()
        made.pool.give_back(first, 0.0)
        assert await waiting[0] is first
        made.source.fault = Unavailable(spawn_failed())
        made.source.may_start.set()
        with pytest.raises(Unavailable):
            await waiting[1]
        assert made.source.started == [first]
