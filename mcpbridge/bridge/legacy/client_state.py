"""What is known of one legacy client: its profile, revision, log level and subscriptions.

On a child that several clients share, a request of one client may be sent before that of another
is answered. So a log level or subscription counts from the moment the client asks for it
(`intend`), and the answer decides whether it stays (`settle`).
"""

from __future__ import annotations

from collections.abc import Callable

from mcpbridge.bridge.children.shared_state import log_level_of, text_member
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import (
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    level_admits,
)
from mcpbridge.rules.mcp.revisions import Revision, expected
from mcpbridge.rules.uri_set import UriSet, uri_problem
from mcpbridge.wire.messages import Notification, Request


class ClientState:
    """The state of one client, read by its calls and its listener; lives as long as the session."""

    __slots__ = (
        "_asked",
        "_changed",
        "initialized",
        "last_used",
        "level",
        "one_streamed",
        "profile",
        "revision",
        "subscriptions",
    )

    def __init__(
        self,
        profile: ClientProfile | None,
        now: float,
        *,
        one_streamed: bool = False,
        account: Account | None = None,
        changed: Callable[[], None] | None = None,
    ) -> None:
        """Make the state of a client that has not sent `initialized`.

        Args:
            profile: What the client said in `initialize`; None for clients without a session.
            now: The event loop's time, in seconds.
            one_streamed: Whether one stream carries all messages: the transport of 2024-11-05.
            account: Charged for the subscriptions; None: they are not counted.
            changed: Called when `record` may have changed; None: nothing is.
        """
        self._changed = changed
        self.profile = profile
        self.one_streamed = one_streamed
        self.revision = expected(profile.requested if profile is not None else None)
        """The negotiated revision; before that, the one expected after the client's request."""
        self.initialized = False
        """Whether the client has sent `notifications/initialized`."""
        self.last_used = now
        """The event loop's time when the client last sent something or got an answer."""
        self.level: str | None = None
        self.subscriptions = UriSet(charge=account.charge if account is not None else None)
        self._asked: tuple[Request, ...] = ()
        """Subscribe requests without an answer; a tuple, since it is nearly always empty."""

    @property
    def wanted(self) -> set[str]:
        """Subscriptions granted or asked for."""
        asked = (text_member(request.params, "uri") for request in self._asked)
        return {*self.subscriptions, *(uri for uri in asked if uri is not None)}

    @property
    def takes_logs(self) -> bool:
        """Whether log messages may be sent on the stream of a call, before its answer."""
        return self.revision.unasked_logs or self.level is not None or self.one_streamed

    def admits(self, notification: Notification) -> bool:
        """Return whether the client wants this log message on the stream of a call."""
        return self.takes_logs and level_admits(self.level, log_level_of(notification))

    def subscribes(self, uri: str | None) -> bool:
        """Return whether an update of this resource concerns the client."""
        return uri is not None and self.subscriptions.concerned(uri)

    def wants(self, uri: str) -> bool:
        """Return whether a subscription was granted or is asked for: see `Subscriber`."""
        return uri in self.subscriptions or any(
            text_member(request.params, "uri") == uri for request in self._asked
        )

    def subscription_problem(self, request: Request, most: int) -> str | None:
        """Return why the client may not subscribe to a further resource; None if it may.

        Args:
            request: Asks for the subscription.
            most: How many it may have, those without an answer included.
        """
        uri = text_member(request.params, "uri") or ""
        if len(self.subscriptions) + len(self._asked) >= most and uri not in self.subscriptions:
            return f"limit reached: --max-subscriptions {most} of one session"
        return uri_problem(uri)

    def touch(self, now: float) -> None:
        """Count the client as active at `now`."""
        self.last_used = now

    def negotiated(self, revision: Revision) -> None:
        """Record the revision that was negotiated with the client."""
        self.revision = revision

    def has_initialized(self) -> None:
        """Record that the client has sent `notifications/initialized`."""
        self.initialized = True
        self._tell_changed()

    def resume(self, record: SessionRecord) -> None:
        """Begin with what the client has asked for at another replica."""
        self.initialized = record.initialized
        self.level = record.level
        for uri in record.subscriptions:
            self.subscriptions.add(uri)

    @property
    def record(self) -> SessionRecord:
        """What another replica must know to serve the client."""
        return SessionRecord(self.initialized, self.level, tuple(self.subscriptions))

    def set_level(self, level: str | None) -> None:
        """Record the log level that the client asked for; None: the server's own choice."""
        self.level = level
        self._tell_changed()

    def intend(self, request: Request) -> None:
        """Apply a request of `SHARED_VERBS` before its answer has come."""
        if request.method == SET_LEVEL:
            self.level = text_member(request.params, "level")
        elif request.method == UNSUBSCRIBE:
            self.subscriptions.discard(text_member(request.params, "uri") or "")
        elif request.method == SUBSCRIBE:
            self._asked += (request,)
        self._tell_changed()

    def settle(self, request: Request, *, granted: bool) -> None:
        """Apply the answer to a request of `SHARED_VERBS`, even one that `intend` has not seen."""
        if request.method == SUBSCRIBE:
            # By identity: another request for the same resource may still wait for its answer.
            self._asked = tuple(each for each in self._asked if each is not request)
            uri = text_member(request.params, "uri")
            if granted and uri is not None:
                self.subscriptions.add(uri)
        elif request.method == SET_LEVEL and not granted:
            self.level = None
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self._changed is not None:
            self._changed()
