"""Which eras a server speaks, and which of its processes serves a client of each era."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.rules.faults import Exit, Unavailable
from mcpbridge.rules.mcp.era_probe import ChildEra, ServerEras
from mcpbridge.rules.mcp.revisions import Era
from tests.bridge.fake_server import (
    AT_ONCE,
    EXITS,
    LEGACY,
    MODERN,
    UNKNOWN,
    FakeServer,
    running_pool,
    until,
)
from tests.bridge.playbook import bounded, turns

LONG_S = 1000.0
BOTH = LEGACY | MODERN


class Eras:
    """The supervisors of a server, its processes, and the readiness that goes by them."""

    def __init__(
        self,
        server: FakeServer,
        pool: ChildPool,
        era: ChildEra,
        *,
        give_up_after: int = 3,
        **options: Any,
    ) -> None:
        self.server, self.pool = server, pool
        self.readiness = Readiness()
        policy = msgspec.structs.replace(AT_ONCE, give_up_after=give_up_after)
        self.eras = EraSupervisors(pool, self.readiness, policy, era, LONG_S, **options)

    def methods(self, number: int) -> list[str]:
        """What a process was sent, without `notifications/initialized`."""
        return [each for each in self.server.processes[number].methods if "/init" not in each]


@asynccontextmanager
async def eras_of(
    *answers: dict[str, Any], era: ChildEra = ChildEra.AUTO, **options: Any
) -> AsyncIterator[Eras]:
    """The supervisors of a server that answers so, until the block ends."""
    server = FakeServer(*answers)
    async with running_pool(server) as pool, anyio.create_task_group() as tasks:
        made = Eras(server, pool, era, **options)
        tasks.start_soon(made.eras.run)
        yield made
        tasks.cancel_scope.cancel()


@bounded
async def test_a_legacy_server_is_asked_once_and_its_first_process_serves() -> None:
    """No second process is started to find out."""
    async with eras_of(LEGACY) as made:
        assert await made.eras.known() == ServerEras(legacy=True, modern=False)
        lease = await made.eras.legacy_lease()
        assert lease.child.pid == 1
        assert made.methods(0) == ["server/discover", "initialize"]
        assert (len(made.server.processes), made.readiness.ready) == (1, True)
        made.server.processes[0].end(Exit(code=0))
        await until(lambda: len(made.server.processes) == 2 and made.eras.legacy.usable)
        assert made.methods(1) == ["initialize"]


@bounded
async def test_the_first_process_of_a_modern_server_goes_on_to_serve() -> None:
    """Whether it is legacy too is not known before a legacy client comes."""
    async with eras_of(MODERN) as made:
        assert await made.eras.known() == ServerEras(legacy=None, modern=True)
        lease = await made.eras.modern_lease()
        assert lease.profile is not None
        assert (lease.child.pid, lease.profile.revision.era) == (1, Era.MODERN)
        assert made.methods(0) == ["server/discover"]
        assert (made.eras.primary, made.readiness.ready) == (made.eras.modern, True)


@bounded
async def test_a_process_that_comes_up_as_a_wait_for_it_begins_is_not_missed() -> None:
    """One wait begins in each turn of the loop until it is there."""
    async with eras_of(LEGACY, era=ChildEra.LEGACY) as made:
        waits: list[asyncio.Task[object]] = []
        while made.eras.primary.usable is None:
            waits.append(asyncio.ensure_future(made.eras.first_lease()))
            waits.append(asyncio.ensure_future(made.eras.known()))
            await asyncio.sleep(0)  # one turn of the loop
        await asyncio.gather(*waits)


@pytest.mark.parametrize("speaks", [True, False])
@bounded
async def test_the_first_legacy_clients_start_one_legacy_process(speaks: bool) -> None:
    """It serves them, or shows that there is none; the modern process is not disturbed."""
    async with eras_of(BOTH if speaks else MODERN) as made:
        verdicts: list[ServerEras] = []

        async def ask() -> None:
            verdicts.append(await made.eras.known_for_legacy())

        async with anyio.create_task_group() as clients:
            for _ in range(2):
                clients.start_soon(ask)
        assert verdicts == [ServerEras(legacy=speaks, modern=True)] * 2
        await turns()
        assert made.methods(1) == ["initialize"]
        if speaks:
            assert (await made.eras.legacy_lease()).child.pid == 2
        assert (len(made.server.processes), (await made.eras.modern_lease()).child.pid) == (2, 1)
        assert made.readiness.ready


@bounded
async def test_if_legacy_comes_first_the_modern_process_ends_before_the_legacy_one_starts() -> None:
    """One place for both; a modern client gets another process beside it."""
    async with eras_of(BOTH, legacy_first=True) as made:
        made.server.obeys = False
        await until(lambda: made.server.processes and made.server.processes[0].asked)
        await turns()
        assert len(made.server.processes) == 1
        made.server.processes[0].end(Exit(signal=15))
        assert await made.eras.known() == ServerEras(legacy=True, modern=True)
        assert (await made.eras.legacy_lease()).child.pid == 2
        assert (made.methods(1), made.eras.primary) == (["initialize"], made.eras.legacy)
        assert (await made.eras.modern_lease()).child.pid == 3
        made.server.obeys = True


@pytest.mark.parametrize(("answer", "give_up_after"), [(UNKNOWN, 3), (UNKNOWN, 1), (EXITS, 1)])
@bounded
async def test_if_legacy_comes_first_and_there_is_none_a_modern_process_serves_all(
    answer: Any, give_up_after: int
) -> None:
    """The failed legacy start does not make the bridge give up."""
    answers = MODERN | {"initialize": answer}
    async with eras_of(answers, legacy_first=True, give_up_after=give_up_after) as made:
        assert await made.eras.known() == ServerEras(legacy=False, modern=True)
        lease = await made.eras.modern_lease()
        assert (made.eras.primary.usable, made.readiness.blockers) == (lease, {})
        assert not made.eras.gave_up.is_set()


@pytest.mark.parametrize(
    ("era", "first", "verdict"),
    [
        (ChildEra.LEGACY, ["initialize"], ServerEras(legacy=True, modern=False)),
        (ChildEra.MODERN, ["server/discover"], ServerEras(legacy=False, modern=True)),
        (ChildEra.DUAL, ["initialize"], ServerEras(legacy=True, modern=True)),
    ],
)
@bounded
async def test_what_the_operator_says_is_not_asked(
    era: ChildEra, first: list[str], verdict: ServerEras
) -> None:
    """The first process gets only what its era knows."""
    async with eras_of(BOTH, era=era) as made:
        assert await made.eras.known() == verdict
        await made.eras.first_lease()
        assert made.methods(0) == first


@bounded
async def test_the_children_of_another_principal_are_not_probed_and_do_not_affect_readiness() -> (
    None
):
    """It is the same program; a process of it that fails is that principal's affair."""
    async with eras_of(LEGACY) as made, anyio.create_task_group() as tasks:
        await made.eras.first_lease()
        other = made.eras.another(made.pool)
        assert other.verdict == made.eras.verdict
        made.server.answers["initialize"] = EXITS
        tasks.start_soon(other.run)
        with pytest.raises(Unavailable):
            await other.legacy_lease()
        await other.gave_up.wait()
        assert (made.methods(1), made.readiness.ready) == (["initialize"], True)
        # Three starts and not one: a server that is known to start is tried again.
        assert len(made.server.processes) == 4
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("own_wanted", "starts"), [(False, 1), (True, 3)])
@bounded
async def test_a_first_process_that_ends_by_itself_is_the_last(
    own_wanted: bool, starts: int
) -> None:
    """Unless a session has a process beside it, which may have been in its way."""
    async with eras_of(
        {"server/discover": EXITS, "initialize": EXITS}, era=ChildEra.LEGACY
    ) as made:
        if own_wanted:
            made.pool.own_wanted.set()
        await made.eras.gave_up.wait()
        assert (len(made.server.processes), made.readiness.ready) == (starts, False)
        with pytest.raises(Unavailable) as raised:
            await made.eras.legacy_lease()
        assert raised.value.fault.reason == "child_exited"
        assert made.eras.last_report is not None
        assert (made.eras.last_report.how.code, made.eras.start_failure is None) == (1, False)


@bounded
async def test_a_client_learns_why_the_eras_are_not_known() -> None:
    """Of a start that failed; it does not wait for the next one."""
    server = FakeServer(LEGACY)
    server.broken = True
    async with running_pool(server) as pool, anyio.create_task_group() as tasks:
        made = Eras(server, pool, ChildEra.AUTO)
        tasks.start_soon(made.eras.run)
        with pytest.raises(Unavailable) as raised:
            await made.eras.known()
        assert raised.value.fault.reason == "spawn_failed"
        tasks.cancel_scope.cancel()


@bounded
async def test_a_lazy_server_starts_with_its_first_client_and_rests_when_it_may() -> None:
    """Readiness does not wait for it, and stays while no process runs."""
    async with eras_of(LEGACY, lazy=True) as made:
        await until(lambda: made.eras.resting)
        assert (made.server.processes, made.readiness.ready) == ([], True)
        assert await made.eras.known() == ServerEras(legacy=True, modern=False)
        assert (await made.eras.legacy_lease()).child.pid == 1
        made.eras.rest()
        await until(lambda: made.eras.resting)
        assert (made.server.running, made.readiness.ready) == ([], True)
        assert (await made.eras.legacy_lease()).child.pid == 2


@bounded
async def test_a_reload_replaces_the_processes_of_both_eras() -> None:
    """If the first one fails the other is not touched, and both go on."""
    async with eras_of(BOTH) as made:
        await made.eras.known_for_legacy()
        await made.eras.legacy_lease()
        serving: list[list[int | None]] = []

        def primary_serves() -> None:
            leases = (made.eras.modern.usable, made.eras.legacy.usable)
            serving.append([lease.child.pid for lease in leases if lease is not None])

        assert await made.eras.reload(primary_serves) is None
        assert serving == [[3, 2]]
        assert (await made.eras.modern_lease()).child.pid == 3
        assert (await made.eras.legacy_lease()).child.pid == 4
        made.server.answers["server/discover"] = {"code": -32603, "message": "broken"}
        failure = await made.eras.reload(primary_serves)
        assert len(serving) == 1, "the first one was said to serve"
        assert failure is not None
        assert failure.fault.reason == "handshake_refused"
        assert len(made.server.processes) == 5, "a legacy process was started too"
        assert (await made.eras.modern_lease()).child.pid == 3


@bounded
async def test_a_recycled_process_is_replaced_by_the_supervisor_that_has_it() -> None:
    """And by no other."""
    async with eras_of(BOTH) as made:
        await made.eras.known_for_legacy()
        legacy, modern = await made.eras.legacy_lease(), await made.eras.modern_lease()
        made.eras.replace(legacy)
        await until(lambda: made.eras.legacy.usable not in (None, legacy))
        assert made.eras.modern.usable is modern


@bounded
async def test_a_modern_process_that_fails_beside_the_legacy_one_does_not_affect_readiness() -> (
    None
):
    """The legacy one is the first, and serves."""
    async with eras_of(LEGACY | {"server/discover": EXITS}, era=ChildEra.DUAL) as made:
        await made.eras.first_lease()
        with pytest.raises(Unavailable):
            await made.eras.modern_lease()
        await until(made.eras.modern.gave_up.is_set)
        assert (made.readiness.blockers, made.eras.gave_up.is_set()) == ({}, False)


@bounded
async def test_a_child_of_one_session_can_show_that_a_server_is_legacy_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each verdict is logged once; one that is known is not changed."""
    caplog.set_level(logging.INFO)
    async with eras_of(MODERN) as made:
        await made.eras.known()
        made.eras.found_legacy()
        made.eras.found_legacy()
        assert made.eras.verdict == ServerEras(legacy=True, modern=True)
    async with eras_of(LEGACY) as made:
        await made.eras.known()
        made.eras.found_legacy()
        assert made.eras.verdict == ServerEras(legacy=True, modern=False)
    async with eras_of(MODERN) as made:
        await made.eras.known_for_legacy()
        assert made.eras.verdict == ServerEras(legacy=False, modern=True)
    found = [each for each in caplog.records if each.message == "child.eras_found"]
    speaks = [each.__dict__["speaks"] for each in found]
    assert speaks == ["modern", "legacy and modern", "legacy", "modern"]


@bounded
async def test_a_client_that_comes_before_the_supervisors_run_waits() -> None:
    """For a process of either era."""
    server = FakeServer(BOTH)
    async with running_pool(server) as pool, anyio.create_task_group() as tasks:
        made = Eras(server, pool, ChildEra.DUAL)
        waiting = [
            asyncio.create_task(each)
            for each in (made.eras.legacy_lease(), made.eras.modern_lease())
        ]
        await turns()
        assert server.processes == []
        tasks.start_soon(made.eras.run)
        pids = {(await each).child.pid for each in waiting}
        assert pids == {1, 2}
        tasks.cancel_scope.cancel()


@bounded
async def test_no_process_is_started_after_the_bridge_has_begun_to_end() -> None:
    """One that ends then is the last of its era."""
    async with eras_of(LEGACY) as made:
        await made.eras.first_lease()
        made.eras.retire()
        made.server.processes[0].end(Exit(code=0))
        await until(lambda: made.eras.legacy.usable is None)
        with pytest.raises(Unavailable) as raised:
            await made.eras.legacy_lease()
        assert (raised.value.fault.reason, len(made.server.processes)) == ("draining", 1)


@pytest.mark.parametrize(
    ("settings", "modern", "legacy", "legacy_first"),
    [
        (EraSettings(), True, True, False),
        (EraSettings(modern="off"), False, True, True),
        (EraSettings(prefer_legacy=True), True, True, True),
        (EraSettings(legacy="off"), True, False, False),
        (EraSettings(modern="native"), True, True, False),
    ],
)
def test_the_settings_say_which_eras_are_served_and_which_comes_first(
    settings: EraSettings, modern: bool, legacy: bool, legacy_first: bool
) -> None:
    """Legacy clients come first if no others are served."""
    said = (settings.serves_modern, settings.serves_legacy, settings.legacy_first)
    assert said == (modern, legacy, legacy_first)
