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
    """A session; its own child can be replaced, or `refusal` says why not."""

    def __init__(self, refusal: Unavailable | None = None) -> None:
        self.refusal = refusal


class FakeServer:
    """Pool, tenant, supervisors and starter in one: writes down what is asked of them."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcome: StartFailure | None = None
        self.hangs = False
        """Whether a start never ends."""
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

    async def reload(self, *words: Any) -> Any:
        """As `EraSupervisors.reload`, and for a session as `SessionStarter.reload`."""
        if words:
            session, finish_s = words
            assert finish_s == 5.0
            if session.refusal is not None:
                raise session.refusal
            self.steps.append("session")
            return True
        self.steps.append("shared")
        if self.hangs:
            await asyncio.Event().wait()
        if self.next_profile is not None:
            self.profile = self.next_profile
        return self.outcome


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
