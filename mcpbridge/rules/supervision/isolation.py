"""Decides which child serves a session.

A legacy child cannot say which call its request belongs to, so a session whose client can be asked
gets a separate child; a client that cannot be asked loses nothing by sharing.

Source: MCP 2025-11-25, Client Features; the stdio transport has no correlation of nested requests.
"""

from __future__ import annotations

import enum

from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import ASKED_ABILITY, ROOTS_LIST


class Isolation(enum.Enum):
    """The operator's choice."""

    AUTO = "auto"
    """A separate child for a client that can be asked, the shared one for every other."""
    SHARED = "shared"
    """One child for all; its requests are declined."""
    SESSION = "session"
    """One child per session, for servers that keep state per client."""


def needs_own_child(
    isolation: Isolation, client_profile: ClientProfile, *, answers_roots: bool = False
) -> bool:
    """Return whether a session with this `initialize` gets a separate child.

    Args:
        isolation: The operator's choice.
        client_profile: What the client says of itself.
        answers_roots: Whether the bridge answers requests for roots in the client's place.
    """
    if isolation is Isolation.AUTO:
        return bool(asked_abilities(client_profile.abilities, answers_roots=answers_roots))
    return isolation is Isolation.SESSION


def asked_abilities(abilities: frozenset[str], *, answers_roots: bool) -> frozenset[str]:
    """Return those of sampling, elicitation and roots for which the client itself is asked."""
    return abilities - {ASKED_ABILITY[ROOTS_LIST]} if answers_roots else abilities


def spares_text(text: str) -> str:
    """Return the text of `--spares` if it is `auto` or a non-negative number.

    Raises:
        ValueError: Neither; the text completes a sentence that begins with the value.
    """
    if text != "auto" and not (text.isascii() and text.isdecimal()):
        raise ValueError("is neither auto nor a number from 0 on")
    return text


def spares_wanted(spares: str, start_s: float | None) -> int:
    """Return how many uninitialized children to keep ready.

    Args:
        spares: `auto` or a number.
        start_s: Seconds that the child took to start and shake hands; None if unknown.
    """
    if spares != "auto":
        return int(spares)
    # A spare holds a child's memory while it waits; a quick start is not worth it.
    return 1 if start_s is not None and start_s > AUTO_SPARE_AFTER_S else 0


AUTO_SPARE_AFTER_S = 1.0
"""Seconds; slower starts are worth a spare child."""
