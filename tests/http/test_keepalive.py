"""The timer that gives every open stream a sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import cast

import pytest

from mcpbridge.bridge.calls.stream import Reader
from mcpbridge.http.keepalive import AT_ONCE, PARTS, KeepAlive
from mcpbridge.rules.access.principals import ANONYMOUS, Principal

pytestmark = pytest.mark.asyncio

ROUND_S = 0.05


class FakeReader:
    """Counts what the timer does with it."""

    def __init__(self, nudged: Callable[[], None]) -> None:
        self.nudges = 0
        self.left = asyncio.Event()
        self._nudged = nudged

    def nudge(self) -> None:
        """Count, and tell."""
        self.nudges += 1
        self._nudged()

    def leave(self) -> None:
        """Note that it was ended."""
        self.left.set()


async def test_every_stream_is_nudged_once_in_each_round() -> None:
    """Also if a part has more streams than are written to in one turn of the loop."""
    keepalive, rounds = KeepAlive(ROUND_S), asyncio.Event()
    readers: list[FakeReader] = []

    def nudged() -> None:
        if readers[-1].nudges == 4:
            rounds.set()

    readers += [FakeReader(nudged) for _ in range(PARTS * AT_ONCE * 3)]
    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(keepalive.watching(cast(Reader, reader)))
        assert keepalive.open == len(readers)
        running = asyncio.create_task(keepalive.run())
        async with asyncio.timeout(30):
            await rounds.wait()
        running.cancel()
    assert {reader.nudges for reader in readers} <= {3, 4, 5}
    assert keepalive.open == 0


async def test_a_turn_of_the_loop_writes_to_few_streams() -> None:
    """Between two groups the loop serves calls."""
    keepalive, in_turn, most = KeepAlive(ROUND_S), 0, 0
    done = asyncio.Event()

    def next_turn() -> None:
        nonlocal in_turn
        in_turn = 0

    def nudged() -> None:
        nonlocal in_turn, most
        if not in_turn:
            asyncio.get_running_loop().call_soon(next_turn)
        in_turn += 1
        most = max(most, in_turn)
        if readers[0].nudges == 2:
            done.set()

    readers = [FakeReader(nudged) for _ in range(PARTS * AT_ONCE * 3)]
    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(keepalive.watching(cast(Reader, reader)))
        running = asyncio.create_task(keepalive.run())
        async with asyncio.timeout(30):
            await done.wait()
        running.cancel()
    assert most == AT_ONCE


async def test_a_stream_ends_when_its_principal_may_not_read_any_more() -> None:
    """Within a part of a round; those of others stay."""
    keepalive = KeepAlive(ROUND_S, still=lambda principal: principal.name != "gone")
    gone, stays, anybody = (FakeReader(lambda: None) for _ in range(3))
    with (
        keepalive.watching(cast(Reader, gone), Principal(b"gone", "gone")),
        keepalive.watching(cast(Reader, stays), ANONYMOUS),
        keepalive.watching(cast(Reader, anybody)),
    ):
        running = asyncio.create_task(keepalive.run())
        async with asyncio.timeout(30):
            await gone.left.wait()
        running.cancel()
    assert not stays.left.is_set()
    assert not anybody.left.is_set()
