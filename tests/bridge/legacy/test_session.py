"""A session and its parts: calls, ids, the child that serves, and the end."""

from __future__ import annotations

import json

import anyio
import pytest

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_child import OwnChild, SharedChild
from mcpbridge.rules.faults import Unavailable, child_exited
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.wire.messages import Failure, Notification, Request, whole
from tests.bridge.legacy.parts import ASKED, context_of, lease_on_memory
from tests.bridge.playbook import bounded, turns

ROOTS = Request(b"5", "roots/list")


def error_of(exchange: Exchange) -> str:
    """The message of an exchange's error."""
    assert isinstance(exchange.reply, Failure)
    return str(json.loads(exchange.reply.error)["message"])


@bounded
async def test_what_is_sent_before_there_is_a_child_waits_in_order() -> None:
    """A notification is acknowledged long before the child reads it."""
    async with anyio.create_task_group() as tasks:
        session = Session("s", ASKED, context_of(tasks.start_soon))
        lease, far = lease_on_memory(shared=True)

        async def acquire() -> Lease:
            return lease

        session.tell(Notification("notifications/x", b"{}"))
        exchange = session.call(Request(b"1", "tools/list"), streams=True)
        assert exchange.number is None
        session.opened(SharedChild(acquire), NEWEST_LEGACY)
        await turns()
        heard = await far.receive()
        methods = [each.method for each in heard if isinstance(each, Request | Notification)]
        assert methods == ["notifications/x", "tools/list"]
        session.close()


@bounded
async def test_a_second_request_with_an_id_in_flight_leaves_the_first_alone() -> None:
    """It is answered by itself; its end frees nothing."""
    async with anyio.create_task_group() as tasks:
        session = Session("s", ASKED, context_of(tasks.start_soon))
        first = session.call(Request(b'"a"', "tools/list"), streams=True)
        second = session.call(Request(b'"\\u0061"', "tools/list"), streams=True)
        assert error_of(second) == "a request with this id is still in flight"
        assert (first.reply, list(session.in_flight)) == (None, [first])
        session.close()
        assert first.reply is not None


@bounded
async def test_a_session_that_closes_while_its_child_starts_finds_none() -> None:
    """What waited is told, and the lease is not attached to a session that is over."""
    async with anyio.create_task_group() as tasks:
        session = Session("s", ASKED, context_of(tasks.start_soon))
        lease, _ = lease_on_memory(shared=False)
        asked, may_start = anyio.Event(), anyio.Event()

        async def acquire() -> Lease:
            asked.set()
            await may_start.wait()
            return lease

        session.opened(OwnChild(acquire), NEWEST_LEGACY)
        exchange = session.call(Request(b"1", "tools/list"), streams=True)
        await asked.wait()
        session.close()
        may_start.set()
        await turns()
        assert (session.state, session.lease) == (SessionState.CLOSED, None)
        assert error_of(exchange).startswith("the session was closed")
        with pytest.raises(Unavailable):
            await session.link.find()


@bounded
async def test_questions_go_with_the_child_that_asked_them() -> None:
    """It is gone: the client hears that the question is taken back, the bridge that it is lost."""
    lost: list[str] = []
    async with anyio.create_task_group() as tasks:
        session = Session("s", ASKED, context_of(tasks.start_soon, lost.append))
        lease, _ = lease_on_memory(shared=False)
        session.listener.take(lease)
        session.listener.on_server_request(ROOTS)
        assert len(session.server_requests) == 1
        lease.mux.fail_all(child_exited(None, "maybe"))
        assert (len(session.server_requests), lost) == (0, ["s"])
        with session.streams.standalone.attach() as reader:
            said = [
                json.loads(whole(entry.payload))["method"] for entry in await reader.read() or ()
            ]
        assert said == ["roots/list", "notifications/cancelled"]
        session.close()
        tasks.cancel_scope.cancel()


@bounded
async def test_a_session_shows_state_and_counts_and_keeps_its_id() -> None:
    """Its whole id is what lets a client in: a log that shows sessions must not hold it."""
    async with anyio.create_task_group() as tasks:
        session = Session("0123456789abcdef", ASKED, context_of(tasks.start_soon))
        exchange = session.call(Request(b"1", "x" * 100), streams=True)
        shown = "<Session 01234567 opening calls=1 questions=0 connections=0 lease=None>"
        assert repr(session) == shown
        assert repr(exchange) == f"<Exchange 1 {'x' * 64!r} waiting number=None>"
        lease, _ = lease_on_memory(shared=False)
        session.listener.take(lease)
        session.close()
        assert repr(session).startswith("<Session 01234567 closed calls=0")
        assert repr(exchange).endswith("failed: session_closed number=None>")
        lease.recycle()
        assert repr(lease).startswith("<Lease server=None recycle_due ")
        lease.mux.stop_accepting()
        shown = "<Mux shut own in_flight=0 waiting=0 requests=0 listeners=0>"
        assert repr(lease.mux) == shown
        tasks.cancel_scope.cancel()
