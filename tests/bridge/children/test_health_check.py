"""Looks at children: recycling that is due, pings, and the end of one that does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from mcpbridge.bridge.children.health_check import HealthChecker
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.memory import memory_pair
from mcpbridge.process.child import Child
from mcpbridge.rules.faults import child_exited
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.revisions import MODERN, NEWEST_LEGACY, Revision
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request, Result
from tests.bridge.playbook import FakeClient, bounded, turns

SOON_S = 0.01
NEVER = {"ping_interval_s": 0.0, "stall_timeout_s": 0.0, "max_timeouts": 0}


class Checked:
    """A child under a checker."""

    def __init__(self, policy: RecyclePolicy, revision: Revision = NEWEST_LEGACY) -> None:
        self.checker = HealthChecker(policy)
        near, self.far = memory_pair()
        self.killed = anyio.Event()
        child = SimpleNamespace(pid=None, exited=anyio.Event(), kill=self.killed.set)
        self.exited = child.exited
        mux = Mux(near, Meters(), shared=True, max_message_bytes=1000)
        self.lease = Lease(cast(Child, child), mux)
        self.lease.introduced_as(ServerProfile(b"{}", revision))
        self.replaced: list[Lease] = []
        self.looked = anyio.Event()
        self.caller = FakeClient()

    def replace(self, lease: Lease) -> None:
        """Another child takes over."""
        self.replaced.append(lease)
        self.looked.set()

    async def look(self) -> None:
        """Have it looked at once, which finds that it is due to be recycled."""
        self.looked = anyio.Event()
        self.checker.request_limit_reached()
        await self.looked.wait()

    async def next_request(self) -> Request:
        """What the child is asked next."""
        (request,) = await self.far.receive()
        assert isinstance(request, Request)
        return request


@asynccontextmanager
async def checked(revision: Revision = NEWEST_LEGACY, **policy: Any) -> AsyncIterator[Checked]:
    """A child that is checked until the block ends."""
    made = Checked(RecyclePolicy(**{**NEVER, **policy}), revision)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.lease.mux.run)
        made.checker.child_started(made.lease)
        tasks.start_soon(made.checker.run, made.replace)
        # The run has begun to wait.
        await turns()
        yield made
        tasks.cancel_scope.cancel()


@bounded
async def test_a_child_with_as_many_requests_as_allowed_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At each look until it is gone; the log says it once, with the limit."""
    caplog.set_level(logging.INFO, "mcpbridge.bridge")
    async with checked(max_requests=1) as made:
        made.lease.mux.request(Request(b"1", "tools/call"), made.caller)
        await made.look()
        await made.look()
    assert made.replaced == [made.lease] * 2
    assert made.lease.recycle_due
    (record,) = [each for each in caplog.records if each.getMessage() == "child.recycling"]
    assert record.__dict__["by"] == "requests"


@bounded
async def test_a_child_whose_calls_time_out_in_silence_is_killed() -> None:
    """Its other calls are told that it hangs, and by which limit; the child says nothing more."""
    async with checked(max_timeouts=2) as made:
        mux = made.lease.mux
        numbers = [mux.request(Request(b"%d" % n, "x"), made.caller) for n in range(3)]
        for number in numbers[:2]:
            mux.cancel(number, "too long", overdue=True)
        made.checker.request_limit_reached()
        await made.killed.wait()
        assert list(made.caller.heard) == ["fault child_stalled"]


@pytest.mark.parametrize(
    ("revision", "method"), [(NEWEST_LEGACY, "ping"), (MODERN[-1], "server/discover")]
)
@bounded
async def test_a_silent_child_is_asked_in_the_words_of_its_era(
    revision: Revision, method: str
) -> None:
    """Each question is another request; the one before is not waited for any more."""
    async with checked(revision, ping_interval_s=SOON_S, ping_timeout_s=SOON_S) as made:
        first = await made.next_request()
        second = await made.next_request()
        assert (first.method, second.method) == (method, method)
        assert first.id != second.id
        assert (made.lease.mux.in_flight, made.lease.mux.calls) == (1, 0)
        assert not made.killed.is_set(), "it may not know the method"


@bounded
async def test_a_child_that_answered_once_and_is_silent_then_is_killed() -> None:
    """An error is an answer too; three questions in a row without one are the end."""
    async with checked(ping_interval_s=SOON_S, ping_timeout_s=SOON_S) as made:
        request = await made.next_request()
        made.far.send(Result(request.id, b"{}"))
        asked: list[Request] = []

        async def hears() -> None:
            while True:
                asked.append(await made.next_request())

        hearing = asyncio.create_task(hears())
        await made.killed.wait()
        hearing.cancel()
        assert [each.method for each in asked] == ["ping"] * 3


@bounded
async def test_an_answered_ping_is_no_sign_that_calls_are_served() -> None:
    """A server may answer pings in one thread and be stuck in all others."""
    async with checked(ping_interval_s=SOON_S, ping_timeout_s=SOON_S) as made:
        mux = made.lease.mux
        late = mux.request(Request(b"1", "x"), made.caller)
        assert (await made.next_request()).method == "x"
        mux.cancel(late, "too long", overdue=True)
        while (request := (await made.far.receive())[-1]).method != "ping":  # type: ignore[union-attr]
            pass
        assert mux.timeouts == 1
        assert isinstance(request, Request)
        before = mux.heard
        made.far.send(Result(request.id, b"{}"))
        while mux.heard == before:
            await turns(1)
        assert mux.timeouts == 1


@bounded
async def test_a_child_that_is_gone_or_retired_is_not_looked_at() -> None:
    """Another one serves already, or will."""
    async with checked(max_requests=1) as made:
        made.lease.mux.request(Request(b"1", "x"), made.caller)
        made.lease.mux.stop_accepting()
        made.checker.request_limit_reached()
        await turns()
        assert made.replaced == []
    async with checked(max_requests=1) as made:
        made.lease.mux.request(Request(b"1", "x"), made.caller)
        made.exited.set()
        made.checker.request_limit_reached()
        await turns()
        made.lease.mux.fail_all(child_exited(None, "maybe"))
        assert made.replaced == []
