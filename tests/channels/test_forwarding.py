"""What a channel hands on in the turn in which it reads, and what it keeps for later turns."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from mcpbridge.channels.channel import InvalidLine, Received
from mcpbridge.channels.memory import memory_pair
from mcpbridge.wire.messages import Message, Notification, Result, decode, encode
from tests.channels.test_pipes import PING, WITHIN_S, Peer, turns, wired

PONG = Notification("ping")
BROKEN = "the consumer failed"


class Consumer:
    """Keeps what it is given, and who gave it."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Received]] = []
        self.tasks: list[asyncio.Task[Any] | None] = []

    def __call__(self, received: Sequence[Received]) -> None:
        """Take what came."""
        self.batches.append(received)
        self.tasks.append(asyncio.current_task())

    @property
    def received(self) -> list[Received]:
        """All that came, in order."""
        return [each for batch in self.batches for each in batch]


@contextmanager
def forwarding() -> Iterator[tuple[Peer, Consumer, asyncio.Task[None]]]:
    """An open channel that forwards."""
    with wired() as peer:
        consumer = Consumer()
        yield peer, consumer, asyncio.create_task(peer.channel.forward(consumer))


async def write_all(peer: Peer, raw: bytes) -> None:
    """Let the peer say more than a pipe holds."""
    while raw:
        with suppress(BlockingIOError):
            raw = raw[os.write(peer.stdout, raw) :]
        await turns(1)


async def ended(peer: Peer, task: asyncio.Task[None]) -> None:
    """The peer ends, and so does the forwarding."""
    peer.ends()
    async with asyncio.timeout(WITHIN_S):
        await task


async def test_a_short_message_is_handed_on_where_it_is_read() -> None:
    """In the callback of the loop: no task has to be woken for it."""
    with forwarding() as (peer, consumer, task):
        await turns()
        peer.says(PING + b"\nnoise\n" + PING[:5])
        await turns()
        assert consumer.received == [PONG, InvalidLine("noise", 5, b"noise", None)]
        peer.says(PING[5:] + b"\n")
        await turns()
        assert consumer.received[2:] == [PONG]
        assert consumer.tasks == [None, None]
        await ended(peer, task)


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_kept_nothing_overtakes_it(seed: int) -> None:
    """Long lines, batches, many lines and short ones, cut anywhere: the order is the peer's."""
    dice = random.Random(seed)
    wanted: list[Received] = []
    raw = b""
    for number in range(120):
        kind = dice.choice(("short", "short", "short", "batch", "long", "many"))
        count = {"batch": dice.randint(1, 200), "many": dice.randint(1, 300)}.get(kind, 1)
        size = (1 << 18) + 1 if kind == "long" and dice.random() < 0.2 else 1
        payload = b'{"text":"%b"}' % (b"x" * size)
        some = [Result(b"%d" % (1000 * number + each), payload) for each in range(count)]
        wanted += some
        lines = map(encode, some)
        raw += b"[%b]\n" % b",".join(lines) if kind == "batch" else b"\n".join(lines) + b"\n"
    with forwarding() as (peer, consumer, task):
        while raw:
            piece = dice.choice((1, 100, 5000, 1 << 16, 1 << 20))
            await write_all(peer, raw[:piece])
            raw = raw[piece:]
        await ended(peer, task)
        assert consumer.received == wanted
        assert max(map(len, consumer.batches)) <= 64


async def test_a_batch_is_handed_on_in_parts_before_anything_else_comes() -> None:
    """No further output is needed to get the rest of it, nor the lines behind it."""
    batch = b"[" + b",".join([PING] * 100) + b"]\n"
    with forwarding() as (peer, consumer, task):
        await turns()
        peer.says(PING + b"\n" + batch + PING + b"\n" + batch)
        async with asyncio.timeout(WITHIN_S):
            while len(consumer.received) < 202:
                await turns(1)
        assert consumer.received == [PONG] * 202
        assert max(map(len, consumer.batches)) <= 64
        peer.says(batch)
        async with asyncio.timeout(WITHIN_S):
            while len(consumer.received) < 302:
                await turns(1)
        await ended(peer, task)


async def test_a_failing_consumer_ends_the_forwarding() -> None:
    """The task raises what the consumer raised in the callback; the loop is told too."""
    told: list[BaseException | None] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
    with wired() as peer:

        def take(received: Sequence[Received]) -> None:
            raise ValueError(BROKEN)

        task = asyncio.create_task(peer.channel.forward(take))
        await turns()
        peer.says(PING + b"\n")
        with pytest.raises(ValueError, match=BROKEN):
            async with asyncio.timeout(WITHIN_S):
                await task
        assert [str(each) for each in told] == [BROKEN]
        peer.says(PING + b"\n")
        assert await peer.channel.receive() == [PONG]


async def test_last_words_of_a_peer_that_closed_its_stdin_are_handed_on() -> None:
    """They are read when the write fails, and forwarded before the end."""
    with forwarding() as (peer, consumer, task):
        await turns()
        peer.stops_listening()
        peer.says(PING + b"\n")
        peer.channel.send(PONG)
        async with asyncio.timeout(WITHIN_S):
            await task
        assert consumer.received == [PONG]


async def test_a_channel_in_memory_forwards_too() -> None:
    """Until either end closes."""
    one, other = memory_pair()
    consumer = Consumer()
    task = asyncio.create_task(other.forward(consumer))
    one.send(PONG)
    await turns()
    one.send(PONG)
    one.close()
    async with asyncio.timeout(WITHIN_S):
        await task
    assert consumer.received == [PONG, PONG]


async def test_two_long_lines_in_a_row_are_both_read_off_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if all of the second but its end has come when the first is handed on."""
    threads: list[threading.Thread] = []
    second_came = threading.Event()

    def noting(line: bytes, depth: int) -> Message:
        threads.append(threading.current_thread())
        assert second_came.wait(WITHIN_S)
        return decode(line, depth)

    monkeypatch.setattr("mcpbridge.channels.pipes.decode", noting)
    long = Result(b"1", b'{"text":[' + b"[]," * (1 << 17) + b"0]}")
    line = encode(long)
    with forwarding() as (peer, consumer, task):
        await turns()
        await write_all(peer, line + b"\n" + line)
        async with asyncio.timeout(WITHIN_S):
            while waiting_in(peer.stdout):
                await turns(1)
            second_came.set()
            while not consumer.received:
                await turns(1)
        peer.says(b"\n")
        await ended(peer, task)
    assert consumer.received == [long, long]
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def waiting_in(pipe_fd: int) -> int:
    """How many bytes of a pipe have not been read."""
    return int.from_bytes(fcntl.ioctl(pipe_fd, termios.FIONREAD, bytes(4)), sys.byteorder)
