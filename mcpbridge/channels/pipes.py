"""Connects to a child: reads its stdout and writes its stdin on the event loop.

Plain file descriptors and loop callbacks replace anyio's streams, which cost 35 to 85 µs per call
here: as much as all the rest of a call. Everything queued within one turn of the loop goes out in
one write.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from mcpbridge.channels.channel import Consumer, InvalidLine, Received
from mcpbridge.channels.off_loop import LONG_BYTES, PLAIN_BYTES, is_aside, pause, read_off_loop
from mcpbridge.channels.threaded_files import FileCalls, ThreadedFiles, Watch, threads_for
from mcpbridge.errors import ChannelClosed, NotJson, TooDeep, WireError
from mcpbridge.rules.access.shares import MESSAGE_BYTES, Account
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.wire.json_object import MAX_DEPTH, has_more
from mcpbridge.wire.lines import Line, LongLine, LongLineSplitter, encode_line
from mcpbridge.wire.messages import Message, decode, decode_batch, is_batch, pieces, walked
from mcpbridge.wire.reply_id import answer_id

_READ_BYTES = 1 << 18
_LAST_ANSWERS_S = 1.0
"""Seconds that a child that closed its stdin may still answer what it has read."""
_HELD_BYTES = 1 << 22
"""Bytes read but not yet taken by the reader; reading stops above it."""
_CONGESTED_BYTES = 1 << 20
"""Bytes sent but not yet taken by the child; senders wait above it."""
_CHARGED_BYTES = 1 << 16
"""Output of the child below this size is not charged: it is split and taken in the same turn."""
_JOINED_BYTES = 1 << 18
"""Up to this size messages are copied together into one write; more is written by `writev`."""
_PIECES = 3
"""Pieces of one message; see `mcpbridge.wire.messages.pieces`."""
_MAX_PIECES = 512
"""Most pieces in one `writev`; Linux, macOS and the BSDs allow 1024."""
_PIPE_BYTES = 1 << 16
"""Initial capacity of a pipe, on Linux and at least on most other systems."""
_GROWN_BYTES = 1 << 18
"""Capacity of a pipe after a longer message has come.

A message of 1 MB then takes 4 turns of the loop each way in place of 16, which saves a tenth of its
processor time; 1 MiB saves no more. It is not larger because Linux limits the total of a user's
pipes: beyond 64 MiB (fs.pipe-user-pages-soft) none grows, and new ones get a page or two. That is
128 children with both pipes grown; with 1 MiB it would be 32.
"""
_DENSE_BYTES = 1 << 11
"""Bytes split at a time from a chunk with many lines: at worst 1024 lines of one character."""
_MANY_LINES = 1 << 10
_MOST_RECEIVED = 64
"""Most messages returned by one call of `receive`."""
_TURN_S = 0.002
"""Seconds after which the loop gets its turn, however much is left to read."""
_MAX_BATCH = 1000
"""Most messages in one batch of the child."""
_JSON_STARTS = b'{["-0123456789tfn'
"""The bytes that a JSON text may begin with."""
_SAMPLE_BYTES = 200
_ENDLESS = 4
"""A line this many times over the limit and without an end ends the channel."""


class PipeLimits(SettingsSection, frozen=True):
    """Bounds on what a child may write; the depth applies to clients too."""

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
        "Deepest nesting of a message, a client's or the server's; at most 512, since parsers give"
        " up at about 1000.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=4,
        maximum=MAX_DEPTH,
    )


class PipeChannel:
    """A channel over two pipe ends, which it owns and closes; works within `open`."""

    def __init__(
        self,
        stdout_fd: int,
        stdin_fd: int,
        limits: PipeLimits,
        close_stdin: Callable[[int], None] | None = None,
        account: Account | None = None,
        threads: ThreadedFiles | None = None,
    ) -> None:
        """Make a channel.

        Args:
            stdout_fd: Descriptor to read from.
            stdin_fd: Descriptor to write to.
            limits: Bounds on what is read.
            close_stdin: Ends the output, and closes that descriptor; None: it is just closed.
            account: Charged for what waits in either direction; None: that is not counted.
            threads: Read and write both descriptors; None: the event loop watches them.
        """
        self._loop = asyncio.get_running_loop()
        self._stdout_fd = stdout_fd
        self._stdin_fd = stdin_fd
        self._limits = limits
        self._os: FileCalls = os if threads is None else threads
        self._close_stdin = close_stdin or self._os.close
        self._account = Account(account)
        self._splitter = LongLineSplitter(limits.max_message_bytes, LONG_BYTES)
        self._chunks: deque[bytes] = deque()
        """Read but not yet split into lines, because they contain many."""
        self._lines: deque[Line | LongLine] = deque()
        self._received: deque[Received] = deque()
        """Decoded but not yet taken by the reader."""
        self._turn_began = 0.0
        self._held = 0
        self._reading = False
        self._grown: set[int] = set()
        """Those of both pipes that were enlarged."""
        self.ended = asyncio.Event()
        """Set when no more will be read."""
        self._reader: asyncio.Future[None] | None = None
        """What `receive` waits for while there is nothing to return; else None or done."""
        self._consumer: Consumer | None = None
        self._outgoing: list[bytes | memoryview] = []
        self._pending = 0
        self.taken = 0
        """Bytes that the pipe has taken; see `Channel.taken`."""
        self._flush_due = False
        self._blocked = False
        self._input_open = True
        self._left_unread: int | None = None
        """What the child had not read when its stdin was closed."""
        self._watches_input = False
        self._last_answers: asyncio.TimerHandle | None = None
        self._senders: list[asyncio.Future[None]] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """Read and write until the block ends."""
        self._os.set_blocking(self._stdout_fd, False)
        self._os.set_blocking(self._stdin_fd, False)
        self._read_on()
        self._watch_input()
        try:
            yield
        finally:
            self.end()
            self.close_input()
            self._os.close(self._stdout_fd)
            self._account.charge(-self._account.held)

    @property
    def _watch(self) -> Watch:
        # Not an attribute: with 30 of them, CPython 3.11 keeps them in a slower way.
        return self._os if isinstance(self._os, ThreadedFiles) else self._loop

    @property
    def held(self) -> int:
        """Bytes that wait because the child does not read: see `Channel.held`."""
        if not self._blocked or not self._input_open:
            return 0
        return self._pending + MESSAGE_BYTES * (len(self._outgoing) // _PIECES)

    def _settle(self) -> None:
        """Charge what waits now; called whenever that may be more than passes in a turn."""
        held = self.held
        if self._held > _CHARGED_BYTES and not self.ended.is_set():
            held += self._held
        if held != self._account.held:
            self._account.charge(held - self._account.held)

    async def receive(self) -> Sequence[Received]:
        """Wait for messages and invalid lines; return some of them, or none at the end."""
        if self._received or self._lines or self._chunks:
            # Messages are there at once, so without this the reader would never give the loop a
            # turn.
            await self._pause_if_due()
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

    async def forward(self, take: Consumer) -> None:
        """Call `take` with what is received: see `Channel.forward`."""
        self._consumer = take
        try:
            while received := await self.receive():
                take(received)
        finally:
            self._consumer = None

    async def _arrival(self) -> None:
        """Wait until there are lines or messages, or the end of the stream."""
        while not (self._lines or self._chunks or self._received or self.ended.is_set()):
            self._reader = self._loop.create_future()
            await self._reader
        self._turn_began = time.monotonic()

    async def _pause_if_due(self) -> None:
        """Give the loop its turn if this one has lasted long."""
        if time.monotonic() - self._turn_began > _TURN_S:
            await asyncio.sleep(0)
            self._turn_began = time.monotonic()

    async def _understand(self) -> None:
        """Decode lines until there are enough messages or no lines are left."""
        while len(self._received) < _MOST_RECEIVED:
            if not self._lines:
                if not self._split():
                    break
                if not self._lines:
                    # Blank lines only, and there may be any number of them.
                    await self._pause_if_due()
                    continue
            line = self._lines.popleft()
            if isinstance(line, LongLine) and len(line) <= PLAIN_BYTES:
                line = line.joined()
            if isinstance(line, bytes | LongLine) and len(line) >= LONG_BYTES:
                self._received += await read_off_loop(self._understood, line)
            elif line:
                self._received += self._understood(line)
            if not self._lines and not self._chunks and not self.ended.is_set():
                break
        self._release()

    def _split(self) -> bool:
        """Split some of what was read; return False if all of it has been split."""
        if self._chunks:
            chunk = self._chunks.popleft()
            if len(chunk) > _DENSE_BYTES:
                self._chunks.appendleft(chunk[_DENSE_BYTES:])
            self._lines += self._splitter.feed(chunk[:_DENSE_BYTES])
            return True
        if self.ended.is_set():
            self._lines += self._splitter.end()
        return bool(self._lines)

    def _release(self) -> None:
        """Resume reading if all that was read has been split and taken."""
        if not self._lines and not self._chunks:
            self._held = 0
            if self._account.held:
                self._settle()
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
            # At the end of the turn: all messages of one turn go to the pipe in one system call.
            self._loop.call_soon(self._flush)
        elif self._blocked:
            self._settle()

    @property
    def unread(self) -> int | None:
        """How many bytes the child has not read yet, or had not at its end; see `Channel.unread`.

        A pipe keeps what was written while its write end is open, even if the reader is gone.
        """
        if not self._input_open:
            return self._left_unread
        if self._os is not os:
            # A thread may hold some of it.
            return None
        in_pipe = _bytes_in(self._stdin_fd)
        return None if in_pipe is None else self._pending + in_pipe

    @property
    def congested(self) -> bool:
        """Whether more waits for the child than a pipe and a little holds."""
        return self._pending > _CONGESTED_BYTES

    async def writable(self) -> None:
        """Wait until the child has read enough, or is gone."""
        while self.congested and self._input_open:
            waiter = self._loop.create_future()
            self._senders.append(waiter)
            await waiter

    def close_input(self) -> None:
        """Close the child's stdin, which asks it to end; queued messages are lost."""
        if self._input_open:
            # Before the pipe is closed: afterwards its content cannot be asked for.
            self._note_unread()
            self._input_open = False
            # Sends what the pipe still takes; the rest is lost.
            self._flush()
            self._watch.remove_writer(self._stdin_fd)
            self._unwatch_input()
            self._close_stdin(self._stdin_fd)
            self._outgoing.clear()
            self._wake_senders()
            self._settle()

    def _note_unread(self) -> None:
        if self._left_unread is None:
            self._left_unread = self.unread

    def end(self) -> None:
        """Stop reading: the child is gone, even if another process holds its stdout open."""
        if not self.ended.is_set():
            self.ended.set()
            self._watch.remove_reader(self._stdout_fd)
            self._wake_reader()

    def _watch_input(self) -> None:
        # The write end of a pipe becomes "readable" when its last reader is gone. Without this,
        # only the next write would show it, and a call that the child had not read by then would
        # wait for its own time limit. A socket is really readable: there the end of the peer's
        # output counts.
        if stat.S_ISFIFO(os.fstat(self._stdin_fd).st_mode):
            self._watches_input = True
            self._watch.add_reader(self._stdin_fd, self._input_lost)

    def _unwatch_input(self) -> None:
        if self._watches_input:
            self._watches_input = False
            self._watch.remove_reader(self._stdin_fd)
        if self._last_answers is not None:
            self._last_answers.cancel()
            self._last_answers = None

    def _input_lost(self) -> None:
        """Wait a moment for the last answers of a child that closed its stdin, then give up."""
        self._unwatch_input()
        self._last_answers = self._loop.call_later(_LAST_ANSWERS_S, self._break)

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._watch.add_reader(self._stdout_fd, self._readable)

    def _readable(self) -> None:
        """Read once, and hand on what came; a callback of the loop."""
        lines = self._read()
        take, reader = self._consumer, self._reader
        if not lines or take is None or reader is None or reader.done() or self._is_much(lines):
            self._keep(lines)
        else:
            # The usual case: `receive` waits, since all that came before has been handed on. To
            # wake its task for each message would cost a tenth of a call.
            self._release()
            self._hand_on(take, reader, lines)

    def _is_much(self, lines: Sequence[Line | LongLine]) -> bool:
        """Return whether these lines and what is held may take longer than a turn should."""
        if self._held >= LONG_BYTES or len(lines) > _MOST_RECEIVED or self._chunks:
            return True
        # Only the first one may have come in several reads. What is held does not tell its length:
        # it was set to 0 if an earlier line was taken while this one came.
        return len(lines[0]) >= LONG_BYTES

    def _hand_on(
        self, take: Consumer, reader: asyncio.Future[None], lines: Sequence[Line | LongLine]
    ) -> None:
        """Hand on messages in this turn, unless there are many in a batch."""
        received = self._understood(lines[0])
        for number, line in enumerate(lines[1:], 1):
            if len(received) > _MOST_RECEIVED:
                self._lines += lines[number:]
                break
            received = [*received, *self._understood(line)]
        if len(received) > _MOST_RECEIVED:
            self._received += received
            self._wake_reader()
            return
        try:
            take(received)
        except Exception as error:
            # The task that forwards ends with it; the loop only reports it.
            if not reader.done():
                reader.set_exception(error)
            raise

    def _keep(self, lines: Sequence[Line | LongLine]) -> None:
        """Keep lines for `receive`; stop reading if they are more than enough."""
        self._lines += lines
        if self._lines or self._chunks:
            if self._held > _HELD_BYTES and self._reading:
                self._reading = False
                # Back-pressure: the pipe fills up and the child waits, instead of the bridge's
                # memory.
                self._watch.remove_reader(self._stdout_fd)
            self._wake_reader()

    def _read(self) -> Sequence[Line | LongLine]:
        """Read once; return the lines that came, unless they are too many to split at once."""
        try:
            chunk = self._os.read(self._stdout_fd, _READ_BYTES)
        except BlockingIOError:
            return ()
        except OSError:
            # The peer of a socket has reset the connection, which is an end too.
            chunk = b""
        if not chunk:
            self.end()
            return ()
        # A read that fills the pipe's usual size: the child waits for the bridge at each 64 KiB.
        if len(chunk) >= _PIPE_BYTES and self._stdout_fd not in self._grown:
            self._grown.add(self._stdout_fd)
            _grow(self._stdout_fd)
        self._held += len(chunk)
        if self._held > _CHARGED_BYTES:
            self._settle()
        if self._chunks or (len(chunk) > _DENSE_BYTES and has_more(chunk, b"\n", _MANY_LINES)):
            self._chunks.append(chunk)
            return ()
        lines = self._splitter.feed(chunk)
        if not lines and self._splitter.skipping > _ENDLESS * self._limits.max_message_bytes:
            self.end()
        return lines

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _understood(self, line: Line | LongLine) -> Sequence[Received]:
        if isinstance(line, LongLine):
            line = line.joined()
            if not line:
                return []
        if not isinstance(line, bytes):
            answers = answer_id(line)
            return [InvalidLine("message_too_large", line.size, line.head[:_SAMPLE_BYTES], answers)]
        if line[0] not in _JSON_STARTS:
            # A server that writes text here may write much; this costs a tenth of decoding it.
            return [InvalidLine("noise", len(line), line[:_SAMPLE_BYTES], None)]
        try:
            depth = self._limits.max_json_depth
            # The usual start is looked at here: a call costs more than that.
            batch = line[:1] != b"{" and is_batch(line)
            found = decode_batch(line, depth, _MAX_BATCH) if batch else [decode(line, depth)]
            # Not on the loop: few results are opened by a rule, which then walks them itself.
            if len(line) >= LONG_BYTES and is_aside():
                pause()
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
        if self._outgoing or self._blocked:
            self._wait_for_room(bool(self._outgoing))
            self._settle()
        if self._senders:
            self._wake_senders()

    def _write(self) -> int:
        """Write once, as much as possible; return how many bytes the pipe took."""
        if self._pending > _PIPE_BYTES and self._stdin_fd not in self._grown:
            self._grown.add(self._stdin_fd)
            _grow(self._stdin_fd)
        if len(self._outgoing) > 1 and self._pending <= _JOINED_BYTES:
            self._outgoing = [b"".join(self._outgoing)]
        if len(self._outgoing) == 1:
            written = self._os.write(self._stdin_fd, self._outgoing[0])
        else:
            written = self._os.writev(self._stdin_fd, self._outgoing[:_MAX_PIECES])
        if written == self._pending:
            self._outgoing.clear()
            return written
        left, gone = written, 0
        for piece in self._outgoing:
            if left < len(piece):
                break
            left -= len(piece)
            gone += 1
        del self._outgoing[:gone]
        if left:
            # A view, since a copy of the rest at each write would make large messages quadratic.
            self._outgoing[0] = memoryview(self._outgoing[0])[left:]
        return written

    def _wait_for_room(self, blocked: bool) -> None:
        if blocked and not self._blocked and self._input_open:
            self._watch.add_writer(self._stdin_fd, self._flush)
        elif self._blocked and not blocked:
            self._watch.remove_writer(self._stdin_fd)
        self._blocked = blocked

    def _break(self) -> None:
        """Close the channel to a child that closed its stdin; keep what it has already written."""
        self._note_unread()
        self._outgoing.clear()
        self._pending = 0
        self.close_input()
        # Bounded, since a child that lives may write without end.
        before = -1
        while not self.ended.is_set() and before < self._held <= _HELD_BYTES:
            before = self._held
            self._keep(self._read())
        self.end()

    def _wake_senders(self) -> None:
        if not self.congested or not self._input_open:
            senders, self._senders = self._senders, []
            for waiter in senders:
                # Its task may have been cancelled.
                if not waiter.done():
                    waiter.set_result(None)


def pipe_channel(
    stdout_fd: int, stdin_fd: int, limits: PipeLimits, account: Account | None = None
) -> PipeChannel:
    """Return a channel over two pipe ends, in the way in which this system can watch pipes.

    Args:
        stdout_fd: Descriptor to read from.
        stdin_fd: Descriptor to write to.
        limits: Bounds on what is read.
        account: See `PipeChannel`.
    """
    threads = threads_for(stdout_fd, stdin_fd)
    return PipeChannel(stdout_fd, stdin_fd, limits, account=account, threads=threads)


def _grow(pipe_fd: int) -> None:
    """Enlarge a pipe, if the system can."""
    # Only Linux can; it may be forbidden, the user's limit may be reached, or this is a socket.
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        if fcntl.fcntl(pipe_fd, fcntl.F_GETPIPE_SZ) < _GROWN_BYTES:
            fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, _GROWN_BYTES)


def _bytes_in(pipe_fd: int) -> int | None:
    """How many bytes a pipe holds; None if that cannot be known."""
    # Of a socket it would be what has come, and Windows has neither module.
    with suppress(ImportError, AttributeError, OSError):
        import fcntl
        import termios

        if stat.S_ISFIFO(os.fstat(pipe_fd).st_mode):
            held = fcntl.ioctl(pipe_fd, termios.FIONREAD, bytes(4))
            return int.from_bytes(held, sys.byteorder)
    return None
