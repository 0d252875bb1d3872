"""Log records as lines for people and for programs."""

from __future__ import annotations

import logging
import sys

import pytest

from mcpbridge.telemetry.logs import TextFormatter


def _record(line: str) -> logging.LogRecord:
    record = logging.LogRecord("mcpbridge.child", logging.INFO, "", 0, "child.stderr", (), None)
    vars(record)["line"] = line
    return record


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("\u00e9t\u00e9", "\u00e9t\u00e9"),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("a\rb", '"a\\rb"'),
        ("\a", '"\\u0007"'),
        ("\x7f", '"\\x7f"'),
        ("\x9b2J", '"\\x9b2J"'),
        ("\u202etxt", '"\\u202etxt"'),
    ],
)
def test_text_steers_no_terminal(said: str, shown: str) -> None:
    """Whatever a server writes, its controls are shown and not obeyed."""
    assert TextFormatter().format(_record(said)).endswith(f" child.stderr line={shown}")


def test_a_traceback_keeps_its_lines_and_steers_no_terminal() -> None:
    """The text of an exception may be a peer's."""
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = _record("x")
        record.exc_info = sys.exc_info()
    first, *rest = TextFormatter().format(record).split("\n")
    assert first.endswith("line=x")
    assert len(rest) > 2
    assert rest[-1] == "ValueError: \\x1b[2J"
