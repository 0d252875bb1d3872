"""The catalogue is whole; each fault is made to happen by a test or carried with a reason."""

from __future__ import annotations

import re
from pathlib import Path

from mcpbridge.config.model import options
from tests.faults.catalogue import AGAINST_THE_PROGRAM, ROWS, SECTIONS, page, proved, unsettled
from tests.faults.row import Row
from tests.faults.service_levels import LEVELS
from tests.support.proofs import faults

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"


def test_the_catalogue_is_whole() -> None:
    """Each number once, in order in its section; a sentence for the fault and for what happens."""
    assert sorted(row.number for row in ROWS) == list(range(1, 141))
    for rows in SECTIONS.values():
        assert list(rows) == sorted(rows)
    for row in ROWS:
        assert re.fullmatch(r"[A-Z][^|\n]{4,}\.", row.fault), row
        assert re.fullmatch(r"[^|\n]{3,}\.", row.done), row
        assert row.reason == "" or re.fullmatch(r"[A-Z][^|\n]{20,}\.", row.reason), row
    assert len({row.fault for row in ROWS}) == len(ROWS)


def test_every_fault_is_made_to_happen_or_carried_with_a_reason() -> None:
    """By a test against the running program; one that cannot happen has no test."""
    assert unsettled(ROWS, proved(), faults()) == []


def test_a_catalogue_that_is_not_settled_is_told() -> None:
    """A row with nothing, with both, with a test of a part only; a number that is not one."""
    rows = [Row(1, "a", "b"), Row(2, "a", "b", "why"), Row(3, "a", "b"), Row(4, "a", "b", "why")]
    anywhere = {2: ["wire/x"], 3: ["wire/x"], 9: ["e2e/y"]}
    wrong = unsettled([*rows, Row(5, "a", "b")], {5: ["e2e/y"], 9: ["e2e/y"]}, anywhere)
    assert [line.partition(":")[0] for line in wrong] == ["9", "1", "2", "3"]


def test_the_page_is_that_of_the_catalogue() -> None:
    """`make docs` mends it."""
    assert PAGE.read_text("utf-8") == page()


def test_the_page_names_nothing_that_does_not_exist() -> None:
    """Options, targets of make, and modules of tests."""
    flags = {option.setting.flag for option in options()}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page())) <= flags
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", page())) <= targets
    modules = {module for _, by in LEVELS for module in re.findall(r"`(test_\w+)`", by)}
    assert modules
    known = {
        path.stem for folder in AGAINST_THE_PROGRAM for path in (ROOT / "tests" / folder).iterdir()
    }
    assert modules <= known
