"""Which child is ended when another client needs its place: one that is idle.

A child of a session is idle while no call is in flight and the server waits for no answer of its
client; the session gets another with its next call. A child of the warm pool is idle between
calls.

It is one of the client with most children; a client with as few as the one that needs the place
loses none: see `rules.access.shares.ranked`. Of the children of one client:

| idle child | is ended |
|---|---|
| of the warm pool, or of a session without an open stream | first, longest idle first |
| of a session whose client listens | after those, longest idle first |
| of a session under `--isolation session` | never |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable

import msgspec

from mcpbridge.bridge.children.child_pool import Order
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.rules.supervision.isolation import Isolation


class _Candidate(msgspec.Struct, frozen=True):
    """A child that can be ended now."""

    rank: int
    """When its client gives way, 0 first."""
    listens: bool
    """Whether its client has a stream open, which would miss the child's notifications."""
    idle_since: float
    lend: Callable[[], Lease | None]
    """Takes the child from its holder; returns None if the holder has none any more."""


def evict_longest_idle(
    pools: Iterable[WarmPool], sessions: Iterable[Session], isolation: Isolation, order: Order
) -> Collection[Lease]:
    """Take the child that has been idle longest from its holder; empty if none is idle.

    Args:
        pools: The warm pools of all tenants.
        sessions: All open sessions.
        isolation: Sessions give up their child only under `auto`.
        order: Says whose child gives way, and whose first.
    """
    candidates = [
        _Candidate(rank, False, since, functools.partial(pool.lend, lease))
        for pool in pools
        for since, lease in pool.idle
        if (rank := order(lease)) is not None
    ]
    if isolation is Isolation.AUTO:
        for each in sessions:
            if _is_idle(each) and each.lease is not None:
                rank = order(each.lease)
                if rank is not None:
                    candidates.append(_Candidate(rank, each.listened, each.last_used, each.lend))
    chosen = min(candidates, key=_precedence, default=None)
    lease = chosen.lend() if chosen is not None else None
    return () if lease is None else (lease,)


def _precedence(candidate: _Candidate) -> tuple[int, bool, float]:
    return candidate.rank, candidate.listens, candidate.idle_since


def _is_idle(session: Session) -> bool:
    asked = len(session.server_requests)
    return session.holds_own_child and not session.in_flight and not asked
