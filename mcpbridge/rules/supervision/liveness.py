"""When a running child is replaced: because it has served long enough, or does not answer any more.

There are two kinds of reasons. A child that is *worn* has reached one of the operator's limits on
requests, age or memory: it still serves, so another one takes over while it finishes what it has.
A child that is *lost* does not answer, or does not read: whoever waits for it waits in vain, so it
is killed, its calls get their one error, and the end counts as a failure.

What is heard of a child proves that it lives, whatever it is. Only one that has said nothing for
the interval is asked (`ping`; `server/discover` in 2026-07-28), and only one that has answered such
a question before is judged by its silence, since a server may not know the question. Nor is one
judged that has calls in flight: many servers do one thing at a time and hear nothing meanwhile, and
the calls have limits of their own, `--request-idle-timeout` foremost; three of them in a row that
run out end the child as well. A process that has been stopped (SIGSTOP) is no busy process: where
the system tells of it, its silence counts, calls or not.

| health | event | next |
|---|---|---|
| SOUND | HEARD | SOUND |
| SOUND | EXCUSED | SOUND |
| SOUND | SILENT | ASKED |
| ASKED | HEARD | SOUND |
| ASKED | EXCUSED | SOUND |
| ASKED | SILENT | MISSED_ONE |
| MISSED_ONE | HEARD | SOUND |
| MISSED_ONE | EXCUSED | SOUND |
| MISSED_ONE | SILENT | MISSED_TWO |
| MISSED_TWO | HEARD | SOUND |
| MISSED_TWO | EXCUSED | SOUND |
| MISSED_TWO | SILENT | WEDGED |
"""

from __future__ import annotations

import dataclasses
import enum

import msgspec

from mcpbridge.rules.supervision.restart import GROUP
from mcpbridge.settings import Unit, setting

JITTER = 0.1
"""By this part of it an age limit varies, so that children that began together do not end so."""
_LONGEST_LOOK_S = 5.0
_SHORTEST_LOOK_S = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class RecyclePolicy:
    """How long a server process serves, and when it counts as dead though it runs."""

    max_requests: int = setting(
        0,
        "--child-max-requests",
        "Replace a server process after so many requests, once those in flight are answered;"
        " 0: never.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    max_age_s: float = setting(
        0.0,
        "--child-max-age",
        "Replace a server process in the same way when it has run for so long, 10% more or less;"
        " 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    max_rss_bytes: int = setting(
        0,
        "--child-max-rss",
        "Replace a server process in the same way when it and what it started hold so much memory;"
        " 0: never. Linux only, without effect elsewhere.",
        group=GROUP,
        unit=Unit.BYTES,
        minimum=0,
    )
    max_timeouts: int = setting(
        3,
        "--child-max-timeouts",
        "Kill and replace a server process after so many calls in a row that ran out of time with"
        " no answer to any other between them; 0: never.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    ping_interval_s: float = setting(
        30.0,
        "--ping-interval",
        "Ask a server process that has said nothing for so long whether it lives; one that misses"
        " three times is killed and replaced. Not while calls are in flight, which have limits of"
        " their own, unless the process is stopped. 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )
    ping_timeout_s: float = setting(
        10.0,
        "--ping-timeout",
        "How long a server process may take to answer that.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0.01,
    )
    stall_timeout_s: float = setting(
        30.0,
        "--child-stall-timeout",
        "Kill and replace a server process that has read nothing for so long while over 1 MiB"
        " waits for it; 0: never.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )

    @property
    def look_every_s(self) -> float:
        """How often to look at all children; half of what is to be seen, at most 5 s."""
        limits = (
            self.max_age_s,
            self.ping_interval_s,
            self.ping_timeout_s,
            self.stall_timeout_s,
        )
        shortest = min(limit for limit in limits if limit)
        return max(_SHORTEST_LOOK_S, min(_LONGEST_LOOK_S, shortest / 2))


class Health(enum.Enum):
    """How long a child has been silent, in questions that it has not answered."""

    SOUND = "sound"
    ASKED = "asked"
    MISSED_ONE = "missed_one"
    MISSED_TWO = "missed_two"
    WEDGED = "wedged"


class Sign(enum.Enum):
    """What moves a child from one health to another."""

    HEARD = "heard"
    """It has said something, whatever it is."""
    SILENT = "silent"
    """It has said nothing for as long as it may."""
    EXCUSED = "excused"
    """The same, and it may be busy, or not know the question."""


HEALTH: dict[tuple[Health, Sign], Health] = {
    (Health.SOUND, Sign.HEARD): Health.SOUND,
    (Health.SOUND, Sign.EXCUSED): Health.SOUND,
    (Health.SOUND, Sign.SILENT): Health.ASKED,
    (Health.ASKED, Sign.HEARD): Health.SOUND,
    (Health.ASKED, Sign.EXCUSED): Health.SOUND,
    (Health.ASKED, Sign.SILENT): Health.MISSED_ONE,
    (Health.MISSED_ONE, Sign.HEARD): Health.SOUND,
    (Health.MISSED_ONE, Sign.EXCUSED): Health.SOUND,
    (Health.MISSED_ONE, Sign.SILENT): Health.MISSED_TWO,
    (Health.MISSED_TWO, Sign.HEARD): Health.SOUND,
    (Health.MISSED_TWO, Sign.EXCUSED): Health.SOUND,
    (Health.MISSED_TWO, Sign.SILENT): Health.WEDGED,
}


class Finding(enum.Enum):
    """What a look at a child says is to be done."""

    NOTHING = "nothing"
    ASK = "ask"
    """Ask whether it lives."""
    REQUESTS = "requests"
    """Worn, by the limit of this name."""
    AGE = "age"
    MEMORY = "memory"
    NO_PING = "no_ping"
    """Lost: it does not answer whether it lives."""
    TIMEOUTS = "timeouts"
    """Lost: no call is answered in time."""
    UNREAD = "unread"
    """Lost: it does not read what is sent."""

    @property
    def recycle_due(self) -> bool:
        """Another child is to take over."""
        return self in (Finding.REQUESTS, Finding.AGE, Finding.MEMORY)

    @property
    def lost(self) -> bool:
        """The child is to be killed."""
        return self in (Finding.NO_PING, Finding.TIMEOUTS, Finding.UNREAD)


class Sample(msgspec.Struct, frozen=True):
    """What is seen of a child at one moment."""

    heard: int = 0
    """So often something has come from it."""
    taken: int = 0
    """So many bytes it has read."""
    congested: bool = False
    """More waits for it than may."""
    requests: int = 0
    """Calls it was ever given."""
    calls: int = 0
    """Those it has not answered."""
    timeouts: int = 0
    """Calls in a row that ran out of time."""
    introduced: bool = True
    """It has had its handshake; before it, the start has a limit of its own."""
    answers_pings: bool = False
    """It has answered one."""
    stopped: bool = False
    """The system says that it was stopped by a signal."""
    rss_bytes: int = 0


class ChildHealth(msgspec.Struct, frozen=True):
    """What is remembered of a child between two looks."""

    born_at: float
    jitter: float
    """A random number from -1 to 1 for its age limit."""
    health: Health = Health.SOUND
    since: float = 0.0
    """When it came to this health, or was heard last."""
    heard: int = 0
    taken: int = 0
    taken_at: float = 0.0
    """When it last read something, or nothing waited for it."""


def begin(now: float, jitter: float) -> ChildHealth:
    """What is remembered of a child that starts now."""
    return ChildHealth(now, jitter, since=now, taken_at=now)


def is_quiet(policy: RecyclePolicy, child_health: ChildHealth, heard: int, now: float) -> bool:
    """Nothing was heard for so long that the next look may be a sign; it is worth a closer one."""
    return heard == child_health.heard and now - child_health.since >= _patience_s(
        policy, child_health.health
    )


def look(
    policy: RecyclePolicy, child_health: ChildHealth, sample: Sample, now: float
) -> tuple[ChildHealth, Finding]:
    """Judge a child by what is seen of it and by what was seen before.

    Returns:
        What to remember, and what to do. One step of health at most: after a pause of the whole
        machine every child has its three chances.
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
        child_health.born_at,
        child_health.jitter,
        health,
        since,
        sample.heard,
        sample.taken,
        now if takes else child_health.taken_at,
    )
    asks = not heard and since != child_health.since and health is not Health.SOUND
    return found, _finding(policy, found, sample, now, asks=asks)


def _patience_s(policy: RecyclePolicy, health: Health) -> float:
    return policy.ping_interval_s if health is Health.SOUND else policy.ping_timeout_s


def _sign(health: Health, sample: Sample) -> Sign:
    if sample.stopped:
        return Sign.SILENT
    unknown = health is not Health.SOUND and not sample.answers_pings
    return Sign.EXCUSED if sample.calls or unknown else Sign.SILENT


def _step(health: Health, sign: Sign) -> Health:
    # A wedged child is killed, whatever is still seen of it.
    return health if health is Health.WEDGED else HEALTH[health, sign]


def _finding(
    policy: RecyclePolicy, child_health: ChildHealth, sample: Sample, now: float, *, asks: bool
) -> Finding:
    if child_health.health is Health.WEDGED:
        return Finding.NO_PING
    if policy.stall_timeout_s and now - child_health.taken_at >= policy.stall_timeout_s:
        return Finding.UNREAD
    if policy.max_timeouts and sample.timeouts >= policy.max_timeouts:
        return Finding.TIMEOUTS
    # First, since a silence counts only where the question was sent; a worn child stays worn.
    return Finding.ASK if asks else _worn(policy, child_health, sample, now)


def _worn(policy: RecyclePolicy, child_health: ChildHealth, sample: Sample, now: float) -> Finding:
    if policy.max_requests and sample.requests >= policy.max_requests:
        return Finding.REQUESTS
    if policy.max_age_s and now - child_health.born_at >= policy.max_age_s * (
        1 + JITTER * child_health.jitter
    ):
        return Finding.AGE
    if policy.max_rss_bytes and sample.rss_bytes >= policy.max_rss_bytes:
        return Finding.MEMORY
    return Finding.NOTHING
