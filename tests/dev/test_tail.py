"""Where frames are read, and how they are printed."""

from __future__ import annotations

import json
import re
import threading

import pytest

from mcpbridge.dev.tail import FrameLines, PageAddress, TailSink, page_address
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.frame_filter import FrameFilter
from mcpbridge.tape.redaction import Redactor
from mcpbridge.wire.messages import Request

WITHIN_S = 30


@pytest.mark.parametrize(
    ("text", "token", "found"),
    [
        ("http://h:1/ui#token=abc", None, ("http://h:1/ui/frames", "abc")),
        ("http://h:1/ui#token=abc", "other", ("http://h:1/ui/frames", "abc")),
        ("http://h:1/ui/", "t", ("http://h:1/ui/frames", "t")),
        ("h:1", "t", ("http://h:1/ui/frames", "t")),
        ("http://h:1/mcp?x=1", "t", ("http://h:1/ui/frames", "t")),
        ("https://h/behind/ui#token=a", None, ("https://h/behind/ui/frames", "a")),
        ("http://user:word@h/ui", "t", ("http://h/ui/frames", "t")),
    ],
)
def test_the_address_of_the_page_has_all_that_is_needed(
    text: str, token: str | None, found: tuple[str, str]
) -> None:
    """Its fragment is the token, before the one of the environment."""
    assert page_address(text, token) == PageAddress(*found)


@pytest.mark.parametrize(
    ("text", "token", "problem"),
    [
        ("http://h/ui", None, "there is no token: give the whole address of the page"),
        ("http://h/ui#token=", None, "there is no token"),
        ("http://h/ui", "a\nb", "there is no token"),
        ("ftp://h/ui#token=a", None, "is not an http URL"),
    ],
)
def test_what_is_missing_is_said(text: str, token: str | None, problem: str) -> None:
    """As one sentence."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        page_address(text, token)


def frame(seq: int, text: str = "x") -> Frame:
    """A frame."""
    return Frame("s-1", "a", seq, 0, Direction.STDERR, None, text)


def test_frames_are_json_or_text() -> None:
    """As JSON they are lines of a recording; what is lost has a line too."""
    for as_json in (True, False):
        found: list[str] = []
        lines = FrameLines(FrameFilter("direction:c2s"), found.append, as_json=as_json)
        lines.frame(frame(1))
        lines.frame(Frame("s-1", "a", 2, 0, Direction.TO_SERVER, Request(b"1", "ping")))
        lines.lost(3)
        if as_json:
            assert json.loads(found[0])["raw"] == {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            assert json.loads(found[1])["mcpbridge"] == {"frames": 3}
        else:
            assert found == [
                "1970-01-01T00:00:00.000000Z a s-1 -> ping id=1",
                "-- 3 frames are missing: they passed faster than they were read",
            ]


def test_what_a_slow_reader_misses_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it gets has no secrets."""
    monkeypatch.setattr("mcpbridge.dev.tail._QUEUED", 2)
    entered, released = threading.Event(), threading.Event()
    found: list[str] = []

    def write(line: str) -> None:
        found.append(line.rpartition(" 2> ")[2])
        entered.set()
        assert released.wait(WITHIN_S)

    sink = TailSink(FrameLines(FrameFilter(), write, as_json=False))
    with sink.open():
        sink.put(frame(1, "sesame"), Redactor(["sesame"]))
        assert entered.wait(WITHIN_S)
        # The writer holds the first one; two more fit.
        for number in range(2, 7):
            sink.put(frame(number, f"n{number}"), None)
        released.set()
    assert found == [
        "***",
        "-- 3 frames are missing: they passed faster than they were read",
        "n2",
        "n3",
    ]


def test_a_reader_that_is_gone_stops_nothing() -> None:
    """Frames are taken and let go."""
    tried: list[str] = []

    def write(line: str) -> None:
        tried.append(line)
        raise BrokenPipeError

    sink = TailSink(FrameLines(FrameFilter(), write, as_json=False))
    with sink.open():
        for number in range(20_000):
            sink.put(frame(number), None)
    assert len(tried) == 1
