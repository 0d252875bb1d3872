"""The values of routing headers."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.wire.headers import MAX_VALUE_BYTES, decoded_value
from tests.support.proofs import proves


@proves("C27", "C42")
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("echo", "echo"),
        ("", ""),
        ("a b\tc", "a b\tc"),
        ("  padded\t", "padded"),
        ("=?base64?ZWNobw==?=", "echo"),
        (" =?base64?ZWNobw==?= ", "echo"),
        ("=?base64??=", ""),
        ("=?base64?w6k=?=", "é"),
        ("=?base64?IGEg?=", " a "),
        ("=?BASE64?w6k=?=", "=?BASE64?w6k=?="),
        ("=?utf-8?q?x?=", "=?utf-8?q?x?="),
        ("x=?base64?w6k=?=", "x=?base64?w6k=?="),
        ("=?base64?ZWNobw==", "=?base64?ZWNobw=="),
        ("é", None),
        ("a\x00", None),
        ("a\x7fb", None),
        ("a\nb", None),
        ("=?base64?w6k?=", None),
        ("=?base64?w6l=?=", None),
        ("=?base64?w6k==?=", None),
        ("=?base64?w6k=\x20?=", None),
        ("=?base64?w6-_?=", None),
        ("=?base64?/w==?=", None),
        ("=?base64?a?=", None),
        ("=?base64?=?=", None),
    ],
)
def test_a_value_stands_for_a_text_or_for_none(raw: str, text: str | None) -> None:
    """Plain ASCII is itself, base64 of UTF-8 in its one spelling is decoded; all else is not."""
    assert decoded_value(raw) == text


@proves("C27")
@given(st.text())
def test_any_text_can_be_written(text: str) -> None:
    """What was encoded is decoded."""
    encoded = base64.b64encode(text.encode()).decode()
    assert decoded_value(f"=?base64?{encoded}?=") == text


def test_a_long_value_stands_for_nothing() -> None:
    """A bound on what is looked at."""
    assert decoded_value("x" * MAX_VALUE_BYTES) == "x" * MAX_VALUE_BYTES
    assert decoded_value("x" * (MAX_VALUE_BYTES + 1)) is None
