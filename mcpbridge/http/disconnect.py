"""How whoever serves a request learns that its client has left.

ASGI tells it to whoever waits in `receive`, which takes a task for each open stream, of some KiB.
The connection knows it without.
"""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class Disconnect:
    """The end of one connection, and the one who is to be told of it."""

    __slots__ = ("_flow", "_listener", "_over")

    def __init__(self, flow: FlowControl | None = None) -> None:
        """Make it with the connection.

        Args:
            flow: Of the connection, which is not heard to end while nothing is read of it.
        """
        self._flow = flow
        self._listener: Callable[[], None] | None = None
        self._over = False

    def watch(self, listener: Callable[[], None]) -> None:
        """Call this when the client has left, at once if it has; one request at a time asks."""
        self._listener = listener
        if self._over:
            listener()
        elif self._flow is not None:
            self._flow.resume_reading()

    def ignore(self) -> None:
        """The request is served: nobody wants to know any more."""
        self._listener = None

    def happen(self) -> None:
        """The client has left."""
        self._over = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()
