"""A lease on a child: its turn to start, its handshake, and its end for want of memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import anyio

from mcpbridge.bridge.children.lease import Lease, StartTurn
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.memory import memory_pair
from mcpbridge.process.child import Child
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY
from mcpbridge.rules.supervision.lifecycle import ChildState
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request
from tests.bridge.playbook import FakeClient, bounded


def lease_of(turn: StartTurn | None = None) -> tuple[Lease, list[str]]:
    """A lease on a child, and what has been done to the child."""
    done: list[str] = []
    near, _ = memory_pair()
    child = SimpleNamespace(kill=lambda: done.append("kill"))
    mux = Mux(near, Meters(), shared=False, max_message_bytes=1000)
    return Lease(cast(Child, child), mux, turn=turn), done


@bounded
async def test_a_turn_to_start_goes_to_the_next_once() -> None:
    """With the handshake or with the end of the child, whichever comes first."""
    starts = anyio.Semaphore(1)
    await starts.acquire()
    lease, _ = lease_of(StartTurn(starts))
    assert starts.value == 0
    lease.start_over()
    lease.start_over()
    assert starts.value == 1
    without_turn, _ = lease_of()
    without_turn.start_over()
    assert starts.value == 1


def test_the_handshake_is_known_to_the_lease_and_to_its_mux() -> None:
    """From then on it counts as a child that serves."""
    lease, _ = lease_of()
    assert lease.mux.state is ChildState.STARTING
    profile = ServerProfile(b'{"serverInfo":{"name":"x"}}', NEWEST_LEGACY)
    lease.introduced_as(profile)
    assert (lease.profile, lease.mux.state) == (profile, ChildState.READY)
    assert "server='x'" in repr(lease)


def test_a_child_that_is_cut_fails_its_calls_before_it_is_killed() -> None:
    """They learn that memory was short, not that the process ended."""
    lease, done = lease_of()
    caller = FakeClient()
    lease.mux.request(Request(b"1", "tools/call"), caller)
    lease.cut()
    assert (list(caller.heard), done) == (["fault memory"], ["kill"])


def test_what_was_set_on_a_child_is_remembered_for_its_successor() -> None:
    """The level of calls without a session apart from what was restored."""
    lease, _ = lease_of()
    lease.set_log_level("debug")
    lease.restore("error", frozenset(("a:1",)))
    assert (lease.log_level, lease.restored_level) == ("debug", "error")
    assert lease.restored_uris == {"a:1"}
    assert (lease.recycle_due, lease.rested) == (False, False)
    lease.recycle()
    assert (lease.recycle_due, lease.rested) == (True, False)
    assert " recycle_due" in repr(lease)
    lease.rest()
    assert lease.rested
