"""Chooses frames: `tool:add status:error`, and words that their line contains.

A frame is shown if every word of the filter is true of it. An answer has the tool, the method and
the client of the request that it answers.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from mcpbridge.rules.access.tool_policy import TOOLS_CALL
from mcpbridge.tape.export import ms_between, name_in, text_of_frame
from mcpbridge.tape.frame import Direction, Frame, value_at
from mcpbridge.wire.messages import Failure, Notification, Request, Result

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?\Z")
_STATUSES = ("ok", "error")
_DIRECTIONS = tuple(each.value for each in Direction)


class Shown(msgspec.Struct, frozen=True):
    """A frame, and the request that it answers, if it is known."""

    frame: Frame
    asked: Frame | None

    @property
    def line(self) -> str:
        """The frame as text."""
        return text_of_frame(self.frame, self.asked)

    @property
    def request(self) -> Request | Notification | None:
        """What was asked or told; None for an answer to an unknown request and for other lines."""
        for each in (self.frame, self.asked):
            if each is not None and isinstance(each.message, Request | Notification):
                return each.message
        return None

    @property
    def status(self) -> str:
        """`ok` or `error` of an answer; `error` of a line that is not a message; else empty."""
        match self.frame.message:
            case Failure():
                return "error"
            case Result(result=result):
                return "error" if value_at(result, "isError") == b"true" else "ok"
        noise = self.frame.message is None and self.frame.direction is Direction.FROM_SERVER
        return "error" if noise else ""


Test = Callable[[Shown], bool]


class FrameFilter:
    """The words of a filter; without a word everything is shown."""

    def __init__(self, text: str = "") -> None:
        """Parse a filter.

        Raises:
            ValueError: A word is wrong; the text names it, and what would be right.
        """
        self._tests = [_test(word) for word in text.split()]

    def shows(self, shown: Shown) -> bool:
        """Return whether every word is true of a frame."""
        return all(each(shown) for each in self._tests)


def _test(word: str) -> Test:
    name, colon, value = word.partition(":")
    make = _TESTS.get(name) if colon else None
    if make is not None:
        if not value:
            raise ValueError(f"{word!r} names nothing")
        return make(word, value)
    # A URI is a text to look for.
    if colon and name.isalpha() and name.islower() and not value.startswith("//"):
        raise ValueError(f"{word!r} is unknown (expected {', '.join(f'{n}:' for n in _TESTS)})")
    wanted = word.casefold()
    return lambda shown: wanted in shown.line.casefold()


def _tool(word: str, pattern: str) -> Test:
    def test(shown: Shown) -> bool:
        request = shown.request
        return (
            isinstance(request, Request)
            and request.method == TOOLS_CALL
            and fnmatch.fnmatchcase(name_in(request), pattern)
        )

    return test


def _method(word: str, pattern: str) -> Test:
    def test(shown: Shown) -> bool:
        return shown.request is not None and fnmatch.fnmatchcase(shown.request.method, pattern)

    return test


def _server(word: str, pattern: str) -> Test:
    return lambda shown: fnmatch.fnmatchcase(shown.frame.server_label, pattern)


def _session(word: str, pattern: str) -> Test:
    return lambda shown: fnmatch.fnmatchcase(shown.frame.session_id, pattern)


def _client(word: str, pattern: str) -> Test:
    # A name is followed by the version and the beginning of a session's id: `vscode 1.120#a1b2`.
    patterns = (pattern, f"{pattern} *", f"{pattern}#*")

    def test(shown: Shown) -> bool:
        names = [each.facts.get("client") for each in (shown.frame, shown.asked) if each]
        found = [name for name in names if isinstance(name, str)]
        return any(fnmatch.fnmatchcase(name, each) for name in found for each in patterns)

    return test


def _status(word: str, value: str) -> Test:
    if value not in _STATUSES:
        raise ValueError(f"{word!r} is unknown (expected status:ok or status:error)")
    return lambda shown: shown.status == value


def _direction(word: str, value: str) -> Test:
    if value not in _DIRECTIONS:
        raise ValueError(f"{word!r} is unknown (expected {', '.join(_DIRECTIONS)})")
    return lambda shown: shown.frame.direction.value == value


def _slower(word: str, value: str) -> Test:
    if _NUMBER.match(value) is None:
        raise ValueError(f"{word!r} is not a number of milliseconds, as in slower:200")
    least_ms = float(value)

    def test(shown: Shown) -> bool:
        return shown.asked is not None and ms_between(shown.asked, shown.frame) >= least_ms

    return test


_TESTS: Mapping[str, Callable[[str, str], Test]] = MappingProxyType(
    {
        "tool": _tool,
        "method": _method,
        "server": _server,
        "session": _session,
        "client": _client,
        "status": _status,
        "direction": _direction,
        "slower": _slower,
    }
)
