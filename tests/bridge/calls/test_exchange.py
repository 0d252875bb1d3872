"""One request: exactly one final answer, whatever comes and in whatever order."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.listeners import Logged
from mcpbridge.channels.off_loop import LONG_BYTES
from mcpbridge.errors import NotMessage
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.faults import bad_child_message, cancelled, child_exited, session_closed
from mcpbridge.rules.supervision.lifecycle import EXCHANGE, ExchangeEvent, ExchangeState
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    Result,
    encode,
    whole,
)
from tests.bridge.playbook import Stage, bounded, turns
from tests.support.proofs import proves

PROGRESS = Notification("notifications/progress", b'{"progressToken":1}')
LOG = Notification("notifications/message", b'{"level":"info"}')
LONG_S = 1000.0


class FakeScope:
    """A fake of a session, with what its exchanges use."""

    outside = False
    client_name = "tester"

    def __init__(self, *, admits: bool = True) -> None:
        self.account = Account()
        self.finished: list[Exchange] = []
        self.heard: list[Notification] = []
        self._admits = admits

    def begin_stream(self, call_id: bytes) -> Stream:
        """One that ends with its answer."""
        return Stream(Window(), Meters(), answers_due=1)

    def ended(self, exchange: Exchange) -> None:
        """Remember it."""
        self.finished.append(exchange)

    def on_notification(self, notification: Notification) -> None:
        """Remember it."""
        self.heard.append(notification)

    def admits(self, notification: Notification) -> bool:
        """As the test says."""
        return self._admits


def exchange_of(scope: FakeScope, *, streams: bool = True) -> Exchange:
    """An exchange for a request with the id "a"."""
    now = time.monotonic()
    return Exchange(Request(b'"a"', "x"), scope, now, streams=streams, stream=None)


async def read(exchange: Exchange) -> list[bytes]:
    """Everything on its stream, which must have ended."""
    found: list[bytes] = []
    with exchange.streamed().attach() as reader:
        while (entries := await reader.read()) is not None:
            found += [whole(entry.payload) for entry in entries]
    return found


ENDS: dict[str, Callable[[Exchange], None]] = {
    "answer": lambda exchange: exchange.answered(Result(b'"a"', b"1")),
    "error": lambda exchange: exchange.answered(Failure(b'"a"', b'{"code":1,"message":""}')),
    "death": lambda exchange: exchange.fail(child_exited(None, "maybe")),
    "cancel": lambda exchange: exchange.fail(cancelled()),
    "close": lambda exchange: exchange.fail(session_closed()),
}


@pytest.mark.parametrize("order", list(itertools.permutations(ENDS, 3)), ids="-".join)
@bounded
async def test_the_first_end_is_the_only_one(order: tuple[str, ...]) -> None:
    """Whatever else ends it later is ignored; the session hears once."""
    scope = FakeScope()
    exchange = exchange_of(scope)
    exchange.progressed(PROGRESS)
    ENDS[order[0]](exchange)
    first = exchange.reply
    assert first is not None
    for late in order[1:]:
        ENDS[late](exchange)
    assert (exchange.reply, scope.finished) == (first, [exchange])
    assert (exchange.fault is None) == (order[0] in ("answer", "error"))
    assert await read(exchange) == [encode(PROGRESS), encode(first)]


@bounded
async def test_an_answer_with_nothing_before_it_needs_no_stream() -> None:
    """It is JSON; if the caller wants a stream all the same it holds the answer alone."""
    exchange = exchange_of(FakeScope())
    await asyncio.gather(exchange.first(LONG_S), turned(lambda: ENDS["answer"](exchange)))
    assert exchange.stream is None
    assert await read(exchange) == [encode(Result(b'"a"', b"1"))]
    await exchange.first(LONG_S)
    await exchange.finished()


@bounded
async def test_without_a_json_window_the_quickest_answer_is_on_a_stream() -> None:
    """Unless the client reads none, or the call was refused: then its status says so."""
    exchange, plain = exchange_of(FakeScope()), exchange_of(FakeScope(), streams=False)
    for each in (exchange, plain):
        each.always_stream()
        ENDS["answer"](each)
    refused = exchange_of(FakeScope())
    ENDS["death"](refused)
    refused.always_stream()
    streams = [each.stream is not None for each in (exchange, plain, refused)]
    assert streams == [True, False, False]
    assert await read(exchange) == [encode(Result(b'"a"', b"1"))]


async def turned(act: Callable[[], None]) -> None:
    """Do something after others had their turn."""
    await turns()
    act()


@bounded
async def test_the_first_word_ends_the_wait_whatever_it_is() -> None:
    """Progress begins a stream; silence ends with the window."""
    exchange = exchange_of(FakeScope())
    await exchange.first(0)
    assert (exchange.reply, exchange.stream) == (None, None)
    await asyncio.gather(exchange.first(LONG_S), turned(lambda: exchange.progressed(PROGRESS)))
    assert exchange.stream is not None
    assert exchange.reply is None
    finishing = asyncio.create_task(exchange.finished())
    await turns()
    assert not finishing.done()
    ENDS["death"](exchange)
    await finishing


@proves("C94")
@bounded
async def test_a_client_without_streams_gets_the_answer_alone() -> None:
    """Progress could not reach it, so that nothing is kept."""
    exchange = exchange_of(FakeScope(), streams=False)
    exchange.progressed(PROGRESS)
    exchange.receive(Logged(LOG))
    assert exchange.stream is None
    ENDS["answer"](exchange)
    assert len(await read(exchange)) == 1


@proves("C77")
@bounded
async def test_what_comes_after_the_answer_is_not_on_its_stream() -> None:
    """Progress of a task that the call began goes to the session instead."""
    scope = FakeScope()
    exchange = exchange_of(scope)
    ENDS["answer"](exchange)
    exchange.progressed(PROGRESS)
    exchange.receive(Logged(LOG))
    assert scope.heard == [PROGRESS]
    assert len(await read(exchange)) == 1


@pytest.mark.parametrize("admits", [True, False])
@bounded
async def test_a_log_message_about_a_call_comes_if_its_level_is_wanted(admits: bool) -> None:
    """The session knows what its client asked for."""
    exchange = exchange_of(FakeScope(admits=admits))
    exchange.receive(Logged(LOG))
    ENDS["answer"](exchange)
    assert (await read(exchange))[:-1] == ([encode(LOG)] if admits else [])


TO_STATE: dict[ExchangeState, list[ExchangeEvent]] = {
    ExchangeState.WAITING: [],
    ExchangeState.SENT: [ExchangeEvent.SUBMITTED],
    ExchangeState.ANSWERED: [ExchangeEvent.SUBMITTED, ExchangeEvent.ANSWERED],
}
"""What brings a new exchange to each state."""


@pytest.mark.parametrize(("state", "event"), list(EXCHANGE), ids=lambda each: each.value)
@bounded
async def test_it_moves_as_its_table_says(state: ExchangeState, event: ExchangeEvent) -> None:
    """For each pair of the table that people read."""
    mux = Stage(shared=True).mux
    exchange = exchange_of(FakeScope())
    happens: dict[ExchangeEvent, Callable[[], None]] = {
        ExchangeEvent.SUBMITTED: lambda: exchange.submit(mux),
        ExchangeEvent.ATTEMPT_OVER: exchange.attempt_over,
        ExchangeEvent.ANSWERED: lambda: exchange.answered(Result(b'"a"', b"{}")),
    }
    for each in TO_STATE[state]:
        happens[each]()
    assert exchange.state is state
    happens[event]()
    assert exchange.state is EXCHANGE[state, event]


LONG = Result(b'"a"', b'{"a":[%b0]}' % (b"[]," * (LONG_BYTES // 3)))


class Translation:
    """A translation that waits until it may go on, and notes the threads in which it runs."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.threads: list[threading.Thread] = []
        self.may_end = threading.Event()
        self._problem = problem

    def __call__(self, reply: Reply) -> Reply:
        """Translate."""
        self.threads.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert self.may_end.wait(LONG_S)
        if self._problem is not None:
            raise self._problem
        return Result(reply.id, b'"translated"') if isinstance(reply, Result) else reply


def translated_exchange(
    scope: FakeScope, translation: Translation
) -> tuple[Exchange, list[asyncio.Task[None]]]:
    """An exchange that translates, and the tasks that it starts."""
    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        tasks.append(asyncio.create_task(work(*args)))

    exchange = Exchange(
        Request(b'"a"', "x"),
        scope,
        time.monotonic(),
        streams=True,
        stream=None,
        translations=(translation,),
        aside=spawn,
    )
    return exchange, tasks


async def test_a_long_answer_is_translated_off_the_loop() -> None:
    """Until then there is no answer; a short one is translated at once."""
    scope, translation = FakeScope(), Translation()
    exchange, tasks = translated_exchange(scope, translation)
    exchange.answered(LONG)
    assert exchange.state is not ExchangeState.ANSWERED
    translation.may_end.set()
    await asyncio.gather(*tasks)
    assert exchange.reply == Result(b'"a"', b'"translated"')
    assert scope.finished == [exchange]
    assert threading.main_thread() not in translation.threads
    assert len(translation.threads) == 1
    exchange, tasks = translated_exchange(scope, translation)
    exchange.answered(Result(b'"a"', b"1"))
    assert exchange.reply == Result(b'"a"', b'"translated"')
    assert (tasks, translation.threads[1:]) == ([], [threading.main_thread()])


async def test_what_ends_the_call_during_a_translation_is_its_answer() -> None:
    """The translated answer comes too late: there is one answer."""
    scope, translation = FakeScope(), Translation()
    exchange, tasks = translated_exchange(scope, translation)
    exchange.answered(LONG)
    exchange.abandon(cancelled())
    first = exchange.reply
    assert isinstance(first, Failure)
    translation.may_end.set()
    await asyncio.gather(*tasks)
    assert exchange.reply is first
    assert scope.finished == [exchange]


@pytest.mark.parametrize("problem", [NotMessage("no"), KeyError("a bug")])
async def test_a_long_answer_that_cannot_be_translated_is_an_error(problem: Exception) -> None:
    """Its client is told at once, also if the translation has a bug, which is reported."""
    scope, translation = FakeScope(), Translation(problem)
    exchange, tasks = translated_exchange(scope, translation)
    exchange.answered(LONG)
    translation.may_end.set()
    (raised,) = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(exchange.reply, Failure)
    assert exchange.fault is not None
    assert exchange.fault.reason == bad_child_message().reason
    assert scope.finished == [exchange]
    assert raised is (problem if isinstance(problem, KeyError) else None)
