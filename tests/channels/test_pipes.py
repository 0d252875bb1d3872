"""The channel over two real pipes, in literal bytes, on both event loops."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from mcpbridge.channels.channel import InvalidLine, Received
from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.errors import ChannelClosed
from mcpbridge.wire.messages import Notification, Request, Result, encode
from tests.support.proofs import proves

WITHIN_S = 20.0
TINY = PipeLimits(max_message_bytes=1024)
PING = b'{"jsonrpc":"2.0","method":"ping"}'


class Peer:
    """The child's side: a pipe to read what it is told and one to write what it says."""

    def __init__(self, channel: PipeChannel, stdin: int, stdout: int) -> None:
        self.channel = channel
        self.stdin = stdin
        self.stdout = stdout
        self._open = {stdin, stdout}

    def heard(self) -> bytes:
        """What one read finds now; empty where nothing is there or ever will be."""
        with suppress(BlockingIOError):
            return os.read(self.stdin, 1 << 20)
        return b""

    def says(self, raw: bytes) -> None:
        """Bytes on stdout, few enough for a pipe to hold."""
        assert os.write(self.stdout, raw) == len(raw)

    def ends(self) -> None:
        """No stdout any more."""
        self._close(self.stdout)

    def stops_listening(self) -> None:
        """No stdin any more."""
        self._close(self.stdin)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


@contextmanager
def wired(limits: PipeLimits | None = None, flags: int = 0) -> Iterator[Peer]:
    """An open channel and its peer; `flags` are for the pipe that is the child's stdin."""
    stdout_read, stdout_write = os.pipe()
    stdin_read, stdin_write = os.pipe2(flags)
    for fd in (stdin_read, stdout_write):
        os.set_blocking(fd, False)
    channel = PipeChannel(stdout_read, stdin_write, limits or PipeLimits())
    peer = Peer(channel, stdin_read, stdout_write)
    try:
        with channel.open():
            yield peer
    finally:
        peer.ends()
        peer.stops_listening()


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)  # one turn of the loop


async def read_all(fd: int, size: int) -> bytes:
    """That many bytes of a pipe, read as they come."""
    found = bytearray()
    async with asyncio.timeout(WITHIN_S):
        while len(found) < size:
            with suppress(BlockingIOError):
                found += os.read(fd, 1 << 20)
            await asyncio.sleep(0)  # one turn of the loop
    return bytes(found)


async def received(channel: PipeChannel) -> list[Received]:
    """Everything up to the end of the stream."""
    found: list[Received] = []
    async with asyncio.timeout(WITHIN_S):
        while batch := await channel.receive():
            found += batch
    return found


@proves("C46")
async def test_one_turn_of_the_loop_is_one_write() -> None:
    """A hundred sends in a turn leave together, in order, when the turn is over."""
    # A pipe in packet mode keeps the bounds of writes: a read finds one write and no more.
    with wired(flags=os.O_DIRECT) as peer:
        for number in range(100):
            peer.channel.send(Notification(f"n{number}"))
        assert peer.heard() == b""
        await asyncio.sleep(0)  # one turn of the loop
        lines = [b'{"jsonrpc":"2.0","method":"n%d"}\n' % number for number in range(100)]
        assert peer.heard() == b"".join(lines)
        assert peer.heard() == b""
        peer.channel.send(Request(b"7", "next", b'{"a":"\\n"}'))
        await asyncio.sleep(0)  # one turn of the loop
        assert peer.heard() == b'{"jsonrpc":"2.0","id":7,"method":"next","params":{"a":"\\n"}}\n'


@pytest.mark.slow
async def test_ten_megabytes_go_out_in_pieces() -> None:
    """What the pipe cannot take at once follows as it empties, not a byte lost or doubled."""
    with wired() as peer:
        big = b'"' + bytes(itertools.islice(itertools.cycle(b"0123456789abc"), 10_000_000)) + b'"'
        peer.channel.send(Notification("big", b"[" + big + b"]"))
        peer.channel.send(Notification("after"))
        wanted = b'{"jsonrpc":"2.0","method":"big","params":[%b]}\n' % big
        wanted += b'{"jsonrpc":"2.0","method":"after"}\n'
        assert await read_all(peer.stdin, len(wanted)) == wanted
        await turns()
        assert peer.heard() == b""


async def test_a_large_message_goes_out_beside_small_ones() -> None:
    """What is too large to be copied together keeps its place among what is not."""
    with wired() as peer:
        params = b'["' + b"x" * 400_000 + b'"]'
        wanted = b""
        for number in range(1000):
            peer.channel.send(Request(b"%d" % number, "small", b"{}"))
            wanted += b'{"jsonrpc":"2.0","id":%d,"method":"small","params":{}}\n' % number
            if number % 400 == 0:
                peer.channel.send(Result(b"%d" % number, params))
                wanted += b'{"jsonrpc":"2.0","id":%d,"result":%b}\n' % (number, params)
        assert await read_all(peer.stdin, len(wanted)) == wanted
        await turns()
        assert peer.heard() == b""
        assert peer.channel.taken == len(wanted)
        assert not peer.channel.congested


def capacity(fd: int) -> int:
    """How many bytes a pipe holds."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


async def test_a_pipe_grows_with_the_first_message_it_cannot_hold() -> None:
    """A child that is told and tells little keeps the pipes it came with; each grows alone."""
    with wired() as peer:
        made = capacity(peer.stdin)
        assert made == capacity(peer.stdout)
        line = b'{"jsonrpc":"2.0","method":"n","params":["%b"]}\n' % (b"x" * 40_000)
        peer.channel.send(Notification("n", b'["%b"]' % (b"x" * 40_000)))
        assert await read_all(peer.stdin, len(line)) == line
        peer.says(line)
        assert len(await peer.channel.receive()) == 1
        assert capacity(peer.stdin) == capacity(peer.stdout) == made

        peer.channel.send(Notification("n", b'["%b"]' % (b"x" * 70_000)))
        await turns()
        assert made < capacity(peer.stdin) <= 1 << 20
        assert capacity(peer.stdout) == made

        peer.says(b" " * made)  # no task reads before the next turn of the loop
        await turns()
        peer.says(line)
        assert len(await peer.channel.receive()) == 1
        assert made < capacity(peer.stdout) <= 1 << 20


async def test_what_cannot_grow_does_not_matter() -> None:
    """Over a socket, and over a pipe that holds more already, large messages pass as they did."""
    ours, theirs = socket.socketpair()
    channel = PipeChannel(ours.fileno(), os.dup(ours.fileno()), PipeLimits())
    ours.detach()
    payload = b'["%b"]' % (b"x" * 1_000_000)
    line = b'{"jsonrpc":"2.0","id":1,"result":%b}\n' % payload
    with theirs, channel.open():
        theirs.setblocking(False)
        channel.send(Result(b"1", payload))
        assert await read_all(theirs.fileno(), len(line)) == line
        await asyncio.get_running_loop().sock_sendall(theirs, line)
        async with asyncio.timeout(WITHIN_S):
            assert await channel.receive() == [Result(b"1", payload)]
    with wired() as peer:
        fcntl.fcntl(peer.stdin, fcntl.F_SETPIPE_SZ, 1 << 20)
        peer.channel.send(Result(b"1", payload))
        assert await read_all(peer.stdin, len(line)) == line
        assert capacity(peer.stdin) == 1 << 20


async def test_senders_can_wait_for_a_slow_child() -> None:
    """Above a bound the channel is congested, and `writable` waits until the child has read."""
    with wired() as peer:
        params = b'["' + b"x" * 100_000 + b'"]'
        sent = 0
        while not peer.channel.congested:
            peer.channel.send(Notification("n", params))
            await asyncio.sleep(0)  # one turn of the loop
            sent += 1
            assert sent < 50
        waiting = [asyncio.create_task(peer.channel.writable()) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in waiting)
        line = b'{"jsonrpc":"2.0","method":"n","params":%b}\n' % params
        assert await read_all(peer.stdin, sent * len(line)) == line * sent
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*waiting)
            await peer.channel.writable()


async def test_a_child_that_writes_more_than_is_taken_has_to_wait() -> None:
    """Unread messages are bounded: the pipe fills, and nothing is lost when reading goes on."""
    with wired() as peer:
        rest = b'","params":["' + b"x" * 1000 + b'"]}\n'
        lines = [b'{"jsonrpc":"2.0","method":"n%05d' % number + rest for number in range(10_000)]
        raw, at, idle = b"".join(lines), 0, 0
        while idle < 200:
            try:
                at += os.write(peer.stdout, raw[at : at + 65536])
                idle = 0
            except BlockingIOError:
                idle += 1
            await asyncio.sleep(0)  # one turn of the loop
        assert 4 << 20 <= at < 5 << 20, at
        names: list[str] = []
        async with asyncio.timeout(WITHIN_S):
            while at < len(raw) or len(names) < len(lines):
                with suppress(BlockingIOError):
                    at += os.write(peer.stdout, raw[at : at + 65536])
                if at < len(raw):
                    await asyncio.sleep(0)  # one turn of the loop
                batch = await peer.channel.receive()
                names += [item.method for item in batch if isinstance(item, Notification)]
        assert names == [f"n{number:05d}" for number in range(10_000)]


RESULT = b'{"jsonrpc":"2.0","id":5,"result":{"t":"\xe2\x82\xac"}}'
SAID: list[tuple[bytes, list[Received]]] = [
    (PING, [Notification("ping")]),
    (RESULT, [Result(b"5", b'{"t":"\xe2\x82\xac"}')]),
    (b"\xef\xbb\xbf" + RESULT + b"\r", [Result(b"5", b'{"t":"\xe2\x82\xac"}')]),
    (b"", []),
    (b" \t\r", []),
    (b"[" + PING + b"," + PING + b"]", [Notification("ping"), Notification("ping")]),
    (b"Server ready", [InvalidLine("noise", 12, b"Server ready", None)]),
    (b"{}", [InvalidLine("bad_message", 2, b"{}", None)]),
    (b'{"id":5', [InvalidLine("bad_json", 7, b'{"id":5', None)]),
    (
        b'{"jsonrpc":"2.0","id":5,"result":NaN}',
        [InvalidLine("bad_json", 37, b'{"jsonrpc":"2.0","id":5,"result":NaN}', 5)],
    ),
    (
        b'{"jsonrpc":"2.0","id":5,"result":"\xff"}',
        [InvalidLine("bad_json", 37, b'{"jsonrpc":"2.0","id":5,"result":"\xff"}', 5)],
    ),
    (
        b'{"jsonrpc":"2.0","id":5,"result":1,"error":{}}',
        [InvalidLine("bad_message", 46, b'{"jsonrpc":"2.0","id":5,"result":1,"error":{}}', 5)],
    ),
    (b"n" * 1000, [InvalidLine("noise", 1000, b"n" * 200, None)]),
    (b"n" * 1025, [InvalidLine("message_too_large", 1025, b"n" * 200, None)]),
]


@proves("faults 17-25", "fault 29", "fault 42", "C47", "C48")
@pytest.mark.parametrize(("raw", "wanted"), SAID)
async def test_what_a_line_is_taken_for(raw: bytes, wanted: list[Received]) -> None:
    """Every line is a message, several, none or an invalid one, which does not affect the next.

    Given whole, byte by byte, and as the unfinished last line before the end.
    """
    with wired(TINY) as whole:
        whole.says(raw + b"\n" + PING + b"\n")
        whole.ends()
        assert await received(whole.channel) == [*wanted, Notification("ping")]
    with wired(TINY) as dripping:
        for byte in raw + b"\n" + PING + b"\n":
            dripping.says(bytes([byte]))
            await asyncio.sleep(0)  # one turn of the loop
        dripping.ends()
        assert await received(dripping.channel) == [*wanted, Notification("ping")]
    with wired(TINY) as unfinished:
        unfinished.says(PING + b"\n" + raw)
        unfinished.ends()
        assert await received(unfinished.channel) == [Notification("ping"), *wanted]


async def test_the_end_stays_the_end() -> None:
    """After the end `receive` is empty each time, and waiting readers are told at once."""
    with wired() as peer:
        waiting = asyncio.create_task(peer.channel.receive())
        await turns()
        assert not waiting.done()
        peer.ends()
        async with asyncio.timeout(WITHIN_S):
            assert await waiting == []
            await peer.channel.ended.wait()
        assert await peer.channel.receive() == []
        peer.channel.end()
        assert await peer.channel.receive() == []


async def test_reading_can_be_ended_from_this_side() -> None:
    """`end` gives up on a stdout that another process holds open; what was read is still given."""
    with wired() as peer:
        peer.says(PING + b"\n" + b'{"half')
        async with asyncio.timeout(WITHIN_S):
            assert await peer.channel.receive() == [Notification("ping")]
        peer.channel.end()
        assert await received(peer.channel) == [InvalidLine("bad_json", 6, b'{"half', None)]


@proves("fault 31")
async def test_a_line_without_end_ends_the_channel() -> None:
    """Four times over the limit it is not a line any more; the answer it began has failed."""
    with wired(TINY) as peer:
        peer.says(b'{"jsonrpc":"2.0","id":5,"result":"' + b"x" * 4000)
        await turns(20)
        assert not peer.channel.ended.is_set()
        peer.says(b"x" * 6000)
        (invalid,) = await received(peer.channel)
        assert isinstance(invalid, InvalidLine)
        assert (invalid.reason, invalid.answers) == ("message_too_large", 5)
        assert invalid.size > 4 * TINY.max_message_bytes


@proves("fault 30")
async def test_a_line_over_the_limit_is_skipped() -> None:
    """It is told with its size and id, and the next line is a message again."""
    with wired(TINY) as peer:
        peer.says(b'{"jsonrpc":"2.0","id":5,"result":"' + b"x" * 3000 + b'"}\n' + PING + b"\n")
        peer.ends()
        invalid, ping = await received(peer.channel)
        assert isinstance(invalid, InvalidLine)
        assert (invalid.reason, invalid.size, invalid.answers) == ("message_too_large", 3036, 5)
        assert ping == Notification("ping")


@proves("C49")
async def test_closing_the_input_is_seen_by_the_child() -> None:
    """What was queued goes out if the pipe takes it, then end of file; the child may still speak.

    The first rung of the stop ladder.
    """
    with wired() as peer:
        peer.channel.send(Notification("last"))
        peer.channel.close_input()
        peer.channel.close_input()
        assert peer.heard() == b'{"jsonrpc":"2.0","method":"last"}\n'
        assert os.read(peer.stdin, 1) == b""
        with pytest.raises(ChannelClosed):
            peer.channel.send(Notification("more"))
        peer.says(PING + b"\n")
        async with asyncio.timeout(WITHIN_S):
            assert await peer.channel.receive() == [Notification("ping")]


@proves("fault 37")
async def test_closing_a_blocked_input_frees_those_who_wait() -> None:
    """Senders that wait for a child that never reads do not wait forever."""
    with wired() as peer:
        peer.channel.send(Notification("n", b'["' + b"x" * 3_000_000 + b'"]'))
        waiting = asyncio.create_task(peer.channel.writable())
        await turns()
        assert peer.channel.congested
        assert not waiting.done()
        peer.channel.close_input()
        async with asyncio.timeout(WITHIN_S):
            await waiting


@proves("fault 36")
async def test_a_child_that_closed_its_stdin_is_as_good_as_gone() -> None:
    """The write fails, the channel ends, and sending is refused from then on."""
    with wired() as peer:
        peer.stops_listening()
        peer.channel.send(Notification("n"))
        assert await received(peer.channel) == []
        with pytest.raises(ChannelClosed):
            peer.channel.send(Notification("n"))
        async with asyncio.timeout(WITHIN_S):
            await peer.channel.writable()


@proves("fault 36")
async def test_a_child_that_closes_its_stdin_is_seen_without_another_message() -> None:
    """Else a call that it has not read would wait for its own time limit."""
    with wired() as peer:
        peer.channel.send(Request(b"1", "x", None))
        await turns()
        peer.stops_listening()
        async with asyncio.timeout(WITHIN_S):
            await peer.channel.ended.wait()
        with pytest.raises(ChannelClosed):
            peer.channel.send(Request(b"2", "x", None))


@proves("fault 36")
async def test_a_child_that_closed_its_stdin_may_still_answer_what_it_has_read() -> None:
    """Some servers close it as soon as they know that they are to end."""
    with wired() as peer:
        peer.channel.send(Request(b"1", "x", None))
        await turns()
        assert peer.heard()
        peer.stops_listening()
        await turns()
        peer.says(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
        assert await peer.channel.receive() == [Result(b"1", b"{}")]
        async with asyncio.timeout(WITHIN_S):
            await peer.channel.ended.wait()


async def test_what_a_dying_child_answered_is_not_lost_by_a_late_request() -> None:
    """A failed write does not throw away the answers that stand in the other pipe already."""
    with wired() as peer:
        peer.says((RESULT + b"\n") * 1000)
        peer.stops_listening()
        peer.channel.send(Notification("n"))
        assert await received(peer.channel) == [Result(b"5", b'{"t":"\xe2\x82\xac"}')] * 1000


async def test_leaving_closes_both_pipes() -> None:
    """After `open` the peer finds both its ends broken."""
    with wired() as peer:
        channel = peer.channel
        stdin, stdout = os.dup(peer.stdin), os.dup(peer.stdout)
    try:
        assert os.read(stdin, 1) == b""
        with pytest.raises(BrokenPipeError):
            os.write(stdout, b"x")
    finally:
        os.close(stdin)
        os.close(stdout)
    assert await channel.receive() == []


async def test_many_short_lines_come_some_at_a_time() -> None:
    """The loop goes round between slices of what was read in one go; nothing is lost or moved."""
    count = 20_000
    with wired() as peer:
        fcntl.fcntl(peer.stdout, fcntl.F_SETPIPE_SZ, 1 << 18)
        peer.says(b"a\n" * count + PING + b"\n")
        received: list[Received] = []
        with counted_rounds() as rounds:
            while len(received) <= count:
                some = await peer.channel.receive()
                assert len(some) <= 64
                received += some
    assert all(isinstance(each, InvalidLine) for each in received[:-1])
    assert received[-1] == Notification("ping")
    assert len(rounds) > 2


async def test_blank_lines_give_the_loop_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """They bring no message, so nothing but the time ends a turn with them."""
    monkeypatch.setattr("mcpbridge.channels.pipes._TURN_S", 0.0)
    with wired() as peer:
        fcntl.fcntl(peer.stdout, fcntl.F_SETPIPE_SZ, 1 << 18)
        peer.says(b"\n" * 200_000 + PING + b"\n")
        with counted_rounds() as rounds:
            assert await peer.channel.receive() == [Notification("ping")]
    assert len(rounds) > 50


@contextmanager
def counted_rounds() -> Iterator[list[None]]:
    """Count how often the loop goes round, until the block ends: an item for each round."""
    rounds: list[None] = []

    async def go_round() -> None:
        while True:
            rounds.append(None)
            await asyncio.sleep(0)  # one turn of the loop

    going = asyncio.create_task(go_round())
    try:
        yield rounds
    finally:
        going.cancel()


async def test_a_long_message_is_read_off_the_loop_and_keeps_its_place() -> None:
    """The loop goes round while it is read; what came after it is given after it."""
    long = Result(b"1", b'{"text":"' + b"x" * (1 << 20) + b'"}')
    with wired() as peer:
        receiving = asyncio.create_task(_received(peer, 3))
        raw = PING + b"\n" + encode(long) + b"\n" + PING + b"\n"
        while raw:
            with suppress(BlockingIOError):
                raw = raw[os.write(peer.stdout, raw) :]
            await turns(1)
        async with asyncio.timeout(WITHIN_S):
            assert await receiving == [Notification("ping"), long, Notification("ping")]


async def _received(peer: Peer, count: int) -> list[Received]:
    received: list[Received] = []
    while len(received) < count:
        received += await peer.channel.receive()
    return received


async def test_a_batch_is_counted_before_it_is_read() -> None:
    """One message too many in a line, and the line is not a message."""
    with wired() as peer:
        peer.says(b"[" + b",".join([PING] * 1000) + b"]\n")
        assert await _received(peer, 1000) == [Notification("ping")] * 1000
        peer.says(b"[" + b",".join([PING] * 1001) + b"]\n")
        (invalid,) = await peer.channel.receive()
    assert isinstance(invalid, InvalidLine)
    assert invalid.reason == "bad_message"
