"""The table of sessions: its cap, who makes room, and whose time is over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import SessionSettings, SessionTable, new_session_id
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.supervision.lifecycle import SessionState
from tests.support.proofs import proves

SETTINGS = SessionSettings(max_sessions=2, idle_timeout_s=100.0, unused_timeout_s=10.0)


@dataclass(eq=False)
class Fake:
    """As much of a session as the table looks at."""

    id: str
    used: bool = False
    busy: bool = False
    last_used: float = 0.0
    in_flight: int = 0
    listened: bool = False
    one_streamed: bool = False
    state: SessionState = SessionState.OPEN
    owner: Principal = ANONYMOUS

    def touch(self, now: float) -> None:
        """As a session does."""
        self.last_used = now


def table(*sessions: Fake, settings: SessionSettings = SETTINGS) -> SessionTable:
    """A table that holds these."""
    made = SessionTable(settings)
    for session in sessions:
        made.add(cast(Session, session))
    return made


def expired(made: SessionTable, now: float) -> list[str | None]:
    """Whose time is over."""
    return [session.id for session in made if made.expired(session, now)]


def test_a_table_is_full_until_a_session_is_removed() -> None:
    """Once: what is gone cannot be removed again."""
    made = table(Fake("a"), Fake("b"))
    assert (len(made), made.full) == (2, True)
    gone = made.get("a")
    assert gone is not None
    made.remove(gone)
    made.remove(gone)
    assert (len(made), made.full, made.get("a")) == (1, False, None)
    assert [session.id for session in made] == ["b"]


def test_the_session_that_makes_room_is_the_one_most_likely_abandoned() -> None:
    """Without a call in flight; without an open stream first; longest idle of these."""
    calling = Fake("calling", last_used=1.0, in_flight=1)
    listening = [Fake("l3", last_used=3.0, listened=True), Fake("l2", last_used=2.0, listened=True)]
    silent = [Fake("s9", last_used=9.0), Fake("s7", last_used=7.0), Fake("s8", last_used=8.0)]
    made = table(calling, *listening, *silent)
    order = []
    while (session := made.evictable(ANONYMOUS)) is not None:
        order.append(session.id)
        made.remove(session)
    assert order == ["s7", "s8", "s9", "l2", "l3"]


def test_the_client_with_most_sessions_gives_way() -> None:
    """Its longest idle one; a client with as few as the newcomer loses none."""
    heavy, light, other = (Principal(name.encode(), name) for name in ("heavy", "light", "other"))
    own = [Fake(f"h{n}", last_used=9.0 - n, owner=heavy) for n in range(3)]
    made = table(Fake("l", last_used=1.0, owner=light), Fake("o", owner=other), *own)
    order = []
    while (session := made.evictable(light)) is not None:
        order.append(session.id)
        made.remove(session)
    assert order == ["h2", "h1", "l", "o", "h0"]


def test_a_client_that_is_busy_with_most_sessions_takes_none_of_the_others() -> None:
    """Its calls go on, and it is refused."""
    heavy, light = Principal(b"heavy", "heavy"), Principal(b"light", "light")
    busy = [Fake(f"h{n}", in_flight=1, owner=heavy) for n in range(3)]
    made = table(Fake("l", owner=light), *busy)
    assert made.evictable(heavy) is None


def test_an_unused_session_ends_early_and_a_used_one_late() -> None:
    """To the second, each by its own time-out."""
    made = table(Fake("unused"), Fake("used", used=True))
    assert expired(made, 9.9) == []
    assert expired(made, 10.0) == ["unused"]
    assert expired(made, 99.9) == ["unused"]
    assert expired(made, 100.0) == ["unused", "used"]


def test_a_busy_session_does_not_end_and_is_used_while_it_is_busy() -> None:
    """Its time begins when its last stream or call is over, not before."""
    session = Fake("a", busy=True)
    made = table(session)
    assert expired(made, 1000.0) == []
    session.busy = False
    assert expired(made, 1000.5) == []
    assert expired(made, 1010.0) == ["a"]


def test_a_time_limit_of_0_ends_no_session() -> None:
    """However long its client is away."""
    for settings, used in (
        (SessionSettings(idle_timeout_s=0), True),
        (SessionSettings(unused_timeout_s=0), False),
    ):
        made = table(Fake("a", used=used), settings=settings)
        assert expired(made, 1e9) == []
        assert 0.05 <= made.sweep_every_s <= 1.0


def test_the_sweep_is_often_enough_for_the_shortest_timeout() -> None:
    """And never so often that it costs."""
    for unused_s, least, most in ((0.1, 0.05, 0.1), (1.0, 0.2, 0.3), (30.0, 0.5, 5.0)):
        made = table(settings=SessionSettings(unused_timeout_s=unused_s))
        assert least <= made.sweep_every_s <= most


@proves("fault 81", "C01")
def test_session_ids_are_long_plain_and_never_the_same() -> None:
    """256 bits in characters that every client can carry."""
    ids = {new_session_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[0-9a-f]{64}", session_id) for session_id in ids)
