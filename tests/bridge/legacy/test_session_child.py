"""How a session gets its child, and the next one when that is gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from mcpbridge.bridge.children.lease import ChildSource, Lease, Wanted
from mcpbridge.bridge.legacy.session_child import (
    ChildLink,
    OwnChild,
    OwnStarts,
    SharedChild,
)
from mcpbridge.rules.faults import Unavailable, child_exited, spawn_failed
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.wire.messages import Request, Result
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import arrived, bounded, turns

ONE, OTHER = b'{"clientInfo":{"name":"one"}}', b'{"clientInfo":{"name":"other"}}'
LONG_S = 1000.0


class Holder:
    """A listener that holds the lease."""

    def __init__(self) -> None:
        self.lease: Lease | None = None

    def take(self, lease: Lease) -> None:
        """See `LeaseHolder`."""
        self.lease = lease

    def rest(self) -> Lease | None:
        """See `LeaseHolder`."""
        lease, self.lease = self.lease, None
        return lease


def introduced(*, shared: bool = True) -> Lease:
    """A lease on a child that has had its handshake."""
    lease, _ = lease_on_memory(shared=shared)
    lease.introduced_as(ServerProfile(b"{}", NEWEST_LEGACY))
    return lease


def acquiring(*leases: Lease) -> Any:
    """What returns these children in turn."""
    left = list(leases)

    async def acquire() -> Lease:
        if not left:
            raise Unavailable(spawn_failed())
        return left.pop(0)

    return acquire


@bounded
async def test_messages_wait_until_it_is_known_how_the_session_gets_its_child() -> None:
    """Then each gets the child that serves, and asks for no other."""
    link, lease = ChildLink(Holder()), introduced()
    waiting = [asyncio.create_task(link.find()) for _ in range(2)]
    await turns()
    assert (link.usable, [each.done() for each in waiting]) == (None, [False, False])
    link.open(SharedChild(acquiring()), lease)
    assert [await each for each in waiting] == [lease, lease]
    assert link.usable is lease


@bounded
async def test_the_next_child_is_found_when_the_one_before_is_gone() -> None:
    """Or why there is none."""
    first, second = introduced(), introduced()
    link = ChildLink(Holder())
    link.open(SharedChild(acquiring(second)), first)
    first.mux.fail_all(child_exited(None, "maybe"))
    assert await link.find() is second
    assert link.usable is second
    second.mux.fail_all(child_exited(None, "maybe"))
    with pytest.raises(Unavailable) as raised:
        await link.find()
    assert raised.value.fault == spawn_failed()


@bounded
async def test_a_child_before_its_handshake_gets_no_message_at_once() -> None:
    """The session hears it already: it may ask while it is initialized."""
    link = ChildLink(Holder())
    lease, _ = lease_on_memory(shared=False)
    link.open(OwnChild(acquiring(lease)), lease)
    before = link.usable
    lease.introduced_as(ServerProfile(b"{}", NEWEST_LEGACY))
    assert (before, link.usable) == (None, lease)


@bounded
async def test_a_closed_link_gives_its_child_back_and_finds_none() -> None:
    """A caller that waits for one is told, before the session opens as well as after."""
    link, opening = ChildLink(Holder()), ChildLink(Holder())
    lease = introduced()
    link.open(SharedChild(acquiring(introduced())), lease)
    assert (link.close(), link.state, link.usable) == (lease, SessionState.CLOSED, None)
    waiting = asyncio.create_task(opening.find())
    await turns()
    assert opening.close() is None
    for each in (link.find(), waiting):
        with pytest.raises(Unavailable) as raised:
            await each
        assert raised.value.fault.reason == "session_closed"


@bounded
async def test_the_next_own_child_starts_when_the_one_before_has_ended() -> None:
    """Both would use the same files: a browser's profile, for example."""
    link, first, second = ChildLink(Holder()), introduced(shared=False), introduced(shared=False)
    link.open(OwnChild(acquiring(second)), first)
    assert link.renew() is first
    waiting = asyncio.create_task(link.find())
    await turns()
    assert not waiting.done()
    first.child.exited.set()
    assert await waiting is second


class Source:
    """Starts children in memory; says what became of them."""

    def __init__(self) -> None:
        self.started: list[Lease] = []
        self.far: list[Any] = []
        self.released: list[Lease] = []

    async def own(self, *, wanted: Wanted | None = None, caller: bytes = b"") -> Lease:
        """A child that has been told nothing."""
        lease, far = lease_on_memory(shared=False)
        self.started.append(lease)
        self.far.append(far)
        return lease

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """It is given back."""
        self.released.append(lease)


class Starts:
    """Children of single sessions that start."""

    def __init__(self, tasks: Any) -> None:
        self.source = Source()
        self.starts = OwnStarts(cast(ChildSource, self.source), LONG_S, tasks.start_soon)
        self._tasks = tasks

    async def begin(self, params: bytes = ONE, *, over: bool = False) -> Any:
        """A session gets a child."""
        return await self.starts.begin(params, lambda: over)

    async def answer(self, number: int = 0, result: bytes = b"{}") -> Request:
        """Let a child answer `initialize`; the request."""
        await turns()
        (request,) = await arrived(self.source.far[number])
        self._tasks.start_soon(self.source.started[number].mux.run)
        self.source.far[number].send(Result(request.id, result))
        assert isinstance(request, Request)
        return request


@bounded
async def test_a_child_is_introduced_in_the_words_of_its_client() -> None:
    """Its answer is the client's; from then on it is not left behind any more."""
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        start = await made.begin()
        request = await made.answer(result=b'{"x":1}')
        assert (request.method, request.params) == ("initialize", ONE)
        reply = await made.starts.finish(start, lambda: False)
        assert isinstance(reply, Result)
        assert reply.result == b'{"x":1}'
        assert not made.starts.leave(start.lease)
        assert made.starts.give_up() is None
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("params", "same"), [(ONE, True), (OTHER, False)])
@bounded
async def test_a_child_that_was_left_goes_to_a_client_with_the_same_words(
    params: bytes, same: bool
) -> None:
    """It has been told who its client is, and is asked only once."""
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        start = await made.begin()
        await turns()
        assert made.starts.leave(start.lease)
        again = await made.begin(params)
        assert (again is start, len(made.source.started)) == (same, 1 if same else 2)
        await made.answer(0 if same else 1)
        await made.starts.finish(again, lambda: False)
        assert made.source.released == []
        tasks.cancel_scope.cancel()


@bounded
async def test_a_child_that_has_been_told_nothing_goes_to_any_client() -> None:
    """Its session ended before `initialize` was sent."""
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        with pytest.raises(Unavailable):
            await made.begin(over=True)
        start = await made.begin(OTHER)
        assert len(made.source.started) == 1
        assert (await made.answer()).params == OTHER
        await made.starts.finish(start, lambda: False)
        tasks.cancel_scope.cancel()


@bounded
async def test_a_client_that_has_left_loses_its_child_to_the_next() -> None:
    """Only then its session ends."""
    ended: list[bool] = []
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        start = await made.begin()
        await turns()
        second = await made.begin()
        assert second is not start, "its client still waits"
        made.starts.abandon(start.lease, lambda: ended.append(True))
        assert ended == []
        assert await made.begin() is start
        assert ended == [True]
        tasks.cancel_scope.cancel()


@bounded
async def test_a_child_that_never_answers_is_given_back_once() -> None:
    """With the session that waits for it, or by itself if none does."""
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        start, left = await made.begin(), await made.begin()
        await turns()
        made.starts.leave(left.lease)
        for lease in made.source.started:
            lease.mux.fail_all(child_exited(None, "maybe"))
        with pytest.raises(Unavailable) as raised:
            await made.starts.finish(start, lambda: False)
        assert raised.value.fault.executed == "no", "a handshake may be tried again"
        await turns()
        assert made.source.released == [left.lease, start.lease]
        assert not made.starts.leave(start.lease)
        tasks.cancel_scope.cancel()


@bounded
async def test_a_child_that_was_left_can_be_given_up_for_its_place() -> None:
    """Not one whose session waits for it."""
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        lease = (await made.begin()).lease
        await made.begin()
        given_up = [made.starts.give_up()]
        made.starts.leave(lease)
        given_up += [made.starts.give_up(), made.starts.give_up()]
        assert given_up == [None, lease, None]
        await made.starts.over(lease)
        tasks.cancel_scope.cancel()


@bounded
async def test_a_session_that_ended_before_the_answer_gets_none() -> None:
    """The child may be another's by now: it is not given back."""
    async with anyio.create_task_group() as tasks:
        made = Starts(tasks)
        start = await made.begin()
        await made.answer()
        await made.starts.over(start.lease)
        with pytest.raises(Unavailable):
            await made.starts.finish(start, lambda: True)
        assert made.source.released == []
        tasks.cancel_scope.cancel()


def test_ways_to_a_child_show_what_they_wait_for() -> None:
    """A dump of the state names them."""
    ending = cast(Lease, SimpleNamespace())
    own = OwnChild(acquiring())
    own.renewed(ending)
    assert repr(own) == f"<OwnChild after={ending}>"
    assert repr(SharedChild(acquiring())) == "<SharedChild>"
