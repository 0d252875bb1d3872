"""The connected pair in memory keeps the contract of a channel."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.channels.channel import Channel, InvalidLine
from mcpbridge.channels.memory import memory_pair
from mcpbridge.errors import ChannelClosed
from mcpbridge.wire.messages import Notification

A, B, C = (Notification(name) for name in "abc")


async def test_what_one_end_sends_the_other_receives() -> None:
    """Messages arrive at the other end only, in order, and those that wait come together."""
    one, other = memory_pair()
    one.send(A)
    one.send(B)
    other.send(C)
    assert await other.receive() == [A, B]
    assert await one.receive() == [C]


async def test_a_waiting_reader_is_woken() -> None:
    """`receive` waits until something comes."""
    one, other = memory_pair()
    receiving = asyncio.create_task(other.receive())
    await asyncio.sleep(0)  # one turn of the loop
    assert not receiving.done()
    one.send(A)
    async with asyncio.timeout(5):
        assert await receiving == [A]


async def test_an_invalid_line_can_be_put_in() -> None:
    """A test may let an end receive what is not a message."""
    invalid = InvalidLine("noise", 2, b"hi", None)
    one, _ = memory_pair()
    one.put(invalid)
    assert await one.receive() == [invalid]


async def test_closing_either_end_ends_both() -> None:
    """What was sent is still received; then the end, each time; and sending is refused."""
    one, other = memory_pair()
    one.send(A)
    waiting = asyncio.create_task(one.receive())
    await asyncio.sleep(0)  # one turn of the loop
    other.close()
    assert await other.receive() == [A]
    for end in (one, other):
        assert await end.receive() == []
        assert await end.receive() == []
        with pytest.raises(ChannelClosed):
            end.send(B)
    async with asyncio.timeout(5):
        assert await waiting == []


async def test_memory_is_never_congested() -> None:
    """A sender that waits for room does not wait."""
    channel: Channel = memory_pair()[0]
    assert not channel.congested
    async with asyncio.timeout(5):
        await channel.writable()
