"""The channel to a child: its stdin and stdout, read and written on the event loop.

Plain file descriptors and loop callbacks instead of anyio's streams: those cost 35 to 85 µs a
call here, which is as much as all the rest of a call. Everything that is waiting when the loop
comes round goes out in one write.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from mcpbridge.channels.channel import InvalidLine, Received
from mcpbridge.channels.off_loop import LONG_BYTES, read_off_loop
from mcpbridge.errors import ChannelClosed, NotJson, TooDeep, WireError
from mcpbridge.settings import Unit, setting
from mcpbridge.wire.json_object import MAX_DEPTH
from mcpbridge.wire.lines import Line, LineSplitter, OverlongLine, encode_line
from mcpbridge.wire.messages import Message, decode, decode_batch, is_batch, pieces, walked
from mcpbridge.wire.reply_id import answer_id

_READ_BYTES = 1 << 18
_LAST_ANSWERS_S = 1.0
"""How long a child that closed its stdin may go on answering what it has read."""
_HELD_BYTES = 1 << 22
"""Read but not yet taken by the reader; reading stops above it."""
_CONGESTED_BYTES = 1 << 20
"""Sent but not yet taken by the child; senders wait above it."""
_JOINED_BYTES = 1 << 18
"""So much is copied together and written as one; more goes out from where it stands."""
_MAX_PIECES = 512
"""In one write; Linux, macOS and the BSDs take 1024."""
_PIPE_BYTES = 1 << 16
"""What a pipe holds as it is made, on Linux and on most systems at least."""
_GROWN_BYTES = 1 << 18
"""What it holds once a message has come that is longer.

A message of 1 MB then takes 4 turns of the loop each way and not 16, which is a tenth of its
processor time; 1 MiB saves no more. It is no larger because Linux counts what a user's pipes may
hold: beyond 64 MiB (fs.pipe-user-pages-soft) none grows, and new ones are made of a page or two.
That is 128 children with both pipes grown, where with 1 MiB it would be 32.
"""
_DENSE_BYTES = 1 << 11
"""Of a chunk with many lines so much is split at a time: `a` and a line end, a thousand times."""
_MANY_LINES = 1 << 10
_MOST_RECEIVED = 64
"""Messages in one answer of `receive`."""
_TURN_S = 0.002
"""The loop has its turn after so much time, however much is there."""
_MAX_BATCH = 1000
"""Messages in one batch of the child."""
_JSON_STARTS = tuple(b'{["-0123456789tfn'[at : at + 1] for at in range(17))
"""What a JSON text may begin with."""
_SAMPLE_BYTES = 200
_ENDLESS = 4
"""A line this many times over the limit, and still no end, is no line."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipeLimits:
    """Bounds on what a child may write; the depth counts for clients too."""

    max_message_bytes: int = setting(
        16 << 20,
        "--max-message-bytes",
        "Longest message of the server; a longer answer becomes an error for its caller.",
        group="Limits",
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
    max_json_depth: int = setting(
        MAX_DEPTH,
        "--max-json-depth",
        "Deepest nesting of a message, a client's or the server's; 512 is the most, since parsers"
        " give up at about 1000.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=4,
        maximum=MAX_DEPTH,
    )


class PipeChannel:
    """A channel over two pipe ends, which it owns and closes; lives within `open`."""

    def __init__(
        self,
        stdout_fd: int,
        stdin_fd: int,
        limits: PipeLimits,
        close_stdin: Callable[[int], None] = os.close,
    ) -> None:
        """Make a channel.

        Args:
            stdout_fd: Read from.
            stdin_fd: Written to.
            limits: Bounds on what is read.
            close_stdin: Ends what is written, and closes that descriptor.
        """
        self._loop = asyncio.get_running_loop()
        self._stdout_fd = stdout_fd
        self._stdin_fd = stdin_fd
        self._limits = limits
        self._close_stdin = close_stdin
        self._splitter = LineSplitter(limits.max_message_bytes)
        self._chunks: deque[bytes] = deque()
        """Read and not yet split into lines, because there are so many."""
        self._lines: deque[Line] = deque()
        self._received: deque[Received] = deque()
        """Understood and not yet taken by the reader."""
        self._turn_began = 0.0
        self._held = 0
        self._reading = False
        self._stdout_grown = self._stdin_grown = False
        self.ended = asyncio.Event()
        """Set when nothing more will be read."""
        self._reader: asyncio.Future[None] | None = None
        self._outgoing: list[bytes | memoryview] = []
        self._pending = 0
        self.taken = 0
        """Bytes that the pipe has taken; see `Channel.taken`."""
        self._flush_due = False
        self._blocked = False
        self._input_open = True
        self._watches_input = False
        self._last_answers: asyncio.TimerHandle | None = None
        self._senders: list[asyncio.Future[None]] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """Read and write until the block ends."""
        os.set_blocking(self._stdout_fd, False)
        os.set_blocking(self._stdin_fd, False)
        self._read_on()
        self._watch_input()
        try:
            yield
        finally:
            self.end()
            self.close_input()
            os.close(self._stdout_fd)

    async def receive(self) -> Sequence[Received]:
        """Messages and spoiled lines read since, some at a time; empty at the end of the stream."""
        if self._received or self._lines or self._chunks:
            if time.monotonic() - self._turn_began > _TURN_S:
                await asyncio.sleep(0)
                self._turn_began = time.monotonic()
        else:
            await self._arrival()
        while True:
            await self._understand()
            if self._received:
                count = min(len(self._received), _MOST_RECEIVED)
                return [self._received.popleft() for _ in range(count)]
            if self.ended.is_set():
                return []
            await self._arrival()

    async def _arrival(self) -> None:
        """Wait until there are lines, or the end."""
        while not self._lines and not self._chunks and not self.ended.is_set():
            self._reader = self._loop.create_future()
            await self._reader
        self._turn_began = time.monotonic()

    async def _understand(self) -> None:
        """Read lines until enough is understood or nothing is left."""
        while len(self._received) < _MOST_RECEIVED:
            if not self._lines and not self._split():
                break
            line = self._lines.popleft()
            size = line.size if isinstance(line, OverlongLine) else len(line)
            if isinstance(line, OverlongLine) or size < LONG_BYTES:
                self._received += self._understood(line)
            else:
                self._received += await read_off_loop(self._understood, line)
            if not self._lines and not self._chunks and not self.ended.is_set():
                break
        self._release()

    def _split(self) -> bool:
        """Split some of what was read; whether there are lines now."""
        while self._chunks and not self._lines:
            chunk = self._chunks.popleft()
            if len(chunk) > _DENSE_BYTES:
                self._chunks.appendleft(chunk[_DENSE_BYTES:])
            self._lines += self._splitter.feed(chunk[:_DENSE_BYTES])
        if not self._lines and self.ended.is_set():
            self._lines += self._splitter.end()
        return bool(self._lines)

    def _release(self) -> None:
        """Go on reading if all that was read has been split and taken."""
        if not self._lines and not self._chunks:
            self._held = 0
            if not self._reading and not self.ended.is_set():
                self._read_on()

    def send(self, message: Message) -> None:
        """Queue a message for the next write; see `Channel.send`."""
        if not self._input_open:
            raise ChannelClosed
        head, payload, tail = pieces(message)
        end = encode_line(tail)
        self._outgoing += (head, payload, end)
        self._pending += len(head) + len(payload) + len(end)
        if not self._flush_due and not self._blocked:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    @property
    def congested(self) -> bool:
        """More is waiting for the child than a pipe and a little holds."""
        return self._pending > _CONGESTED_BYTES

    async def writable(self) -> None:
        """Wait until the child has read enough, or is gone."""
        while self.congested and self._input_open:
            waiter = self._loop.create_future()
            self._senders.append(waiter)
            await waiter

    def close_input(self) -> None:
        """Close the child's stdin: the first, polite request to end. What was queued is lost."""
        if self._input_open:
            self._input_open = False
            self._flush()
            self._loop.remove_writer(self._stdin_fd)
            self._unwatch_input()
            self._close_stdin(self._stdin_fd)
            self._outgoing.clear()
            self._wake_senders()

    def end(self) -> None:
        """Read no more: the child is gone, whoever else may hold its stdout open."""
        if not self.ended.is_set():
            self.ended.set()
            self._loop.remove_reader(self._stdout_fd)
            self._wake_reader()

    def _watch_input(self) -> None:
        # The write end of a pipe becomes "readable" when its last reader is gone. Without this
        # only the next write would tell, and a call that the child had not read by then would
        # wait for its own time limit. A socket is really readable: there the end of what the
        # other side says is what counts.
        if stat.S_ISFIFO(os.fstat(self._stdin_fd).st_mode):
            self._watches_input = True
            self._loop.add_reader(self._stdin_fd, self._input_lost)

    def _unwatch_input(self) -> None:
        if self._watches_input:
            self._watches_input = False
            self._loop.remove_reader(self._stdin_fd)
        if self._last_answers is not None:
            self._last_answers.cancel()
            self._last_answers = None

    def _input_lost(self) -> None:
        """The child closed its stdin; what it has read it may still answer, for a moment."""
        self._unwatch_input()
        self._last_answers = self._loop.call_later(_LAST_ANSWERS_S, self._break)

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._stdout_fd, self._readable)

    def _readable(self) -> bool:
        """Read once; whether there was anything."""
        try:
            chunk = os.read(self._stdout_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self.end()
            return False
        if len(chunk) >= _PIPE_BYTES and not self._stdout_grown:
            self._stdout_grown = True
            _grow(self._stdout_fd)
        self._held += len(chunk)
        if self._chunks or (len(chunk) > _DENSE_BYTES and chunk.count(b"\n") > _MANY_LINES):
            self._chunks.append(chunk)
        else:
            self._lines += self._splitter.feed(chunk)
        if self._splitter.skipping > _ENDLESS * self._limits.max_message_bytes:
            self.end()
        elif self._lines or self._chunks:
            if self._held > _HELD_BYTES:
                self._reading = False
                self._loop.remove_reader(self._stdout_fd)
            self._wake_reader()
        return True

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _understood(self, line: Line) -> Sequence[Received]:
        if isinstance(line, OverlongLine):
            answers = answer_id(line)
            return [InvalidLine("message_too_large", line.size, line.head[:_SAMPLE_BYTES], answers)]
        if not line.startswith(_JSON_STARTS):
            # A server that writes text here may write much: a tenth of the time that reading takes.
            return [InvalidLine("noise", len(line), line[:_SAMPLE_BYTES], None)]
        try:
            depth = self._limits.max_json_depth
            found = (
                decode_batch(line, depth, _MAX_BATCH) if is_batch(line) else [decode(line, depth)]
            )
            if len(line) >= LONG_BYTES:
                walked(found)
            return found
        except WireError as error:
            reason = "too_deep" if isinstance(error, TooDeep) else "bad_message"
            if isinstance(error, NotJson):
                reason = "bad_json" if line.startswith((b"{", b"[")) else "noise"
            return [InvalidLine(reason, len(line), line[:_SAMPLE_BYTES], answer_id(line))]

    def _flush(self) -> None:
        self._flush_due = False
        if not self._outgoing:
            return
        try:
            written = self._write()
        except BlockingIOError:
            written = 0
        except OSError:
            self._break()
            return
        self._pending -= written
        self.taken += written
        self._wait_for_room(bool(self._outgoing))
        self._wake_senders()

    def _write(self) -> int:
        """Write once, as much as there is; how many bytes the pipe took."""
        if self._pending > _PIPE_BYTES and not self._stdin_grown:
            self._stdin_grown = True
            _grow(self._stdin_fd)
        if len(self._outgoing) > 1 and self._pending <= _JOINED_BYTES:
            self._outgoing = [b"".join(self._outgoing)]
        if len(self._outgoing) == 1:
            written = os.write(self._stdin_fd, self._outgoing[0])
        else:
            written = os.writev(self._stdin_fd, self._outgoing[:_MAX_PIECES])
        left, gone = written, 0
        for piece in self._outgoing:
            if left < len(piece):
                break
            left -= len(piece)
            gone += 1
        del self._outgoing[:gone]
        if left:
            self._outgoing[0] = memoryview(self._outgoing[0])[left:]
        return written

    def _wait_for_room(self, blocked: bool) -> None:
        if blocked and not self._blocked and self._input_open:
            self._loop.add_writer(self._stdin_fd, self._flush)
        elif self._blocked and not blocked:
            self._loop.remove_writer(self._stdin_fd)
        self._blocked = blocked

    def _break(self) -> None:
        """The child closed its stdin: as good as gone; what it has said before still counts."""
        self._outgoing.clear()
        self._pending = 0
        self.close_input()
        # Bounded, since a child that lives may write on for ever.
        while not self.ended.is_set() and self._held <= _HELD_BYTES and self._readable():
            pass
        self.end()

    def _wake_senders(self) -> None:
        if not self.congested or not self._input_open:
            senders, self._senders = self._senders, []
            for waiter in senders:
                if not waiter.done():
                    waiter.set_result(None)


def _grow(pipe_fd: int) -> None:
    """Let a pipe hold more, where that can be."""
    # Only Linux knows how, and there it may be forbidden or used up, or this is a socket.
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        if fcntl.fcntl(pipe_fd, fcntl.F_GETPIPE_SZ) < _GROWN_BYTES:
            fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, _GROWN_BYTES)
