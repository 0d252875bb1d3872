"""Places for children: how many run, who gets the next place, and whose child ends for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from anyio.abc import TaskStatus

from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.channels.memory import MemoryChannel, memory_pair
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.errors import SpawnError
from mcpbridge.process.child import Child
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.access.principals import NOTHING
from mcpbridge.rules.faults import Exit, PoolExhausted, Unavailable
from mcpbridge.rules.supervision.crashes import CrashCharges
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request
from tests.bridge.playbook import FakeClient, bounded, turns


class FakeChild:
    """A child without a process, which ends when the test lets it."""

    pid = 7
    secrets = NOTHING

    def __init__(self, world: World) -> None:
        self._world = world
        self.channel: MemoryChannel
        self.channel, self.far = memory_pair()
        self.gone, self.exited, self._asked = anyio.Event(), anyio.Event(), anyio.Event()
        self.how: Exit | None = None
        self.report: ExitReport | None = None
        self.asked = False

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Live until it is told to end, or ends by itself."""
        self._world.starting += 1
        await self._world.may_start.wait()
        self._world.starting -= 1
        if self._world.broken:
            raise SpawnError("x", "broken")
        self._world.children.append(self)
        task_status.started()
        await self.exited.wait()

    def stop(self, grace_s: float = 5.0) -> None:
        """Is asked to end."""
        self.asked = True
        if self._world.obeys:
            self.end()

    def probed(self, method: str) -> AbstractContextManager[None]:
        """It writes to no stderr."""
        return nullcontext()

    def kill(self) -> None:
        """Ends."""
        self.end()

    def end(self) -> None:
        """The process is gone."""
        if not self.exited.is_set():
            self.how = Exit(code=0)
            self.report = ExitReport(self.how, 0.0, (), self.asked)
            self.far.close()
            self.gone.set()
            self.exited.set()


class World:
    """A pool, its children, and how they behave."""

    def __init__(self, max_children: int) -> None:
        self.children: list[FakeChild] = []
        self.starting = 0
        self.may_start = anyio.Event()
        self.may_start.set()
        self.broken = False
        self.obeys = True
        self.idle: list[Lease] = []
        """Children that their holders give up."""
        self.pool = ChildPool(
            lambda: cast(Child, FakeChild(self)),
            ChildPoolSettings(max_children=max_children),
            PipeLimits(),
            Meters(),
        )

    def evict(self, share: Callable[[Lease], int | None]) -> Collection[Lease]:
        """An evictor that looks at no shares."""
        return [self.idle.pop(0)] if self.idle else ()


@asynccontextmanager
async def world(max_children: int) -> AsyncIterator[World]:
    """A pool that runs until the block ends."""
    made = World(max_children)
    async with made.pool.running([made.evict]):
        yield made
        made.obeys = True
        made.may_start.set()
        await made.pool.stop_all(0)


def fake(lease: Lease) -> FakeChild:
    """The child of a lease."""
    return cast(FakeChild, lease.child)


async def test_the_bridges_own_request_beside_a_client_is_no_other_client() -> None:
    """The end of a process is charged to a client only if another client is served."""
    ended = SimpleNamespace(
        child=SimpleNamespace(pid=7, report=None),
        mux=SimpleNamespace(callers_at_end=lambda: [b"", b"the only client"]),
    )
    crashes = CrashCharges()
    pool = ChildPool(
        lambda: cast(Child, None), ChildPoolSettings(), PipeLimits(), Meters(), crashes=crashes
    )
    async with pool.running(serves_others=lambda caller: caller != b"the only client"):
        assert not pool.charged(cast(Lease, ended))
    charge = crashes.charge([b"the only client"], asyncio.get_running_loop().time())
    assert charge is not None
    assert charge.crashes == 1


@bounded
async def test_one_place_is_reserved_for_the_shared_child() -> None:
    """Which takes none of those that are counted."""
    async with world(3) as made:
        await made.pool.shared()
        for _ in range(2):
            await made.pool.own()
        with pytest.raises(PoolExhausted):
            await made.pool.own()
        assert made.pool.children == 3
        await made.pool.shared()


@bounded
async def test_a_child_counts_until_it_has_ended() -> None:
    """Stopping takes time; a released one gives its place to the next client at once after."""
    async with world(2) as made:
        made.obeys = False
        first = await made.pool.own()
        made.pool.release(first)
        starting = asyncio.create_task(made.pool.own())
        await turns()
        assert (starting.done(), len(made.children)) == (False, 1)
        fake(first).end()
        second = await starting
        assert (second is not first, made.pool.children) == (True, 1)


@bounded
async def test_a_client_that_waits_gets_the_place_of_a_child_that_becomes_idle() -> None:
    """The one that came first, although another one asks later."""
    async with world(2) as made:
        busy = await made.pool.own()
        waiting = [asyncio.create_task(made.pool.own(wanted=lambda: True)) for _ in range(2)]
        await turns()
        made.idle.append(busy)
        with pytest.raises(PoolExhausted):
            await made.pool.own()
        made.pool.idle()
        lease = await waiting[0]
        assert (waiting[1].done(), fake(busy).asked) == (False, True)
        made.idle.append(lease)
        made.pool.idle()
        await waiting[1]


@bounded
async def test_the_pool_looks_again_when_a_child_has_answered() -> None:
    """It may be idle then; no holder has to say so."""
    async with world(2) as made:
        busy = await made.pool.own()
        number = busy.mux.request(Request(b"1", "x"), FakeClient())
        waiting = asyncio.create_task(made.pool.own(wanted=lambda: True))
        await turns()
        made.idle.append(busy)
        await turns()
        assert not waiting.done()
        busy.mux.forget(number)
        await waiting


@bounded
async def test_a_client_that_needs_no_child_any_more_is_passed_over() -> None:
    """The place goes to the next one, and the first is told that there is none."""
    async with world(2) as made:
        busy, wants = await made.pool.own(), True
        first = asyncio.create_task(made.pool.own(wanted=lambda: wants))
        second = asyncio.create_task(made.pool.own(wanted=lambda: True))
        await turns()
        wants = False
        made.pool.release(busy)
        await second
        with pytest.raises(PoolExhausted):
            await first


@bounded
async def test_one_client_at_a_time_is_passed_over_however_often_the_pool_looks() -> None:
    """Two starts for one call that waits: one start is given up, and the other one waits on.

    The pool looks once for each child that has sent something, several times in one turn.
    """
    async with world(2) as made:
        busy, starts = await made.pool.own(), 2

        async def start() -> None:
            nonlocal starts
            try:
                await made.pool.own(wanted=lambda: starts <= 1)
            finally:
                starts -= 1

        waiting = [asyncio.create_task(start()) for _ in range(2)]
        await turns()
        made.pool.idle()
        made.pool.idle()
        with pytest.raises(PoolExhausted):
            await waiting[0]
        await turns()
        assert not waiting[1].done()
        made.pool.release(busy)
        await waiting[1]


@bounded
async def test_the_place_of_a_client_that_leaves_in_that_moment_is_not_lost() -> None:
    """It had been given the place and had not run since."""
    async with world(2) as made:
        busy = await made.pool.own()
        leaves = asyncio.create_task(made.pool.own(wanted=lambda: True))
        await turns()
        made.idle.append(busy)
        made.pool.idle()
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        assert leaves.cancelled()
        await made.pool.own()


@bounded
async def test_a_start_that_is_given_up_while_the_old_child_ends_frees_its_place() -> None:
    """The old child counts again until it has ended."""
    async with world(2) as made:
        made.obeys = False
        busy = await made.pool.own()
        made.idle.append(busy)
        leaves = asyncio.create_task(made.pool.own())
        await turns()
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        next_one = asyncio.create_task(made.pool.own(wanted=lambda: True))
        await turns()
        assert not next_one.done()
        fake(busy).end()
        await next_one
        assert made.pool.children == 1


@bounded
async def test_a_holder_whose_child_has_ended_already_does_not_free_a_place_twice() -> None:
    """The next one is asked for its child."""
    async with world(3) as made:
        first, second = await made.pool.own(), await made.pool.own()
        made.obeys = False
        fake(first).exited.set()
        made.idle += [first, second]
        starting = asyncio.create_task(made.pool.own())
        await turns()
        assert (fake(first).asked, fake(second).asked) == (False, True)
        fake(second).end()
        await starting


@bounded
async def test_a_failed_start_gives_its_place_back() -> None:
    """The client is told why; the next one may try."""
    async with world(2) as made:
        made.broken = True
        for _ in range(3):
            with pytest.raises(Unavailable) as caught:
                await made.pool.own()
            assert caught.value.fault.reason == "spawn_failed"
        made.broken = False
        await made.pool.own()


@bounded
async def test_children_start_in_turns_until_their_handshake() -> None:
    """Each turn ends with it, or with the child."""
    async with world(64) as made:
        tasks = [asyncio.create_task(made.pool.own()) for _ in range(60)]
        await turns(30)
        running = [task for task in tasks if task.done()]
        assert 0 < len(running) < 60
        running[0].result().start_over()
        fake(running[1].result()).end()
        await turns(30)
        assert sum(task.done() for task in tasks) == len(running) + 2
        while len(made.children) < 60:
            for task in tasks:
                if task.done():
                    task.result().start_over()
            await turns()


@bounded
async def test_a_child_that_starts_while_all_are_stopped_is_stopped_too() -> None:
    """It was in no table when the others were stopped."""
    async with world(3) as made:
        made.may_start = anyio.Event()
        starting = asyncio.create_task(made.pool.own())
        await turns()
        stopping = asyncio.create_task(made.pool.stop_all(0))
        await stopping
        made.may_start.set()
        lease = await starting
        assert fake(lease).asked
        with pytest.raises(Unavailable):
            await made.pool.own()


@bounded
async def test_spares_are_used_first_and_replaced() -> None:
    """They count as children, and end before anything else when places are short."""
    async with world(3) as made:
        made.pool.keep_spares(1)
        await turns(30)
        (spare,) = made.children
        lease = await made.pool.own()
        assert fake(lease) is spare
        await turns(30)
        assert len(made.children) == 2
        spare_now = made.children[1]
        made.pool.keep_spares(0)
        other = await made.pool.own()
        assert fake(other) is spare_now
        made.pool.keep_spares(1)
        await turns(30)
        assert made.pool.children == 2, "no place is left for a spare"


@bounded
async def test_a_lower_limit_ends_no_child_that_is_used() -> None:
    """A higher one serves those that wait."""
    async with world(3) as made:
        leases = [await made.pool.own() for _ in range(2)]
        made.pool.resize(2)
        assert not any(fake(lease).asked for lease in leases)
        waiting = asyncio.create_task(made.pool.own(wanted=lambda: True))
        await turns()
        assert not waiting.done()
        made.pool.resize(4)
        await waiting


@bounded
async def test_a_retired_child_finishes_its_calls_before_it_ends() -> None:
    """Then what its last calls have changed is applied to the next one."""
    async with world(3) as made:
        lease = await made.pool.shared()
        lease.mux.introduced()
        number = lease.mux.request(Request(b"1", "x"), FakeClient())
        settled: list[Any] = []

        async def settle() -> None:
            settled.append(fake(lease).asked)

        made.pool.retire(lease, None, settle)
        await turns()
        assert (lease.mux.shut, settled, fake(lease).asked) == (True, [], False)
        lease.mux.forget(number)
        await turns()
        assert (settled, fake(lease).asked) == ([False], True)


@bounded
async def test_the_end_of_a_child_fails_its_calls_with_its_exit_status() -> None:
    """And frees its place."""
    async with world(2) as made:
        lease, caller = await made.pool.own(), FakeClient()
        lease.mux.request(Request(b"1", "x"), caller)
        fake(lease).end()
        await turns()
        assert (list(caller.heard), made.pool.children) == (["fault child_exited"], 0)
        await made.pool.own()


@bounded
async def test_a_child_that_is_not_idle_is_ended_only_for_a_client_that_stays_lighter() -> None:
    """Not for the client that uses it, nor for one that would have more than it then."""
    made = World(4)
    asked: list[tuple[bytes, int | None]] = []
    busy: dict[bytes, Lease] = {}

    def give_up(order: Callable[[Lease], int | None]) -> Collection[Lease]:
        asked.extend((caller, order(lease)) for caller, lease in busy.items())
        found = [caller for caller, lease in busy.items() if order(lease) is not None]
        return [busy.pop(found[0])] if found else ()

    async with made.pool.running([made.evict], last_evictors=[give_up]):
        busy[b"a"] = await made.pool.own(caller=b"a")
        busy[b"b"] = await made.pool.own(caller=b"b")
        await made.pool.own(caller=b"a")
        with pytest.raises(PoolExhausted):
            await made.pool.own(caller=b"a")
        assert asked == [(b"a", None), (b"b", None)]
        await made.pool.own(caller=b"c")
        assert asked[2:] == [(b"a", 0), (b"b", None)]
        assert list(busy) == [b"b"]
        with pytest.raises(PoolExhausted):
            await made.pool.own(caller=b"d")
        await made.pool.stop_all(0)


@bounded
async def test_a_child_that_is_passed_on_counts_for_the_client_that_uses_it() -> None:
    """Though another client had it started, which is not the heavier one any more."""
    async with world(3) as made:
        first, second = [await made.pool.own(caller=b"a") for _ in range(2)]
        ranks: list[int | None] = []

        def looks(order: Callable[[Lease], int | None]) -> Collection[Lease]:
            ranks[:] = [order(first), order(second)]
            return ()

        made.pool.pass_on(second, b"b")
        made.idle.append(second)
        async with made.pool.running([looks]):
            with pytest.raises(PoolExhausted):
                await made.pool.own(caller=b"b")
        assert ranks == [None, 0]
