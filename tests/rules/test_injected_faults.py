"""The rules of faults on purpose."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.injected_faults import Effect, FaultPlan, FaultRule, fault_rule

CALL = "tools/call"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("tool=slow* delay=2s", {"effect": Effect.DELAY, "tool": "slow*", "delay_s": 2.0}),
        (
            "tool=x error rate=0.5 seed=7",
            {"effect": Effect.ERROR, "tool": "x", "rate": 0.5, "seed": 7},
        ),
        ("drop", {"effect": Effect.DROP}),
        ("garbage  delay=250ms", {"effect": Effect.GARBAGE, "delay_s": 0.25}),
        ("die rate=1", {"effect": Effect.DIE}),
        ("server=a drop method=t/*", {"effect": Effect.DROP, "server": "a", "method": "t/*"}),
        ("error delay=60m", {"effect": Effect.ERROR, "delay_s": 3600.0}),
        ("error rate=.25", {"effect": Effect.ERROR, "rate": 0.25}),
    ],
)  # fmt: skip
def test_a_rule_is_read(text: str, rule: dict[str, object]) -> None:
    """In any order of its words; what is not said has its default."""
    wanted = {"server": "*", "method": CALL, "tool": None, "delay_s": 0.0, "rate": 1.0, "seed": 0}
    found = fault_rule(text)
    assert {name: getattr(found, name) for name in (*wanted, "effect")} == {**wanted, **rule}
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "nothing happens: add delay=2s, error, drop, garbage, die"),
        ("tool=x", "nothing happens: add delay=2s, error, drop, garbage, die"),
        ("tool=x explode", "'explode' is unknown (expected tool=, method=, server=, delay=, "),
        ("tol=x drop", "'tol=x' is unknown (expected tool=, "),
        ("drop=1", "'drop=1' is unknown (expected tool=, "),
        ("tool= drop", "'tool=' names nothing; write a name, or a pattern such as read_*"),
        ("delay=2", "'delay=2' is not a duration; write delay=2s"),
        ("delay=61m", "'delay=61m' is too long (expected at most 60m)"),
        ("drop rate=0", "'rate=0' is not a rate; write a number above 0 and up to 1"),
        ("drop rate=1.5", "'rate=1.5' is not a rate"),
        ("drop rate=nan", "'rate=nan' is not a rate"),
        ("drop rate=0.5 seed=x", "'seed=x' is not a seed; write a whole number"),
        ("drop seed=1", "seed= needs rate=: without it every request is hit"),
        ("drop die", "drop and die exclude each other; write two rules"),
        ("drop tool=a tool=b", "tool= is given twice"),
        ("drop tool=a method=b", "tool= and method= exclude each other: tool= means tools/call"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(text: str, problem: str) -> None:
    """The part, and what would be right."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        fault_rule(text)


@pytest.mark.parametrize(
    ("text", "method", "name", "hit"),
    [
        ("drop", CALL, None, True),
        ("drop", CALL, "any", True),
        ("drop", "tools/list", None, False),
        ("tool=slow* drop", CALL, "slow_one", True),
        ("tool=slow* drop", CALL, "Slow_one", False),
        ("tool=slow* drop", CALL, None, False),
        ("tool=* drop", "prompts/get", "slow", False),
        ("method=prompts/* drop", "prompts/get", "slow", True),
        ("server=other drop", CALL, "x", False),
        ("server=m* drop", CALL, "x", True),
    ],
)
def test_a_rule_is_for_some_requests(text: str, method: str, name: str | None, hit: bool) -> None:
    """Calls of tools unless it says otherwise."""
    plan = FaultPlan([fault_rule(text)], "mine")
    assert (plan.next(method, name) is not None) == hit


def decisions(text: str, count: int) -> list[bool]:
    """Which of that many calls a rule hits."""
    plan = FaultPlan([fault_rule(text)], "mine")
    return [plan.next(CALL, "x") is not None for _ in range(count)]


def test_a_seed_decides_which_requests_are_hit() -> None:
    """The same in each run, about as many as the rate says, others under another seed."""
    found = decisions("error rate=0.5 seed=7", 1000)
    assert found == decisions("error rate=0.5 seed=7", 1000)
    assert 400 < sum(found) < 600
    assert found != decisions("error rate=0.5 seed=8", 1000)
    assert found[:8] == [True, True, False, True, True, True, False, False]


@given(st.integers(0, 10**18 - 1), st.integers(1, 10**6))
def test_a_greater_rate_hits_all_that_a_smaller_one_does(seed: int, number: int) -> None:
    """So that a rate can be raised without another run of luck."""
    rates = [0.1, 0.5, 0.9, 1.0]
    hit = [FaultRule("", Effect.DROP, rate=each, seed=seed).hits(number) for each in rates]
    assert hit == sorted(hit)


def test_the_first_rule_that_hits_applies_and_every_rule_counts() -> None:
    """One rule does not shift the luck of another."""
    second = "error rate=0.5 seed=7"
    alone = decisions(second, 50)
    plan = FaultPlan([fault_rule("tool=y drop"), fault_rule(second)], "mine")
    both = [plan.next(CALL, "y" if number % 2 else "x") for number in range(50)]
    assert [str(each) == "tool=y drop" for each in both] == [bool(n % 2) for n in range(50)]
    assert [str(each) == second for each in both[::2]] == alone[::2]
