"""Judges what happened to calls while children were killed under them: exactly once, or an error.

The history has four parts: each call with all answers that came to it, each thing done to a child,
the nonces that children wrote down before they answered, and what came where no answer belongs.
Every call carries its own nonce and an id that many others carry at the same moment, so an
answer that went astray shows. From it follows, for each call:

| finding | the history shows |
|---|---|
| `lost` | the connection ended, or the response did, without an answer |
| `hung` | no answer within the client's deadline |
| `double` | two answers to one call, or one call executed twice, or an answer on another stream |
| `crossed` | an answer with another id or nonce, or a child that answered two owners |
| `invented` | a result of a call that no child has executed |
| `denied` | an error says that the call was not executed, and it was |
| `unexplained` | an error that belongs to no call in flight at a death and to no failed start |

An owner is what a child belongs to: one session, or all that share it. Which child served which
owner is learnt from the answers. A child that died before it answered anything served an unknown
owner; its death is taken for any, and it is a start that failed: while the bridge waits to start
the next one (`START_AGAIN_S`), calls are told so at once, never executed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

REASON = "child_exited"
"""The only one that the death of a child explains."""
SETTLE_S = 1.0
"""How long after its death a child may still be given calls: the bridge drains its stdout first."""
START_AGAIN_S = 31.0
"""The longest back-off, and one second."""

Kind = Literal["lost", "hung", "double", "crossed", "invented", "denied", "unexplained"]
How = Literal["kill", "close", "stop"]
"""Killed, its stdout closed, stopped or continued."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One JSON-RPC response that came to a call: a result, or an error with its reason."""

    request_id: str
    """As JSON, so that 1 and "1" differ."""
    nonce: str | None = None
    """Of a result."""
    pid: int = 0
    """Of the child that gave the result."""
    reason: str | None = None
    """Of an error; the text of one that gives no reason."""
    executed: str = ""
    """What an error says of it: no, maybe, yes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request and all that came to it; times in seconds on one clock."""

    owner: str
    request_id: str
    nonce: str
    sent_at: float
    ended_at: float
    answers: tuple[Answer, ...]
    hung: bool = False


@dataclass(frozen=True, slots=True)
class Injection:
    """Something done to a child."""

    at: float
    pid: int
    how: How

    @property
    def fatal(self) -> bool:
        """A child that is stopped and continued lives."""
        return self.how != "stop"


NO_INJECTION = Injection(float("-inf"), 0, "kill")
"""Before all others."""


class Finding(NamedTuple):
    """One thing that must not happen."""

    kind: Kind
    text: str


class Judgement:
    """The findings of one history."""

    def __init__(
        self, calls: Sequence[Call], injections: Iterable[Injection], executed: Mapping[str, int]
    ) -> None:
        """Judge a history.

        Args:
            calls: All that were made.
            injections: All that was done to children.
            executed: How many times children wrote down each nonce.
        """
        self._executed = executed
        self._owners: dict[int, set[str]] = defaultdict(set)
        for call in calls:
            for answer in call.answers:
                if answer.nonce is not None:
                    self._owners[answer.pid].add(call.owner)
        self._deaths: dict[str | None, list[Injection]] = defaultdict(list)
        """By owner, in order; under None those of children that answered no call."""
        for injection in sorted(injections, key=lambda injection: injection.at):
            if injection.fatal:
                owners: Iterable[str | None] = self._owners.get(injection.pid) or (None,)
                for owner in owners:
                    self._deaths[owner].append(injection)
        self.findings: list[Finding] = list(self._crossed_owners())
        self.error_delays_s: dict[How, list[float]] = defaultdict(list)
        """From the death of a child to each error that it explains, in seconds, by its kind."""
        for call in calls:
            self.findings += self._of(call)

    @property
    def counts(self) -> Counter[str]:
        """How many findings of each kind."""
        return Counter(finding.kind for finding in self.findings)

    def _crossed_owners(self) -> Iterable[Finding]:
        for pid, owners in self._owners.items():
            if len(owners) > 1:
                yield Finding("crossed", f"child {pid} answered {sorted(owners)}")

    def _of(self, call: Call) -> Iterable[Finding]:
        if call.hung:
            yield Finding("hung", str(call))
        elif not call.answers:
            yield Finding("lost", str(call))
        if len(call.answers) > 1 or self._executed.get(call.nonce, 0) > 1:
            yield Finding("double", str(call))
        for answer in call.answers:
            if answer.request_id != call.request_id:
                yield Finding("crossed", str(call))
            elif answer.reason is not None:
                yield from self._of_error(call, answer)
            elif answer.nonce != call.nonce:
                yield Finding("crossed", str(call))
            elif not self._executed.get(call.nonce):
                yield Finding("invented", str(call))

    def _of_error(self, call: Call, answer: Answer) -> Iterable[Finding]:
        if answer.executed == "no" and self._executed.get(call.nonce):
            yield Finding("denied", str(call))
        failed_start = self._last_death(None, call.ended_at)
        death = max(self._last_death(call.owner, call.ended_at), failed_start, key=lambda d: d.at)
        if answer.reason != REASON:
            yield Finding("unexplained", str(call))
        elif death.at >= call.sent_at - SETTLE_S:
            delay = call.ended_at - max(death.at, call.sent_at)
            self.error_delays_s[death.how].append(delay)
        elif answer.executed != "no" or failed_start.at < call.sent_at - START_AGAIN_S:
            yield Finding("unexplained", str(call))

    def _last_death(self, owner: str | None, until: float) -> Injection:
        deaths = self._deaths.get(owner, [])
        place = bisect_right(deaths, until, key=lambda injection: injection.at)
        return deaths[place - 1] if place else NO_INJECTION
