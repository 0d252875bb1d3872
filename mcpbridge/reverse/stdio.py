"""The client's side of `mcpbridge connect`: stdin and stdout of this process, in two threads.

Threads read and write every kind of descriptor, files and terminals included, on every system. They
are daemons: a client that neither writes nor reads must not keep the process from ending. Anything
else that writes to stdout would break the client, so descriptor 1 becomes stderr.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator

import anyio

_READ_BYTES = 1 << 16
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Stdio:
    """Reads chunks of stdin and writes lines to stdout; made within an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._out = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        # One chunk is in the queue at most, so a client that writes fast waits in its pipe.
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(1)
        self._lines: queue.SimpleQueue[tuple[bytes, asyncio.Future[bool]]] = queue.SimpleQueue()
        self.broken = anyio.Event()
        """Set when the client no longer reads: its end of the pipe is closed."""
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what arrives on stdin, until its end."""
        while chunk := await self._chunks.get():
            self._room.release()
            yield chunk

    async def write(self, line: bytes) -> None:
        """Write one line; return when it is written, or can no longer be."""
        done: asyncio.Future[bool] = self._loop.create_future()
        self._lines.put((line, done))
        if not await done:
            self.broken.set()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(_STDIN, _READ_BYTES)
            except OSError:
                chunk = b""
            self._room.acquire()
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:  # the loop has ended
                return
            if not chunk:
                return

    def _write(self) -> None:
        while True:
            line, done = self._lines.get()
            view = memoryview(line)
            try:
                while view:
                    view = view[os.write(self._out, view) :]
            except OSError:
                view = memoryview(b"!")
            try:
                self._loop.call_soon_threadsafe(_settle, done, not view)
            except RuntimeError:  # the loop has ended
                return


def _settle(done: asyncio.Future[bool], written: bool) -> None:
    if not done.done():
        done.set_result(written)
