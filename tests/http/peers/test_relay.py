"""A relay whose request has lost its replica, while no other one may adopt the session yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from msgspec.structs import replace

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


class Breaking(PeerConnection):
    """A connection that ends once a request was sent."""

    def __init__(self, requests: list[bytes]) -> None:
        super().__init__(asyncio.get_running_loop(), [])
        self._requests = requests

    def begin(self, request: bytes, use: bytes = b"") -> None:
        """Take the request."""
        self._requests.append(request)
        self.connection_lost(None)


class Recording(NoProcess):
    """A client of replicas that take requests and answer none."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[bytes] = []

    async def connection(self, target: Replica, use: bytes) -> PeerConnection:
        """Return a connection."""
        return Breaking(self.requests)

    def release(self, connection: PeerConnection, target: Replica) -> None:
        """Keep none."""


class Settling:
    """Homes of sessions that this replica adopts after some tries."""

    has_doubts = False

    def __init__(self, drain: Drain, waits: Sequence[float], *, stuck: bool) -> None:
        self.waits = list(waits)
        self.tries = 0
        self.stuck = stuck
        self.in_flight: list[int] = []
        """Calls in flight at each try."""
        self._drain = drain

    async def next_home(
        self, session_id: str, principal: Principal, lost: Replica, *, unknown: bool
    ) -> Replica:
        """Say when a replica may adopt the session; at last that this one has."""
        assert (session_id, lost, unknown) == ("m1", LOST, False)
        self.tries += 1
        self.in_flight.append(self._drain.calls)
        if self.waits:
            raise NoneSettled(self.waits.pop(0))
        if self.stuck:
            await asyncio.Event().wait()
        return OWN


class Held:
    """A request that is forwarded to a replica that was lost."""

    def __init__(self, *waits: float, client: NoProcess | None = None, stuck: bool = False) -> None:
        self.wire = Wire()
        self.drain = Drain()
        self.homes = Settling(self.drain, waits, stuck=stuck)
        self.client = client or NoProcess()
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
    assert held.homes.in_flight == [1, 1, 1]
    assert held.client.asked == [LOST], "no replica got it before"
    assert held.wire.sent == []


async def test_a_request_that_would_wait_for_long_is_refused_at_once() -> None:
    """Its client learns that it was not executed."""
    held = Held(HELD_S + 1.0)
    await held.sent()
    assert (held.wire.status, held.served, held.homes.tries) == (503, 0, 1)
    assert b'"replica_unreachable","executed":"no"' in held.wire.chunks[0]
    assert b'"id":7' in held.wire.chunks[0]


async def test_a_held_request_does_not_wait_for_a_replica_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its time is over then as well."""
    monkeypatch.setattr("mcpbridge.http.peers.relay.HELD_S", 0.1)
    held = Held(0.01, stuck=True)
    await held.sent()
    assert (held.wire.status, held.served, held.homes.tries) == (503, 0, 2)
    assert held.drain.calls == 0


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


async def test_requests_under_one_head_get_their_own_proof_and_body() -> None:
    """The lines of the client are written once; its credentials may change under the same bytes."""
    recording = Recording()
    held = Held(client=recording)
    request = http_request(
        held.wire, (b"mcp-session-id", b"m1"), (b"cookie", b"c=1"), (b"mcp-param-x", b"y")
    )
    request.scope.update(raw_path=b"/a%20b", query_string=b"q=1")
    for number, principal in enumerate((ANONYMOUS, replace(ANONYMOUS, key=b"another"), ANONYMOUS)):
        request.head.admit(principal)
        call = forwarded(Request(b"%d" % number, "tools/call", b"{}"))
        await held.relay.forward(LOST, call, request)
    first, second, third = (each.split(b"\r\n") for each in recording.requests)
    assert first[:4] == [
        b"POST /a%20b?q=1 HTTP/1.1",
        b"host: mcpbridge",
        b"mcp-session-id: m1",
        b"mcp-param-x: y",
    ]
    proven = [proofs(LOST).read(each[4].decode().partition(": ")[2]) for each in (first, second)]
    assert [each.key for each in proven if isinstance(each, Principal)] == [b"", b"another"]
    assert first[:5] == third[:5]
    for number, each in enumerate((first, second, third)):
        assert b'"id":%d' % number in each[-1]
        assert each[5:7] == [b"content-length: %d" % len(each[-1]), b""]
