"""Requests that name no session: each stands for itself."""

from __future__ import annotations

import anyio

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy.session_child import SharedChild
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.rules.faults import Unavailable, child_exited, shutdown
from mcpbridge.wire.messages import Failure, Notification, Request, Result
from tests.bridge.legacy.parts import context_of, lease_on_memory
from tests.bridge.playbook import bounded, turns

LIST = Request(b"1", "tools/list")


@bounded
async def test_equal_ids_of_two_clients_are_two_calls() -> None:
    """And neither client can take back what the other sent."""
    async with anyio.create_task_group() as tasks:
        calls = SessionlessCalls(context_of(tasks.start_soon))
        lease, far = lease_on_memory(shared=True)
        tasks.start_soon(lease.mux.run)

        async def acquire() -> Lease:
            return lease

        calls.opened(SharedChild(acquire))
        first, second = [calls.call(LIST, streams=False) for _ in range(2)]
        calls.tell(Notification("notifications/cancelled", b'{"requestId":1}'))
        await turns()
        heard = [each for each in await far.receive() if isinstance(each, Request)]
        assert len(heard) == 2
        far.send(Result(heard[1].id, b'{"n":2}'))
        await turns()
        assert (first.reply, second.reply) == (None, Result(b"1", b'{"n":2}'))
        calls.close(shutdown())
        assert isinstance(first.reply, Failure)
        assert not calls.in_flight
        far.close()


@bounded
async def test_a_call_that_no_child_takes_is_refused() -> None:
    """So that HTTP says 503, and what stands in front may send it elsewhere."""
    async with anyio.create_task_group() as tasks:
        calls = SessionlessCalls(context_of(tasks.start_soon))

        async def acquire() -> Lease:
            raise Unavailable(child_exited(None, "no"))

        calls.opened(SharedChild(acquire))
        exchange = calls.call(LIST, streams=False)
        await turns()
        assert exchange.refused


@bounded
async def test_what_the_child_says_to_all_is_not_kept() -> None:
    """No client without a session reads such a stream."""
    async with anyio.create_task_group() as tasks:
        calls = SessionlessCalls(context_of(tasks.start_soon))
        lease, far = lease_on_memory(shared=True)
        tasks.start_soon(lease.mux.run)
        calls.listener.take(lease)
        far.send(Notification("notifications/tools/list_changed"))
        await turns()
        assert calls.streams.standalone.log.last == 0
        far.close()
