"""A relay whose request has lost its replica, while no other one may adopt the session yet."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from mcpbridge.bridge.drain import Drain
from mcpbridge.http.peers.held import HELD_S
from mcpbridge.http.peers.relay import Relay, forwarded
from mcpbridge.http.request import HttpRequest
from mcpbridge.replicas.homes import Homes, NoneSettled
from mcpbridge.replicas.peer_client import PeerClient, PeerConnection, Unreachable
from mcpbridge.replicas.session_id import Replica, SessionIds
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request
from tests.http.fakes import Wire, http_request
from tests.support.replica_world import LOST
from tests.support.replicas import proofs

OWN = Replica("10.0.0.1", 8001, 1)
CALL = forwarded(Request(b"7", "tools/call", b"{}"))


class NoProcess:
    """A client of replicas at whose addresses no process listens."""

    def __init__(self) -> None:
        self.asked: list[Replica] = []

    async def connection(self, target: Replica, use: bytes) -> PeerConnection:
        """Refuse."""
        self.asked.append(target)
        raise Unreachable("connection refused", refused=True)

    def close(self) -> None:
        """There is nothing to close."""


class Settling:
    """Homes of sessions that this replica adopts after some tries."""

    has_doubts = False

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.tries = 0

    async def next_home(
        self, session_id: str, principal: Principal, lost: Replica, *, unknown: bool
    ) -> Replica:
        """Say when a replica may adopt the session; at last that this one has."""
        assert (session_id, lost, unknown) == ("m1", LOST, False)
        self.tries += 1
        if self.waits:
            raise NoneSettled(self.waits.pop(0))
        return OWN


class Held:
    """A request that is forwarded to a replica that was lost."""

    def __init__(self, *waits: float) -> None:
        self.wire = Wire()
        self.drain = Drain()
        self.homes = Settling(*waits)
        self.client = NoProcess()
        self.served = 0
        ids = SessionIds(OWN, lambda: (), lambda: 0.0)
        parts = (ids, proofs(OWN), cast(PeerClient, self.client), self.drain, Meters())
        self.relay = Relay(*parts, homes=cast(Homes, self.homes))

    async def here(self, _request: HttpRequest) -> None:
        """Serve it at this replica."""
        self.served += 1

    def sent(self) -> asyncio.Task[None]:
        """Send it."""
        request = http_request(self.wire, (b"mcp-session-id", b"m1"))
        request.head.admit(ANONYMOUS)
        return asyncio.ensure_future(self.relay.serve(LOST, CALL, request, self.here))

    async def until_held(self) -> asyncio.Task[None]:
        """Send it and wait until it is held."""
        task = self.sent()
        for _ in range(5):
            await asyncio.sleep(0)  # a turn of the loop
        assert self.drain.calls == 1
        return task


async def test_a_held_request_is_served_once_as_soon_as_its_session_has_a_home() -> None:
    """It counts as a call in flight, so that the end of the process waits for it."""
    held = Held(0.05, 0.05)
    task = await held.until_held()
    assert held.served == 0
    await task
    assert (held.served, held.homes.tries, held.drain.calls) == (1, 3, 0)
    assert held.client.asked == [LOST], "no replica got it before"
    assert held.wire.sent == []


async def test_a_request_that_would_wait_for_long_is_refused_at_once() -> None:
    """Its client learns that it was not executed."""
    held = Held(HELD_S + 1.0)
    await held.sent()
    assert (held.wire.status, held.served, held.homes.tries) == (503, 0, 1)
    assert b'"replica_unreachable","executed":"no"' in held.wire.chunks[0]
    assert b'"id":7' in held.wire.chunks[0]


@pytest.mark.parametrize("ends", ["the client leaves", "the process ends"])
async def test_a_request_that_is_let_go_is_never_served(ends: str) -> None:
    """Not even if its session has a home a moment later."""
    held = Held(5.0)
    task = await held.until_held()
    if ends == "the client leaves":
        held.wire.disconnect.happen()
    else:
        held.relay.cut_off()
    await task
    assert (held.wire.status, held.served, held.homes.tries) == (503, 0, 1)
    assert held.drain.calls == 0
