"""A connection and two pipes with no process behind them: bytes both ways."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mcpbridge.shim.splice import Splice
from tests.support.proofs import proves

WITHIN_S = 20.0


class Wired:
    """A relay, its peer, and the child's ends of both pipes."""

    def __init__(self, relay: Splice, peer: socket.socket, stdin: int, stdout: int) -> None:
        self.relay = relay
        self.peer = peer
        self.stdin = stdin
        self.stdout = stdout


@contextmanager
def wired() -> Iterator[Wired]:
    """A relay at work."""
    near, peer = socket.socketpair()
    near.setblocking(False)
    peer.setblocking(False)
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    for fd in (stdin, stdout):
        os.set_blocking(fd, False)
    relay = Splice(from_stdout, to_stdin, near)
    try:
        with near, relay.open():
            yield Wired(relay, peer, stdin, stdout)
            relay.outward.stop()
    finally:
        peer.close()
        for fd in (stdin, stdout):
            with suppress(OSError):
                os.close(fd)


async def fill(peer: socket.socket) -> int:
    """Send until nothing is taken any more; that many bytes were."""
    sent = 0
    for _ in range(200):
        with suppress(BlockingIOError):
            sent += peer.send(b"x" * 65536)
        await asyncio.sleep(0)
    return sent


async def until(event: asyncio.Event) -> None:
    """Wait for it, with a bound."""
    async with asyncio.timeout(WITHIN_S):
        await event.wait()


async def test_bytes_pass_as_they_are() -> None:
    """Both ways, whatever they are."""
    raw = bytes(range(256))
    with wired() as w:
        w.peer.send(raw)
        os.write(w.stdout, raw[::-1])
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(w.peer, 1000) == raw[::-1]
        assert os.read(w.stdin, 1000) == raw
        assert (w.relay.inward.moved, w.relay.outward.moved) == (256, 256)


async def test_who_does_not_read_stops_who_writes() -> None:
    """Only buffers of the system are filled; all of it comes when it is read."""
    with wired() as w:
        sent = await fill(w.peer)
        assert sent < 2_000_000
        assert w.relay.inward.is_stuck
        assert not w.relay.is_deserted
        found = 0
        async with asyncio.timeout(WITHIN_S):
            while found < sent:
                with suppress(BlockingIOError):
                    found += len(os.read(w.stdin, 1 << 16))
                await asyncio.sleep(0)
        assert found == sent
        assert not w.relay.inward.is_stuck


@proves("fault 37")
async def test_a_peer_that_left_is_noticed_behind_what_it_has_said() -> None:
    """A child that does not read would otherwise be kept without end, for no client."""
    with wired() as w:
        await fill(w.peer)
        w.peer.shutdown(socket.SHUT_WR)
        assert w.relay.is_deserted
        assert not w.relay.inward.ended.is_set()


async def test_the_end_of_one_way_is_not_the_end_of_the_other() -> None:
    """A peer that has said all still hears all."""
    with wired() as w:
        w.peer.send(b"last")
        w.peer.shutdown(socket.SHUT_WR)
        await until(w.relay.inward.ended)
        assert w.relay.inward.source_ended
        assert os.read(w.stdin, 100) == b"last"
        os.write(w.stdout, b"answer")
        assert await asyncio.get_running_loop().sock_recv(w.peer, 100) == b"answer"
        os.close(w.stdout)
        await until(w.relay.outward.flushed)


@proves("fault 36")
async def test_a_child_that_closed_its_stdin_is_told_of() -> None:
    """As good as gone, once a write has failed."""
    with wired() as w:
        os.close(w.stdin)
        w.peer.send(b"x")
        await until(w.relay.inward.ended)
        assert w.relay.inward.sink_closed


async def test_the_last_bytes_of_a_child_wait_for_a_slow_peer() -> None:
    """What was left in the pipe is taken when the child is gone, and written as the peer reads."""
    near, peer = socket.socketpair()
    near.setblocking(False)
    peer.setblocking(False)
    from_stdout, stdout = os.pipe()
    stdin, to_stdin = os.pipe()
    os.set_blocking(stdout, False)
    relay = Splice(from_stdout, to_stdin, near)
    with near, peer:
        written = 0
        with relay.open():
            for _ in range(200):
                with suppress(BlockingIOError):
                    written += os.write(stdout, b"y" * 65536)
                await asyncio.sleep(0)
        # The pipes are closed now; the relay holds what the peer has not taken.
        os.close(stdout)
        assert not relay.outward.flushed.is_set()
        found = 0
        async with asyncio.timeout(WITHIN_S):
            while found < written:
                found += len(await asyncio.get_running_loop().sock_recv(peer, 1 << 16))
        await until(relay.outward.flushed)
        assert found == written
    os.close(stdin)
