"""A session that ends while its child starts leaves the child to the next client."""

from __future__ import annotations

from typing import Any, cast

import anyio

from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.lease import Lease, Wanted
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import SessionStarter
from mcpbridge.rules.mcp.era_probe import ServerEras
from mcpbridge.wire.messages import Request
from tests.bridge.legacy.parts import ASKED, context_of
from tests.bridge.playbook import turns
from tests.support.proofs import proves


class StartedLease:
    """On a child that has been told nothing yet."""

    class mux:  # noqa: N801 - stands for the multiplexer
        shut = False


class SlowPool:
    """Starts a child when it is let, and remembers which were given back."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.may_start = anyio.Event()
        self.lease = cast(Lease, StartedLease())
        self.released: list[Lease] = []

    async def own(self, *, wanted: Wanted | None = None, caller: bytes = b"") -> Lease:
        """A child, as soon as it may start."""
        self.asked.set()
        await self.may_start.wait()
        return self.lease

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """It is given back."""
        self.released.append(lease)


class LegacyEras:
    """A server of the legacy revisions, which is known already."""

    verdict = ServerEras(legacy=True, modern=False)

    class legacy:  # noqa: N801 - stands for the supervisor
        state = profile = None

    async def known(self) -> ServerEras:
        """The verdict."""
        return self.verdict


@proves("C18")
async def test_a_child_that_starts_for_a_closed_session_is_left_for_the_next() -> None:
    """The client of an event stream may leave before its child has started."""
    child_pool = SlowPool()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            session = Session("id", ASKED, context_of(tasks.start_soon))
            session_starter = SessionStarter(
                cast(EraSupervisors, LegacyEras()),
                cast(ChildPool, cast(Any, child_pool)),
                ChildPoolSettings(),
                tasks.start_soon,
                lambda _: None,
                list,
            )
            exchange = session.in_flight.begin(Request(b"1", "initialize", b"{}"), streams=True)
            session_starter.open(session, exchange)
            await child_pool.asked.wait()
            session.close()
            child_pool.may_start.set()
            await turns()
            # The next client may have it; until then it can be ended for its place.
            assert session_starter.give_up_left_behind() is child_pool.lease
            assert session_starter.give_up_left_behind() is None
            tasks.cancel_scope.cancel()
    assert child_pool.released == []
    assert exchange.reply is not None
