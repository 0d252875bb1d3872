"""What a child says outside of calls: which stream of the session carries it, if any."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ReplayStore
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.in_flight import InFlight
from mcpbridge.bridge.legacy.server_requests import ServerRequests
from mcpbridge.bridge.legacy.session_listener import SessionListener
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.faults import child_exited
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.revisions import MODERN, NEWEST_LEGACY, Revision
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.wire.messages import Notification, Request, Result, whole
from tests.bridge.legacy.parts import ASKED, context_of, lease_on_memory
from tests.bridge.playbook import arrived, bounded, turns

TOOLS = Notification("notifications/tools/list_changed")
LOG = Notification("notifications/message", b'{"level":"info"}')
ROOTS = Request(b'"r"', "roots/list")


def updated(uri: str) -> Notification:
    """A resource has changed."""
    return Notification("notifications/resources/updated", json.dumps({"uri": uri}).encode())


def on(stream: Stream | None) -> list[str]:
    """The methods of the messages on a stream."""
    assert stream is not None
    return [json.loads(whole(entry.payload))["method"] for entry in stream.log.after(0)]


class Listening:
    """A listener with its session's streams and calls, and no child."""

    def __init__(self) -> None:
        later: list[Any] = []
        context = context_of(lambda *work: later.append(work))
        self.client = ClientState(ASKED, 0.0)
        self.streams = ReplayStore(Window(), context.meters, lambda: 0.0, resumable=True)
        self.server_requests = ServerRequests(
            ServerRequestTable(itertools.count(101)),
            frozenset(("roots",)),
            self.streams.standalone,
            context.meters,
            lambda *work: later.append(work),
            30.0,
            context.budget,
        )
        self.calls = InFlight(
            "s", self.client, self.streams, self.server_requests, context, None, Account()
        )
        self.lost: list[str] = []
        self.listener = SessionListener(
            "s", self.client, self.calls, self.streams, self.server_requests, self.lost.append
        )

    def call(self, request_id: bytes = b"1") -> Exchange:
        """A call in flight whose client reads an event stream."""
        return self.calls.begin(Request(request_id, "tools/call"), streams=True)


def introduced(*, shared: bool = False, revision: Revision = NEWEST_LEGACY) -> Any:
    """A lease on a child after its handshake, and the child's end of its channel."""
    lease, far = lease_on_memory(shared=shared)
    lease.introduced_as(ServerProfile(b"{}", revision))
    return lease, far


@pytest.mark.parametrize(("shared", "heard"), [(True, ["a:1"]), (False, ["a:1", "b:1"])])
@bounded
async def test_updates_of_a_shared_child_concern_those_who_subscribed(
    shared: bool, heard: list[str]
) -> None:
    """What a child of one session says is for that session."""
    made = Listening()
    made.listener.take(introduced(shared=shared)[0])
    made.client.settle(
        Request(b"1", "resources/subscribe", b'{"uri":"a:1"}'),
        granted=True,
    )
    for uri in ("a:1", "b:1"):
        made.listener.on_notification(updated(uri))
    entries = made.streams.standalone.log.after(0)
    assert [json.loads(whole(each.payload))["params"]["uri"] for each in entries] == heard


@bounded
async def test_a_log_message_goes_with_the_only_call_unless_a_stream_listens() -> None:
    """With two calls nothing says which one it is about."""
    made = Listening()
    made.listener.take(introduced()[0])
    first = made.call()
    made.listener.on_notification(LOG)
    assert (on(first.stream), on(made.streams.standalone)) == ([LOG.method], [])
    with made.streams.standalone.attach():
        made.listener.on_notification(LOG)
    made.call(b"2")
    made.listener.on_notification(LOG)
    assert (on(first.stream), on(made.streams.standalone)) == ([LOG.method], [LOG.method] * 2)


@bounded
async def test_news_of_a_child_that_does_not_serve_yet_reach_the_client_but_for_its_lists() -> None:
    """The lists that the client knows are those of the child that serves."""
    made = Listening()
    lease, _ = introduced()
    beside = made.listener.beside(lease)
    beside.on_notification(TOOLS)
    beside.on_notification(LOG)
    assert on(made.streams.standalone) == [LOG.method]


@bounded
async def test_the_child_before_is_listened_to_until_it_ends() -> None:
    """It has calls to finish, and may ask during them; the answer goes to it, not to the next."""
    made = Listening()
    (before, far), (after, far_after) = introduced(), introduced()
    made.listener.take(before)
    made.listener.hand_over(after)
    made.call()
    assert made.listener.lease is after
    running = asyncio.create_task(before.mux.run())
    far.send(ROOTS)
    await turns()
    made.server_requests.answer(Result(b"101", b'{"roots":[]}'))
    assert [each.id for each in await arrived(far)] == [ROOTS.id]
    assert await arrived(far_after) == []
    far.send(ROOTS)
    await turns()
    assert len(made.server_requests) == 1
    far.close()
    await running
    before.mux.fail_all(child_exited(None, "maybe"))
    assert (len(made.server_requests), made.lost) == (0, []), "the session has its next child"


@bounded
async def test_a_question_that_the_child_takes_back_is_taken_back_at_the_client() -> None:
    """Whichever of its children it was."""
    made = Listening()
    lease, _ = introduced()
    made.listener.take(lease)
    call = made.call()
    made.listener.on_server_request(ROOTS)
    cancel = Notification("notifications/cancelled", b'{"requestId":"r"}')
    made.listener.on_server_request_cancelled(Withdrawn(ROOTS.id, cancel))
    assert on(call.stream) == ["roots/list", "notifications/cancelled"]
    assert len(made.server_requests) == 0


@pytest.mark.parametrize(
    ("revision", "rested", "lost"),
    [(NEWEST_LEGACY, False, ["s"]), (NEWEST_LEGACY, True, []), (MODERN[-1], False, [])],
)
@bounded
async def test_the_end_of_a_child_is_a_loss_if_it_kept_something(
    revision: Revision, rested: bool, lost: list[str]
) -> None:
    """Not if it was ended because no client needed it, nor one of a revision without sessions."""
    made = Listening()
    lease: Lease = introduced(revision=revision)[0]
    if rested:
        lease.rest()
    made.listener.take(lease)
    lease.mux.fail_all(child_exited(None, "maybe"))
    assert made.lost == lost


@bounded
async def test_a_listener_between_two_children_shares_none() -> None:
    """Subscriptions and level stay with the client."""
    made = Listening()
    lease, _ = introduced(shared=True)
    assert (made.listener.shares, made.listener.rest()) == (False, None)
    made.listener.take(lease)
    made.client.set_level("debug")
    assert (made.listener.shares, made.listener.level) == (True, "debug")
    assert made.listener.rest() is lease
    assert (made.listener.shares, made.listener.wants("a:1")) == (False, False)
