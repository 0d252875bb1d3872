"""A callback for the task that serves a request, called when the client disconnects.

ASGI reports it only to a task that waits in `receive`, which would take a task of some KiB for each
open stream. The connection knows it without one.
"""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class Disconnect:
    """The end of one connection, and the callback for it."""

    __slots__ = ("_flow", "_listener", "_over")

    def __init__(self, flow: FlowControl | None = None) -> None:
        """Make the object for a new connection.

        Args:
            flow: The connection's flow control: its end is noticed only while it is read.
        """
        self._flow = flow
        self._listener: Callable[[], None] | None = None
        self._over = False

    def watch(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when the client disconnects, now if it has; one at a time."""
        self._listener = listener
        if self._over:
            listener()
        elif self._flow is not None:
            self._flow.resume_reading()

    def ignore(self) -> None:
        """Drop the listener: the request is served."""
        self._listener = None

    def happen(self) -> None:
        """Record that the client has disconnected, and call the listener."""
        self._over = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()
