"""When the recycling of a child is due, and when it counts as dead though it runs."""

from __future__ import annotations

from typing import Any

import pytest

from mcpbridge.rules.supervision import liveness
from mcpbridge.rules.supervision.liveness import (
    HEALTH,
    ChildHealth,
    Finding,
    Health,
    RecyclePolicy,
    Sample,
    Sign,
    begin,
    is_quiet,
    look,
)
from tests.support.proofs import proves

POLICY = RecyclePolicy()
NEVER = RecyclePolicy(max_timeouts=0, ping_interval_s=0, stall_timeout_s=0)
KNOWN = Sample(answers_pings=True)


class Life:
    """A child that is looked at again and again."""

    def __init__(self, policy: RecyclePolicy = POLICY, jitter: float = 0.0) -> None:
        self.policy = policy
        self.child_health = begin(0.0, jitter)

    def at(self, now: float, sample: Sample = KNOWN, **seen: Any) -> Finding:
        """Look at this moment."""
        facts = {name: getattr(sample, name) for name in sample.__struct_fields__}
        self.child_health, finding = look(
            self.policy, self.child_health, Sample(**{**facts, **seen}), now
        )
        return finding


def test_the_table_is_the_one_in_the_text() -> None:
    """Every pair that can come, and no other; a wedged child comes to nothing else."""
    text = liveness.__doc__ or ""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    wanted = {(one.name, sign.name, then.name) for (one, sign), then in HEALTH.items()}
    assert {tuple(row) for row in rows[1:]} == wanted
    every = {(one, sign) for one in Health for sign in Sign if one is not Health.UNRESPONSIVE}
    assert set(HEALTH) == every


@proves("fault 10")
def test_a_silent_child_is_asked_three_times_and_then_given_up() -> None:
    """After the interval, then at each time-out: no sooner, no later."""
    life = Life()
    found = [life.at(float(now)) for now in range(0, 61, 5)]
    asked = {30: Finding.ASK, 40: Finding.ASK, 50: Finding.ASK, 60: Finding.NO_PING}
    assert found == [asked.get(now, Finding.NOTHING) for now in range(0, 61, 5)]
    assert life.at(61.0, heard=7) is Finding.NO_PING


@pytest.mark.parametrize("missed", [0, 1, 2])
def test_whatever_is_heard_is_a_sign_of_life(missed: int) -> None:
    """Also after two questions; then the interval begins again."""
    life = Life()
    for question in range(missed + 1):
        assert life.at(30.0 + 10 * question) is Finding.ASK
    heard_at = 35.0 + 10 * missed
    assert life.at(heard_at, heard=1) is Finding.NOTHING
    assert life.child_health.health is Health.HEALTHY
    assert life.at(heard_at + 29.9, heard=1) is Finding.NOTHING
    assert life.at(heard_at + 30.0, heard=1) is Finding.ASK


def test_a_child_that_never_answered_a_question_is_not_judged_by_it() -> None:
    """It may not know `ping`; it is asked again after another interval."""
    life = Life()
    found = [life.at(float(now), answers_pings=False) for now in range(0, 121, 10)]
    asked = {30: Finding.ASK, 70: Finding.ASK, 110: Finding.ASK}
    assert found == [asked.get(now, Finding.NOTHING) for now in range(0, 121, 10)]


def test_a_child_with_calls_in_flight_may_be_silent() -> None:
    """It may do one thing at a time: the calls have their own limits."""
    life = Life()
    assert {life.at(float(now), calls=1) for now in range(0, 601, 10)} == {Finding.NOTHING}
    assert life.at(629.0) is Finding.NOTHING
    assert life.at(630.0) is Finding.ASK
    assert life.at(640.0, calls=1) is Finding.NOTHING
    assert life.child_health.health is Health.HEALTHY


@proves("fault 10")
def test_a_stopped_child_is_given_up_with_calls_in_flight_too() -> None:
    """And though it never answered a question: a stopped process is not busy."""
    life = Life()
    found = [
        life.at(float(now), calls=1, stopped=True, answers_pings=False) for now in range(0, 61, 10)
    ]
    assert found[-1] is Finding.NO_PING
    assert Finding.NO_PING not in found[:-1]


def test_a_child_without_handshake_is_not_asked() -> None:
    """Its start has its own limit; a spare has had none."""
    life = Life()
    assert {life.at(float(now), introduced=False) for now in range(0, 601, 10)} == {Finding.NOTHING}


@proves("fault 108")
def test_after_a_pause_of_the_machine_each_child_has_its_three_chances() -> None:
    """One look is one step at most, however much time has passed."""
    life = Life()
    assert life.at(86_400.0) is Finding.ASK
    assert life.at(86_401.0) is Finding.NOTHING
    assert life.at(86_402.0, heard=1) is Finding.NOTHING


@proves("fault 9")
def test_timeouts_in_a_row_end_a_child() -> None:
    """At the limit and not before."""
    life = Life()
    assert [life.at(1.0, timeouts=n) for n in range(5)] == [
        *[Finding.NOTHING] * 3,
        *[Finding.TIMEOUTS] * 2,
    ]


@proves("fault 37")
def test_a_child_that_does_not_read_is_given_up() -> None:
    """Where too much waits and not a byte is taken for the time."""
    life = Life()
    full: Any = {"congested": True, "calls": 1}
    assert life.at(10.0, taken=5) is Finding.NOTHING
    assert life.at(39.9, taken=5, **full) is Finding.NOTHING
    assert life.at(39.95, taken=6, **full) is Finding.NOTHING
    assert life.at(69.9, taken=6, **full) is Finding.NOTHING
    assert life.at(69.95, taken=6, **full) is Finding.UNREAD


def test_little_that_waits_is_no_stall() -> None:
    """A child that is busy for minutes reads nothing in that time."""
    life = Life()
    assert {life.at(float(now), calls=1) for now in range(0, 601, 10)} == {Finding.NOTHING}


@proves("fault 47")
@pytest.mark.parametrize(
    ("policy", "before", "after", "finding"),
    [
        (RecyclePolicy(max_requests=3), {"requests": 2}, {"requests": 3}, Finding.REQUESTS),
        (RecyclePolicy(max_rss_bytes=9), {"rss_bytes": 8}, {"rss_bytes": 9}, Finding.MEMORY),
    ],
)
def test_a_child_is_due_for_recycling_at_its_limit(
    policy: RecyclePolicy, before: Any, after: Any, finding: Finding
) -> None:
    """With calls in flight as well: the supervisor that replaces it fails them."""
    life = Life(policy)
    assert life.at(1.0, **before) is Finding.NOTHING
    assert life.at(2.0, calls=1, **after) is finding
    assert (finding.recycle_due, finding.lost) == (True, False)


@proves("fault 47")
@pytest.mark.parametrize("jitter", [-1.0, 0.0, 1.0])
def test_children_that_began_together_do_not_age_together(jitter: float) -> None:
    """The limit varies by a tenth."""
    policy = RecyclePolicy(max_age_s=100.0, ping_interval_s=0)
    due = 100.0 + 10.0 * jitter
    assert Life(policy, jitter).at(due - 0.1) is Finding.NOTHING
    assert Life(policy, jitter).at(due + 0.1) is Finding.AGE


def test_a_child_due_for_recycling_is_asked_all_the_same() -> None:
    """Its silence counts, so the question must have been sent; recycling stays due."""
    life = Life(RecyclePolicy(max_requests=1))
    assert [life.at(float(now), requests=1) for now in (29, 30, 31, 40)] == [
        *(Finding.REQUESTS, Finding.ASK, Finding.REQUESTS, Finding.ASK),
    ]


def test_all_of_it_can_be_switched_off() -> None:
    """Whatever is seen, nothing is found."""
    life = Life(NEVER)
    sample = Sample(1, 2, True, 10**9, 5, 10**6, stopped=True, rss_bytes=1 << 50)
    assert life.at(0.0, sample) is Finding.NOTHING
    assert life.at(1e9, sample) is Finding.NOTHING


def test_a_closer_look_is_for_children_that_have_been_quiet_long_enough() -> None:
    """Nothing is read from the system for a child that speaks."""
    child_health = ChildHealth(0.0, 0.0, since=10.0, heard=3)
    assert not is_quiet(POLICY, child_health, 3, 39.9)
    assert is_quiet(POLICY, child_health, 3, 40.0)
    assert not is_quiet(POLICY, child_health, 4, 40.0)


@pytest.mark.parametrize(
    ("policy", "every_s"),
    [
        (POLICY, 5.0),
        (NEVER, 5.0),
        (RecyclePolicy(ping_timeout_s=1.0), 0.5),
        (RecyclePolicy(max_age_s=2.0), 1.0),
        (RecyclePolicy(stall_timeout_s=0.01), 0.05),
    ],
)
def test_the_looks_are_as_frequent_as_the_shortest_limit_needs(
    policy: RecyclePolicy, every_s: float
) -> None:
    """Half of it, between 50 ms and 5 s."""
    assert policy.look_every_s == every_s
