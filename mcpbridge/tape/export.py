"""Converts recordings: text for people, and HAR 1.2 for the tools that read it.

MCP is not HTTP: in a HAR each request, of either side, is an entry with its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from mcpbridge import __version__
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.tape.frame import Direction, Frame, value_at
from mcpbridge.tape.recording import Recording, time_of
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Request,
    Result,
    canonical_id,
    encode,
    text_of,
)

_ARROWS = {
    Direction.TO_SERVER: "->",
    Direction.FROM_SERVER: "<-",
    Direction.STDERR: "2>",
    Direction.META: "--",
}
_OTHER = {
    Direction.TO_SERVER: Direction.FROM_SERVER,
    Direction.FROM_SERVER: Direction.TO_SERVER,
}
_SHOWN_CHARACTERS = 400
_NS_PER_MS = 1e6
_MOST_OPEN = 100_000


class Pairs:
    """Finds the request that an answer belongs to; of requests without one, the latest are kept."""

    def __init__(self) -> None:
        """Make it without requests."""
        self._open: dict[tuple[str, Direction, bytes], Frame] = {}

    def request_of(self, frame: Frame) -> Frame | None:
        """Return the request that a frame answers; remember a frame that is a request."""
        match frame.message:
            case Request(id=own):
                if len(self._open) >= _MOST_OPEN:
                    del self._open[next(iter(self._open))]
                self._open[frame.session_id, frame.direction, canonical_id(own)] = frame
            case Result(id=bytes() as own) | Failure(id=bytes() as own):
                asker = _OTHER.get(frame.direction, frame.direction)
                return self._open.pop((frame.session_id, asker, canonical_id(own)), None)
        return None


def as_text(recording: Recording) -> Iterator[str]:
    """Yield a line for each frame: time, server, session, direction, what it is, ms, payload."""
    pairs = Pairs()
    for frame in recording.frames:
        yield text_of_frame(frame, pairs.request_of(frame))
    if recording.torn:
        yield "-- the last line of the recording is incomplete"


def text_of_frame(frame: Frame, asked: Frame | None) -> str:
    """Return a frame as a line.

    Args:
        frame: The frame.
        asked: The request that it answers, if it is known.
    """
    session = frame.session_id or "-"
    words = [time_of(frame.ts_ns), frame.server_label, session, _ARROWS[frame.direction]]
    if frame.message is None:
        words.append(_cut(frame.text or ""))
        words += [f"({frame.size} bytes)"] if frame.size is not None else []
    else:
        words += _described(frame.message, asked)
        if asked is not None:
            words.append(f"{ms_between(asked, frame):.1f} ms")
        words.append(_cut(_payload(frame.message)))
    return _printable(" ".join(word for word in words if word))


def as_har(recording: Recording) -> dict[str, Any]:
    """Return the recording as the object of a HAR file."""
    pairs = Pairs()
    answers: dict[int, Frame] = {}
    for frame in recording.frames:
        asked = pairs.request_of(frame)
        if asked is not None:
            answers[id(asked)] = frame
    entries = [
        _entry(frame, frame.message, answers.get(id(frame)))
        for frame in recording.frames
        if isinstance(frame.message, Request | Notification)
    ]
    creator = {"name": "mcpbridge", "version": __version__}
    return {"log": {"version": "1.2", "creator": creator, "entries": entries}}


def _entry(frame: Frame, message: Request | Notification, answer: Frame | None) -> dict[str, Any]:
    body = encode(message).decode("utf-8", "replace")
    said = encode(answer.message).decode("utf-8", "replace") if answer and answer.message else ""
    status, reason = (200, "OK") if answer else (0, "no answer")
    if isinstance(message, Notification):
        status, reason = 202, "Accepted"
    took = ms_between(frame, answer) if answer else 0
    side = "client" if frame.direction is Direction.FROM_SERVER else frame.server_label or "server"
    path = quote("/".join(filter(None, (message.method, name_in(message)))))
    return {
        "startedDateTime": time_of(frame.ts_ns),
        "time": took,
        "request": {
            "method": "POST",
            "url": f"http://{quote(side, safe='')}.invalid/{path}",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": [],
            "queryString": [],
            "postData": {"mimeType": "application/json", "text": body},
            "headersSize": -1,
            "bodySize": len(body.encode()),
        },
        "response": {
            "status": status,
            "statusText": reason,
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": [],
            "content": {
                "size": len(said.encode()),
                "mimeType": "application/json",
                "text": said,
            },
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": len(said.encode()),
        },
        "cache": {},
        "timings": {"send": 0, "wait": took, "receive": 0},
        "_session": frame.session_id,
        "_direction": frame.direction.value,
    }


def _described(message: Message, asked: Frame | None) -> list[str]:
    match message:
        case Request(id, method):
            return [method, name_in(message), f"id={id.decode('utf-8', 'replace')}"]
        case Notification(method):
            return [method]
        case _:
            kind = "error" if isinstance(message, Failure) else "answer"
            known = asked.message if asked is not None else None
            method = known.method if isinstance(known, Request) else "?"
            name = name_in(known) if isinstance(known, Request) else ""
            shown = message.id.decode("utf-8", "replace") if message.id is not None else "null"
            return [kind, method, name, f"id={shown}"]


def name_in(message: Request | Notification) -> str:
    """Return the tool or prompt that a request names; empty if it names none."""
    params = message.params
    if params is None or params[:1] != b"{" or message.method == INITIALIZE:
        return ""
    return text_of(value_at(params, "name")) or ""


def _payload(message: Message) -> str:
    match message:
        case Request(params=params) | Notification(params=params):
            payload = params or b""
        case Result(result=payload) | Failure(error=payload):
            pass
    return payload[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace")


def ms_between(earlier: Frame, later: Frame) -> float:
    """Return the milliseconds between two frames."""
    return (later.ts_ns - earlier.ts_ns) / _NS_PER_MS


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _printable(text: str) -> str:
    """Escape what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def har_text(recording: Recording) -> str:
    """Return the recording as a HAR file."""
    return json.dumps(as_har(recording), ensure_ascii=False, indent=1)
