"""The shared child's lives: handshake, readiness, back-off, giving up, over a pipe in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.handshake import shake_hands
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.children.supervisor import (
    CannotStart,
    Prepare,
    Ready,
    Starting,
    Supervisor,
)
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.channels.channel import InvalidLine
from mcpbridge.channels.memory import MemoryChannel, memory_pair
from mcpbridge.process.child import Child
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import Exit, Unavailable, child_exited, spawn_failed
from mcpbridge.rules.supervision.restart import RestartPolicy
from mcpbridge.telemetry.metrics import Meters
from tests.bridge.playbook import message, turns, written
from tests.support.proofs import proves

AT_ONCE = RestartPolicy(give_up_after=3, first_delay_s=0.0, max_delay_s=0.0)
GOOD = '{"id":1,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"fake"}}}'
WITHIN_S = 10.0


class FakeChild:
    """A child without a process: its far end is the test's."""

    pid = 7

    def __init__(self, far: MemoryChannel) -> None:
        self.far = far
        self.exited = anyio.Event()
        self.report: ExitReport | None = None
        self.how: Exit | None = None

    def stop(self, grace_s: float = 5.0) -> None:
        """Ends at once."""
        self.end(Exit(signal=15), asked=True)

    def end(self, how: Exit, *, asked: bool = False) -> None:
        """The process ends."""
        if self.report is None:
            self.how = how
            self.report = ExitReport(how, 0.0, ("last words",), asked)
            self.far.close()
            self.exited.set()

    async def hears(self) -> list[str]:
        """What has arrived on its stdin since."""
        heard = await self.far.receive()
        return [written(item) for item in heard if not isinstance(item, InvalidLine)]

    async def shake_hands(self, answer: str = GOOD) -> None:
        """Take `initialize` and answer it."""
        (asked,) = await self.hears()
        assert asked.startswith('{"id":1,"method":"initialize","params":{"introduced":true}')
        self.far.send(message(answer))
        await turns()


class FakePool:
    """Starts fake children, or fails to."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.failures = 0
        """That many starts will fail first."""
        self.retired: list[tuple[Lease, float | None]] = []
        self._attending: list[asyncio.Task[None]] = []
        self._started = anyio.Event()

    async def shared(self) -> Lease:
        """As `ChildPool.shared`."""
        if self.failures:
            self.failures -= 1
            raise Unavailable(spawn_failed())
        near, far = memory_pair()
        child = FakeChild(far)
        mux = Mux(near, Meters(), shared=True, max_message_bytes=1000)
        self.children.append(child)
        self._attending.append(asyncio.create_task(self._attend(child, mux)))
        self._started.set()
        return Lease(cast(Child, child), mux)

    def charged(self, lease: Lease) -> bool:
        """No client is charged with an end here."""
        return False

    def became_ready(self, start_s: float) -> None:
        """It is not counted here."""

    def starts_again(self) -> None:
        """It is not counted here."""

    def retire(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """As `ChildPool.retire`, and no more than is done at once."""
        lease.mux.stop_accepting()
        self.retired.append((lease, within_s))

    async def newest(self) -> FakeChild:
        """The next child that is started."""
        await self._started.wait()
        self._started = anyio.Event()
        return self.children[-1]

    async def _attend(self, child: FakeChild, mux: Mux) -> None:
        await mux.run()
        mux.fail_all(child_exited(child.how, "maybe"))


class SupervisedChild:
    """A supervisor at work."""

    def __init__(self, policy: RestartPolicy, start_timeout_s: float) -> None:
        self.child_pool = FakePool()
        self.readiness = Readiness()
        self.supervisor = Supervisor(
            cast(ChildPool, self.child_pool),
            policy,
            lambda lease: shake_hands(lease, b'{"introduced":true}', start_timeout_s),
        )


@asynccontextmanager
async def supervised(
    policy: RestartPolicy = AT_ONCE,
    *,
    start_timeout_s: float = WITHIN_S,
    failures: int = 0,
    prepare: Prepare | None = None,
    cannot_start: CannotStart | None = None,
) -> AsyncIterator[SupervisedChild]:
    """Run a supervisor while the test plays the children."""
    made = SupervisedChild(policy, start_timeout_s)
    made.child_pool.failures = failures
    async with asyncio.timeout(WITHIN_S), anyio.create_task_group() as tasks:
        tasks.start_soon(made.supervisor.run, made.readiness, prepare, None, cannot_start)
        yield made
        for child in made.child_pool.children:
            child.stop()
        tasks.cancel_scope.cancel()


@proves("fault 4", "fault 18")
async def test_a_child_is_ready_after_its_handshake_and_not_before() -> None:
    """A caller that has waited for it gets it then."""
    async with supervised() as on:
        child = await on.child_pool.newest()
        early = asyncio.create_task(on.supervisor.lease())
        await turns()
        assert not early.done()
        assert (on.readiness.ready, on.supervisor.start_s) == (False, None)
        await child.shake_hands()
        assert await child.hears() == ['{"method":"notifications/initialized"}']
        lease = await early
        assert isinstance(on.supervisor.state, Ready)
        assert on.readiness.ready
        assert on.supervisor.start_s is not None
        assert lease.profile is not None
        assert (lease.profile.name, lease.profile.revision.date) == ("fake", "2025-06-18")
        assert await on.supervisor.lease() is lease


@proves("fault 6")
async def test_a_child_that_ends_is_replaced() -> None:
    """Not ready until then, and a caller waits for the next one."""
    async with supervised() as on:
        child = await on.child_pool.newest()
        await child.shake_hands()
        first = await on.supervisor.lease()
        child.end(Exit(code=1))
        await turns()
        assert not on.readiness.ready
        assert isinstance(on.supervisor.state, Starting)
        late = asyncio.create_task(on.supervisor.lease())
        await (await on.child_pool.newest()).shake_hands()
        assert await late is not first
        assert (on.readiness.ready, on.readiness.started) == (True, True)
        report = on.supervisor.last_report
        assert report is not None
        assert (report.how, report.last_words) == (Exit(code=1), ("last words",))


@proves("fault 14", "fault 35")
async def test_a_lost_child_is_leased_to_nobody() -> None:
    """Between the end of its stdout and the report of its end too."""
    async with supervised() as on:
        child = await on.child_pool.newest()
        await child.shake_hands()
        lease = await on.supervisor.lease()
        child.far.close()
        await turns()
        assert lease.mux.lost
        waiting = asyncio.create_task(on.supervisor.lease())
        await turns()
        assert not waiting.done()
        child.end(Exit(code=0))
        await (await on.child_pool.newest()).shake_hands()
        assert await waiting is not lease


@pytest.mark.parametrize(
    "answer",
    [
        '{"id":1,"error":{"code":-32603,"message":"no"}}',
        '{"id":1,"result":{}}',
        '{"id":1,"result":{"protocolVersion":"1999-01-01"}}',
        '{"id":1,"result":[]}',
    ],
)
async def test_a_child_that_refuses_the_handshake_is_stopped_and_told_about(answer: str) -> None:
    """Then the next one is tried."""
    async with supervised(RestartPolicy(give_up_after=1)) as on:
        child = await on.child_pool.newest()
        await child.shake_hands(answer)
        await on.supervisor.gave_up.wait()
        assert child.exited.is_set()
        assert dict(on.readiness.blockers)["child"] == "handshake_refused"


@proves("fault 4")
async def test_a_child_that_never_answers_is_stopped_in_time() -> None:
    """The reason names the time-out."""
    async with supervised(RestartPolicy(give_up_after=1), start_timeout_s=0.01) as on:
        child = await on.child_pool.newest()
        await on.supervisor.gave_up.wait()
        assert child.exited.is_set()
        assert dict(on.readiness.blockers)["child"] == "start_timeout"


@proves("fault 2", "fault 3")
async def test_a_child_that_ends_in_its_handshake_is_told_with_its_end() -> None:
    """Its exit, not a time-out, and at once."""
    async with supervised(RestartPolicy(give_up_after=1)) as on:
        child = await on.child_pool.newest()
        asking = asyncio.create_task(on.supervisor.lease())
        await child.hears()
        child.end(Exit(code=3))
        with pytest.raises(Unavailable) as raised:
            await asking
        fault = raised.value.fault
        assert (fault.reason, fault.exit, fault.executed) == ("child_exited", Exit(code=3), "no")


@proves("fault 2")
async def test_after_too_many_ends_it_gives_up_and_says_so_to_all() -> None:
    """A caller that waits or comes later is told at once, with the last exit."""
    async with supervised() as on:
        for _ in range(3):
            child = await on.child_pool.newest()
            child.end(Exit(code=9))
        await on.supervisor.gave_up.wait()
        assert len(on.child_pool.children) == 3
        assert not on.readiness.serving
        for _ in range(2):
            with pytest.raises(Unavailable) as raised:
                await on.supervisor.lease()
            assert raised.value.fault.exit == Exit(code=9)


@proves("fault 1")
async def test_a_command_that_cannot_be_started_is_tried_again() -> None:
    """And succeeds when it can."""
    async with supervised(failures=2) as on:
        child = await on.child_pool.newest()
        await child.shake_hands()
        assert (await on.supervisor.lease()).profile is not None
        assert on.readiness.ready
    async with supervised(failures=3) as on:
        await on.supervisor.gave_up.wait()
        assert dict(on.readiness.blockers)["child"] == "spawn_failed"


class Notices(logging.Handler):
    """What the log says that starts wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_for: list[object] = []
        self.twice = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it if it is one."""
        if record.getMessage() == "child.starting":
            self.waits_for.append(vars(record)["for"])
            if len(self.waits_for) == 2:
                self.twice.set()


@proves("fault 4")
async def test_a_start_that_takes_long_says_what_it_waits_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Again and again until the child has answered."""
    caplog.set_level("INFO")
    notices = Notices()
    log = logging.getLogger("mcpbridge.bridge")
    log.addHandler(notices)
    try:
        async with supervised(RestartPolicy(start_notice_s=0.01)) as on:
            child = await on.child_pool.newest()
            await notices.twice.wait()
            await child.shake_hands()
            await on.supervisor.lease()
    finally:
        log.removeHandler(notices)
    assert set(notices.waits_for) == {"the answer to initialize"}


@pytest.mark.parametrize("last", [True, False])
async def test_a_first_start_that_ends_by_itself_may_be_the_last(last: bool) -> None:
    """If another would end the same way; once a start has succeeded it is never asked."""
    asked: list[int] = []

    async def cannot_start() -> bool:
        asked.append(len(on.child_pool.children))
        return last

    async with supervised(RestartPolicy(first_delay_s=0.0), cannot_start=cannot_start) as on:
        child = await on.child_pool.newest()
        await child.hears()
        child.end(Exit(code=2))
        if last:
            await on.supervisor.gave_up.wait()
            failure = on.supervisor.start_failure
            assert failure is not None
            assert (failure.reason, failure.exit) == ("child_exited", Exit(code=2))
        else:
            second = await on.child_pool.newest()
            await second.shake_hands()
            second.end(Exit(code=2))
            await on.child_pool.newest()
    assert asked == [1]


@proves("fault 96")
async def test_the_end_of_the_last_child_is_no_failure() -> None:
    """When all ends it is not started again, and nothing is given up."""
    async with supervised(RestartPolicy(give_up_after=1)) as on:
        child = await on.child_pool.newest()
        await child.shake_hands()
        on.supervisor.retire()
        child.end(Exit(code=0))
        await turns()
        assert len(on.child_pool.children) == 1
        assert not on.supervisor.gave_up.is_set()


@proves("fault 47")
async def test_another_child_takes_over_from_a_worn_one() -> None:
    """The next one is ready first; only then is the old one let go, and no caller waits."""
    async with supervised(RestartPolicy(give_up_after=1)) as on:
        first = await on.child_pool.newest()
        await first.shake_hands()
        replaced = await on.supervisor.lease()
        on.supervisor.replace(replaced)
        second = await on.child_pool.newest()
        assert await on.supervisor.lease() is replaced
        assert (on.readiness.ready, replaced.mux.shut) == (True, False)
        await second.shake_hands()
        lease = await on.supervisor.lease()
        assert lease is not replaced
        assert (on.child_pool.retired, replaced.mux.shut) == ([(replaced, None)], True)
        first.stop()
        await turns()
        assert on.readiness.ready
        assert len(on.child_pool.children) == 2
        second.end(Exit(code=1))
        await on.supervisor.gave_up.wait()


async def test_the_new_child_is_prepared_before_it_takes_over() -> None:
    """What the sessions asked of the old one is told first; the last of it is settled later."""
    prepared: list[Lease] = []

    async def prepare(lease: Lease) -> None:
        prepared.append(lease)
        state = on.supervisor.state
        assert not isinstance(state, Ready) or state.lease is not lease

    async with supervised(prepare=prepare) as on:
        await (await on.child_pool.newest()).shake_hands()
        replaced = await on.supervisor.lease()
        on.supervisor.replace(replaced)
        await (await on.child_pool.newest()).shake_hands()
        assert prepared == [replaced, await on.supervisor.lease()]


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_replaced_child_goes_on_where_no_other_can_be_started(refuses: bool) -> None:
    """It is ready all the while, and may be replaced later."""
    async with supervised() as on:
        await (await on.child_pool.newest()).shake_hands()
        replaced = await on.supervisor.lease()
        on.child_pool.failures = 0 if refuses else 1
        on.supervisor.replace(replaced)
        if refuses:
            await (await on.child_pool.newest()).shake_hands('{"id":1,"result":{}}')
        await turns()
        assert await on.supervisor.lease() is replaced
        assert (on.readiness.ready, on.child_pool.retired) == (True, [])
        on.supervisor.replace(replaced)
        await (await on.child_pool.newest()).shake_hands()
        assert await on.supervisor.lease() is not replaced
        assert len(on.child_pool.retired) == 1


@proves("fault 6")
async def test_a_replaced_child_may_end_before_the_next_one_is_ready() -> None:
    """Not ready until then; the next one serves, and nothing counts as a failure."""
    async with supervised(RestartPolicy(give_up_after=1)) as on:
        first = await on.child_pool.newest()
        await first.shake_hands()
        replaced = await on.supervisor.lease()
        on.supervisor.replace(replaced)
        second = await on.child_pool.newest()
        readiness = [on.readiness.ready]
        first.end(Exit(code=1))
        await turns()
        readiness.append(on.readiness.ready)
        waiting = asyncio.create_task(on.supervisor.lease())
        await turns()
        assert not waiting.done()
        await second.shake_hands()
        assert await waiting is not replaced
        readiness.append(on.readiness.ready)
        assert readiness == [True, False, True]
        assert not on.supervisor.gave_up.is_set()


@proves("fault 96")
async def test_only_the_child_that_serves_is_replaced() -> None:
    """Not one that has been replaced already, and none when all ends."""
    async with supervised() as on:
        await (await on.child_pool.newest()).shake_hands()
        replaced = await on.supervisor.lease()
        on.supervisor.replace(replaced)
        await (await on.child_pool.newest()).shake_hands()
        lease = await on.supervisor.lease()
        on.supervisor.replace(replaced)
        await turns()
        on.supervisor.retire()
        on.supervisor.replace(lease)
        await turns()
        assert len(on.child_pool.children) == 2


NEVER = RestartPolicy(give_up_after=0, first_delay_s=1e6, max_delay_s=1e6)
"""Nothing is started again unless it is asked for."""


async def test_a_reload_lets_the_old_child_serve_until_the_new_one_is_ready() -> None:
    """Each caller that asked is told then."""
    async with supervised(NEVER) as on:
        await (await on.child_pool.newest()).shake_hands()
        before = await on.supervisor.lease()
        reload = asyncio.create_task(on.supervisor.reload())
        child = await on.child_pool.newest()
        await turns()
        assert await on.supervisor.lease() is before
        assert not reload.done()
        await child.shake_hands()
        assert await reload is None
        assert await on.supervisor.lease() is not before
        assert [lease for lease, _ in on.child_pool.retired] == [before]


async def test_a_reload_that_fails_leaves_the_old_child_serving() -> None:
    """The next one waits for nothing: neither for the old child's end nor for a back-off."""
    async with supervised(NEVER) as on:
        await (await on.child_pool.newest()).shake_hands()
        before = await on.supervisor.lease()
        for _ in range(2):
            reload = asyncio.create_task(on.supervisor.reload())
            (await on.child_pool.newest()).end(Exit(code=1))
            failure = await reload
            assert failure is not None
            assert (failure.fault.reason, failure.fault.exit) == ("child_exited", Exit(code=1))
            assert failure.report is not None
            assert failure.report.last_words == ("last words",)
            assert await on.supervisor.lease() is before
            assert on.readiness.ready
        on.child_pool.failures = 1
        failure = await on.supervisor.reload()
        assert failure is not None
        assert failure.fault.reason == "spawn_failed"
        reload = asyncio.create_task(on.supervisor.reload())
        await (await on.child_pool.newest()).shake_hands()
        assert await reload is None
        assert len(on.child_pool.children) == 4, "no start that was not asked for"


async def test_a_reload_wakes_the_back_off() -> None:
    """A repaired program is started at once, however long it would be left alone."""
    async with supervised(NEVER) as on:
        (await on.child_pool.newest()).end(Exit(code=1))
        await turns()
        reload = asyncio.create_task(on.supervisor.reload())
        child = await on.child_pool.newest()
        await child.shake_hands()
        assert await reload is None
        child.end(Exit(code=1))
        await turns()
        reload = asyncio.create_task(on.supervisor.reload())
        await (await on.child_pool.newest()).shake_hands()
        assert await reload is None


async def test_a_failed_start_waits_for_a_caller_or_a_reload_if_the_policy_says_so() -> None:
    """Each caller asks for one start, and gets its outcome; none comes by the clock."""
    policy = RestartPolicy(
        give_up_after=0, first_delay_s=0.0, max_delay_s=0.0, waits_for_change=True
    )
    async with supervised(policy) as on:
        (await on.child_pool.newest()).end(Exit(code=1))
        await turns()
        assert on.supervisor.held
        assert not on.readiness.ready
        waiting = asyncio.create_task(on.supervisor.lease())
        (await on.child_pool.newest()).end(Exit(code=1))
        with pytest.raises(Unavailable) as failed:
            await waiting
        assert failed.value.fault.exit == Exit(code=1)
        await turns()
        assert on.supervisor.held
        assert len(on.child_pool.children) == 2
        reload = asyncio.create_task(on.supervisor.reload())
        child = await on.child_pool.newest()
        await child.shake_hands()
        assert await reload is None
        # One that was ready is started again at once, as elsewhere.
        child.end(Exit(code=1))
        (await on.child_pool.newest()).end(Exit(code=1))
        await turns()
        assert len(on.child_pool.children) == 4
        on.supervisor.retire()


async def test_a_reload_ends_a_start_that_has_begun() -> None:
    """It may have read what has been changed since, or never end."""
    async with supervised(NEVER) as on:
        first = await on.child_pool.newest()
        await turns()
        reload = asyncio.create_task(on.supervisor.reload())
        second = await on.child_pool.newest()
        assert first.exited.is_set()
        await second.shake_hands()
        assert await reload is None
        reload = asyncio.create_task(on.supervisor.reload())
        third = await on.child_pool.newest()
        another = asyncio.create_task(on.supervisor.reload())
        await (await on.child_pool.newest()).shake_hands()
        assert third.exited.is_set()
        assert (await reload, await another) == (None, None)
        assert len(on.child_pool.children) == 4


async def test_a_reload_has_an_outcome_when_the_supervisor_ends() -> None:
    """And no effect on one that does not run."""
    async with supervised(NEVER) as on:
        (await on.child_pool.newest()).end(Exit(code=1))
        await turns()
        on.supervisor.retire()
        failure = await on.supervisor.reload()
        assert failure is not None
        assert await on.supervisor.reload() is None
