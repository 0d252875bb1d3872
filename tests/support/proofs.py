"""What the docstrings of tests say that they prove: ids of statements, numbers of faults.

A statement of the protocol is named by its id (`C48`) anywhere in a docstring. A row of the
catalogue of faults is named in parentheses that begin with the word: `(fault 5; C54)`,
`(faults 17 to 33, 41, 65-67)`; what follows a semicolon is of another kind.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Id = TypeVar("Id", int, str)
TESTS = Path(__file__).parents[1]
_STATEMENT = re.compile(r"\bC\d{2,3}\b")
_FAULTS = re.compile(r"\(faults? ([^();]*)[^()]*\)")
_ROWS = re.compile(r"(\d+)(?:(?:-| to )(\d+))?")
_BARE = re.compile(r"\((?:\d+(?:(?:-| to |, )\d+)*)(?:; ?[^()]*)?\)\.?\Z")


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """The tests of a module and their docstrings, each on one line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_"):
            yield node.name, " ".join((ast.get_docstring(node) or "").split())


def statements(docstring: str) -> list[str]:
    """The ids of protocol statements that a docstring names."""
    return _STATEMENT.findall(docstring)


def faults(docstring: str) -> list[int]:
    """The rows of the catalogue that a docstring names.

    Raises:
        ValueError: It names them in a form that could be read otherwise, or without the word.
    """
    if _BARE.search(docstring):
        raise ValueError(f"numbers without the word fault: {docstring}")
    found: list[int] = []
    for group in _FAULTS.findall(docstring):
        for item in group.split(","):
            match = _ROWS.fullmatch(item.strip())
            if match is None:
                raise ValueError(f"no number of a fault: {item.strip()!r} in {docstring}")
            first, last = int(match[1]), int(match[2] or match[1])
            found += range(first, last + 1)
    return found


def proofs(named: Callable[[str], Iterable[Id]]) -> dict[Id, list[str]]:
    """The tests that name each id, as `folder/module.py::test`, by the order of their paths."""
    found = defaultdict(list)
    for test, docstring in _all_docstrings():
        for each in named(docstring):
            found[each].append(test)
    return dict(found)


@functools.cache
def _all_docstrings() -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{path.relative_to(TESTS).as_posix()}::{test}", docstring)
        for path in sorted(TESTS.rglob("test_*.py"))
        if "node_modules" not in path.parts
        for test, docstring in docstrings(path.read_text(encoding="utf-8"))
    )
