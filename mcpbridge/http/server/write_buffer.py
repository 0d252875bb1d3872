"""A transport that joins the writes of one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_LARGE_BYTES = 1 << 16
"""Pieces of this size are not copied together: the system takes each from where it is."""


class WriteBuffer:
    """A transport that sends what is written in one turn of the loop at the end of that turn."""

    __slots__ = ("_ended", "_lingers", "_loop", "_pieces", "_transport")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        lingers: Callable[[], bool],
    ) -> None:
        """Wrap a transport.

        Args:
            transport: The connection's transport.
            loop: The loop that the transport runs on.
            lingers: Called by `close`: returns whether the owner closes the connection later.
        """
        self._transport = transport
        self._loop = loop
        self._lingers = lingers
        self._pieces: list[bytes] = []
        self._ended = False

    def write(self, data: bytes) -> None:
        """Send at the end of this turn of the loop, together with all that is written in it."""
        if not self._pieces:
            # uvicorn writes a head and a body apart; together they are one segment and one system
            # call.
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def write_now(self, data: bytes) -> None:
        """Send at once, after what was written before."""
        # Every answer comes here: `is_closing` is spelled out.
        if not (self._pieces or self._ended or self._transport.is_closing()):
            self._transport.write(data)
            return
        self._pieces.append(data)
        self._flush()

    def close(self) -> None:
        """Send what is left, then close, unless the owner closes a little later."""
        self._flush()
        if not self._lingers():
            self._transport.close()

    def write_eof(self) -> None:
        """Send what is left and then the end of the stream; go on reading."""
        self._flush()
        self._ended = True
        if self._transport.can_write_eof():  # TLS cannot end one half alone
            self._transport.write_eof()

    def is_closing(self) -> bool:
        """Return whether data written now will not be sent."""
        return self._ended or self._transport.is_closing()

    def lost(self) -> None:
        """Drop the reference to the owner, as the connection is gone."""
        self._lingers = bool

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            # Aborted, ended or lost in between: uvloop raises then, asyncio does not.
            if self.is_closing():
                return
            if len(pieces) == 1:
                self._transport.write(pieces[0])
            elif max(map(len, pieces)) < _LARGE_BYTES:
                self._transport.write(b"".join(pieces))
            else:
                self._transport.writelines(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
