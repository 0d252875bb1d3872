"""The manifest is whole; each statement is proved by a test or carried with a reason."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.requirements import CARRIED, HANDSHAKE, REQUIREMENTS

TESTS = Path(__file__).parent.parent
ID = re.compile(r"\bC\d{2,3}\b")
KNOWN = {requirement.id for requirement in REQUIREMENTS}


def named_in(source: str) -> Iterator[tuple[str, str]]:
    """The ids in the docstrings of the tests of a module, with the test that names each."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_"):
            for each in ID.findall(ast.get_docstring(node) or ""):
                yield each, node.name


def proofs() -> dict[str, list[str]]:
    """The tests that name each id, as `folder/module.py::test`."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" not in path.parts:
            for each, test in named_in(path.read_text(encoding="utf-8")):
                found[each].append(f"{path.relative_to(TESTS)}::{test}")
    return found


def test_ids_are_found_in_docstrings_of_tests_only() -> None:
    """Neither comments nor helpers prove anything, and codes of other kinds are no ids."""
    source = '''
"""C01"""
def helper():
    """C02"""
def test_a():
    """This (fault 3; C03, C100) and that."""  # C04
    assert "C05"
class TestB:
    async def test_c(self):
        """XC06, C7, C08b, RC09, C1000."""
'''
    assert list(named_in(source)) == [("C03", "test_a"), ("C100", "test_a")]


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
    proved = proofs()
    assert [r.id for r in REQUIREMENTS if r.id not in proved and r.id not in CARRIED] == []
    assert set(CARRIED) <= KNOWN
    assert all(len(reason) > 20 for reason in CARRIED.values())
    put_off = {r.id for r in HANDSHAKE if r.id in CARRIED and r.id not in proved}
    assert put_off <= {"C86", "C101"}


def test_no_test_names_a_requirement_that_is_none() -> None:
    """A number mistyped proves nothing."""
    unknown = {each: tests for each, tests in proofs().items() if each not in KNOWN}
    assert unknown == {}
