"""Which frames a filter shows."""

from __future__ import annotations

import re

import pytest

from mcpbridge.tape.export import Pairs
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.frame_filter import FrameFilter, Shown
from mcpbridge.wire.messages import Failure, Message, Notification, Request, Result

MS = 1_000_000
SAID: list[tuple[int, str, Direction, Message | str]] = [
    (0, "a", Direction.META, "child.started pid=1"),
    (1, "a", Direction.TO_SERVER, Request(b"1", "tools/call", b'{"name":"add"}')),
    (2, "a", Direction.TO_SERVER, Request(b"2", "tools/call", b'{"name":"find"}')),
    (3, "a", Direction.TO_SERVER, Request(b"3", "resources/read", b'{"uri":"x://add"}')),
    (4, "a", Direction.FROM_SERVER, Notification("notifications/progress", b"{}")),
    (201, "a", Direction.FROM_SERVER, Result(b"1", b'{"content":[]}')),
    (202, "a", Direction.FROM_SERVER, Result(b"2", b'{"isError":true}')),
    (203, "a", Direction.FROM_SERVER, Failure(b"3", b"{}")),
    (204, "a", Direction.FROM_SERVER, "noise"),
    (205, "b", Direction.STDERR, "words: A"),
    (206, "b", Direction.FROM_SERVER, Result(b"9", b"{}")),
]


CLIENTS = {1: "vscode 1.120#a1b2", 2: "other#c3d4", 0: "vscode 1.120#a1b2"}
"""The client of some frames, by their milliseconds."""


def shown(text: str) -> list[int]:
    """The milliseconds of the frames that a filter shows."""
    pairs, wanted, found = Pairs(), FrameFilter(text), []
    for ms, label, direction, said in SAID:
        message, line = (None, said) if isinstance(said, str) else (said, None)
        facts = {"client": CLIENTS[ms]} if ms in CLIENTS else {}
        frame = Frame("s", label, 1, ms * MS, direction, message, line, facts=facts)
        if wanted.shows(Shown(frame, pairs.request_of(frame))):
            found.append(ms)
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [ms for ms, *_ in SAID]),
        ("tool:add", [1, 201]),
        ("tool:f*", [2, 202]),
        ("tool:add status:ok", [201]),
        ("status:error", [202, 203, 204]),
        ("status:ok", [201, 206]),
        ("method:resources/*", [3, 203]),
        ("method:notifications/*", [4]),
        ("server:b", [205, 206]),
        ("server:b status:ok", [206]),
        ("direction:stderr", [205]),
        ("direction:meta", [0]),
        ("slower:200", [201, 202, 203]),
        ("slower:200.5", []),
        ("session:s*", [ms for ms, *_ in SAID]),
        ("session:t*", []),
        ("client:vscode", [0, 1, 201]),
        ("client:vscode*a1b2 status:ok", [201]),
        ("client:*", [0, 1, 2, 201, 202]),
        ("client:other", [2, 202]),
        ("client:vs", []),
        ("WORDS:", [205]),
        ("x://add", [3]),
        ("tool:add tool:find", []),
    ],
)
def test_every_word_has_to_be_true(text: str, found: list[int]) -> None:
    """An answer has its request's tool, method and client; other words are parts of a line."""
    assert shown(text) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tol:x", "'tol:x' is unknown (expected tool:, method:, server:"),
        ("status:bad", "'status:bad' is unknown (expected status:ok or status:error)"),
        ("direction:up", "'direction:up' is unknown (expected c2s, s2c, stderr, meta)"),
        ("slower:fast", "'slower:fast' is not a number of milliseconds, as in slower:200"),
        ("tool:", "'tool:' names nothing"),
    ],
)
def test_a_wrong_word_is_named(text: str, problem: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        FrameFilter(text)


def test_requests_without_an_answer_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest are kept, and their answers find them."""
    monkeypatch.setattr("mcpbridge.tape.export._MOST_OPEN", 2)
    pairs = Pairs()
    asked = [
        Frame("s", "a", number, 0, Direction.TO_SERVER, Request(b"%d" % number, "ping"))
        for number in range(3)
    ]
    for each in asked:
        pairs.request_of(each)
    answers = [
        Frame("s", "a", 9, 0, Direction.FROM_SERVER, Result(b"%d" % number, b"{}"))
        for number in range(3)
    ]
    assert [pairs.request_of(each) for each in answers] == [None, asked[1], asked[2]]
