"""The manifest is whole; each statement is proved by a test or carried with a reason."""

from __future__ import annotations

import re

from tests.conformance.operators import OPERATOR
from tests.conformance.requirements import CARRIED, LEGACY, REQUIREMENTS
from tests.support.proofs import statements

ID = re.compile(r"C\d{2,3}")
KNOWN = {requirement.id for requirement in REQUIREMENTS}


def test_the_manifest_is_whole() -> None:
    """Each id once, none missing from 1 to the last, each with a sentence and a source."""
    ids = [requirement.id for requirement in REQUIREMENTS]
    assert sorted(ids) == sorted(f"C{number:02}" for number in range(1, len(ids) + 1))
    for requirement in REQUIREMENTS:
        assert ID.fullmatch(requirement.id)
        assert requirement.source
        assert re.fullmatch(r"[A-Z].{10,}\.", requirement.sentence), requirement


def test_every_requirement_is_proved_or_carried_with_a_reason() -> None:
    """No statement is forgotten, and of those with a handshake few are put off."""
    proved = statements()
    assert [r.id for r in REQUIREMENTS if r.id not in proved and r.id not in CARRIED] == []
    assert set(CARRIED) <= KNOWN
    assert all(len(reason) > 20 for reason in CARRIED.values())
    put_off = {r.id for r in LEGACY if r.id in CARRIED and r.id not in proved}
    assert put_off <= {"C86", "C101"}


def test_no_test_names_a_requirement_that_is_none() -> None:
    """A number mistyped proves nothing."""
    unknown = {
        each: tests for each, tests in statements().items() if each not in KNOWN | {*OPERATOR}
    }
    assert unknown == {}
