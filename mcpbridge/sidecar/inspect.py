"""Extracts facts from passing messages: methods, tools, error codes, kinds of events.

Nothing is validated or changed: content that cannot be parsed is ignored.
"""

from __future__ import annotations

import msgspec

MAX_KEPT = 1 << 20
"""Bytes of a body that are kept for inspection; a longer body is ignored."""
MAX_LINE = 1 << 16
"""A longer line of an event stream is ignored."""

_EVENT_TYPES = frozenset(("message", "endpoint", "ping", "error"))


class _Error(msgspec.Struct):
    code: int


class _Answered(msgspec.Struct):
    error: _Error | None = None


class InspectedMessage(msgspec.Struct, frozen=True):
    """The inspected part of a request or notification."""

    method: str
    params: msgspec.Raw = msgspec.Raw(b"null")


class _ToolNames(msgspec.Struct):
    result: msgspec.Raw


_asked = msgspec.json.Decoder(InspectedMessage)
_listed = msgspec.json.Decoder(_ToolNames)
_batch = msgspec.json.Decoder(list[msgspec.Raw])
_answered = msgspec.json.Decoder(_Answered)


def asked(body: bytes) -> list[InspectedMessage]:
    """Return the requests and notifications in a body or batch."""
    return [found for text in _texts(body) if (found := _inspected(text)) is not None]


def results(body: bytes) -> list[bytes]:
    """Return the results in a body or batch."""
    found = []
    for text in _texts(body):
        try:
            found.append(bytes(_listed.decode(text).result))
        except msgspec.MsgspecError:
            continue
    return found


def error_codes(body: bytes) -> list[int]:
    """Return the codes of the JSON-RPC errors in a body or batch."""
    if b'"error"' not in body:
        return []
    codes = []
    for text in _texts(body):
        try:
            answer = _answered.decode(text)
        except msgspec.MsgspecError:
            continue
        if answer.error is not None:
            codes.append(answer.error.code)
    return codes


class EventScan:
    """A scanner that finds events and errors in a stream, piece by piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        self._type = ""
        self._has_data = False

    def feed(self, piece: bytes) -> tuple[list[str], list[int]]:
        """Return the types of the events that end in a piece, and the codes of its errors."""
        types: list[str] = []
        codes: list[int] = []
        *lines, rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
                self._has_data = True
            elif not line:
                if self._has_data:
                    types.append(self._type or "message")
                self._type, self._has_data = "", False
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode("utf-8", "replace")
                self._type = name if name in _EVENT_TYPES else "other"
            elif line.startswith(b"data:"):
                self._has_data = True
                codes += error_codes(line[5:].strip())
        if len(rest) > MAX_LINE:
            self._skipping, rest = True, b""
        # Of an overlong line only the end matters, and that may be split between pieces too.
        self._rest = rest[-1:] if self._skipping else rest
        return types, codes


def _texts(body: bytes) -> list[bytes]:
    if body.lstrip()[:1] != b"[":
        return [body]
    try:
        return [bytes(raw) for raw in _batch.decode(body)]
    except msgspec.MsgspecError:
        return []


def _inspected(text: bytes) -> InspectedMessage | None:
    try:
        return _asked.decode(text)
    except msgspec.MsgspecError:
        return None
