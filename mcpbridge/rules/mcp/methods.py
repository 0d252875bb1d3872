"""One row per MCP method that the bridge treats in a way of its own.

A method that is not here passes through: to the child as it came, and back from a child of the
session's own. On a shared child a notification passes only if its row says who may have it.

Source: MCP 2024-11-05 to 2025-11-25, the method and notification pages of each.
"""

from __future__ import annotations

import enum

INITIALIZE = "initialize"
INITIALIZED = "notifications/initialized"
CANCELLED = "notifications/cancelled"
PROGRESS = "notifications/progress"
LOG_MESSAGE = "notifications/message"
PING = "ping"
SET_LEVEL = "logging/setLevel"
SUBSCRIBE = "resources/subscribe"
UNSUBSCRIBE = "resources/unsubscribe"
RESOURCE_UPDATED = "notifications/resources/updated"

DISCOVER = "server/discover"
LISTEN = "subscriptions/listen"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
"""The `_meta` key by which a message of 2026-07-28 names the listen it is for."""

KNOWN_REQUESTS = frozenset((
    INITIALIZE, PING, DISCOVER, LISTEN, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, "completion/complete",
    "prompts/get", "prompts/list", "resources/list", "resources/read", "resources/templates/list",
    "tasks/cancel", "tasks/get", "tasks/list", "tasks/result", "tasks/update", "tools/call",
    "tools/list",
))  # fmt: skip
"""Every request that a revision lets a client send."""

SHARED_VERBS = frozenset((SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE))
"""Requests whose effect on a child outlasts them."""

LOG_LEVELS = (
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency",
)  # fmt: skip
"""Ascending, RFC 5424."""

_OF_ONE_CLIENT = frozenset((INITIALIZED, PROGRESS, "notifications/roots/list_changed"))

ASKED_ABILITY: dict[str, str] = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""Requests of a server to its client, and the client capability each needs."""


DEFAULT_LOG_LEVEL = "info"
"""What a client that asked for no level is taken to want."""


class Audience(enum.Enum):
    """Who gets an unasked notification of a child that several sessions share."""

    EVERY_SESSION = "every session, once"
    SUBSCRIBERS = "the sessions that subscribed to the resource it names"
    ONLY_CALLER = "the caller, while exactly one call is in flight"
    NOBODY = "nobody: it cannot be told whose it is"


_AUDIENCES = {
    LOG_MESSAGE: Audience.ONLY_CALLER,
    RESOURCE_UPDATED: Audience.SUBSCRIBERS,
    "notifications/tools/list_changed": Audience.EVERY_SESSION,
    "notifications/prompts/list_changed": Audience.EVERY_SESSION,
    "notifications/resources/list_changed": Audience.EVERY_SESSION,
}


def shared_audience(method: str) -> Audience:
    """Who gets this notification of a shared child.

    Unknown ones go to nobody: what one session caused must not be read by another.
    """
    return _AUDIENCES.get(method, Audience.NOBODY)


def stops_at_the_bridge(method: str) -> bool:
    """Whether a client's notification concerns its own handshake or questions put to it.

    A shared child has had one handshake and asks nobody, so it must not see another client's.
    """
    return method in _OF_ONE_CLIENT


def coalescing_key(method: str, uri: str | None) -> str | None:
    """What makes two notifications say the same, so that one of them is enough; None where not.

    A list has changed, or a resource has: how often, while nobody listened, is no news.
    """
    if method in _AUDIENCES and _AUDIENCES[method] is Audience.EVERY_SESSION:
        return method
    return f"{method} {uri}" if method == RESOURCE_UPDATED and uri is not None else None


def more_verbose(one: str | None, other: str | None) -> str | None:
    """Of two log levels the one that lets more through; None stands for unset."""
    known = [level for level in (one, other) if level in LOG_LEVELS]
    return min(known, key=LOG_LEVELS.index, default=None)


LIST_CHANGED: dict[str, str] = {
    "tools": "notifications/tools/list_changed",
    "prompts": "notifications/prompts/list_changed",
    "resources": "notifications/resources/list_changed",
}
"""By server capability: how its client is told to look again."""


def level_admits(asked: str | None, level: str | None) -> bool:
    """Whether a session that asked for a level wants a message of another; unset wants all."""
    if asked not in LOG_LEVELS or level not in LOG_LEVELS:
        return True
    return LOG_LEVELS.index(level) >= LOG_LEVELS.index(asked)


def concerns(subscribed: str, updated: str) -> bool:
    """Whether an update of one resource is news for a subscriber of another: itself or a part."""
    return updated == subscribed or updated.startswith(subscribed.rstrip("/") + "/")
