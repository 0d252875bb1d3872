"""What counts as lost between two runs of a conformance suite."""

from __future__ import annotations

import pytest

from tests.referees.outcome import (
    Check,
    Loss,
    Verdict,
    lost,
    read_checks,
    scenario_of,
    score,
    table,
    undecided,
)


def _checks(*words: str) -> list[Check]:
    """`id:STATUS` each."""
    return [Check(*word.split(":")) for word in words]


@pytest.mark.parametrize(
    ("folder", "scenario"),
    [
        ("server-ping-2026-11-22T14-02-58-051Z", "ping"),
        ("server-json-schema-2020-12-2026-11-22T14-02-58-051Z", "json-schema-2020-12"),
        ("server-ping", None),
        ("initialize-2026-11-22T14-02-58-051Z", None),
    ],
)
def test_a_folder_tells_its_scenario(folder: str, scenario: str | None) -> None:
    """A date within the name is not a time stamp, and only the server's results are read."""
    assert scenario_of(folder) == scenario


def test_checks_are_read_with_or_without_a_message() -> None:
    """Only what is complained of has one."""
    found = read_checks(
        [
            {"id": "a", "status": "SUCCESS", "name": "A", "details": {}},
            {"id": "b", "status": "FAILURE", "errorMessage": "no b"},
        ]
    )
    assert found == [Check("a", "SUCCESS"), Check("b", "FAILURE", "no b")]


def test_equal_and_better_results_lose_nothing() -> None:
    """What the reference fails may pass here, and what does not apply does not count."""
    reference = _checks("a:SUCCESS", "b:WARNING", "c:FAILURE", "d:INFO")
    assert lost(reference, reference) == []
    assert lost(reference, _checks("a:SUCCESS", "b:SUCCESS", "c:INFO")) == []


@pytest.mark.parametrize("status", ["FAILURE", "WARNING", "INFO", "SKIPPED"])
def test_a_pass_that_becomes_anything_else_is_lost(status: str) -> None:
    """Its statuses on both sides and the suite's complaint are told."""
    found = lost(_checks("a:SUCCESS"), [Check("a", status, "why")])
    assert found == [Loss("a", "SUCCESS", status, "why")]


def test_a_scenario_that_breaks_off_loses_what_it_never_came_to() -> None:
    """The failure in its place is told too, though the reference does not know its id."""
    found = lost(_checks("a:SUCCESS", "b:SUCCESS"), _checks("a:SUCCESS", "error:FAILURE:broke"))
    assert found == [
        Loss("b", "SUCCESS", "absent", ""),
        Loss("error", "absent", "FAILURE", "broke"),
    ]


def test_a_scenario_without_checks_passes_nothing() -> None:
    """A suite counts it as passed; here all that the reference passes is lost."""
    assert [each.check_id for each in lost(_checks("a:SUCCESS", "b:SUCCESS"), [])] == ["a", "b"]
    assert score([]) == (0, 0)


def test_a_check_that_comes_several_times_must_pass_as_often() -> None:
    """One pass does not cover a failure under the same id."""
    found = lost(_checks("a:SUCCESS", "a:SUCCESS"), _checks("a:SUCCESS", "a:FAILURE"))
    assert found == [Loss("a", "SUCCESS,SUCCESS", "SUCCESS,FAILURE", "")]


def test_only_what_is_said_not_to_apply_is_undecided() -> None:
    """A check that failed or never came is lost at once."""
    reference = _checks("a:SUCCESS", "b:SUCCESS", "c:SUCCESS", "d:SUCCESS", "e:SUCCESS")
    ours = _checks("a:INFO", "b:SKIPPED", "c:FAILURE", "e:INFO", "e:WARNING", "f:INFO")
    assert undecided(reference, ours) == {"a", "b"}


def test_streams_decide_what_plain_answers_leave_open() -> None:
    """The verdict takes that check, and only that one, from the second run."""
    reference = _checks("a:SUCCESS", "b:SUCCESS")
    verdict = Verdict(reference, _checks("a:SUCCESS", "b:INFO"), _checks("a:SUCCESS", "b:SUCCESS"))
    assert verdict.losses == []
    assert verdict.decided == _checks("a:SUCCESS", "b:SUCCESS")


def test_without_a_second_run_what_is_undecided_is_lost() -> None:
    """It has not passed."""
    verdict = Verdict(_checks("b:SUCCESS"), _checks("b:INFO"))
    assert verdict.losses == [Loss("b", "SUCCESS", "INFO", "")]


def test_a_loss_in_either_form_is_a_loss() -> None:
    """Plain answers are not excused by streams, nor streams by plain answers."""
    reference = _checks("a:SUCCESS", "b:SUCCESS")
    plain = Verdict(reference, _checks("a:FAILURE", "b:INFO"), _checks("a:SUCCESS", "b:SUCCESS"))
    streams = Verdict(reference, _checks("a:SUCCESS", "b:INFO"), _checks("a:FAILURE", "b:FAILURE"))
    assert [loss.check_id for loss in plain.losses] == ["a"]
    assert [loss.check_id for loss in streams.losses] == ["a", "b"]


def test_the_table_shows_what_passed_of_what_applied() -> None:
    """A row for every scenario of any suite, blank where a suite has none, a dash for nothing."""
    passed = Verdict(_checks("a:SUCCESS", "b:INFO"), _checks("a:WARNING"))
    again = Verdict(_checks("a:SUCCESS"), _checks("a:INFO"), _checks("a:SUCCESS"))
    rows = table({"old": {"ping": passed}, "new": {"ping": Verdict([], []), "poll": again}})
    assert [row.split() for row in rows.splitlines()] == [
        ["old", "new"],
        ["scenario", "SDK", "bridge", "SDK", "bridge"],
        ["ping", "1/1", "0/1", "-", "-"],
        ["poll", "1/1", "1/1*"],
        ["all", "1/1", "0/1", "1/1", "1/1*"],
    ]
