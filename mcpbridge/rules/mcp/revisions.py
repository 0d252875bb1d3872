"""The published revisions of MCP and what each can do on our transports, as one table.

Code asks for a feature (`revision.batches`), it never compares dates.

Source: MCP specification, one page tree for each dated revision.
"""

from __future__ import annotations

import enum

import msgspec


class Era(enum.Enum):
    """How a conversation begins."""

    LEGACY = "legacy"
    """With a handshake: `initialize`, then a session."""
    MODERN = "modern"
    """With nothing: every request carries its own envelope."""


class Revision(msgspec.Struct, frozen=True):
    """One dated revision and its features."""

    date: str
    """`YYYY-MM-DD`, as it travels in `protocolVersion` and `MCP-Protocol-Version`."""
    era: Era = Era.LEGACY
    batches: bool = False
    """A POST may hold an array of messages."""
    primes_streams: bool = False
    """An event stream begins with an event that has an id and no data; older parsers fail on it."""
    elicitation: bool = False
    """The server may ask the user for input."""
    names_completion: bool = True
    """A server that completes arguments has a capability for it."""
    url_elicitation: bool = False
    """It may send the user to a page for it."""
    unasked_logs: bool = True
    """A log message may come before an answer without `logging/setLevel`. A client that POSTs at
    2024-11-05 has no event streams in its revision; a deployed operator takes all it gets for one
    JSON text."""

    def knows(self, question: str, mode: str | None) -> bool:
        """Whether a server may put this question to its client, in this mode of elicitation."""
        if question != "elicitation/create":
            return question in ("sampling/createMessage", "roots/list")
        return self.url_elicitation if mode == "url" else self.elicitation


NEWEST_LEGACY = Revision("2025-11-25", primes_streams=True, elicitation=True, url_elicitation=True)
REVISIONS: tuple[Revision, ...] = (
    Revision("2024-11-05", names_completion=False, unasked_logs=False),
    Revision("2025-03-26", batches=True),
    Revision("2025-06-18", elicitation=True),
    NEWEST_LEGACY,
    Revision("2026-07-28", era=Era.MODERN),
)
"""Oldest first."""

SERVED: tuple[Revision, ...] = tuple(r for r in REVISIONS if r.era is Era.LEGACY)
"""What this bridge serves to clients, oldest first."""

MODERN: tuple[Revision, ...] = tuple(r for r in REVISIONS if r.era is Era.MODERN)
"""Those without a handshake, oldest first."""

_BY_DATE = {revision.date: revision for revision in REVISIONS}


def known(date: str | None) -> Revision | None:
    """The revision with this date, or None for one this program does not know."""
    return _BY_DATE.get(date) if date is not None else None


def negotiated(requested: str | None, child: Revision) -> Revision:
    """The legacy revision to answer a client with, in front of a child of revision `child`.

    A client that asks for an older revision gets it, since newer messages only add to it;
    one that asks for a newer or an unknown one gets the child's.
    """
    asked = known(requested)
    if asked is None or asked.era is not Era.LEGACY:
        return child
    return min(asked, child, key=REVISIONS.index)


def expected(requested: str | None) -> Revision:
    """What a handshake goes by before the child has answered: what was asked for, if known."""
    asked = known(requested)
    return asked if asked is not None and asked.era is Era.LEGACY else NEWEST_LEGACY


def served_dates() -> str:
    """The dates this bridge serves, newest first, for an error text."""
    return ", ".join(revision.date for revision in reversed(SERVED))
