"""When a child is started again: the back-off, its reset, and the point of giving up."""

from __future__ import annotations

import pytest

from mcpbridge.rules.supervision.restart import (
    RestartDecision,
    RestartPolicy,
    RestartRecord,
    after_exit,
)

POLICY = RestartPolicy(give_up_after=0)


def verdicts(policy: RestartPolicy, runs: list[tuple[float, float]]) -> list[RestartDecision]:
    """The verdicts on ends in a row, each given as seconds up and the time of the end."""
    record, found = RestartRecord(), []
    for up_s, now in runs:
        found.append(after_exit(policy, record, up_s, now))
        record = found[-1].record
    return found


def test_the_delay_doubles_up_to_its_limit() -> None:
    """A child that fails each time is tried ever more rarely, down to twice a minute."""
    delays = [v.max_delay_s for v in verdicts(POLICY, [(0.0, 100.0 * i) for i in range(9)])]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_child_may_fail_for_years() -> None:
    """However often it failed, the delay is the limit and the record stays small."""
    verdict = after_exit(POLICY, RestartRecord(failures=10**9, ends=(0.0,)), 0.0, 1e9)
    assert verdict.max_delay_s == POLICY.max_delay_s
    assert verdict.record == RestartRecord(10**9 + 1, (1e9,))


@pytest.mark.parametrize(("up_s", "failures", "delay"), [(29.9, 4, 4.0), (30.0, 1, 0.5)])
def test_a_stable_run_resets_the_back_off(up_s: float, failures: int, delay: float) -> None:
    """After half a minute up an end counts as the first again."""
    verdict = after_exit(POLICY, RestartRecord(failures=3), up_s, 1000.0)
    assert verdict.record.failures == failures
    assert verdict.max_delay_s == delay


def test_five_ends_within_a_minute_are_given_up() -> None:
    """With the default figures the fifth end in 60 s is the last, and not one before it."""
    ends = [(0.0, float(now)) for now in (0, 10, 20, 30, 59)]
    assert [v.give_up for v in verdicts(RestartPolicy(), ends)] == [False] * 4 + [True]


def test_ends_further_apart_are_not_given_up() -> None:
    """An end that is a minute old counts no more."""
    ends = [(0.0, float(now)) for now in (0, 15, 30, 45, 60, 75, 90)]
    found = verdicts(RestartPolicy(), ends)
    assert not any(v.give_up for v in found)
    assert found[-1].record.ends == (45.0, 60.0, 75.0, 90.0)


def test_failed_starts_in_a_row_are_given_up_however_long_they_take() -> None:
    """A start that takes 65 s until it fails counts like one that takes none."""
    record, found = RestartRecord(), []
    for number in range(5):
        verdict = after_exit(RestartPolicy(), record, 0.0, 65.0 * number, was_ready=False)
        record = verdict.record
        found.append(verdict.give_up)
    assert found == [False] * 4 + [True]


def test_a_start_that_succeeds_begins_the_count_of_failed_ones_again() -> None:
    """Four failures, a run, four failures: none of them is the fifth."""
    record = RestartRecord()
    for number in range(9):
        ready = number == 4
        verdict = after_exit(RestartPolicy(), record, 1.0, 65.0 * number, was_ready=ready)
        record = verdict.record
        assert not verdict.give_up


def test_an_end_that_every_start_would_have_is_the_last() -> None:
    """Unless the operator said that it never gives up."""
    now = (0.0, 0.0)
    assert after_exit(RestartPolicy(), RestartRecord(), *now, was_ready=False, final=True).give_up
    assert not after_exit(POLICY, RestartRecord(), *now, was_ready=False, final=True).give_up


def test_zero_never_gives_up() -> None:
    """With `--give-up-after 0` no number of ends is the last."""
    assert not any(v.give_up for v in verdicts(POLICY, [(0.0, i / 10) for i in range(100)]))


def test_one_gives_up_at_once() -> None:
    """With `--give-up-after 1` the first end is the last, however long the run."""
    assert after_exit(RestartPolicy(give_up_after=1), RestartRecord(), 1e6, 1e6).give_up


@pytest.mark.parametrize(
    ("give_up_after", "was_ready", "waits"),
    [(0, False, True), (0, True, False), (5, False, False)],
)
def test_a_failed_start_may_wait_for_a_change(
    give_up_after: int, was_ready: bool, waits: bool
) -> None:
    """Not if the operator gave a number of starts, which would never be reached."""
    policy = RestartPolicy(give_up_after=give_up_after, waits_for_change=True)
    found = after_exit(policy, RestartRecord(), 0.0, 0.0, was_ready=was_ready)
    assert found.waits is waits
    assert not found.give_up
