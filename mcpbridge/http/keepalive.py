"""Signs of life on every open stream, from one timer.

Proxies cut a connection that says nothing for a minute or less, and a client whose peer vanished
is found out only by writing to it.

Source: the WHATWG HTML standard, Server-sent events, 9.2.7: a comment line every 15 seconds or so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from mcpbridge.bridge.stream import Reader

EVERY_S = 15.0


class KeepAlive:
    """Nudges each registered reader every so often; alive while `run` runs."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._readers: set[Reader] = set()

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return len(self._readers)

    @contextmanager
    def watching(self, reader: Reader) -> Iterator[None]:
        """Nudge this reader until the block ends."""
        self._readers.add(reader)
        try:
            yield
        finally:
            self._readers.discard(reader)

    async def run(self) -> None:
        """Nudge for ever."""
        while True:
            await anyio.sleep(self._every_s)
            for reader in list(self._readers):
                reader.nudge()
