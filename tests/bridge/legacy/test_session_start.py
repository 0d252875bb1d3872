"""A session that ends while its child starts leaves no child behind."""

from __future__ import annotations

import itertools
from typing import Any, cast

import anyio

from mcpbridge.bridge.calls.call_log import Ledger
from mcpbridge.bridge.calls.context import Means
from mcpbridge.bridge.children.child_pool import Placement, PlacementSettings
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import Eras
from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import Opener
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.mcp.era_probe import Verdict
from mcpbridge.rules.mcp.initialize import Introduction
from mcpbridge.rules.mcp.server_requests import Questions
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request

ASKED = Introduction(b'{"capabilities":{"roots":{}}}', "2025-11-25", frozenset(("roots",)))


class SlowPlacement:
    """Starts a child when it is let, and remembers which were given back."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.may_start = anyio.Event()
        self.lease = cast(Lease, object())
        self.released: list[Lease] = []

    async def own(self) -> Lease:
        """A child, as soon as it may start."""
        self.asked.set()
        await self.may_start.wait()
        return self.lease

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """It is given back."""
        self.released.append(lease)


class HandshakeEras:
    """A server of the handshake revisions, as everybody knows already."""

    verdict = Verdict(handshake=True, modern=False)

    class handshake:  # noqa: N801 - stands for the supervisor
        state = None

    async def known(self) -> Verdict:
        """The verdict."""
        return self.verdict


async def test_a_child_that_starts_for_a_closed_session_is_given_back() -> None:
    """The client of an event stream may leave before its child has started (C18)."""
    placement = SlowPlacement()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            means = Means(
                Window(),
                Meters(),
                Ledger(Meters()),
                Drain(),
                lambda: Questions(itertools.count(1)),
                tasks.start_soon,
                anyio.current_time,
                list,
                lambda _: None,
                30.0,
            )
            session = Session("id", ASKED, means)
            opener = Opener(
                cast(Eras, HandshakeEras()),
                cast(Placement, cast(Any, placement)),
                PlacementSettings(),
                tasks.start_soon,
                lambda _: None,
                lambda: None,
            )
            exchange = session.exchange(Request(b"1", "initialize", b"{}"), streams=True)
            opener.open(session, exchange)
            await placement.asked.wait()
            session.close()
            placement.may_start.set()
    assert placement.released == [placement.lease]
    assert exchange.reply is not None
