"""The table of sessions: its cap, readiness, and whose time is over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import SessionSettings, SessionTable, new_session_id
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.rules.supervision.lifecycle import SessionState
from tests.support.proofs import proves

SETTINGS = SessionSettings(max_sessions=2, idle_timeout_s=100.0, unused_timeout_s=10.0)


@dataclass
class Fake:
    """As much of a session as the table looks at."""

    id: str
    used: bool = False
    busy: bool = False
    last_used: float = 0.0
    state: SessionState = SessionState.OPEN

    def touch(self, now: float) -> None:
        """As a session does."""
        self.last_used = now


def table(*sessions: Fake, settings: SessionSettings = SETTINGS) -> tuple[SessionTable, Readiness]:
    """A table that holds these."""
    readiness = Readiness()
    readiness.unblock("child")
    made = SessionTable(settings, readiness)
    for session in sessions:
        made.add(cast(Session, session))
    return made, readiness


def expired(made: SessionTable, now: float) -> list[str | None]:
    """Whose time is over."""
    return [session.id for session in made if made.expired(session, now)]


def test_a_full_table_is_not_ready_until_somebody_leaves() -> None:
    """And it names the flag."""
    made, readiness = table(Fake("a"), Fake("b"))
    assert (len(made), made.full, readiness.ready) == (2, True, False)
    assert readiness.blockers["room"] == "--max-sessions 2"
    gone = made.get("a")
    assert gone is not None
    made.remove(gone)
    made.remove(gone)
    assert (len(made), made.full, readiness.ready, made.get("a")) == (1, False, True, None)
    assert [session.id for session in made] == ["b"]


@proves("O9")
def test_an_unused_session_ends_early_and_a_used_one_late() -> None:
    """To the second, each by its own time-out."""
    made, _ = table(Fake("unused"), Fake("used", used=True))
    assert expired(made, 9.9) == []
    assert expired(made, 10.0) == ["unused"]
    assert expired(made, 99.9) == ["unused"]
    assert expired(made, 100.0) == ["unused", "used"]


def test_a_busy_session_does_not_end_and_is_used_while_it_is_busy() -> None:
    """Its time begins when its last stream or call is over, not before."""
    session = Fake("a", busy=True)
    made, _ = table(session)
    assert expired(made, 1000.0) == []
    session.busy = False
    assert expired(made, 1000.5) == []
    assert expired(made, 1010.0) == ["a"]


def test_the_sweep_is_often_enough_for_the_shortest_timeout() -> None:
    """And never so often that it costs."""
    for unused_s, least, most in ((0.1, 0.05, 0.1), (1.0, 0.2, 0.3), (30.0, 0.5, 5.0)):
        made, _ = table(settings=SessionSettings(unused_timeout_s=unused_s))
        assert least <= made.sweep_every_s <= most


@proves("fault 81", "C01")
def test_session_ids_are_long_plain_and_never_the_same() -> None:
    """256 bits in characters that every client can carry."""
    ids = {new_session_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[0-9a-f]{64}", session_id) for session_id in ids)
