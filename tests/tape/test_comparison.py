"""Where two answers differ, and which differences count."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mcpbridge.tape.comparison import (
    MISSING,
    counted,
    differences,
    ignored_path,
    read_value,
    shown,
    text_of_path,
)


def found(recorded: Any, now: Any) -> list[str]:
    """The differences as text."""
    return [str(each) for each in differences(recorded, now)]


@pytest.mark.parametrize(
    ("recorded", "now", "told"),
    [
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "x"}]}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}, ['$.a[1].b: recorded "x", now "y"']),
        ({"a": 1}, {"b": 2}, ["$.a: recorded 1, now nothing", "$.b: recorded nothing, now 2"]),
        ([1, 2], [1], ["$[1]: recorded 2, now nothing"]),
        ([1], [1, None], ["$[1]: recorded nothing, now null"]),
        ({"a": True}, {"a": 1}, ["$.a: recorded true, now 1"]),
        ({"a": None}, {}, ["$.a: recorded null, now nothing"]),
        ({"a": {}}, {"a": []}, ["$.a: recorded {}, now []"]),
        ({"a b": 1}, {"a b": 2}, ['$["a b"]: recorded 1, now 2']),
        ({"\n": "\x1b"}, {"\n": 1}, ['$["\\\\n"]: recorded "\\\\u001b", now 1']),
    ],
)
def test_each_difference_is_named_by_its_path(recorded: Any, now: Any, told: list[str]) -> None:
    """With both values, on one line, and nothing that a terminal would obey."""
    assert found(recorded, now) == [each.replace("\\\\", "\\") for each in told]


@pytest.mark.parametrize(
    ("recorded", "now", "same"),
    [
        ("***", "sesame", True),
        ("key ***!", "key sesame!", True),
        ("key ***!", "key sesame", False),
        ("***", 12345, True),
        ("***", True, False),
        ("***", {"a": 1}, False),
    ],
)
def test_a_removed_secret_equals_any_value(recorded: Any, now: Any, same: bool) -> None:
    """A text or a number, as they are removed."""
    assert (found(recorded, now) == []) == same


def test_numbers_are_compared_by_value() -> None:
    """Whatever their spelling, and also those that no number of this machine holds."""
    assert read_value(b"[1.0, 1e2, 0.5]") == [1, 100, 0.5]
    assert read_value(b"1e999") == "1e999"
    long = b"9" * 5000
    assert read_value(long) == long.decode()
    assert read_value(b"12345678901234567890") == 12345678901234567890


@pytest.mark.parametrize(
    ("ignored", "covered"),
    [
        ("$.a", True),
        ("$.a.b", True),
        ("$.a.b[2].c", True),
        ("$.a.b[2].c.d", False),
        ("$.a.b[1]", False),
        ("$.*.b[*].c", True),
        ("$['a'][\"b\"]", True),
        ("$..c", True),
        ("$..b[2]", True),
        ("$..b..c", True),
        ("$..a.c", False),
        ("$..*", True),
        ("$.b", False),
        ("tools/call:$..c", True),
        ("tools/call now:$..c", True),
        ("tools/*:$..c", True),
        ("tools/call then:$..c", False),
        ("initialize:$..c", False),
    ],
)
def test_what_is_below_an_ignored_path_does_not_count(ignored: str, covered: bool) -> None:
    """Of the answers to the requests that it is for."""
    one = list(differences({"a": {"b": [0, 0, {"c": 1}]}}, {"a": {"b": [0, 0, {"c": 2}]}}))
    assert len(one) == 1
    left = counted(one, "tools/call now", [ignored_path("$.zero"), ignored_path(ignored)])
    assert (left == []) == covered


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("result", "is not a JSON path; write $.result.content[0].text"),
        ("$", "ignores the whole answer"),
        ("$.", "is not a JSON path: nothing is known to begin with '.'"),
        ("$.a[x]", "is not a JSON path: nothing is known to begin with '[x]'"),
        ("$.a[?(@.b)]", "nothing is known to begin with '[?(@.b)]'"),
        ("tools/call$.a", "is not a JSON path"),
    ],
)
def test_a_path_that_cannot_be_read_is_named(text: str, problem: str) -> None:
    """With the place from which on it is unknown."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        ignored_path(text)


def test_long_values_are_shown_by_their_beginning() -> None:
    """And what is not there by a word."""
    assert shown("x" * 500) == '"' + "x" * 119 + "…"
    assert shown(MISSING) == repr(MISSING) == "nothing"
    assert text_of_path(()) == "$"
