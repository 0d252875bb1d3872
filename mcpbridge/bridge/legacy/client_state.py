"""What is known of one legacy client: what it said of itself, and what it wants to hear.

On a child that several clients share, a request of one client may be on its way before that of
another is answered. So what a client asks for counts from the moment it asks (`intend`), and what
has become of it is settled with the answer (`settle`).
"""

from __future__ import annotations

from mcpbridge.bridge.children.shared_state import log_level_of, text_member
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import (
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    concerns,
    level_admits,
)
from mcpbridge.rules.mcp.revisions import Revision, expected
from mcpbridge.wire.messages import Notification, Request


class ClientState:
    """One client as its calls and its child's messages meet it; lives as long as its session."""

    __slots__ = (
        "_asked",
        "initialized",
        "last_used",
        "level",
        "one_streamed",
        "profile",
        "revision",
        "subscriptions",
    )

    def __init__(
        self, profile: ClientProfile | None, now: float, *, one_streamed: bool = False
    ) -> None:
        """Begin with what the client said in `initialize`.

        Args:
            profile: That; None for clients that have not said it.
            now: Seconds on the event loop's clock.
            one_streamed: One stream carries answers and all else: the transport of 2024-11-05.
        """
        self.profile = profile
        self.one_streamed = one_streamed
        self.revision = expected(profile.requested if profile is not None else None)
        """Negotiated; until the child has answered what the client asked for."""
        self.initialized = False
        """The client has sent `notifications/initialized`."""
        self.last_used = now
        """When the client was last heard, or answered."""
        self.level: str | None = None
        self.subscriptions: set[str] = set()
        self._asked: tuple[Request, ...] = ()
        """Subscriptions that have no answer yet: a tuple, since nearly every client has none."""

    @property
    def wanted(self) -> set[str]:
        """Subscriptions granted or asked for: see `Subscriber`."""
        asked = (text_member(request.params, "uri") for request in self._asked)
        return self.subscriptions | {uri for uri in asked if uri is not None}

    @property
    def takes_logs(self) -> bool:
        """A log message may stand before an answer."""
        return self.revision.unasked_logs or self.level is not None or self.one_streamed

    def admits(self, notification: Notification) -> bool:
        """Return whether the client wants a log message."""
        return self.takes_logs and level_admits(self.level, log_level_of(notification))

    def subscribes(self, uri: str | None) -> bool:
        """Return whether an update of this resource concerns the client."""
        return uri is not None and any(concerns(own, uri) for own in self.subscriptions)

    def touch(self, now: float) -> None:
        """Count the client as active now."""
        self.last_used = now

    def negotiated(self, revision: Revision) -> None:
        """Go by the revision that was negotiated with the client."""
        self.revision = revision

    def has_initialized(self) -> None:
        """Record that the client has sent `notifications/initialized`."""
        self.initialized = True

    def set_level(self, level: str | None) -> None:
        """Remember the level of logs that the client wants; None: the server's own choice."""
        self.level = level

    def intend(self, request: Request) -> None:
        """Reckon with one of `SHARED_VERBS` from now on, before its answer."""
        if request.method == SET_LEVEL:
            self.level = text_member(request.params, "level")
        elif request.method == UNSUBSCRIBE:
            self.subscriptions.discard(text_member(request.params, "uri") or "")
        elif request.method == SUBSCRIBE:
            self._asked += (request,)

    def settle(self, request: Request, *, granted: bool) -> None:
        """Keep what has become of one of `SHARED_VERBS`, also of one that was never intended."""
        if request.method == SUBSCRIBE:
            # By identity: another request for the same resource may still be on its way.
            self._asked = tuple(each for each in self._asked if each is not request)
            uri = text_member(request.params, "uri")
            if granted and uri is not None:
                self.subscriptions.add(uri)
        elif request.method == SET_LEVEL and not granted:
            self.level = None
