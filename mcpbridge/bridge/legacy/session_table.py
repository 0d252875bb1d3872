"""The table of sessions, its cap, and the end of those that no client uses.

Deployed clients rarely delete their sessions, and some open two for each attempt to connect. A
session without a request after `initialize` ends early; one that was used is kept long, because
clients commonly do not recover if their session is gone. At the cap the session that has been
without a call for longest ends: most likely its client has left, while the client that opens a new
one is certainly there. Of several clients the one with most sessions gives way, so that no client
loses its sessions to one that opens many.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.shares import ranked
from mcpbridge.rules.faults import Fault, timed_out
from mcpbridge.rules.mcp.methods import PING
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.settings import SettingsSection, Unit, setting

GROUP = "Limits"


class SessionSettings(SettingsSection, frozen=True):
    """Settings of how many sessions there may be, and for how long."""

    max_sessions: int = setting(
        1000,
        "--max-sessions",
        "Sessions at once. One more ends one of the client with most sessions: the one that has"
        " been without a call for longest, those without an open stream first.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    max_per_principal: int | None = setting(
        None,
        "--max-sessions-per-principal",
        "Sessions at once of one principal, as its token names it; without authentication all"
        " clients are one principal.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    max_header_values: int = setting(
        64,
        "--max-header-values",
        "Different sets of values for `--header-env` at once of one principal, and without"
        " authentication of one address: each has its own processes. A set not in use makes room.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    max_subscriptions: int = setting(
        1000,
        "--max-subscriptions",
        "Resources that one session, or one `subscriptions/listen`, may be subscribed to at once.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    idle_timeout_s: float = setting(
        1800.0,
        "--session-idle-timeout",
        "End a session that has had no call and no open stream for this long; 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    unused_timeout_s: float = setting(
        30.0,
        "--unused-session-timeout",
        "End a session that has sent no request after initialize and has no open stream; 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    require_session: bool = setting(
        False,
        "--require-session",
        "Refuse requests without Mcp-Session-Id instead of serving them by the shared process.",
        group="Isolation",
        unit=Unit.SWITCH,
    )

    @property
    def max_listens(self) -> int:
        """Most subscriptions of 2026-07-28 that a principal may have: they count like sessions."""
        most = self.max_per_principal
        return self.max_sessions if most is None else min(most, self.max_sessions)


class CallLimits(SettingsSection, frozen=True):
    """Settings of how long a call may take."""

    timeout_s: float = setting(
        300.0,
        "--request-timeout",
        "Longest time for one call, even if it makes progress; 0: no limit.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    idle_timeout_s: float = setting(
        120.0,
        "--request-idle-timeout",
        "Longest time of a call without progress or a question of the server; 0: no limit.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    question_timeout_s: float = setting(
        30.0,
        "--question-timeout",
        "Longest time that a question of the server (sampling, elicitation, roots) waits for its"
        " client to open a stream.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    ping_timeout_s: float = 10.0
    """Seconds for a `ping`: a healthy server answers it at once, one that hangs must be noticed."""

    def overdue(self, exchange: Exchange, now: float) -> Fault | None:
        """Return the fault of a call that has taken too long; None if it has not.

        A call that waits for its turn is not idle: its idle time begins when its child gets it.
        """
        if exchange.queued:
            exchange.touch(now)
        idle_s, age_s = now - exchange.heard_at, now - exchange.started_at
        if exchange.request.method == PING and age_s >= self.ping_timeout_s:
            return timed_out("ping", self.ping_timeout_s)
        if self.timeout_s and age_s >= self.timeout_s:
            return timed_out("--request-timeout", self.timeout_s)
        if self.idle_timeout_s and idle_s >= self.idle_timeout_s:
            return timed_out("--request-idle-timeout", self.idle_timeout_s)
        return None


class SessionTable:
    """A table of all open sessions by id; owned by the bridge."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._by_id: dict[str, Session] = {}
        self._held: dict[bytes, dict[Session, None]] = {}
        """The sessions of each client, by its `Principal.share_key`."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    @property
    def full(self) -> bool:
        """Whether there are as many sessions as `--max-sessions` allows."""
        return len(self._by_id) >= self._settings.max_sessions

    def fills(self, principal: Principal) -> bool:
        """Return whether this principal has as many sessions as one may have."""
        most = self._settings.max_per_principal
        if most is None:
            return False
        # Counted and not kept: `--header-env` gives one account several principals, and the limit
        # is rarely set.
        return sum(session.owner.quota_key == principal.quota_key for session in self) >= most

    @property
    def sweep_every_s(self) -> float:
        """Seconds between two looks for expired sessions and overdue calls."""
        settings = self._settings
        return max(
            0.05,
            min(
                1.0,
                _or_never(settings.idle_timeout_s) / 4,
                _or_never(settings.unused_timeout_s) / 4,
            ),
        )

    def get(self, session_id: str) -> Session | None:
        """Return the session with this id; None if there is none."""
        return self._by_id.get(session_id)

    def add(self, session: Session) -> None:
        """Add a session under its id."""
        self._by_id[session.id] = session
        self._held.setdefault(session.owner.share_key, {})[session] = None

    def remove(self, session: Session) -> None:
        """Remove a session; requests with its id get 404 from now on."""
        if self._by_id.pop(session.id, None) is not None:
            key = session.owner.share_key
            held = self._held[key]
            del held[session]
            if not held:
                del self._held[key]

    def evictable(self, newcomer: Principal) -> Session | None:
        """Return the session to end for a newcomer; None if none may be.

        It is one without a call in flight, of the client with most sessions: see `shares.ranked`.
        """
        counts = {key: len(sessions) for key, sessions in self._held.items()}
        for key in ranked(counts, newcomer.share_key):
            found = longest_idle(self._held[key])
            if found is not None:
                return found
        return None

    def expired(self, session: Session, now: float) -> bool:
        """Return whether a session was unused for too long; a busy one counts as used at `now`."""
        if session.state is SessionState.CLOSED:
            return False
        if session.busy:
            session.touch(now)
            return False
        settings = self._settings
        allowed_s = settings.idle_timeout_s if session.used else settings.unused_timeout_s
        return now - session.last_used >= _or_never(allowed_s)


def longest_idle(sessions: Iterable[Session]) -> Session | None:
    """Return the session that has been without a call for longest; None if each has one.

    Those without an open stream come first.
    """
    not_listening: Session | None = None
    listening: Session | None = None
    not_listening_at = listening_at = math.inf
    # Each new session runs this if the table is full: most entries should cost one comparison.
    for session in sessions:
        used_at = session.last_used
        if used_at >= not_listening_at or session.in_flight:
            continue
        if not session.listened:
            not_listening, not_listening_at = session, used_at
        elif used_at < listening_at:
            listening, listening_at = session, used_at
    return not_listening or listening


def _or_never(timeout_s: float) -> float:
    return timeout_s or math.inf


def new_session_id() -> str:
    """Return 256 random bits as hexadecimal digits, which every client can send in a header."""
    return secrets.token_hex(32)
