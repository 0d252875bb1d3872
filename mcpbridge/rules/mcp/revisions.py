"""Lists the published revisions of MCP with their features on our transports.

Code asks for a feature (`revision.batches`) and never compares dates.

Source: MCP specification, one page tree for each dated revision.
"""

from __future__ import annotations

import enum

import msgspec


class Era(enum.Enum):
    """The way a conversation begins."""

    LEGACY = "legacy"
    """With a handshake: `initialize`, then a session."""
    MODERN = "modern"
    """With no exchange: every request carries its own envelope."""


class Revision(msgspec.Struct, frozen=True):
    """One dated revision and its features."""

    date: str
    """`YYYY-MM-DD`, as in `protocolVersion` and `MCP-Protocol-Version`."""
    era: Era = Era.LEGACY
    batches: bool = False
    """A POST may hold an array of messages."""
    primes_streams: bool = False
    """An event stream begins with an event that has an id and no data; older parsers fail on it."""
    elicitation: bool = False
    """The server may ask the user for input."""
    names_completion: bool = True
    """A server that completes arguments declares a capability for it."""
    url_elicitation: bool = False
    """The server may send the user to a page."""
    unasked_logs: bool = True
    """A log message may come before an answer without `logging/setLevel`. Clients that POST at
    2024-11-05 have no event streams in their revision; one deployed operator takes the whole body
    for one JSON text."""

    def knows(self, method: str, mode: str | None) -> bool:
        """Return whether a server may send its client this request, in this elicitation mode."""
        if method != "elicitation/create":
            return method in ("sampling/createMessage", "roots/list")
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
"""The revisions that this bridge serves to clients, oldest first."""

MODERN: tuple[Revision, ...] = tuple(r for r in REVISIONS if r.era is Era.MODERN)
"""The revisions without a handshake, oldest first."""

_BY_DATE = {revision.date: revision for revision in REVISIONS}


def known(date: str | None) -> Revision | None:
    """Return the revision with this date, or None if it is unknown."""
    return _BY_DATE.get(date) if date is not None else None


def negotiated(requested: str | None, child: Revision) -> Revision:
    """Return the legacy revision for a client in front of a child of revision `child`.

    A client that asks for an older revision gets it, since newer messages only add to it;
    one that asks for a newer or an unknown one gets the child's.
    """
    asked = known(requested)
    if asked is None or asked.era is not Era.LEGACY:
        return child
    return min(asked, child, key=REVISIONS.index)


def expected(requested: str | None) -> Revision:
    """Return the revision assumed until the child answers: the requested one if it is known."""
    asked = known(requested)
    return asked if asked is not None and asked.era is Era.LEGACY else NEWEST_LEGACY


def served_dates() -> str:
    """Return the dates this bridge serves, newest first, for an error text."""
    return ", ".join(revision.date for revision in reversed(SERVED))
