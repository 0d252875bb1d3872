"""Docstrings, comments, messages and pages keep clear of phrases that readers stumble over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import checks

ROOT = Path(__file__).parents[2]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted(
        (*(ROOT / "mcpbridge").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    )
}
PROSE = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for folder in ("benchmarks", "scripts", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
}


def findings(path: str) -> list[str]:
    """Return the phrases to avoid in one text, each with its line."""
    page = path.endswith(".md")
    return (checks.avoided_phrases_of_a_page if page else checks.avoided_phrases)(TEXTS[path])


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_no_phrase_to_avoid(path: str) -> None:
    """CONTRIBUTING.md, House rules, says what to write instead."""
    assert findings(path) == []


@pytest.mark.parametrize("path", sorted(PROSE))
def test_tests_and_tools_describe_themselves_in_the_same_words(path: str) -> None:
    """In docstrings and comments; what they send and expect may say anything."""
    assert checks.avoided_phrases_of_prose(PROSE[path]) == []
