"""What must come of every call, whatever happens: the reference that the bridge is compared with.

For each call the model keeps what may be its answer by now (`allowed`), and whether it must have
one (`over`). It knows nothing of how the bridge does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.model.world import CALLS, SESSIONS, FakeChild, Http

SLACK_S = 1.5
"""The bridge looks for what is overdue every second, and time passes in steps."""
CANCEL_S = 1.0
DUPLICATE, RESULT = "duplicate", "result"


@dataclass
class Call:
    """One request that was sent in a session."""

    session: ModelSession
    request_id: int | str
    nonce: str
    started_at: float
    heard_at: float
    https: list[Http] = field(default_factory=list)
    """The connections on which it is or was answered, the request's own first."""
    allowed: set[str] = field(default_factory=set)
    cancelled_at: float | None = None
    over: bool = False

    @property
    def answers(self) -> list[Any]:
        """Every response that its client has seen, on whichever connection."""
        return [m for http in self.https for m in http.messages if "id" in m and "method" not in m]

    @property
    def connected(self) -> bool:
        """Its client is on the line to hear the answer, or has heard it."""
        return self.https[-1].connected or bool(self.answers)


@dataclass
class ModelSession:
    """One session."""

    id: str
    own: bool
    last_used: float
    used: bool = False
    closed: bool = False
    calls: list[Call] = field(default_factory=list)
    listeners: list[Http] = field(default_factory=list)

    @property
    def open_calls(self) -> list[Call]:
        """Those that wait for their answer."""
        return [call for call in self.calls if not call.over]

    @property
    def listened(self) -> bool:
        """Its client has its standalone stream open."""
        return any(http.connected for http in self.listeners)

    @property
    def busy(self) -> bool:
        """Something keeps it from expiring."""
        return bool(self.open_calls) or self.listened

    def close(self, reason: str) -> None:
        """All its calls are answered with this."""
        self.closed = True
        for call in self.open_calls:
            call.allowed.add(reason)
            call.over = True


class Model:
    """All sessions, those that are gone too."""

    def __init__(self) -> None:
        self.sessions: list[ModelSession] = []

    @property
    def open_sessions(self) -> list[ModelSession]:
        """Sessions that have not been closed."""
        return [session for session in self.sessions if not session.closed]

    @property
    def calls(self) -> Iterator[Call]:
        """Every call ever made."""
        for session in self.sessions:
            yield from session.calls

    @property
    def open_calls(self) -> list[Call]:
        """Those that wait for their answer."""
        return [call for call in self.calls if not call.over]

    def died(self, child: FakeChild) -> None:
        """A child ended: what it had been given is answered with that."""
        for call in self.open_calls:
            if call.nonce in child.calls:
                call.allowed.add("child_exited")
                call.over = True

    def passed(self, now: float) -> None:
        """Time went by: what is overdue may be answered, and after a while must be."""
        for call in self.open_calls:
            age_s, quiet_s = now - call.started_at, now - call.heard_at
            if call.cancelled_at is not None and now >= call.cancelled_at + CANCEL_S:
                call.allowed.add("cancelled")
                call.over = True
            if age_s >= CALLS.timeout_s or quiet_s >= CALLS.idle_timeout_s:
                call.allowed.add("timeout")
                late_s = max(age_s - CALLS.timeout_s, quiet_s - CALLS.idle_timeout_s)
                call.over = call.over or late_s >= SLACK_S

    def may_expire(self, session: ModelSession, now: float) -> bool:
        """Whether a session has been left alone for long enough to be ended."""
        return not session.busy and now - session.last_used >= self._allowed_s(session) - SLACK_S

    def must_expire(self, session: ModelSession, now: float) -> bool:
        """Whether it has been left alone until it must have been ended."""
        return not session.busy and now - session.last_used >= self._allowed_s(session) + SLACK_S

    def may_make_room(self) -> list[ModelSession]:
        """Return the sessions of which a full table ends one for a newcomer; empty: none.

        Those without a call in flight, of these without an open stream if there are any, and of
        these the longest idle. The bridge looks at busy sessions every second, so that it may take
        another that is idle hardly less long.
        """
        idle = [session for session in self.open_sessions if not session.open_calls]
        idle = [session for session in idle if not session.listened] or idle
        longest = min((session.last_used for session in idle), default=0.0)
        return [session for session in idle if session.last_used <= longest + SLACK_S]

    def _allowed_s(self, session: ModelSession) -> float:
        return SESSIONS.idle_timeout_s if session.used else SESSIONS.unused_timeout_s


def verdict_of(answer: Any) -> str:
    """What an answer says, in the words of `Call.allowed`."""
    if "result" in answer:
        return RESULT
    error = answer["error"]
    own = (error.get("data") or {}).get("mcpbridge", {})
    return str(own.get("reason", DUPLICATE if error["code"] == -32600 else error))
