"""Holds requests for sessions that have lost their home until a replica may adopt these.

No replica has such a request, so it is sent later as if for the first time. Deployed clients give a
session up upon a 503, so a short wait serves them better.
"""

from __future__ import annotations

import asyncio

from mcpbridge.http.disconnect import Disconnect

HELD_S = 8.0
"""Most seconds that a request is held; callers take one of 10 s for hung."""
MOST_HELD = 1024
"""Requests that one replica holds at most."""
MOST_HELD_BYTES = 16 << 20
"""Bytes of their bodies that it holds at most."""
_LOOK_EVERY_S = 1.0
"""Longest wait until a request is tried again: the session may have another home by then."""
_LEAST_S = 0.02
"""Shortest wait, by which the clock of the replica that settles may be behind."""


class HeldRequests:
    """The requests that one replica holds."""

    def __init__(self) -> None:
        self._held: set[asyncio.Future[None]] = set()
        self._bytes = 0
        self._ended = False

    def __len__(self) -> int:
        return len(self._held)

    async def until(self, at: float, since: float, size: int, disconnect: Disconnect) -> bool:
        """Hold a request; return whether it should be tried again.

        It is not if that comes too late, if too much is held, if its client leaves, or after `end`.

        Args:
            at: When a replica may adopt the session, in seconds of the event loop's clock.
            since: When the session was found to have lost its home, on the same clock.
            size: Bytes of its body.
            disconnect: The end of its connection.
        """
        loop = asyncio.get_running_loop()
        if self._ended or at > since + HELD_S or loop.time() >= since + HELD_S:
            return False
        if len(self._held) >= MOST_HELD or self._bytes + size > MOST_HELD_BYTES:
            return False
        over: asyncio.Future[None] = loop.create_future()
        self._held.add(over)
        self._bytes += size
        try:
            disconnect.watch(lambda: _end(over))
            wait_s = min(max(at - loop.time(), _LEAST_S), _LOOK_EVERY_S)
            done, _ = await asyncio.wait((over,), timeout=wait_s)
        finally:
            disconnect.ignore()
            self._held.discard(over)
            self._bytes -= size
        return not done

    def end(self) -> None:
        """Let all requests go that are held, and hold no more: they are not tried again."""
        self._ended = True
        for over in list(self._held):
            _end(over)


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
