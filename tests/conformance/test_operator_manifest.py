"""Each requirement of the operators is proved by a test that runs the program."""

from __future__ import annotations

import re

from tests.conformance.operators import OPERATOR
from tests.support.proofs import proofs

ID = re.compile(r"\bO\d{1,2}\b")


def named(docstring: str) -> list[str]:
    """The ids in the parentheses of a docstring."""
    return [each for group in re.findall(r"\(([^()]*)\)", docstring) for each in ID.findall(group)]


def test_ids_are_found_in_parentheses_only() -> None:
    """And ids of other kinds are none."""
    assert named("This O1 and that (O2; C3) and (fault 4; O15, XO6, O7b, O123).") == ["O2", "O15"]


def test_every_requirement_is_proved_by_the_running_program() -> None:
    """All of 1 to 17, each by a test in tests/e2e."""
    proved = proofs(named)
    assert list(OPERATOR) == [f"O{number}" for number in range(1, 18)]
    by_running = {each for each, tests in proved.items() if any("e2e" in test for test in tests)}
    assert set(OPERATOR) - by_running == set()
    assert set(proved) - set(OPERATOR) == set()
