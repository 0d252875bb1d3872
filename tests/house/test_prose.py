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
NOT_YET_REWRITTEN = frozenset(
    {
        "SECURITY.md",
    }
)
"""Texts that still have such phrases. The list only shrinks."""


def findings(path: str) -> list[str]:
    """Return the phrases to avoid in one text, each with its line."""
    page = path.endswith(".md")
    return (checks.avoided_phrases_of_a_page if page else checks.avoided_phrases)(TEXTS[path])


@pytest.mark.parametrize("path", sorted(TEXTS.keys() - NOT_YET_REWRITTEN))
def test_no_phrase_to_avoid(path: str) -> None:
    """CONTRIBUTING.md, House rules, says what to write instead."""
    assert findings(path) == []


@pytest.mark.parametrize("path", sorted(NOT_YET_REWRITTEN))
def test_the_list_of_exceptions_only_shrinks(path: str) -> None:
    """A text without such a phrase, or that is gone, leaves the list."""
    assert findings(path)
