"""How records look: JSON for programs, text for people."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from mcpbridge.telemetry.logs import JsonFormatter, TextFormatter, start_error


def record(event: str = "x.happened", level: int = logging.INFO, **fields: object) -> str:
    """The text of a record, without its time."""
    return TextFormatter().format(made(event, level, fields)).partition(" ")[2]


def made(event: str, level: int, fields: Mapping[str, object]) -> logging.LogRecord:
    """A record with these fields."""
    name = logging.getLevelName(level)
    return logging.makeLogRecord(
        {"msg": event, "levelno": level, "levelname": name, "name": "mcpbridge", **fields}
    )


def test_json_keeps_every_letter_readable() -> None:
    """What is not ASCII stands as it is; the line stays one line of JSON."""
    line = JsonFormatter().format(made("child.stderr", logging.INFO, {"line": "größe – 日本\n"}))
    assert "größe – 日本" in line
    assert json.loads(line)["line"] == "größe – 日本\n"
    assert "\n" not in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (None, "null"),
        (0.5, "0.5"),
        ("word", "word"),
        ("größe", "größe"),
        ("two words", '"two words"'),
        ('say "x"', "'say \"x\"'"),
        ("", '""'),
        ({}, "{}"),
        ({"calls": 1}, '{"calls": 1}'),
        ([1, 2], "[1, 2]"),
        ("\x1b[2J\x07gone", '"\\u001b[2J\\u0007gone"'),
    ],
)
def test_text_shows_values_as_people_write_them(value: object, shown: str) -> None:
    """None as Python would print it, and no control character reaches a terminal."""
    assert record(field=value) == f"info    x.happened field={shown}"


def test_lines_stand_below_and_keep_their_indentation() -> None:
    """A list of texts, and a text of several lines; an empty list is left away."""
    said = ["Traceback (most recent call last):", '  File "x.py", line 1', "ValueError: \x1b[31mno"]
    assert record(level=logging.ERROR, how="exit code 1", last_words=said, hints=[]) == (
        'error   x.happened how="exit code 1"\n'
        "                 last_words:\n"
        "                   Traceback (most recent call last):\n"
        '                     File "x.py", line 1\n'
        "                   ValueError: \\x1b[31mno"
    )
    assert record(stack="a\n  b").endswith("stack:\n                   a\n                     b")


def test_colours_are_for_level_and_event_alone() -> None:
    """Without them the text is the same."""
    plain = made("x.happened", logging.WARNING, {"a": "b c"})
    colored = TextFormatter(colored=True).format(plain)
    assert "\x1b[33mwarning\x1b[0m \x1b[1mx.happened\x1b[0m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == TextFormatter().format(plain)


def test_a_start_error_is_a_record_like_all_others() -> None:
    """With the same members as one that is logged."""
    entry = json.loads(start_error("--port: 'x' is not a whole number"))
    assert (entry["level"], entry["event"]) == ("error", "serve.failed")
    assert entry["problem"] == "--port: 'x' is not a whole number"
    assert entry["timestamp"].endswith("Z")


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


def test_a_handler_hears_what_the_log_leaves_out() -> None:
    """`--log-level` is for stderr; what is recorded does not depend on it."""
    script = """
import logging, logging.handlers
from mcpbridge.telemetry.logs import LogSettings, hearing, logging_to_stderr
log, kept = logging.getLogger("mcpbridge.child"), logging.handlers.BufferingHandler(10)
with logging_to_stderr(LogSettings("error", "json")):
    with hearing(kept, "mcpbridge.child"):
        log.info("a")
        log.error("b")
    log.info("c")
print([each.msg for each in kept.buffer])
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.stdout == "['a', 'b']\n"
    assert [json.loads(each)["event"] for each in told.stderr.splitlines()] == ["b"]
