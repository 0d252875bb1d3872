"""The state that sessions set on a shared child together: a log level and subscriptions.

The child knows one client. Its log level is the most verbose that any session asked for, and each
session gets the messages that it asked for itself; a resource stays subscribed while any session
wants it.

Source: MCP 2025-11-25, Logging; Resources, Subscriptions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Protocol

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.methods import (
    DEFAULT_LOG_LEVEL,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    more_verbose,
)
from mcpbridge.rules.uri_set import MAX_URI_BYTES, UriSet
from mcpbridge.wire.json_object import member, replaced, spans
from mcpbridge.wire.messages import Failure, Notification, Request, Result, quoted, text_of

_ANSWER_S = 10.0
_WRITTEN_BYTES = 6 * MAX_URI_BYTES + 2
"""Most bytes that JSON takes for the longest resource to subscribe to: `\\u0041` for a byte."""
_LONGEST_ESCAPE = 12
"""Bytes of a character in JSON, as two escapes."""


class Subscriber(Protocol):
    """A client that shares a child with others: a session's listener, or a subscription."""

    @property
    def level(self) -> str | None:
        """The log level that the client asked for; None: the server's own choice."""

    @property
    def subscriptions(self) -> UriSet:
        """Subscriptions that were granted."""

    @property
    def lease(self) -> Lease | None:
        """The child that serves it now; None if it has no child at present."""

    def take(self, lease: Lease) -> None:
        """Use this child from now on."""

    def on_notification(self, notification: Notification) -> None:
        """Take a notification of the child that belongs to no request."""

    def wants(self, uri: str) -> bool:
        """Return whether this subscription was granted or is asked for at this moment."""


def shared_verb(request: Request, others: Iterable[Subscriber]) -> Request | Result:
    """Merge a session's request with what the other sessions asked of a shared child.

    Returns:
        The request to send, perhaps changed, or the answer if the child need not be asked.
    """
    match request.method:
        case "logging/setLevel":
            return _set_level(request, others)
        case "resources/subscribe":
            uri = text_member(request.params, "uri")
            # Only what was granted: one that is asked for at this moment may still be refused.
            if any(uri in other.subscriptions for other in others):
                return Result(request.id, b"{}")
        case "resources/unsubscribe":
            uri = text_member(request.params, "uri")
            # Also what is asked for at this moment: its answer may be on the way.
            if uri is not None and any(other.wants(uri) for other in others):
                return Result(request.id, b"{}")
    return request


async def unsubscribe(
    mux: Mux, uris: Collection[str], others: Callable[[], Iterable[Subscriber]]
) -> None:
    """Tell a child, in the bridge's own name, which of these resources no client wants any more."""
    with anyio.move_on_after(_ANSWER_S), suppress(Unavailable):
        for uri in uris:
            # Looked at just before it is sent: while the child answered the one before, another
            # client may have subscribed.
            if any(other.wants(uri) for other in others()):
                await checkpoint()
            else:
                await mux.ask(UNSUBSCRIBE, msgspec.json.encode({"uri": uri}))


def text_member(params: bytes | None, name: str) -> str | None:
    """Return a string member of a message's parameters; None if it is missing or not a string."""
    try:
        return text_of(member(params, name)) if params is not None else None
    except WireError:
        return None


def updated_uri(params: bytes | None) -> str | None:
    """Return the resource that a notification says was updated; None if it names none.

    Of one that is too long to be subscribed to it is the beginning, which says whether it is within
    a resource that a client has subscribed to. Each client of the child asks.
    """
    try:
        span = spans(params).get("uri") if params is not None and params[:1] == b"{" else None
    except WireError:
        return None
    if params is None or span is None:
        return None
    start, end = span
    if end - start <= _WRITTEN_BYTES:
        return text_of(params[start:end])
    return _beginning(params[start : start + _WRITTEN_BYTES + _LONGEST_ESCAPE])


def _beginning(raw: bytes) -> str | None:
    """Return the text of a JSON string that has been cut off somewhere in its last bytes."""
    for end in range(len(raw), len(raw) - _LONGEST_ESCAPE, -1):
        # Not within an escape, a pair of them, or a character.
        with suppress(UnicodeDecodeError):
            text = text_of(raw[:end] + b'"')
            if text is not None:
                return text
    return None


def log_level_of(notification: Notification) -> str | None:
    """Return the level of a log message; None if it has none."""
    return text_member(notification.params, "level")


def _set_level(request: Request, others: Iterable[Subscriber]) -> Request:
    wanted = text_member(request.params, "level")
    common = wanted
    for other in others:
        # The others may have set no level: their default is what the server sends by its choice.
        common = more_verbose(common, other.level or DEFAULT_LOG_LEVEL)
    if request.params is None or common is None or wanted is None or common == wanted:
        return request
    span = spans(request.params)["level"]
    params = replaced(request.params, [(span, quoted(common))])
    return Request(request.id, request.method, params, request.extra)


log = logging.getLogger("mcpbridge.bridge")


async def restore(
    lease: Lease, profile: ServerProfile, subscribers: Collection[Subscriber]
) -> None:
    """Restore the state of these sessions on a new child; then tell them that its lists may differ.

    If the child refuses or ends during this, it is logged and the sessions are served all the same.
    """
    await catch_up(lease, subscribers)
    announce_lists(profile, subscribers)


def announce_lists(profile: ServerProfile, subscribers: Iterable[Subscriber]) -> None:
    """Tell these sessions that the lists of their child may differ from those of the one before."""
    for subscriber in subscribers:
        for method in profile.changing_lists:
            subscriber.on_notification(Notification(method))


async def catch_up(lease: Lease, subscribers: Collection[Subscriber]) -> None:
    """Set on a child the level and subscriptions of these sessions that differ from its own.

    If the last child finished calls while the new one served already, those calls may have changed
    them.
    """
    level: str | None = None
    for subscriber in subscribers:
        level = more_verbose(level, subscriber.level)
    uris = frozenset(uri for subscriber in subscribers for uri in subscriber.subscriptions)
    told_level, told = lease.restored_level, lease.restored_uris
    # Recorded before the first wait: another `catch_up` that runs in between sends only what
    # differs.
    lease.restore(level or told_level, uris)
    if level is not None and level != told_level:
        await _ask(lease, SET_LEVEL, {"level": level})
    for uri in sorted(uris - told):
        await _ask(lease, SUBSCRIBE, {"uri": uri})
    for uri in sorted(told - uris):
        await _ask(lease, UNSUBSCRIBE, {"uri": uri})


async def _ask(lease: Lease, method: str, params: dict[str, str]) -> None:
    reply = None
    try:
        with anyio.move_on_after(_ANSWER_S):
            reply = await lease.mux.ask(method, msgspec.json.encode(params))
    except Unavailable:
        pass
    if reply is None or isinstance(reply, Failure):
        log.warning("child.restore_failed", extra={"method": method})
