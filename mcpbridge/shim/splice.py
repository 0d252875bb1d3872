"""Moves bytes between one connection and one child's pipes, both ways, unparsed.

Each direction is a `Flow` that reads only when everything read before has been written: a peer that
does not read stops the child, and a child that does not read stops the peer. The end of the peer's
data becomes the end of the child's stdin.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_READ_BYTES = 1 << 16
_LAST_BYTES = 1 << 20
"""More than any pipe holds, which a dead child may leave behind."""
_GONE = (
    getattr(select, "POLLRDHUP", 0)
    | getattr(select, "POLLHUP", 0)
    | getattr(select, "POLLERR", 0)
    | getattr(select, "POLLNVAL", 0)
)


class Flow:
    """A copier of bytes from one descriptor to another; owns neither."""

    def __init__(self, source_fd: int, sink_fd: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._source_fd = source_fd
        self._sink_fd = sink_fd
        self._rest = memoryview(b"")
        self._reading = False
        self._writing = False
        self.source_ended = False
        self.sink_closed = False
        self.moved = 0
        """Bytes written so far."""
        self.ended = asyncio.Event()
        """Set when no more is read: the source has ended, or the sink accepts no more."""
        self.flushed = asyncio.Event()
        """Set when no more is written either."""

    def start(self) -> None:
        """Move bytes from now on; both descriptors must be non-blocking."""
        self._watch()

    def end(self) -> None:
        """Drain what is already readable, then stop reading; write what was read."""
        if self.ended.is_set():
            return
        taken = [bytes(self._rest)]
        size = 0
        while size < _LAST_BYTES and (chunk := self._chunk()):
            taken.append(chunk)
            size += len(chunk)
        self._rest = memoryview(b"".join(taken))
        self.ended.set()
        self._write()

    def stop(self) -> None:
        """Stop reading and writing; unwritten bytes are lost."""
        self._rest = memoryview(b"")
        self.ended.set()
        self._watch()

    @property
    def is_stuck(self) -> bool:
        """Whether the sink currently accepts nothing."""
        return self._writing

    def _chunk(self) -> bytes | None:
        """Read a chunk: None if there is nothing now, empty at the end."""
        try:
            return os.read(self._source_fd, _READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _readable(self) -> None:
        chunk = self._chunk()
        if chunk is None:
            return
        if not chunk:
            self.source_ended = True
            self.ended.set()
        self._rest = memoryview(chunk)
        self._write()

    def _write(self) -> None:
        while self._rest:
            try:
                written = os.write(self._sink_fd, self._rest)
            except BlockingIOError:
                break
            except OSError:
                self.sink_closed = True
                self.stop()
                return
            self.moved += written
            self._rest = self._rest[written:]
        self._watch()

    def _watch(self) -> None:
        """Wait for room if there is something to write, otherwise for something to read."""
        write = bool(self._rest)
        read = not write and not self.ended.is_set()
        if write != self._writing:
            self._writing = write
            if write:
                self._loop.add_writer(self._sink_fd, self._write)
            else:
                self._loop.remove_writer(self._sink_fd)
        if read != self._reading:
            self._reading = read
            if read:
                self._loop.add_reader(self._source_fd, self._readable)
            else:
                self._loop.remove_reader(self._source_fd)
        if not read and not write:
            self.flushed.set()


class Splice:
    """A connection and a child's two pipes; owns the pipes, as `subprocess_child.Ends` requires."""

    def __init__(self, stdout_fd: int, stdin_fd: int, connection: socket.socket) -> None:
        self._stdout_fd = stdout_fd
        self._stdin_fd = stdin_fd
        self._connection = connection
        self._input_open = True
        self.inward = Flow(connection.fileno(), stdin_fd)
        """From the peer to the child."""
        self.outward = Flow(stdout_fd, connection.fileno())
        """From the child to the peer; continues after the child's end until all is written."""
        self.ended = self.outward.ended

    @contextmanager
    def open(self) -> Iterator[None]:
        """Move bytes until the block ends."""
        os.set_blocking(self._stdout_fd, False)
        os.set_blocking(self._stdin_fd, False)
        self.inward.start()
        self.outward.start()
        try:
            yield
        finally:
            self.end()
            self.close_input()
            os.close(self._stdout_fd)

    def close_input(self) -> None:
        """Close the child's stdin; do nothing if it is closed."""
        if self._input_open:
            self._input_open = False
            self.inward.stop()
            os.close(self._stdin_fd)

    def end(self) -> None:
        """Drain what the child has left in its stdout, then stop reading."""
        self.outward.end()

    @property
    def is_deserted(self) -> bool:
        """Whether the child does not read and its peer has stopped sending."""
        return self.inward.is_stuck and _says_no_more(self._connection)


def _says_no_more(connection: socket.socket) -> bool:
    """Return whether the peer has stopped sending, even if some of its data is unread."""
    if not hasattr(select, "poll"):
        return False
    looking = select.poll()
    looking.register(connection, _GONE)
    return bool(looking.poll(0))
