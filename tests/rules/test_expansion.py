"""References in the files that list servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.rules.expansion import ExpansionError, References, expand, input_variable

REFERENCES = References(
    {"TOKEN": "t", "EMPTY": "", "NESTED": "${TOKEN}"},
    "/work space",
    "/home/me",
    {"key": "secret"}.get,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${TOKEN}", "t"),
        ("a${TOKEN}b${env:TOKEN}c", "atbtc"),
        ("${MISSING:-x}", "x"),
        ("${MISSING:-}", ""),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${TOKEN:-x}", "t"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("${env:MISSING:-http://h}", "http://h"),
        ("${input:key}", "secret"),
        ("${workspaceFolder}/src", "/work space/src"),
        ("${userHome}", "/home/me"),
        ("$TOKEN $${TOKEN} {TOKEN}", "$TOKEN $t {TOKEN}"),
        ("${NESTED}", "${TOKEN}"),
    ],
)
def test_each_form_stands_for_its_value(text: str, value: str) -> None:
    """What was filled in is not expanded again, and `$NAME` is left alone."""
    assert expand(text, REFERENCES) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${MISSING}", "${MISSING}: the variable MISSING is not set; set it, or write"),
        ("${env:MISSING}", "${env:MISSING}: the variable MISSING is not set"),
        (
            "${input:other}",
            "${input:other}: the input other has no value; set MCPBRIDGE_INPUT_OTHER",
        ),
        ("${cmd:id}", "${cmd:id}: unknown kind of reference; write ${NAME}"),
        ("${command:extension.pick}", "unknown kind of reference"),
        ("${}", "unknown kind of reference"),
        ("${A B}", "unknown kind of reference"),
        ("${MISSING:-${TOKEN}}", "references cannot be nested"),
        ("a${TOKEN", "the closing brace is missing"),
    ],
)
def test_what_has_no_value_is_named_with_its_remedy(text: str, problem: str) -> None:
    """Nothing is replaced by an empty text in silence."""
    with pytest.raises(ExpansionError) as caught:
        expand(text, REFERENCES)
    assert problem in str(caught.value)


@given(st.text())
def test_a_text_without_references_is_unchanged(text: str) -> None:
    """Whatever else stands in it."""
    if "${" not in text:
        assert expand(text, REFERENCES) == text


def test_the_variable_of_an_input_has_only_characters_that_a_shell_takes() -> None:
    """`MCPBRIDGE_INPUT_` and the id."""
    assert input_variable("github-token.v2") == "MCPBRIDGE_INPUT_GITHUB_TOKEN_V2"
