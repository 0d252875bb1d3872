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

_OF_ONE_CLIENT = frozenset((INITIALIZED, PROGRESS, "notifications/roots/list_changed"))

ASKED_ABILITY: dict[str, str] = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""Requests of a server to its client, and the client capability each needs."""


class Audience(enum.Enum):
    """Who gets an unasked notification of a child that several sessions share."""

    EVERY_SESSION = "every session, once"
    NOBODY = "nobody: it cannot be told whose it is"


_AUDIENCES = {
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
