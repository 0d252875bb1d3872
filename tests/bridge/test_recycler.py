"""Which part replaces a child that is due, and when no client notices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import SessionStarter
from mcpbridge.bridge.recycler import Recycler
from mcpbridge.wire.messages import Request
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import FakeClient, bounded, turns


class FakeSession:
    """A session with its own child."""

    def __init__(self, lease: Lease) -> None:
        self.lease: Lease | None = lease
        self.in_flight: list[object] = []
        self.server_requests: list[object] = []


class Place:
    """A recycler among fakes of all that it turns to."""

    def __init__(self, tasks: Any, *, spare: bool = False) -> None:
        self.replaced: list[Lease] = []
        self.renewed: list[object] = []
        self.refreshed: list[Lease] = []
        self._spare = spare
        self.recycler = Recycler(cast(ChildPool, SimpleNamespace(refresh=self._refresh)), tasks)

    def _refresh(self, lease: Lease) -> bool:
        self.refreshed.append(lease)
        return self._spare

    async def _renew(self, session: Session) -> None:
        self.renewed.append(session)

    def due(self, lease: Lease, *sessions: FakeSession) -> None:
        """A look at the children finds that this one is due."""
        self.recycler.replace(
            lease,
            cast(EraSupervisors, SimpleNamespace(replace=self.replaced.append)),
            cast(SessionStarter, SimpleNamespace(renew=self._renew)),
            cast(list[Session], list(sessions)),
        )


@pytest.mark.parametrize("kind", ["shared", "spare", "warm"])
@bounded
async def test_a_child_of_no_session_is_replaced_where_it_is_kept(kind: str) -> None:
    """A shared one by its supervisor, a spare by the pool; the warm pool sees it by itself."""
    async with anyio.create_task_group() as tasks:
        place = Place(tasks.start_soon, spare=kind == "spare")
        lease, _ = lease_on_memory(shared=kind == "shared")
        place.due(lease)
        assert place.replaced == ([lease] if kind == "shared" else [])
        assert place.refreshed == ([] if kind == "shared" else [lease])
        assert place.renewed == []


@bounded
async def test_a_sessions_child_is_replaced_once_after_its_call() -> None:
    """However often it is found to be due in between."""
    async with anyio.create_task_group() as tasks:
        place = Place(tasks.start_soon)
        lease, far = lease_on_memory(shared=False)
        session = FakeSession(lease)
        tasks.start_soon(lease.mux.run)
        number = lease.mux.request(Request(b"1", "x"), FakeClient())
        for _ in range(3):
            place.due(lease, session)
            await turns()
        assert place.renewed == []
        lease.mux.forget(number)
        await turns()
        assert place.renewed == [session]
        far.close()


@pytest.mark.parametrize("busy", ["call", "question", "closed", "other child", "shut"])
@bounded
async def test_a_session_that_is_busy_after_all_is_left_for_the_next_look(busy: str) -> None:
    """Between the last answer and its replacement the client may do anything."""
    async with anyio.create_task_group() as tasks:
        place = Place(tasks.start_soon)
        lease, far = lease_on_memory(shared=False)
        session = FakeSession(lease)
        place.due(lease, session)
        match busy:
            case "call":
                session.in_flight.append(object())
            case "question":
                session.server_requests.append(object())
            case "closed":
                session.lease = None
            case "other child":
                session.lease, _ = lease_on_memory(shared=False)
            case _:
                lease.mux.introduced()
                lease.mux.stop_accepting()
        await turns()
        assert place.renewed == []
        if busy in ("call", "question"):
            session.in_flight.clear()
            session.server_requests.clear()
            place.due(lease, session)
            await turns()
            assert place.renewed == [session]
        far.close()
