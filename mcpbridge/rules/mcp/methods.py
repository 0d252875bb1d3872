"""Lists the MCP methods that the bridge treats in a special way.

A method that is not listed passes through: to the child unchanged, and back from a child that
serves one session only. On a shared child a notification passes only if its row names the audience.

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
"""The `_meta` key by which a message of 2026-07-28 names its `subscriptions/listen`."""

KNOWN_REQUESTS = frozenset((
    INITIALIZE, PING, DISCOVER, LISTEN, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, "completion/complete",
    "prompts/get", "prompts/list", "resources/list", "resources/read", "resources/templates/list",
    "tasks/cancel", "tasks/get", "tasks/list", "tasks/result", "tasks/update", "tools/call",
    "tools/list",
))  # fmt: skip
"""Every request that some revision lets a client send."""

SHARED_VERBS = frozenset((SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE))
"""Requests whose effect on a child outlasts them."""

LOG_LEVELS = (
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency",
)  # fmt: skip
"""Ascending, RFC 5424."""

_OF_ONE_CLIENT = frozenset((INITIALIZED, PROGRESS, "notifications/roots/list_changed"))

ROOTS_LIST = "roots/list"
ASKED_ABILITY: dict[str, str] = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    ROOTS_LIST: "roots",
}
"""Requests of a server to its client, each with the client capability that it needs."""


DEFAULT_LOG_LEVEL = "info"
"""The level assumed for a client that asked for none."""


class Audience(enum.Enum):
    """The sessions that get an unsolicited notification of a shared child."""

    EVERY_SESSION = "every session, once"
    SUBSCRIBERS = "the sessions that subscribed to the resource it names"
    ONLY_CALLER = "the caller, while exactly one call is in flight"
    UNKNOWN = "no client: the bridge cannot tell which one it is for"


_KEY_CHARACTERS = 8192
"""A longer name of a resource may be only its beginning, which several have in common."""
_AUDIENCES = {
    LOG_MESSAGE: Audience.ONLY_CALLER,
    RESOURCE_UPDATED: Audience.SUBSCRIBERS,
    "notifications/tools/list_changed": Audience.EVERY_SESSION,
    "notifications/prompts/list_changed": Audience.EVERY_SESSION,
    "notifications/resources/list_changed": Audience.EVERY_SESSION,
}


def shared_audience(method: str) -> Audience:
    """Return the audience of this notification of a shared child.

    An unknown one has no audience: what one session caused must not reach another.
    """
    return _AUDIENCES.get(method, Audience.UNKNOWN)


def stops_at_the_bridge(method: str) -> bool:
    """Return whether a client's notification concerns its own handshake or server requests.

    A shared child has had one handshake and asks no client, so it must not see another client's.
    """
    return method in _OF_ONE_CLIENT


def coalescing_key(method: str, uri: str | None) -> str | None:
    """Return a key that is equal for two notifications that say the same; None if there is none.

    How often a list or resource changed while no client listened does not matter.
    """
    if method in _AUDIENCES and _AUDIENCES[method] is Audience.EVERY_SESSION:
        return method
    if method != RESOURCE_UPDATED or uri is None or len(uri) > _KEY_CHARACTERS:
        return None
    return f"{method} {uri}"


def more_verbose(one: str | None, other: str | None) -> str | None:
    """Return the log level that lets more through; None stands for unset."""
    known = [level for level in (one, other) if level in LOG_LEVELS]
    return min(known, key=LOG_LEVELS.index, default=None)


LIST_CHANGED: dict[str, str] = {
    "tools": "notifications/tools/list_changed",
    "prompts": "notifications/prompts/list_changed",
    "resources": "notifications/resources/list_changed",
}
"""For each server capability, the notification that makes its client look again."""


def level_admits(asked: str | None, level: str | None) -> bool:
    """Return whether a session with log level `asked` wants a message; unset wants all."""
    if asked not in LOG_LEVELS or level not in LOG_LEVELS:
        return True
    return LOG_LEVELS.index(level) >= LOG_LEVELS.index(asked)


def concerns(subscribed: str, updated: str) -> bool:
    """Return whether an update of one resource concerns a subscriber: the same, or a part."""
    return updated == subscribed or updated.startswith(subscribed.rstrip("/") + "/")
