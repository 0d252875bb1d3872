"""Ends the processes of a server that no client has called for long; a call starts them again."""

from __future__ import annotations

import logging

import anyio

from mcpbridge.bridge.bridge import Bridge

log = logging.getLogger("mcpbridge.fleet")

_MOST_OFTEN_S = 0.05
_LEAST_OFTEN_S = 1.0


class IdleStop:
    """A task that ends a server's processes when it has had no call for long."""

    def __init__(self, bridge: Bridge, idle_s: float) -> None:
        """Make the task; `run` looks.

        Args:
            bridge: The bridge of the server.
            idle_s: Seconds without a call after which its processes end.
        """
        self._bridge = bridge
        self._idle_s = idle_s

    async def run(self) -> None:
        """Look from time to time, so that a call costs nothing; until cancelled."""
        every_s = min(_LEAST_OFTEN_S, max(_MOST_OFTEN_S, self._idle_s / 4))
        seen, since = self._bridge.activity, anyio.current_time()
        while True:
            await anyio.sleep(every_s)
            found, now = self._bridge.activity, anyio.current_time()
            if self._bridge.busy or found != seen or not found:
                seen, since = found, now
            elif now - since >= self._idle_s:
                log.info("server.idle_stopped", extra={"idle_s": round(now - since, 1)})
                self._bridge.rest()
                since = now
