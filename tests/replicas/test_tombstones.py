"""Which deleted sessions a replica remembers."""

from __future__ import annotations

from mcpbridge.replicas.tombstones import MOST_TOMBSTONES, Tombstones, digest_of
from mcpbridge.rules.homes.adoption import REVIVABLE_S


def test_tombstones_are_bounded_and_end_with_what_they_are_for() -> None:
    """The oldest go first; after a day the id itself is too old."""
    now = [0.0]
    tombstones = Tombstones(lambda: now[0])
    tombstones.add(digest_of(f"s{number}") for number in range(MOST_TOMBSTONES + 1))
    assert not tombstones.has("s0")
    assert tombstones.has("s1")
    assert len(tombstones.digests) == MOST_TOMBSTONES
    tombstones.add((b"short", b"x" * 99))
    assert tombstones.has("s1")
    now[0] = REVIVABLE_S + 1
    assert not tombstones.has("s1")
