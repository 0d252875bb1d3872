"""Where a replica says that a session is."""

from __future__ import annotations

import pytest

from mcpbridge.replicas.adoption import known_homes
from mcpbridge.replicas.adoption.known_homes import KnownHomes
from mcpbridge.replicas.leaving import LeavingSessions
from mcpbridge.replicas.session_id import Replica

OWN, NAMED, TAKER, FOUND = (Replica(f"10.0.0.{number}", 8001, number) for number in range(4))


def test_what_was_found_last_goes_before_the_hand_over_and_the_id() -> None:
    """What has left this replica is elsewhere; what is here is not."""
    leaving = LeavingSessions()
    known = KnownHomes(OWN, leaving)
    assert (known.home("m1", NAMED), known.elsewhere("m1")) == (NAMED, None)
    leaving.begin("m1")
    leaving.accepted("m1", TAKER)
    assert (known.home("m1", NAMED), known.elsewhere("m1")) == (TAKER, TAKER)
    known.remember("m1", FOUND)
    assert (known.home("m1", NAMED), known.elsewhere("m1")) == (FOUND, FOUND)
    assert leaving.moved_to("m1") == FOUND, "the replica that ends follows it"
    known.forget("m1")
    assert known.home("m1", NAMED) == FOUND
    known.remember("m2", OWN)
    assert (known.home("m2", NAMED), known.elsewhere("m2")) == (OWN, None)
    assert leaving.moved_to("m2") is None, "it has not left this replica"
    leaving.begin("m2")
    leaving.accepted("m2", TAKER)
    assert (known.home("m2", NAMED), known.elsewhere("m2")) == (TAKER, TAKER)


def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the id says where a session is."""
    monkeypatch.setattr(known_homes, "_MOST_KNOWN", 2)
    known = KnownHomes(OWN, LeavingSessions())
    for session_id in ("m1", "m2", "m3"):
        known.remember(session_id, FOUND)
    assert [known.home(each, NAMED) for each in ("m1", "m2", "m3")] == [NAMED, FOUND, FOUND]
