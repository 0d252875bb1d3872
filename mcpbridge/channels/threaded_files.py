"""Reads and writes pipes in threads, if the event loop cannot watch them.

Windows has neither pipes that do not block nor an event loop that watches descriptors. Here a
thread blocks in place of the caller, and the calls and callbacks are those of a descriptor that
does not block: `ThreadedFiles` takes the place of `os` and of the loop in what uses a pipe. The
threads use the same two calls on every system, `os.read` and `os.write`, so what is tested on
another system is what runs on Windows.

A thread that is in a call cannot be interrupted, and on Windows to close its descriptor would wait
for it; so each thread closes its descriptor itself, when its last call has returned. They are
daemons, since a process that a server left behind may hold a pipe open without end.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

_READ_BYTES = 1 << 16
_WRITE_BYTES = 1 << 16
"""Bytes that are taken before the pipe has them; as many as a pipe holds on most systems."""

Piece = bytes | memoryview


class FileCalls(Protocol):
    """The functions of `os` by which a pipe is used."""

    def set_blocking(self, fd: int, blocking: bool, /) -> None:
        """Say whether calls may wait; called with False before the first of the others."""

    def read(self, fd: int, length: int, /) -> bytes:
        """Return some bytes, none at the end; raise BlockingIOError if there are none yet."""

    def write(self, fd: int, data: Piece, /) -> int:
        """Write some bytes; return how many, or raise BlockingIOError if there is no room."""

    def writev(self, fd: int, pieces: Sequence[Piece], /) -> int:
        """Write some bytes of several pieces; return how many."""

    def close(self, fd: int) -> None:
        """Close the descriptor."""


class Watch(Protocol):
    """The methods of an event loop that watch descriptors."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object:
        """Call `callback` whenever there is something to read, or the end."""

    def remove_reader(self, fd: int, /) -> bool:
        """Watch no longer; return whether it was watched."""

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object:
        """Call `callback` whenever there is room to write."""

    def remove_writer(self, fd: int, /) -> bool:
        """Watch no longer; return whether it was watched."""


def threads_for(reads: int | None, writes: int | None = None) -> ThreadedFiles | None:
    """Return threads for the ends of pipes, or None if the event loop can watch them."""
    # Windows alone has no fork; there the loop raises NotImplementedError.
    return None if hasattr(os, "fork") else ThreadedFiles(reads, writes)


class ThreadedFiles:
    """One end that is read and one that is written, in two threads: see `FileCalls` and `Watch`."""

    def __init__(self, reads: int | None, writes: int | None = None) -> None:
        """Make it within an event loop; a thread starts with `set_blocking`.

        Args:
            reads: Descriptor to read from; None: nothing is read.
            writes: Descriptor to write to; None: nothing is written.
        """
        self._writes = writes
        self._loop = asyncio.get_running_loop()
        self._reader = _Reader(reads, self._loop) if reads is not None else None
        self._writer = _Writer(writes, self._loop) if writes is not None else None

    def set_blocking(self, fd: int, blocking: bool, /) -> None:
        """Have a thread block in place of the caller."""
        self._end(fd).start()

    def read(self, fd: int, length: int, /) -> bytes:
        """Return what the thread has read: see `FileCalls.read`."""
        if self._reader is None:
            raise BlockingIOError
        return self._reader.take()

    def write(self, fd: int, data: Piece, /) -> int:
        """Give bytes to the thread; return how many it took: see `FileCalls.write`."""
        if self._writer is None:
            raise BlockingIOError
        return self._writer.give(data)

    def writev(self, fd: int, pieces: Sequence[Piece], /) -> int:
        """Give the thread bytes of the first piece."""
        return self.write(fd, pieces[0])

    def close(self, fd: int) -> None:
        """Have the thread close the descriptor; what was given is written first."""
        self._end(fd).close()

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object:
        """Call back when there is something to read; for the other end, when its reader is gone.

        The latter is known only when a write has failed.
        """
        return self._end(fd).watch(callback)

    def remove_reader(self, fd: int, /) -> bool:
        """See `Watch.remove_reader`."""
        return self._end(fd).watch(None)

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object:
        """Call back when a write has made room: see `Watch.add_writer`."""
        return self._writer is not None and self._writer.watch_room(callback)

    def remove_writer(self, fd: int, /) -> bool:
        """See `Watch.remove_writer`."""
        return self._writer is not None and self._writer.watch_room(None)

    def _end(self, fd: int) -> _Reader | _Writer:
        end = self._writer if fd == self._writes else self._reader
        assert end is not None, "a descriptor that is neither end"
        return end


Callback = Callable[[], object] | None


class _Reader:
    """A thread that reads one chunk ahead; the methods are for the loop's thread."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="pipe-reader", daemon=True)
        self._chunk: bytes | None = None
        """Read and not yet taken; empty at the end, which stays."""
        self._wanted = threading.Semaphore(0)
        self._closed = False
        self._callback: Callback = None

    def start(self) -> None:
        self._thread.start()

    def take(self) -> bytes:
        if self._chunk is None:
            raise BlockingIOError
        chunk = self._chunk
        if chunk:
            self._chunk = None
            self._wanted.release()
        return chunk

    def watch(self, callback: Callback) -> bool:
        before, self._callback = self._callback, callback
        if callback is not None and self._chunk is not None:
            self._loop.call_soon(self._tell)
        return before is not None

    def close(self) -> None:
        self._callback = None
        self._closed = True
        self._wanted.release()

    def _arrived(self, chunk: bytes) -> None:
        self._chunk = chunk
        self._tell()

    def _tell(self) -> None:
        if self._callback is not None and self._chunk is not None:
            self._callback()

    def _run(self) -> None:
        # The loop has been closed: then no more is wanted either.
        with suppress(RuntimeError):
            while not self._closed:
                try:
                    chunk = os.read(self._fd, _READ_BYTES)
                except OSError:
                    # What Windows says of a pipe whose other end is closed.
                    chunk = b""
                self._loop.call_soon_threadsafe(self._arrived, chunk)
                # After the end: until it is closed, so that its number is not another file's.
                self._wanted.acquire()
        os.close(self._fd)


class _Writer:
    """A thread that writes what it is given; the methods are for the loop's thread."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name="pipe-writer", daemon=True)
        self._given: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unwritten = 0
        self._problem: OSError | None = None
        self._room: Callback = None
        self._lost: Callback = None

    def start(self) -> None:
        self._thread.start()

    def give(self, data: Piece) -> int:
        if self._problem is not None:
            raise BrokenPipeError(self._problem.errno, self._problem.strerror)
        room = _WRITE_BYTES - self._unwritten
        if room <= 0:
            raise BlockingIOError
        part = bytes(data[:room])
        self._unwritten += len(part)
        self._given.put(part)
        return len(part)

    def watch(self, callback: Callback) -> bool:
        before, self._lost = self._lost, callback
        return before is not None

    def watch_room(self, callback: Callback) -> bool:
        before, self._room = self._room, callback
        return before is not None

    def close(self) -> None:
        self._lost = self._room = None
        self._given.put(None)

    def _done(self, size: int, problem: OSError | None) -> None:
        self._unwritten -= size
        self._problem = self._problem or problem
        if self._room is not None:
            self._room()
        if problem is not None and self._lost is not None:
            self._lost()

    def _run(self) -> None:
        # As above.
        with suppress(RuntimeError):
            while (part := self._given.get()) is not None:
                problem = self._write(part)
                self._loop.call_soon_threadsafe(self._done, len(part), problem)
        os.close(self._fd)

    def _write(self, part: bytes) -> OSError | None:
        left = memoryview(part)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            return error
        return None
