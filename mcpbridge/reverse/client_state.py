"""What a client has told its server, so that a new session can be told the same."""

from __future__ import annotations

import uuid

from mcpbridge.errors import WireError
from mcpbridge.reverse.session.faults import over_capacity
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.initialize import read_profile
from mcpbridge.rules.mcp.methods import (
    INITIALIZE,
    LIST_CHANGED,
    RESOURCE_UPDATED,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Notification, Reply, Request, Result, quoted, text_of

MOST_SUBSCRIPTIONS = 10_000
MOST_SUBSCRIBED_BYTES = 4 << 20


class ClientState:
    """The handshake, log level and subscriptions of one client; kept as long as the client."""

    def __init__(self) -> None:
        self._introduction: bytes | None = None
        self._offered: frozenset[str] = frozenset()
        self._level: bytes | None = None
        self._subscribed: dict[str, bytes] = {}
        self._subscribed_bytes = 0

    @property
    def introduced(self) -> bool:
        """Whether a server has accepted the client's `initialize`."""
        return self._introduction is not None

    def check(self, request: Request) -> None:
        """Raise Unavailable if a subscription is one too many to be repeated later."""
        if request.method != SUBSCRIBE:
            return
        size = self._subscribed_bytes + len(request.params or b"")
        if len(self._subscribed) >= MOST_SUBSCRIPTIONS or size > MOST_SUBSCRIBED_BYTES:
            text = f"{MOST_SUBSCRIPTIONS} subscriptions, or {MOST_SUBSCRIBED_BYTES} bytes of them"
            raise Unavailable(over_capacity(f"mcpbridge connect keeps at most {text}"))

    def note(self, request: Request, reply: Reply) -> None:
        """Take what a request has changed at the server, by its answer."""
        if not isinstance(reply, Result):
            return
        if request.method == INITIALIZE:
            self._introduction = request.params or b"{}"
            self.note_offer(reply)
            self._level = None
            self._forget_subscriptions()
        elif request.method == SET_LEVEL:
            self._level = request.params
        elif request.method in (SUBSCRIBE, UNSUBSCRIBE):
            self._note_subscription(request)

    def note_offer(self, reply: Result) -> None:
        """Take the capabilities in the result of an `initialize`."""
        profile = read_profile(reply.result)
        if profile is not None:
            self._offered |= profile.capabilities.keys()

    def _note_subscription(self, request: Request) -> None:
        try:
            uri = text_of(member(request.params or b"{}", "uri"))
        except WireError:
            return
        if uri is None:
            return
        self._subscribed_bytes -= len(self._subscribed.pop(uri, b""))
        if request.method == SUBSCRIBE and request.params is not None:
            self._subscribed[uri] = request.params
            self._subscribed_bytes += len(request.params)

    def _forget_subscriptions(self) -> None:
        self._subscribed.clear()
        self._subscribed_bytes = 0

    def handshake(self) -> Request:
        """Return the client's `initialize` for a new session."""
        return Request(_own_id(), INITIALIZE, self._introduction)

    def repeated(self) -> list[Request]:
        """Return the requests that tell a new session what the last one had been told."""
        level = [Request(_own_id(), SET_LEVEL, self._level)] if self._level is not None else []
        subscribed = [Request(_own_id(), SUBSCRIBE, each) for each in self._subscribed.values()]
        return level + subscribed

    def changes(self) -> list[Notification]:
        """Return the notifications that make the client look again at all that may differ."""
        lists = [
            Notification(method, None)
            for capability, method in LIST_CHANGED.items()
            if capability in self._offered
        ]
        resources = [
            Notification(RESOURCE_UPDATED, b'{"uri":%b}' % quoted(uri)) for uri in self._subscribed
        ]
        return lists + resources


def _own_id() -> bytes:
    # The client's ids pass unchanged, so one of ours must be none that a client would choose.
    return b'"mcpbridge-%b"' % uuid.uuid4().hex.encode()
