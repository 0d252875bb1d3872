"""Decides when a running child is replaced: its recycling is due, or it no longer answers.

There are two kinds of reasons. *Recycling is due* if a child has reached one of the operator's
limits on requests, age or memory: it still serves, so another one takes over while it finishes its
calls. A child is *lost* if it does not answer or does not read: its callers would wait without end,
so it is killed, its calls get their one error, and the end counts as a failure.

Any output of a child proves that it lives. Only a child that has been silent for the interval is
asked (`ping`; `server/discover` in 2026-07-28), and only one that has answered such a request
before is judged by its silence, since a server may not know the method. A child with calls in
flight is not judged either: many servers do one thing at a time and read nothing until it is done,
and calls have their own limits, `--request-idle-timeout` foremost; three of them in a row that time
out while the child says nothing at all end it as well. A process that was stopped (SIGSTOP) is not
busy: if the system reports it, its silence counts, with or without calls.

| health | event | next |
|---|---|---|
| HEALTHY | HEARD | HEALTHY |
| HEALTHY | EXCUSED | HEALTHY |
| HEALTHY | SILENT | ASKED |
| ASKED | HEARD | HEALTHY |
| ASKED | EXCUSED | HEALTHY |
| ASKED | SILENT | MISSED_ONE |
| MISSED_ONE | HEARD | HEALTHY |
| MISSED_ONE | EXCUSED | HEALTHY |
| MISSED_ONE | SILENT | MISSED_TWO |
| MISSED_TWO | HEARD | HEALTHY |
| MISSED_TWO | EXCUSED | HEALTHY |
| MISSED_TWO | SILENT | UNRESPONSIVE |
"""

from __future__ import annotations

import enum

import msgspec

from mcpbridge.rules.supervision.restart import GROUP
from mcpbridge.settings import SettingsSection, Unit, setting

JITTER = 0.1
"""Fraction by which age limits vary, so that children that start together do not end together."""
_LONGEST_LOOK_S = 5.0
_SHORTEST_LOOK_S = 0.05


class RecyclePolicy(SettingsSection, frozen=True):
    """How long a server process serves, and when it counts as dead while it still runs."""

    max_requests: int = setting(
        0,
        "--child-max-requests",
        "Replace a server process after this number of requests, once those in flight are answered;"
        " 0: never.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    max_age_s: float = setting(
        0.0,
        "--child-max-age",
        "Replace a server process in the same way when it has run for this time, plus or minus 10%;"
        " 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    max_rss_bytes: int = setting(
        0,
        "--child-max-rss",
        "Replace a server process in the same way when its process group uses this much memory;"
        " 0: never. Linux only, without effect elsewhere.",
        group=GROUP,
        unit=Unit.BYTES,
        minimum=0,
    )
    max_timeouts: int = setting(
        3,
        "--child-max-timeouts",
        "Kill and replace a server process after this number of calls in a row that timed out while"
        " it said nothing at all; 0: never.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    ping_interval_s: float = setting(
        30.0,
        "--ping-interval",
        "Ping a server process that has been silent for this time; one that misses three pings is"
        " killed and replaced. Not while calls are in flight, which have their own limits, unless"
        " the process is stopped. 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    ping_timeout_s: float = setting(
        10.0,
        "--ping-timeout",
        "Time that a server process has to answer a ping.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0.01,
    )
    stall_timeout_s: float = setting(
        30.0,
        "--child-stall-timeout",
        "Kill and replace a server process that has read nothing for this time while over 1 MiB"
        " waits for it; 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )

    @property
    def look_every_s(self) -> float:
        """Seconds between two looks at all children: half of the shortest limit, at most 5."""
        limits = (
            self.max_age_s,
            self.ping_interval_s,
            self.ping_timeout_s,
            self.stall_timeout_s,
        )
        shortest = min(limit for limit in limits if limit)
        return max(_SHORTEST_LOOK_S, min(_LONGEST_LOOK_S, shortest / 2))


class Health(enum.Enum):
    """The number of unanswered pings of a child, as a state."""

    HEALTHY = "healthy"
    ASKED = "asked"
    MISSED_ONE = "missed_one"
    MISSED_TWO = "missed_two"
    UNRESPONSIVE = "unresponsive"


class Sign(enum.Enum):
    """The event that changes a child's health."""

    HEARD = "heard"
    """The child has written something, whatever it is."""
    SILENT = "silent"
    """The child has been silent for the time allowed."""
    EXCUSED = "excused"
    """The child has been silent, but may be busy or not know the method."""


HEALTH: dict[tuple[Health, Sign], Health] = {
    (Health.HEALTHY, Sign.HEARD): Health.HEALTHY,
    (Health.HEALTHY, Sign.EXCUSED): Health.HEALTHY,
    (Health.HEALTHY, Sign.SILENT): Health.ASKED,
    (Health.ASKED, Sign.HEARD): Health.HEALTHY,
    (Health.ASKED, Sign.EXCUSED): Health.HEALTHY,
    (Health.ASKED, Sign.SILENT): Health.MISSED_ONE,
    (Health.MISSED_ONE, Sign.HEARD): Health.HEALTHY,
    (Health.MISSED_ONE, Sign.EXCUSED): Health.HEALTHY,
    (Health.MISSED_ONE, Sign.SILENT): Health.MISSED_TWO,
    (Health.MISSED_TWO, Sign.HEARD): Health.HEALTHY,
    (Health.MISSED_TWO, Sign.EXCUSED): Health.HEALTHY,
    (Health.MISSED_TWO, Sign.SILENT): Health.UNRESPONSIVE,
}


class Finding(enum.Enum):
    """The action that a look at a child asks for."""

    NOTHING = "nothing"
    ASK = "ask"
    """Ping it."""
    REQUESTS = "requests"
    """Recycling is due, by the limit of this name."""
    AGE = "age"
    MEMORY = "memory"
    NO_PING = "no_ping"
    """Lost: it does not answer pings."""
    TIMEOUTS = "timeouts"
    """Lost: no call is answered in time."""
    UNREAD = "unread"
    """Lost: it does not read its input."""

    @property
    def recycle_due(self) -> bool:
        """Whether another child takes over."""
        return self in (Finding.REQUESTS, Finding.AGE, Finding.MEMORY)

    @property
    def lost(self) -> bool:
        """Whether the child is killed."""
        return self in (Finding.NO_PING, Finding.TIMEOUTS, Finding.UNREAD)


class Sample(msgspec.Struct, frozen=True):
    """The observations of a child at one moment."""

    heard: int = 0
    """Number of times that output came from it."""
    taken: int = 0
    """Number of bytes that it has read."""
    congested: bool = False
    """Whether more input waits for it than may."""
    requests: int = 0
    """Number of calls it was ever given."""
    calls: int = 0
    """Number of calls it has not answered."""
    timeouts: int = 0
    """Number of calls in a row that timed out while it said nothing."""
    introduced: bool = True
    """Whether its handshake is done; before, the start has a separate limit."""
    answers_pings: bool = False
    """Whether it has answered a ping."""
    stopped: bool = False
    """Whether the system reports that a signal stopped it."""
    rss_bytes: int = 0


class ChildHealth(msgspec.Struct, frozen=True):
    """The record of a child between two looks."""

    started_at: float
    jitter: float
    """A random number from -1 to 1 for its age limit."""
    health: Health = Health.HEALTHY
    since: float = 0.0
    """When it entered this health, or last wrote something."""
    heard: int = 0
    taken: int = 0
    taken_at: float = 0.0
    """When it last read something, or last had no input waiting."""


def begin(now: float, jitter: float) -> ChildHealth:
    """Return the record of a child that starts now."""
    return ChildHealth(now, jitter, since=now, taken_at=now)


def is_quiet(policy: RecyclePolicy, child_health: ChildHealth, heard: int, now: float) -> bool:
    """Return whether a child has been silent for its time, so that a closer look is worth it."""
    return heard == child_health.heard and now - child_health.since >= _patience_s(
        policy, child_health.health
    )


def look(
    policy: RecyclePolicy, child_health: ChildHealth, sample: Sample, now: float
) -> tuple[ChildHealth, Finding]:
    """Decide on a child by a sample of it and its record.

    Returns:
        The new record, and what to do. Health changes by one step at most: after a pause of the
        whole machine every child has its three chances.
    """
    heard = (
        sample.heard != child_health.heard or not sample.introduced or not policy.ping_interval_s
    )
    health, since = child_health.health, child_health.since
    if heard:
        health, since = _step(health, Sign.HEARD), now
    elif is_quiet(policy, child_health, sample.heard, now):
        health, since = _step(health, _sign(health, sample)), now
    takes = sample.taken != child_health.taken or not sample.congested
    found = ChildHealth(
        child_health.started_at,
        child_health.jitter,
        health,
        since,
        sample.heard,
        sample.taken,
        now if takes else child_health.taken_at,
    )
    asks = not heard and since != child_health.since and health is not Health.HEALTHY
    return found, _finding(policy, found, sample, now, asks=asks)


def _patience_s(policy: RecyclePolicy, health: Health) -> float:
    return policy.ping_interval_s if health is Health.HEALTHY else policy.ping_timeout_s


def _sign(health: Health, sample: Sample) -> Sign:
    if sample.stopped:
        return Sign.SILENT
    unknown = health is not Health.HEALTHY and not sample.answers_pings
    return Sign.EXCUSED if sample.calls or unknown else Sign.SILENT


def _step(health: Health, sign: Sign) -> Health:
    # A wedged child is killed, even if it writes again.
    return health if health is Health.UNRESPONSIVE else HEALTH[health, sign]


def _finding(
    policy: RecyclePolicy, child_health: ChildHealth, sample: Sample, now: float, *, asks: bool
) -> Finding:
    if child_health.health is Health.UNRESPONSIVE:
        return Finding.NO_PING
    if policy.stall_timeout_s and now - child_health.taken_at >= policy.stall_timeout_s:
        return Finding.UNREAD
    if policy.max_timeouts and sample.timeouts >= policy.max_timeouts:
        return Finding.TIMEOUTS
    # ASK first, since silence counts only if the ping was sent; a due recycling stays due.
    return Finding.ASK if asks else _recycle_finding(policy, child_health, sample, now)


def _recycle_finding(
    policy: RecyclePolicy, child_health: ChildHealth, sample: Sample, now: float
) -> Finding:
    if policy.max_requests and sample.requests >= policy.max_requests:
        return Finding.REQUESTS
    if policy.max_age_s and now - child_health.started_at >= policy.max_age_s * (
        1 + JITTER * child_health.jitter
    ):
        return Finding.AGE
    if policy.max_rss_bytes and sample.rss_bytes >= policy.max_rss_bytes:
        return Finding.MEMORY
    return Finding.NOTHING
