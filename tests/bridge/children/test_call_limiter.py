"""The places of one child: taken, waited for, given back once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mcpbridge.bridge.children.call_limiter import LINGER_S, CallLimiter, LoadLimits
from mcpbridge.rules.faults import Fault
from mcpbridge.wire.messages import Request
from tests.bridge.playbook import bounded, turns
from tests.support.proofs import proves


class LimitedChild:
    """Places, and what became of the calls that waited for one."""

    def __init__(self, **limits: Any) -> None:
        self.sent: list[int] = []
        self.refused: dict[int, str] = {}
        self.call_limiter = CallLimiter(LoadLimits(**limits), self._send, self._refuse)

    def call(self, *numbers: int, size: int = 0, caller: bytes = b"") -> None:
        """Calls that come one after the other."""
        for number in numbers:
            if not self.call_limiter.take(number):
                self.call_limiter.wait(number, Request(b"1", "m", b"x" * size), caller)

    def _send(self, number: int, request: Request) -> None:
        self.sent.append(number)

    def _refuse(self, number: int, fault: Fault) -> None:
        self.refused[number] = fault.message


@proves("fault 38")
@bounded
async def test_a_place_is_given_back_once_whatever_is_told_of_a_call() -> None:
    """Answered twice, cancelled after that: one place is free, and no more."""
    child = LimitedChild(max_calls_per_child=2)
    child.call(1, 2, 3, 4, 5)
    for _ in range(3):
        child.call_limiter.release(1)
        child.call_limiter.linger(1)
    assert (child.sent, child.call_limiter.taken, child.call_limiter.waiting) == ([3], 2, 2)
    child.call_limiter.release(99)
    assert child.sent == [3]
    assert child.call_limiter.withdraw(4)
    assert not child.call_limiter.withdraw(4)
    child.call_limiter.release(2)
    assert (child.sent, child.call_limiter.waiting) == ([3, 5], 0)


@proves("fault 39")
@bounded
async def test_a_call_that_is_answered_before_its_turn_waits_no_more() -> None:
    """A child may say anything; nothing is sent for an answer that is there."""
    child = LimitedChild(max_calls_per_child=1)
    child.call(1, 2, 3)
    child.call_limiter.release(2)
    child.call_limiter.release(1)
    assert child.sent == [3]


@bounded
async def test_the_queue_is_bounded_in_number_and_size() -> None:
    """Each refusal names the limit; one large call alone may wait."""
    child = LimitedChild(max_calls_per_child=1, queue_length=2, queue_bytes=1000)
    child.call(1)
    child.call(2, size=5000)
    child.call(3, size=10)
    assert child.refused[3] == (
        "limit reached: --queue-bytes 1000 of calls that wait for their turn, while the MCP server"
        " works on --max-calls-per-child 1"
    )
    assert child.call_limiter.withdraw(2)
    child.call(4, 5, 6)
    assert "--queue-length 2" in child.refused[6]
    assert child.call_limiter.close() == [4, 5]
    none = LimitedChild(max_calls_per_child=1, queue_length=0)
    none.call(1, 2)
    assert "--max-calls-per-child 1" in none.refused[2]


@bounded
async def test_who_has_waited_long_enough_is_told_in_order() -> None:
    """A call that came later waits on."""
    child = LimitedChild(max_calls_per_child=1, queue_timeout_s=0.05)
    child.call(1, 2, 3)
    while len(child.refused) < 2:
        await turns(1)
    assert list(child.refused) == [2, 3]
    child.call(4)
    child.call_limiter.release(1)
    assert child.sent == [4]


@bounded
async def test_by_default_no_timer_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that the call may take does, which the bridge watches."""
    loop = asyncio.get_running_loop()
    due: list[float] = []
    monkeypatch.setattr(loop, "call_at", lambda at, do: due.append(at))
    child = LimitedChild(max_calls_per_child=1)
    child.call(1, 2)
    assert (due, child.call_limiter.holds(1), child.call_limiter.holds(2)) == ([], False, True)
    child.call_limiter.release(1)
    assert (child.sent, child.refused, child.call_limiter.holds(2)) == ([2], {}, False)


@bounded
async def test_each_call_waits_as_long_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that came later is not refused along with the one before it."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    due: list[tuple[float, Callable[[], object]]] = []

    def call_at(at: float, do: Callable[[], object]) -> asyncio.TimerHandle:
        due.append((at, do))
        return asyncio.TimerHandle(at, do, (), loop)

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop, "call_at", call_at)
    child = LimitedChild(max_calls_per_child=1, queue_timeout_s=8)
    child.call(1, 2)
    now += 6
    child.call(3)
    for refused in ([2], [2, 3]):
        now, expire = due.pop()
        expire()
        assert list(child.refused) == refused
    assert due == []


@proves("fault 56")
@bounded
async def test_a_cancelled_call_gives_its_place_back_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The child may never answer it; one that waits or is over does not linger."""
    due: list[tuple[float, Callable[..., object], tuple[object, ...]]] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda s, do, *args: due.append((s, do, args)))
    child = LimitedChild(max_calls_per_child=1)
    child.call(1, 2)
    child.call_limiter.linger(1)
    child.call_limiter.linger(2)
    child.call_limiter.linger(3)
    ((seconds, do, args),) = due
    assert (seconds, child.sent) == (LINGER_S, [])
    do(*args)
    assert child.sent == [2]


@bounded
async def test_clients_get_a_free_place_in_turns() -> None:
    """However many calls one of them has waiting; its own are served in order."""
    child = LimitedChild(max_calls_per_child=1)
    child.call(1)
    child.call(2, 3, 4, 5, caller=b"a")
    child.call(6, 7, caller=b"b")
    child.call(8, caller=b"c")
    for _ in range(7):
        child.call_limiter.release([1, *child.sent][-1])
    assert child.sent == [2, 6, 8, 3, 7, 4, 5]


@bounded
async def test_in_a_full_queue_the_client_with_most_calls_gives_way() -> None:
    """Its newest call first, and only to a client that will have fewer than it has."""
    child = LimitedChild(max_calls_per_child=1, queue_length=4)
    child.call(1)
    child.call(2, 3, 4, 5, caller=b"a")
    child.call(6, 7, 8, caller=b"b")
    assert list(child.refused) == [5, 4, 8]
    assert "--queue-length 4" in child.refused[5]
    child.call(9, caller=b"c")
    assert list(child.refused) == [5, 4, 8, 3]
    child.call(10, 11, caller=b"d")
    assert list(child.refused)[4:] == [7, 11]
    assert child.call_limiter.close() == [2, 6, 9, 10]


@bounded
async def test_in_a_queue_full_of_bytes_the_client_with_most_bytes_gives_way() -> None:
    """A large call takes no place of small ones."""
    child = LimitedChild(max_calls_per_child=1, queue_bytes=1000)
    child.call(1)
    child.call(2, 3, size=400, caller=b"a")
    child.call(4, size=300, caller=b"b")
    assert "--queue-bytes 1000" in child.refused[3]
    child.call(5, size=900, caller=b"c")
    assert list(child.refused) == [3, 5]
