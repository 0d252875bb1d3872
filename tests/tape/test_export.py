"""Recordings as text and as HAR."""

from __future__ import annotations

import json

from mcpbridge.tape.export import as_text, har_text
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.recording import Recording
from mcpbridge.wire.messages import Failure, Notification, Request, Result

C2S, S2C = Direction.TO_SERVER, Direction.FROM_SERVER
SECOND = 10**9
FRAMES = [
    Frame("", "", 0, 0, Direction.META, text="recording"),
    Frame("s-1", "demo", 1, SECOND, C2S, Request(b"7", "tools/call", b'{"name":"add"}')),
    Frame("s-1", "demo", 2, SECOND + 1_500_000, S2C, Notification("notifications/x", b"{}")),
    Frame("s-1", "demo", 3, SECOND + 2_000_000, S2C, Request(b"7", "roots/list")),
    Frame("s-1", "demo", 4, SECOND + 2_500_000, S2C, Result(b"7", b'{"sum":3}')),
    Frame("s-1", "demo", 5, SECOND + 3_000_000, C2S, Failure(b"7", b'{"code":1}')),
    Frame("s-1", "demo", 6, SECOND * 2, Direction.STDERR, text="up\x1b[31m"),
    Frame("s-1", "demo", 7, SECOND * 3, S2C, text="head", size=999),
]


def test_text_has_a_line_for_each_frame() -> None:
    """With direction, name, id and time; nothing in it controls a terminal."""
    lines = list(as_text(Recording({}, FRAMES, torn=True)))
    assert lines == [
        "1970-01-01T00:00:00.000000Z - -- recording",
        '1970-01-01T00:00:01.000000Z demo s-1 -> tools/call add id=7 {"name":"add"}',
        "1970-01-01T00:00:01.001500Z demo s-1 <- notifications/x {}",
        "1970-01-01T00:00:01.002000Z demo s-1 <- roots/list id=7",
        '1970-01-01T00:00:01.002500Z demo s-1 <- answer tools/call add id=7 2.5 ms {"sum":3}',
        '1970-01-01T00:00:01.003000Z demo s-1 -> error roots/list id=7 1.0 ms {"code":1}',
        "1970-01-01T00:00:02.000000Z demo s-1 2> up\\x1b[31m",
        "1970-01-01T00:00:03.000000Z demo s-1 <- head (999 bytes)",
        "-- the last line of the recording is incomplete",
    ]


def test_har_has_an_entry_for_each_request_and_notification() -> None:
    """Of either side, with its answer and the time between."""
    log = json.loads(har_text(Recording({}, FRAMES, torn=False)))["log"]
    assert log["version"] == "1.2"
    call, note, roots = log["entries"]
    assert call["request"]["url"] == "http://demo.invalid/tools/call/add"
    assert json.loads(call["request"]["postData"]["text"])["params"] == {"name": "add"}
    assert json.loads(call["response"]["content"]["text"])["result"] == {"sum": 3}
    assert (call["time"], call["response"]["status"]) == (2.5, 200)
    assert note["response"]["status"] == 202
    assert roots["request"]["url"] == "http://client.invalid/roots/list"
    assert json.loads(roots["response"]["content"]["text"])["error"] == {"code": 1}


def test_an_unanswered_request_has_status_0() -> None:
    """And says so."""
    log = json.loads(har_text(Recording({}, FRAMES[:2], torn=False)))["log"]
    assert log["entries"][0]["response"]["statusText"] == "no answer"
