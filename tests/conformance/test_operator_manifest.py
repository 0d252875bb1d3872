"""Each requirement of the operators is proved by a test that runs the program."""

from __future__ import annotations

from tests.conformance.operators import OPERATOR
from tests.support.proofs import statements


def test_every_requirement_is_proved_by_the_running_program() -> None:
    """All of 1 to 17, each by a test in tests/e2e."""
    proved = statements()
    assert list(OPERATOR) == [f"O{number}" for number in range(1, 18)]
    by_running = {each for each, tests in proved.items() if any("e2e" in test for test in tests)}
    assert set(OPERATOR) - by_running == set()
