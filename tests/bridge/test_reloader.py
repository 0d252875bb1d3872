"""Reloads of a server whose children are the test's: their number, their order, their record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import anyio
import pytest

from mcpbridge.bridge import reloader
from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.children.supervisor import StartFailure
from mcpbridge.bridge.reloader import Owner, Reload, Reloader
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import Exit, Unavailable, child_exited, handshake_refused
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY
from tests.bridge.playbook import bounded, turns

FAILED = StartFailure(
    child_exited(Exit(code=1), "no"),
    ExitReport(Exit(code=1), 0.1, ("SyntaxError: invalid syntax",), asked=False),
)


def profile(capabilities: bytes) -> ServerProfile:
    """What a server says of itself."""
    return ServerProfile(b'{"capabilities":%b}' % capabilities, NEWEST_LEGACY)


class FakeSession:
    """A session; its own child, if it has one, can be replaced, or `refusal` says why not."""

    def __init__(
        self, refusal: Unavailable | None = None, *, last_used: float = 0.0, own: bool = True
    ) -> None:
        self.refusal, self.last_used, self.own = refusal, last_used, own


class FakeServer:
    """Pool, tenant, supervisors and starter in one: writes down what is asked of them."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcome: StartFailure | None = None
        self.hangs = False
        """Whether a start never ends."""
        self.may_serve = asyncio.Event()
        """Cleared while the shared child's start takes long."""
        self.may_serve.set()
        self.free_places = 9
        self.started: list[FakeSession] = []
        """The sessions whose next children have been started."""
        self.broken_off: list[FakeSession] = []
        """Those whose next children were ended before they served."""
        self.next_profile: ServerProfile | None = None
        self.profile: ServerProfile | None = None
        self.usable = None
        self.sessions: dict[FakeSession, None] = {}
        self.eras = self.primary = self.session_starter = self
        self.warm_pool = FakeWarmPool(self.steps)
        self._tasks: list[asyncio.Task[None]] = []
        self.reloader = Reloader(
            cast(ChildPool, self), lambda: [cast(Owner, self)], self._spawn, 5.0
        )

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio.create_task(work()))

    @contextlib.contextmanager
    def without_spares(self) -> Iterator[None]:
        """As `ChildPool.without_spares`."""
        self.steps.append("no spares")
        try:
            yield
        finally:
            self.steps.append("spares")

    def give_up_left_behind(self) -> None:
        """Nothing was left behind."""

    def has_own(self, session: FakeSession) -> bool:
        """As `SessionStarter.has_own`."""
        return session.own

    async def reload(self, *words: Any) -> Any:
        """As `EraSupervisors.reload`, and for a session as `SessionStarter.reload`."""
        if len(words) > 1:
            return await self._reload_session(*words)
        self.steps.append("shared")
        if self.hangs:
            await asyncio.Event().wait()
        await self.may_serve.wait()
        if self.next_profile is not None:
            self.profile = self.next_profile
        if self.outcome is None:
            (primary_serves,) = words
            primary_serves()
        return self.outcome

    async def _reload_session(
        self, session: FakeSession, finish_s: float, may_serve: anyio.Event
    ) -> bool:
        assert finish_s == 5.0
        if not session.own:
            return False
        self.started.append(session)
        if session.refusal is not None:
            raise session.refusal
        try:
            await may_serve.wait()
        except asyncio.CancelledError:
            self.broken_off.append(session)
            raise
        self.steps.append("session")
        return True


class FakeWarmPool:
    """As `WarmPool`."""

    def __init__(self, steps: list[str]) -> None:
        self._steps = steps

    def renew(self) -> None:
        """As `WarmPool.renew`."""
        self._steps.append("warm")


@bounded
async def test_spares_end_first_and_the_shared_child_is_replaced_before_all_others() -> None:
    """A slow import is paid for once, and a program that cannot start costs one attempt."""
    server = FakeServer()
    server.sessions = {FakeSession(): None, FakeSession(): None}
    record = await server.reloader.reload("server.py")
    assert server.steps == ["no spares", "shared", "warm", "session", "session", "spares"]
    assert len(server.started) == 2
    assert (record.because, record.problem, record.sessions) == ("server.py", None, 2)
    assert server.reloader.last is record


@bounded
async def test_after_a_failed_start_nothing_else_is_touched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The record and the log say why; the next reload may succeed."""
    server = FakeServer()
    server.sessions = {FakeSession(): None}
    server.outcome = FAILED
    record = await server.reloader.reload("server.py")
    assert server.steps == ["no spares", "shared", "spares"]
    assert record.problem == "the MCP server process ended (exit code 1)"
    assert record.last_words == ("SyntaxError: invalid syntax",)
    (told,) = [each for each in caplog.records if each.message == "server.reload_failed"]
    assert vars(told)["last_words"] == ["SyntaxError: invalid syntax"]
    server.outcome = None
    assert (await server.reloader.reload("server.py")).problem is None
    assert server.reloader.last is not record


@bounded
@pytest.mark.parametrize(("beside", "free_places"), [(2, 9), (9, 2)])
async def test_some_children_of_sessions_start_beside_the_shared_one(
    monkeypatch: pytest.MonkeyPatch, beside: int, free_places: int
) -> None:
    """As many as processors and places allow, of the sessions used last; none serves before it.

    The others start after it, also of a session that was opened in between: its child may be of
    the program before.
    """
    monkeypatch.setattr(reloader, "_BESIDE", beside)
    server = FakeServer()
    server.free_places = free_places
    server.may_serve.clear()
    first, shares = FakeSession(last_used=1.0), FakeSession(last_used=9.0, own=False)
    second, third = FakeSession(last_used=3.0), FakeSession(last_used=2.0)
    server.sessions = dict.fromkeys((first, shares, second, third))
    task = asyncio.create_task(server.reloader.reload("x"))
    await turns()
    assert server.started == [second, third]
    assert server.steps == ["no spares", "shared"]
    later = FakeSession()
    server.sessions[later] = None
    server.may_serve.set()
    assert (await task).sessions == 4
    assert server.started == [second, third, first, later]


@bounded
@pytest.mark.parametrize("refusal", [None, Unavailable(handshake_refused())])
async def test_after_a_failed_start_no_child_that_started_beside_it_serves(
    caplog: pytest.LogCaptureFixture, refusal: Unavailable | None
) -> None:
    """It is ended, or has failed for the same cause, which is told once."""
    server = FakeServer()
    server.may_serve.clear()
    session = FakeSession(refusal)
    server.sessions, server.outcome = {session: None}, FAILED
    task = asyncio.create_task(server.reloader.reload("x"))
    await turns()
    assert server.started == [session]
    server.may_serve.set()
    record = await task
    assert (record.problem is None, record.sessions, record.failed_sessions) == (False, 0, 0)
    assert server.steps == ["no spares", "shared", "spares"]
    assert server.broken_off == ([] if refusal else [session])
    assert [each.message for each in caplog.records] == ["server.reload_failed"]


@bounded
async def test_a_session_whose_child_cannot_be_replaced_is_counted_and_disturbs_no_other() -> None:
    """Its child before serves on."""
    server = FakeServer()
    server.sessions = {FakeSession(Unavailable(handshake_refused())): None, FakeSession(): None}
    record = await server.reloader.reload("x")
    assert (record.sessions, record.failed_sessions, record.problem) == (1, 1, None)


@bounded
async def test_twenty_requests_make_at_most_two_replacements() -> None:
    """One that has begun is broken off, if more come, as soon as they have stopped coming."""
    server = FakeServer()
    server.hangs = True
    first = [asyncio.create_task(server.reloader.reload("a")) for _ in range(10)]
    await turns()
    assert server.steps.count("shared") == 1
    server.hangs = False
    more = [asyncio.create_task(server.reloader.reload("b")) for _ in range(10)]
    records = await asyncio.gather(*first, *more)
    assert server.steps.count("shared") == 2
    assert {record.because for record in records} == {"b"}
    assert server.steps.count("no spares") == server.steps.count("spares"), "whatever became of it"


@bounded
async def test_the_wait_for_quiet_may_end_between_two_looks_at_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left of it is never less than nothing."""
    looks = itertools.count()
    monkeypatch.setattr(anyio, "current_time", lambda: 0.2 * next(looks))
    server = FakeServer()
    records = [await server.reloader.reload(each) for each in ("a", "b", "c")]
    assert [record.problem for record in records] == [None, None, None]


@bounded
async def test_a_changed_capability_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A client may have remembered the answer to its `initialize`."""
    caplog.set_level(logging.INFO)
    server = FakeServer()
    server.profile = profile(b'{"tools":{},"logging":{}}')
    server.next_profile = profile(b'{"tools":{},"prompts":{}}')
    record = await server.reloader.reload("x")
    assert record.changed == ("logging", "prompts")
    told = [vars(each) for each in caplog.records if each.message == "server.capabilities_changed"]
    assert [each["capabilities"] for each in told] == ["logging, prompts"]
    again = await server.reloader.reload("x")
    assert again.changed == ()
    assert isinstance(again, Reload)
