"""Which child is ended when another client needs its place: the one that has been idle longest.

A child of a session counts as idle while no call is in flight and the server waits for no answer
of its client; the session gets another with its next call. A child of the pool for 2026-07-28
counts as idle between calls.

| idle child | goes |
|---|---|
| of the pool, or of a session without an open stream | first, longest idle first |
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
    """A child that could be ended now."""

    listens: bool
    """Its client has a stream open, on which it would miss what the child says."""
    idle_since: float
    lend: Callable[[], Lease | None]
    """Takes it from its holder."""


def evict_longest_idle(
    pools: Iterable[WarmPool], sessions: Iterable[Session], isolation: Isolation
) -> Collection[Lease]:
    """Take the child that can best be done without from its holder; empty if there is none.

    Args:
        pools: Those for clients of 2026-07-28.
        sessions: All that are open.
        isolation: Whether sessions lend at all.
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
