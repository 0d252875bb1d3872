"""Which child is ended when another client needs its place: the one that has been idle longest.

A child of a session is idle while no call is in flight and the server waits for no answer of its
client; the session gets another with its next call. A child of the warm pool is idle between
calls.

| idle child | is ended |
|---|---|
| of the warm pool, or of a session without an open stream | first, longest idle first |
| of a session whose client listens | after those, longest idle first |
| of a session under `--isolation session` | never |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable

import msgspec

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.rules.supervision.isolation import Isolation


class _Candidate(msgspec.Struct, frozen=True):
    """A child that can be ended now."""

    listens: bool
    """Whether its client has a stream open, which would miss the child's notifications."""
    idle_since: float
    lend: Callable[[], Lease | None]
    """Takes the child from its holder; returns None if the holder has none any more."""


def evict_longest_idle(
    pools: Iterable[WarmPool], sessions: Iterable[Session], isolation: Isolation
) -> Collection[Lease]:
    """Take the child that has been idle longest from its holder; empty if none is idle.

    Args:
        pools: The warm pools of all tenants.
        sessions: All open sessions.
        isolation: Sessions give up their child only under `auto`.
    """
    candidates = [
        _Candidate(False, pool.idle_since, pool.lend)
        for pool in pools
        if pool.idle_since < math.inf
    ]
    if isolation is Isolation.AUTO:
        candidates += [_session(each) for each in sessions if _is_idle(each)]
    chosen = min(candidates, key=lambda each: (each.listens, each.idle_since), default=None)
    lease = chosen.lend() if chosen is not None else None
    return () if lease is None else (lease,)


def _is_idle(session: Session) -> bool:
    asked = len(session.server_requests)
    return session.holds_own_child and not session.in_flight and not asked


def _session(session: Session) -> _Candidate:
    return _Candidate(session.listened, session.last_used, session.lend)
