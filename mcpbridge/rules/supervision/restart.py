"""When a child that ended is started again, and when the bridge gives up.

A server that fails now and then is started again at once or nearly; one that fails each time is
tried ever more rarely, with jitter so that the replicas of a deployment do not all try at the
same moment. A child that stayed up for a while has proved that it can, and the count begins anew.
After `give_up_after` ends within a minute the bridge itself ends with the child's exit status, so
that the container runtime shows a crash loop where people look for it.
"""

from __future__ import annotations

import dataclasses
import enum

import msgspec

from mcpbridge.settings import Unit, setting

GROUP = "Supervision"


class OnChildExit(enum.Enum):
    """What becomes of everything when a server process ends by itself."""

    RESTART = "restart"
    """Sessions stay and get another process."""
    END = "end"
    """The sessions it served end; their clients begin anew."""
    EXIT = "exit"
    """The bridge ends with the exit status of the shared process; other sessions as in `end`."""


@dataclasses.dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What follows the end of a child, and the figures of the back-off."""

    on_exit: OnChildExit = setting(
        OnChildExit.RESTART,
        "--on-child-exit",
        "When a server process ends by itself: `restart` it and keep its sessions; `end` its"
        " sessions; `exit` with its status, so that a container runtime sees it.",
        group=GROUP,
        choices=tuple(choice.value for choice in OnChildExit),
        parse=OnChildExit,
    )
    give_up_after: int = setting(
        5,
        "--give-up-after",
        "End with the server's exit status after this many ends within a minute; 0: never.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    stable_after_s: float = 30.0
    """A child that was up this long resets the back-off."""
    window_s: float = 60.0
    """The ends that count towards giving up lie within this time."""


class Record(msgspec.Struct, frozen=True):
    """What is remembered of earlier ends."""

    failures: int = 0
    """Ends in a row without a stable run between them."""
    ends: tuple[float, ...] = ()
    """When the last ones happened, on the caller's clock."""


class RestartDecision(msgspec.Struct, frozen=True):
    """What to do after an end."""

    record: Record
    give_up: bool
    max_delay_s: float
    """Wait a random time from 0 up to this (full jitter) before the next start."""


def after_exit(policy: RestartPolicy, record: Record, up_s: float, now: float) -> RestartDecision:
    """Judge the end of a child that was up for `up_s` seconds."""
    stable = up_s >= policy.stable_after_s
    failures = 1 if stable else record.failures + 1
    ends = (*tuple(end for end in record.ends if now - end < policy.window_s), now)
    exits = policy.on_exit is OnChildExit.EXIT
    give_up = exits or (policy.give_up_after > 0 and len(ends) >= policy.give_up_after)
    # The exponent is bounded before the power is taken: a child may fail for days.
    delay = min(policy.max_delay_s, policy.first_delay_s * 2.0 ** min(failures - 1, 16))
    return RestartDecision(Record(failures, ends), give_up, delay)
