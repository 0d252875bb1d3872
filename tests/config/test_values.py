"""The texts of settings, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mcpbridge.config.values import seconds, shown, size, switch, whole_number
from mcpbridge.rules.supervision.isolation import Isolation
from mcpbridge.settings import Unit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90.0),
        ("30s", 30.0),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("0", 0.0),
        (" 2s ", 2.0),
    ],
)
def test_a_time_is_a_number_with_or_without_a_unit(text: str, value: float) -> None:
    """Without a unit it is seconds."""
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1d", "1 s", "1e3", "nan", "inf", ".5s", "5s5", "٣s"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """The message says what would have been right."""
    with pytest.raises(ValueError, match=r"\Ais not a duration; write 30s"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("12B", 12),
        ("64KiB", 65536),
        ("64kib", 65536),
        ("4MiB", 4 << 20),
        ("1GiB", 1 << 30),
        ("64KB", 64_000),
        ("4MB", 4_000_000),
        ("1GB", 10**9),
    ],
)
def test_a_size_is_a_number_with_or_without_a_unit(text: str, value: int) -> None:
    """Without a unit it is bytes; the case of the unit does not matter."""
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "4M", "4 MiB", "1TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Kubernetes' `4M` could mean two things, so it means none."""
    with pytest.raises(ValueError, match=r"\Ais not a size; write 65536"):
        size(text)


@pytest.mark.parametrize("text", ["", "x", "1.0", "1_000", "٣", "0x10", "9" * 19])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    """What only Python would take is a typing error elsewhere."""
    with pytest.raises(ValueError, match="is not a whole number"):
        whole_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("true", "YES", "on", "1")),
        *((text, False) for text in ("false", "No", "off", "0")),
    ],
)
def test_a_switch_has_two_positions(text: str, value: bool) -> None:
    """In a variable a switch is said in words."""
    assert switch(text) is value


def test_a_switch_has_no_third_position() -> None:
    """Neither of the two is a mistake, not `off`."""
    with pytest.raises(ValueError, match="is not a switch"):
        switch("maybe")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, Unit.TEXT, ""),
        (False, Unit.SWITCH, ""),
        ((), Unit.TEXT, ""),
        (0.0, Unit.SECONDS, "0s"),
        (0.25, Unit.SECONDS, "250ms"),
        (1.5, Unit.SECONDS, "1.5s"),
        (90.0, Unit.SECONDS, "90s"),
        (1800.0, Unit.SECONDS, "30m"),
        (7200.0, Unit.SECONDS, "2h"),
        (1000, Unit.BYTES, "1000"),
        (1 << 10, Unit.BYTES, "1KiB"),
        (4 << 20, Unit.BYTES, "4MiB"),
        (1 << 30, Unit.BYTES, "1GiB"),
        (16, Unit.INTEGER, "16"),
        (1.0, Unit.INTEGER, "1"),
        (Isolation.AUTO, Unit.TEXT, "auto"),
        ("/mcp", Unit.TEXT, "/mcp"),
    ],
)
def test_a_value_is_shown_as_a_person_would_write_it(value: Any, unit: Unit, text: str) -> None:
    """What is not set shows nothing."""
    assert shown(value, unit) == text


@given(some.integers(0, 10**6))
def test_what_is_shown_can_be_read(value: int) -> None:
    """The defaults of `--help` may be copied into a command line."""
    assert seconds(shown(float(value), Unit.SECONDS)) == value
    assert size(shown(value, Unit.BYTES)) == value
