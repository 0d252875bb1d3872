"""What replicas say to each other about sessions, as JSON on their peer ports.

Members that a later release adds are ignored by an earlier one, and have a default: both may serve
at once.
"""

from __future__ import annotations

import msgspec

from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.record import SessionRecord

MAX_QUESTION_BYTES = 4096
MAX_HANDOVER_BYTES = 4 << 20
"""A session's record: at most 1 MiB of answers, in base64, and its subscriptions."""


class HomeQuestion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one replica asks another about a session."""

    session: str
    """Empty if the one that asks only makes itself known."""
    asker: str
    """The address of the peer port of the one that asks."""
    adopts: bool = False
    """Whether the one that asks is about to adopt the session."""
    adopt: bool = False
    """Whether the one that is asked should adopt it, if it may."""
    lost: str = ""
    """The replica that was found to have lost it: one to which it has moved is not named then."""
    may_live: bool = False
    """Whether that replica may live, and has to be told to end its copy."""
    home: str = ""
    """The home of the session now, so that the one that is asked ends its copy."""


class HomeAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it answers, also to an offer."""

    answer: PeerAnswer
    home: str | None = None
    """The replica that has the session, if one has; the one that answers if none was named."""
    fill: float = 1.0
    """How full the one that answers is; 1: it takes no session that others have no room for."""
    adopts_in_s: float = 0.0
    """Seconds until the one that was told to adopt may, if it refuses since it began too late."""


class OfferedSession(msgspec.Struct, frozen=True, omit_defaults=True, tag="session"):
    """A session that a replica that ends offers to another one."""

    session: str
    asker: str
    """The address of the peer port of the one that offers it."""
    params: bytes
    """What the client said in `initialize`: an id may be too short for it."""
    record: SessionRecord = SessionRecord()


class EndedSessions(msgspec.Struct, frozen=True, omit_defaults=True, tag="ended"):
    """Sessions that their clients have deleted, so that no replica revives them."""

    asker: str
    digests: tuple[bytes, ...]
    """See `replicas.tombstones.digest_of`."""
    session: str = ""
    """The id of one that is to end at the replica that is told; empty: none is."""


class MovedSessions(msgspec.Struct, frozen=True, omit_defaults=True, tag="moved"):
    """Sessions that a replica that ends has handed over, so that none asks it for them."""

    asker: str
    homes: dict[str, str]
    """The home of each session."""


HandOverMessage = OfferedSession | EndedSessions | MovedSessions
