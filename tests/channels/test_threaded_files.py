"""The channel over real pipes that threads read and write, as on Windows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mcpbridge.channels.channel import Received
from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.channels.threaded_files import ThreadedFiles, threads_for
from mcpbridge.errors import ChannelClosed
from mcpbridge.wire.messages import Notification, Result

WITHIN_S = 20.0


class Peer:
    """The child's ends, which block as a child's do; used in threads."""

    def __init__(self, channel: PipeChannel, stdin: int, stdout: int) -> None:
        self.channel = channel
        self.stdin = stdin
        self.stdout = stdout
        self._open = {stdin, stdout}

    async def hears(self, size: int) -> bytes:
        """The next bytes of stdin; fewer at its end."""
        return await asyncio.to_thread(_read, self.stdin, size)

    async def says(self, raw: bytes) -> None:
        """Bytes on stdout, once the bridge has read all but what a pipe holds."""
        await asyncio.to_thread(_write, self.stdout, raw)

    def ends(self, fd: int) -> None:
        """No stdin, or no stdout, any more."""
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


def _read(fd: int, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (chunk := os.read(fd, size - len(found))):
        found += chunk
    return bytes(found)


def _write(fd: int, raw: bytes) -> None:
    left = memoryview(raw)
    while left:
        left = left[os.write(fd, left) :]


@asynccontextmanager
async def wired(limits: PipeLimits | None = None) -> AsyncIterator[Peer]:
    """An open channel and its peer."""
    stdout_read, stdout_write = os.pipe()
    stdin_read, stdin_write = os.pipe()
    threads = ThreadedFiles(stdout_read, stdin_write)
    channel = PipeChannel(stdout_read, stdin_write, limits or PipeLimits(), threads=threads)
    peer = Peer(channel, stdin_read, stdout_write)
    try:
        async with asyncio.timeout(WITHIN_S):
            with channel.open():
                yield peer
    finally:
        for fd in (stdin_read, stdout_write):
            peer.ends(fd)


async def some(channel: PipeChannel, count: int) -> list[Received]:
    """That many messages."""
    found: list[Received] = []
    while len(found) < count:
        found += await channel.receive()
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the threads of the other side, of which no event tells."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)  # looks again


async def test_this_system_needs_no_threads() -> None:
    """Its event loop watches pipes; a system without fork gets threads."""
    assert threads_for(0, 1) is None


async def test_messages_pass_both_ways_in_order() -> None:
    """Also those of one turn of the loop, and those that come while a thread writes."""
    async with wired() as peer:
        lines = [b'{"jsonrpc":"2.0","method":"n%d"}\n' % number for number in range(200)]
        for number in range(200):
            peer.channel.send(Notification(f"n{number}"))
            if number % 50 == 0:
                await asyncio.sleep(0)  # one turn of the loop
        assert await peer.hears(len(b"".join(lines))) == b"".join(lines)
        await peer.says(b"".join(lines))
        found = await some(peer.channel, 200)
        assert found == [Notification(f"n{number}") for number in range(200)]


@pytest.mark.slow
async def test_ten_megabytes_pass_both_ways() -> None:
    """At the same time, not a byte lost or doubled."""
    payload = b'["%b"]' % (b"0123456789" * 1_000_000)
    line = b'{"jsonrpc":"2.0","id":1,"result":%b}\n' % payload
    async with wired() as peer:
        peer.channel.send(Result(b"1", payload))
        heard, _, found = await asyncio.gather(
            peer.hears(len(line)), peer.says(line), some(peer.channel, 1)
        )
        assert heard == line
        assert found == [Result(b"1", payload)]


async def test_a_child_that_does_not_read_holds_up_its_senders_alone() -> None:
    """What waits is counted, and who waits goes on once the child reads."""
    async with wired() as peer:
        payload = b'["%b"]' % (b"x" * 3_000_000)
        line = b'{"jsonrpc":"2.0","id":1,"result":%b}\n' % payload
        peer.channel.send(Result(b"1", payload))
        assert peer.channel.congested
        waiting = asyncio.create_task(peer.channel.writable())
        await until(lambda: peer.channel.held > 0)
        assert not waiting.done()
        assert await peer.hears(len(line)) == line
        await waiting
        await until(lambda: peer.channel.taken == len(line))
        assert peer.channel.held == 0
        assert peer.channel.unread is None


async def test_what_was_given_is_written_before_the_input_is_closed() -> None:
    """Also what the thread has not begun to write."""
    async with wired() as peer:
        for number in range(3):
            peer.channel.send(Notification(f"n{number}"))
            await asyncio.sleep(0)  # one turn of the loop
        peer.channel.close_input()
        lines = [b'{"jsonrpc":"2.0","method":"n%d"}\n' % number for number in range(3)]
        assert await peer.hears(1 << 20) == b"".join(lines)
        with pytest.raises(ChannelClosed):
            peer.channel.send(Notification("late"))


async def test_the_end_of_stdout_is_the_end() -> None:
    """After all that was said before, the unfinished last line included."""
    async with wired() as peer:
        await peer.says(b'{"jsonrpc":"2.0","method":"a"}\n{"jsonrpc":"2.0","method":"b"}')
        peer.ends(peer.stdout)
        assert await some(peer.channel, 2) == [Notification("a"), Notification("b")]
        assert await peer.channel.receive() == []
        assert peer.channel.ended.is_set()


async def test_a_lost_stdin_is_seen_by_the_first_write_that_fails() -> None:
    """No caller waits for answers of a child that can be asked no more."""
    async with wired() as peer:
        peer.ends(peer.stdin)
        peer.channel.send(Notification("a"))
        assert await peer.channel.receive() == []
        with pytest.raises(ChannelClosed):
            peer.channel.send(Notification("b"))


async def test_reading_waits_while_nothing_is_taken() -> None:
    """The child is held up, and not the memory of the bridge filled."""
    line = b'{"jsonrpc":"2.0","method":"m","params":["%b"]}\n' % (b"x" * 10_000)
    count = 1_500
    async with wired() as peer:
        saying = asyncio.create_task(peer.says(line * count))
        taken = len(await some(peer.channel, 1))
        assert not saying.done()
        assert len(await some(peer.channel, count - taken)) == count - taken
        await saying


async def test_leaving_closes_both_pipes() -> None:
    """Each thread closes its own end, also if it is in a call when the channel is left."""
    async with wired() as peer:
        open_now = _pipes()
        await peer.says(b'{"jsonrpc":"2.0","method":"a"}\n')
        await some(peer.channel, 1)
    # The peer has closed its two ends; the channel's end as their threads come to it.
    await until(lambda: len(_pipes()) == len(open_now) - 4)


def _pipes() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if os.readlink(entry).startswith("pipe:"):
                found.add(entry.name)
    return found
