"""Decides who adopts a session whose home is lost, and when.

Two homes of a session on the shared child cost little: a cancellation may miss its call. Two homes
of one with an own child are two servers that each have half of what the client did, so such a
session stays unavailable as long as its owner may live.

| child | owner | store | step |
|---|---|---|---|
| any | ALIVE | any | FORWARD |
| shared | DEAD | NONE | ASK |
| shared | DEAD | AWAY | ASK |
| shared | DEAD | BEATS | CLAIM |
| shared | DEAD | LAPSED | CLAIM |
| shared | UNKNOWN | any | ASK |
| own | DEAD | NONE | ASK |
| own | DEAD | AWAY | WAIT |
| own | DEAD | BEATS | CLAIM |
| own | DEAD | LAPSED | CLAIM |
| own | UNKNOWN | NONE | WAIT; after 30 s TAKE_OVER or END |
| own | UNKNOWN | AWAY | WAIT |
| own | UNKNOWN | BEATS | WAIT |
| own | UNKNOWN | LAPSED | CLAIM |

ASK, without a store: the replica asks **all** peers whether they have the session, since an earlier
adopter may be any of them. If none has it, the first settled peer in rendezvous order adopts. A
peer is settled once it has been seen for 10 s: by then each other replica has seen it too. It
refuses if it has not run for as long itself: its address was another process's. The address of the
dead owner adopts only if it is alone, because its next process may not be known to all as another.
A replica that began a moment ago takes none for settled, and cannot tell which are. So peers that
are not settled in its view are asked too, after the others: they adopt if they have run for 10 s.
If none has, each says when it will have, and the request is held until the first has, if that is
soon.

An adopter marks the session as its own, and then asks all peers itself, naming itself. So of two
adopters at once at least one knows of the other: `yields` says which of them gives way.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.owner import OwnerVerdict
from mcpbridge.rules.homes.peer_view import KnownPeer
from mcpbridge.rules.homes.rendezvous import precedes, rendezvous_order

HELD_BACK_S = 30.0
"""Seconds that a session with an own child waits for an owner that may live."""
REVIVABLE_S = 24 * 3600.0
"""Seconds from the issue of an id in which its session can be revived."""
SKEW_S = 90.0
"""Most seconds that the clocks of two replicas may differ."""
MOST_ASKED = 32
"""Most replicas among which a new home is found by asking; more need a store."""


class StoreView(enum.Enum):
    """What the store says of an owner."""

    NONE = "none"
    """There is no store."""
    AWAY = "away"
    """It does not answer."""
    BEATS = "beats"
    """The owner's heartbeat is there."""
    LAPSED = "lapsed"
    """The owner's heartbeat is not there."""


class HomeStep(enum.Enum):
    """What a replica does with a request for a session that it does not have."""

    FORWARD = "forward"
    ASK = "ask"
    """Ask all peers; if none has the session, the settled one that comes first adopts it."""
    CLAIM = "claim"
    """Claim the session in the store, in place of its owner; the home that it names serves it."""
    WAIT = "wait"
    """503 with Retry-After: the owner may live."""
    TAKE_OVER = "take_over"
    """As `ASK`, and tell the old owner to yield until it has closed its copy."""
    END = "end"
    """404, for good."""


def next_step(
    verdict: OwnerVerdict,
    store: StoreView,
    *,
    own_child: bool,
    unknown_s: float,
    on_owner_lost: OnOwnerLost,
) -> HomeStep:
    """Return what follows for a session by the table above.

    Args:
        verdict: Whether its owner lives.
        store: What the store says of the owner.
        own_child: Whether the session has an own child.
        unknown_s: Seconds for which this replica has not known whether the owner lives.
        on_owner_lost: The operator's choice.
    """
    if verdict is OwnerVerdict.ALIVE:
        return HomeStep.FORWARD
    if verdict is OwnerVerdict.UNKNOWN and not own_child:
        return HomeStep.ASK
    match store:
        case StoreView.NONE:
            return _without_store(verdict, unknown_s, on_owner_lost)
        case StoreView.AWAY:
            return HomeStep.WAIT if own_child else HomeStep.ASK
        case StoreView.BEATS if verdict is OwnerVerdict.UNKNOWN:
            return HomeStep.WAIT
        case _:
            return HomeStep.CLAIM


def _without_store(verdict: OwnerVerdict, unknown_s: float, on_owner_lost: OnOwnerLost) -> HomeStep:
    if verdict is OwnerVerdict.DEAD:
        return HomeStep.ASK
    if unknown_s < HELD_BACK_S:
        return HomeStep.WAIT
    restarts = on_owner_lost is OnOwnerLost.RESTART
    return HomeStep.TAKE_OVER if restarts else HomeStep.END


def adopters(session_id: str, peers: Iterable[KnownPeer], dead: str | None) -> list[str]:
    """Return the addresses that may adopt a session, the one that should first.

    The others follow for the case that those before them refuse: a peer that is ending does, and
    one that has not run for as long as it takes to be settled.

    Args:
        session_id: The id that the client sends.
        peers: The replicas in view, this one included.
        dead: The address of the owner that is lost; None if the owner itself hands it over.
    """
    present = [each for each in peers if each.absent_s is None]
    if dead is not None and [each.address for each in present] == [dead]:
        # One replica that began again: there is no other that could know another home.
        return [dead]
    others = [each for each in present if each.address != dead]
    settled = rendezvous_order(session_id, (each.address for each in others if each.settled))
    new = rendezvous_order(session_id, (each.address for each in others if not each.settled))
    return [*settled, *new]


def takers(session_id: str, peers: Iterable[KnownPeer], own: str) -> list[str]:
    """Return the addresses that a replica that ends offers a session to, in this order.

    Settled ones come first: all others ask them if they look for the session. One that has begun a
    moment ago is better than none, and has made itself known to all that it knows.

    Args:
        session_id: The id that the client sends.
        peers: The replicas in view, this one included.
        own: The address of this one.
    """
    present = [each for each in peers if each.absent_s is None and each.address != own]
    settled = rendezvous_order(session_id, (each.address for each in present if each.settled))
    new = rendezvous_order(session_id, (each.address for each in present if not each.settled))
    return [*settled, *new]


class PeerAnswer(enum.Enum):
    """What a peer says when it is asked about a session."""

    HAS = "has"
    """It is the session's home."""
    ADOPTING = "adopting"
    """It is about to be, and has asked others or will."""
    HAS_NOT = "has_not"
    GONE = "gone"
    """It has not, and knows that its client has deleted it."""
    SILENT = "silent"
    """It did not answer in time."""


def yields(session_id: str, own: str, other: str, answer: PeerAnswer) -> bool:
    """Return whether an adopter gives way to a peer that answered it, or that asks as an adopter.

    A home goes before adopters; of two adopters the one that comes first in rendezvous order goes
    on. Both find the same, whichever of them asks.

    Args:
        session_id: The id that the client sends.
        own: The address of this adopter.
        other: That of the peer.
        answer: What the peer says of itself.
    """
    if answer is PeerAnswer.HAS:
        return True
    return answer is PeerAnswer.ADOPTING and precedes(session_id, other, own)


def is_revivable(issued_s: float, now_s: float) -> bool:
    """Return whether a session's id is of an age at which the session may be revived.

    Args:
        issued_s: When the id was made, in seconds of the clock of the replica that made it.
        now_s: The time on this replica's clock.
    """
    return -SKEW_S <= now_s - issued_s <= REVIVABLE_S


def is_isolated(store: StoreView, known_peers: int, reached_peers: int) -> bool:
    """Return whether a replica is cut off from its store and from all peers.

    It then cannot know whether its sessions have another home, so its readiness fails.

    Args:
        store: What the store says; only whether it answers matters.
        known_peers: Number of other replicas in view.
        reached_peers: Number of those that answered last.
    """
    return store is StoreView.AWAY and known_peers > 0 and reached_peers == 0
