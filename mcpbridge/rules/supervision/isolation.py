"""Which child serves a session.

A legacy child cannot say which call a question of its belongs to, so a session whose client
can be asked gets a child of its own; one that cannot be asked loses nothing by sharing.

Source: MCP 2025-11-25, Client Features; the stdio transport has no correlation of nested requests.
"""

from __future__ import annotations

import enum

from mcpbridge.rules.mcp.initialize import ClientProfile


class Isolation(enum.Enum):
    """The operator's choice."""

    AUTO = "auto"
    """A child of its own for a client that can be asked, the shared one for every other."""
    SHARED = "shared"
    """One child for all; its questions are declined."""
    SESSION = "session"
    """One child per session, for servers that keep state per client."""


def needs_own_child(isolation: Isolation, client_profile: ClientProfile) -> bool:
    """Whether a session that begins with this introduction gets a child of its own."""
    if isolation is Isolation.AUTO:
        return bool(client_profile.abilities)
    return isolation is Isolation.SESSION


def spares_text(text: str) -> str:
    """What `--spares` may be: `auto` or a number from 0 on.

    Raises:
        ValueError: Neither; the text completes a sentence that begins with the value.
    """
    if text != "auto" and not (text.isascii() and text.isdecimal()):
        raise ValueError("is neither auto nor a number from 0 on")
    return text


def spares_wanted(spares: str, start_s: float | None) -> int:
    """How many un-initialised children to keep ready.

    Args:
        spares: `auto` or a number.
        start_s: How long the child took to start and shake hands; None where unknown.
    """
    if spares != "auto":
        return int(spares)
    # A spare costs a child's memory for as long as it waits; a quick start is not worth it.
    return 1 if start_s is not None and start_s > AUTO_SPARE_AFTER_S else 0


AUTO_SPARE_AFTER_S = 1.0
"""Slower starts than this are worth a spare child."""
