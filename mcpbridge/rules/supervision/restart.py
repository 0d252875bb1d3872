"""Decides when a child that ended is restarted, and when the bridge gives up.

A server that fails now and then is restarted almost at once; one that fails each time is tried
ever more rarely, with jitter so that the replicas of a deployment do not all try at the same
moment. A child that stayed up for a while resets the count. After `give_up_after` ends within a
minute, or as many failed starts in a row, the bridge itself ends with the child's exit status, so
that the container runtime shows a crash loop, which is the place operators look at. A failed start
may take longer than a minute, so the minute does not apply to it. If the very first start ends by
itself, the server cannot be started at all: the bridge ends at once.
"""

from __future__ import annotations

import enum

import msgspec

from mcpbridge.settings import SettingsSection, Unit, setting

GROUP = "Supervision"


class OnChildExit(enum.Enum):
    """The consequence for sessions when a server process ends by itself."""

    RESTART = "restart"
    """Sessions stay and get another process."""
    END = "end"
    """The sessions it served end; their clients begin again."""
    EXIT = "exit"
    """The bridge ends with the exit status of the shared process; other sessions as in `end`."""


class RestartPolicy(SettingsSection, frozen=True):
    """The consequence of a child's end, and the figures of the back-off."""

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
        "End with the server's exit status after this many ends within a minute, or as many failed"
        " starts in a row; 0: never.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    stable_after_s: float = 30.0
    """A child that was up this long resets the back-off."""
    window_s: float = 60.0
    """Seconds within which ends count towards giving up."""
    start_notice_s: float = 5.0
    """Seconds between two log records of a start that is not finished."""
    waits_for_change: bool = False
    """Whether, after a failed start, the next one waits for a client or a reload to ask for it."""


class RestartRecord(msgspec.Struct, frozen=True):
    """The record of earlier ends."""

    failures: int = 0
    """Ends in a row without a stable run between them."""
    ends: tuple[float, ...] = ()
    """Times of the last ends, on the caller's clock."""
    failed_starts: int = 0
    """Starts in a row without a child that became ready."""


class RestartDecision(msgspec.Struct, frozen=True):
    """The action after an end."""

    record: RestartRecord
    give_up: bool
    max_delay_s: float
    """Seconds; wait a random time up to this (full jitter) before the next start."""
    waits: bool = False
    """Whether to wait, instead, until a client or a reload asks for the next start."""


def after_exit(
    policy: RestartPolicy,
    record: RestartRecord,
    up_s: float,
    now: float,
    *,
    was_ready: bool = True,
    final: bool = False,
    charged: bool = False,
) -> RestartDecision:
    """Decide on the end of a child.

    Args:
        policy: The operator's settings.
        record: The record of earlier ends.
        up_s: Seconds that the child was ready.
        now: Time of the end, on the clock of `record`.
        was_ready: The child had become ready before it ended.
        final: Another start of the same server would end in the same way.
        charged: A client is charged with the end; it is started again at once for the others.
    """
    if charged and policy.on_exit is not OnChildExit.EXIT:
        return RestartDecision(record, give_up=False, max_delay_s=policy.first_delay_s)
    stable = up_s >= policy.stable_after_s
    failures = 1 if stable else record.failures + 1
    ends = (*tuple(end for end in record.ends if now - end < policy.window_s), now)
    exits = policy.on_exit is OnChildExit.EXIT
    failed_starts = 0 if was_ready else record.failed_starts + 1
    enough = final or max(len(ends), failed_starts) >= policy.give_up_after
    give_up = exits or (policy.give_up_after > 0 and enough)
    # The exponent is bounded before the power is taken, since a child may fail for days.
    delay = min(policy.max_delay_s, policy.first_delay_s * 2.0 ** min(failures - 1, 16))
    # A number of starts that the operator gave is reached without anyone who asks.
    waits = policy.waits_for_change and not was_ready and not policy.give_up_after
    return RestartDecision(RestartRecord(failures, ends, failed_starts), give_up, delay, waits)
