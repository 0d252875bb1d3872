"""The marker `proves`, by which a test names the statements and faults that it proves.

    @proves("C48", "O3", "fault 31", "faults 17-30")

A statement of the protocol is named by its id (`tests/conformance/requirements.py`), one of the
operators by its own (`tests/conformance/operators.py`), a row of the catalogue of faults
(`tests/faults`) by its number. What the marker says is read from the sources, so that tests which
need Node or a browser count without being collected.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.syntax import parsed

proves = pytest.mark.proves

TESTS = Path(__file__).parents[1]
_STATEMENT = re.compile(r"[CO]\d{1,3}")
_FAULTS = re.compile(r"fault (\d+)|faults (\d+)-(\d+)")
_IN_TEXT = re.compile(r"\bC\d{2,3}\b|\bfaults? \d|\([^()]*\bO\d{1,2}\b")


class NotAProofError(Exception):
    """A marker names something in a form that nothing reads."""


def named(test: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return what the markers of a test name, ranges resolved: `C48`, `fault 17`, `fault 18`.

    Raises:
        NotAProofError: An argument is not a literal text, or has another form.
    """
    return [
        each
        for decorator in test.decorator_list
        if _is_proves(decorator)
        for argument in _arguments(decorator)
        for each in _resolved(argument)
    ]


def functions_in(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the tests of a module, those in classes too."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_":
            yield node


def statements() -> dict[str, list[str]]:
    """Return the tests that name each statement, as `folder/module.py::test`, in order of path."""
    return {each: tests for each, tests in _proofs().items() if _STATEMENT.fullmatch(each)}


def faults() -> dict[int, list[str]]:
    """Return the tests that name each row of the catalogue of faults, as `statements` does."""
    return {
        int(each.removeprefix("fault ")): tests
        for each, tests in _proofs().items()
        if each.startswith("fault ")
    }


def told_in_docstrings(source: str) -> list[str]:
    """Return the tests of a module whose docstrings name what only the marker may name."""
    return [
        test.name for test in functions_in(source) if _IN_TEXT.search(ast.get_docstring(test) or "")
    ]


def sources() -> Iterator[tuple[str, str]]:
    """Return each module of tests, by its path in `tests`, and its text."""
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" not in path.parts:
            yield path.relative_to(TESTS).as_posix(), path.read_text("utf-8")


@functools.cache
def _proofs() -> dict[str, list[str]]:
    found = defaultdict(list)
    for path, text in sources():
        for test in functions_in(text):
            for each in named(test):
                found[each].append(f"{path}::{test.name}")
    return dict(found)


def _is_proves(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name == "proves"


def _arguments(decorator: ast.expr) -> Iterator[str]:
    if not isinstance(decorator, ast.Call) or decorator.keywords or not decorator.args:
        raise NotAProofError(f"proves without arguments: {ast.unparse(decorator)}")
    for argument in decorator.args:
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            raise NotAProofError(f"not a literal text: {ast.unparse(argument)}")
        yield argument.value


def _resolved(argument: str) -> Iterator[str]:
    if _STATEMENT.fullmatch(argument):
        yield argument
        return
    match = _FAULTS.fullmatch(argument)
    if match is None:
        raise NotAProofError(f"{argument!r} (expected C48, O3, fault 31 or faults 17-30)")
    first, last = int(match[1] or match[2]), int(match[1] or match[3])
    if match[2] and first >= last:
        raise NotAProofError(f"{argument!r} ends before it begins")
    yield from (f"fault {number}" for number in range(first, last + 1))
