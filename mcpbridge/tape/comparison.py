"""Compares two JSON values and names each difference by its path, as RFC 9535 writes paths.

    $.result.content[0].text: recorded "3", now "4"

Differences below an ignored path do not count. Such a path may have `*` for any name or index and
`..name` for a name at any depth, and in front of its `$` a pattern for the request that it is for:
`tools/call now:$.result.content[*].text`.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from mcpbridge.tape.redaction import MASK

Path = tuple[str | int, ...]
_SEGMENT = re.compile(
    r"""(?P<deep>\.\.)?(?:
        (?<=\.\.)(?P<below>\*|[A-Za-z_$][\w$-]*)
      | \.(?P<name>\*|[A-Za-z_$][\w$-]*)
      | \[(?P<index>\*|[0-9]{1,9})\]
      | \[(?P<quoted>"(?:[^"\\]|\\.)*")\]
      | \['(?P<single>[^'\\]*)'\]
    )""",
    re.VERBOSE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z_$][\w$-]*\Z", re.ASCII)
_SHOWN_CHARACTERS = 120
_EXACT_FLOAT = 2.0**53


class _Missing:
    """The value of a member that is not there."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()


class Difference(msgspec.Struct, frozen=True):
    """One place at which two values differ."""

    path: Path
    recorded: Any
    """`MISSING` if only the other value has it."""
    current: Any

    def __str__(self) -> str:
        recorded, now = shown(self.recorded), shown(self.current)
        return f"{text_of_path(self.path)}: recorded {recorded}, now {now}"


class _Segment(msgspec.Struct, frozen=True):
    key: str | int | None
    """None: any."""
    deep: bool


class Ignored(msgspec.Struct, frozen=True):
    """A path whose differences do not count."""

    request: str
    """A pattern of file names for what is asked: `tools/call now`, or the method alone."""
    segments: Sequence[_Segment]

    def covers(self, request: str, path: Path) -> bool:
        """Return whether a difference at this path of the answer to this request is ignored."""
        names = (request, request.partition(" ")[0])
        if not any(fnmatch.fnmatchcase(each, self.request) for each in names):
            return False
        return _covers(self.segments, path)


def ignored_path(text: str) -> Ignored:
    """Parse a path to ignore.

    Raises:
        ValueError: Not a path; the text completes a sentence that begins with the value.
    """
    request, dollar, rest = text.partition("$")
    if not dollar or (request and not request.endswith(":")):
        raise ValueError("is not a JSON path; write $.result.content[0].text")
    segments: list[_Segment] = []
    at = 0
    while at < len(rest):
        found = _SEGMENT.match(rest, at)
        if found is None:
            raise ValueError(f"is not a JSON path: nothing is known to begin with {rest[at:]!r}")
        segments.append(_segment(found))
        at = found.end()
    if not segments:
        raise ValueError("ignores the whole answer; leave the request out of the recording")
    return Ignored(request[:-1] or "*", segments)


def _segment(found: re.Match[str]) -> _Segment:
    key: str | int | None = found["below"] or found["name"] or found["single"]
    if found["quoted"] is not None:
        key = json.loads(found["quoted"])
    if found["index"] is not None:
        key = found["index"]
        key = int(key) if key != "*" else key
    return _Segment(None if key == "*" else key, found["deep"] is not None)


def _covers(segments: Sequence[_Segment], path: Path) -> bool:
    if not segments:
        return True
    first, rest = segments[0], segments[1:]
    steps = range(len(path)) if first.deep else range(min(1, len(path)))
    return any(
        first.key in (None, path[step]) and _covers(rest, path[step + 1 :]) for step in steps
    )


def read_value(text: bytes) -> Any:
    """Return the value of a JSON text; `1.0` is `1`, and what no number can hold stays a text."""
    return json.loads(text, parse_float=_number, parse_int=_integer)


def _number(text: str) -> float | int | str:
    value = float(text)
    if not math.isfinite(value):
        return text
    return int(value) if value.is_integer() and abs(value) < _EXACT_FLOAT else value


def _integer(text: str) -> int | str:
    # Longer ones are refused by Python, since reading them takes quadratic time.
    return int(text) if len(text) < 1000 else text


def differences(recorded: Any, current: Any, path: Path = ()) -> Iterator[Difference]:
    """Yield each difference of two values, from their beginning; a removed secret equals any."""
    match recorded, current:
        case dict(), dict():
            for name in [*recorded, *(each for each in current if each not in recorded)]:
                one, other = recorded.get(name, MISSING), current.get(name, MISSING)
                yield from differences(one, other, (*path, name))
        case list(), list():
            for number in range(max(len(recorded), len(current))):
                one = recorded[number] if number < len(recorded) else MISSING
                other = current[number] if number < len(current) else MISSING
                yield from differences(one, other, (*path, number))
        case _:
            if not _equal(recorded, current):
                yield Difference(path, recorded, current)


def _equal(recorded: Any, current: Any) -> bool:
    if isinstance(recorded, str) and MASK in recorded:
        if isinstance(current, str):
            pattern = ".*".join(map(re.escape, recorded.split(MASK)))
            return re.fullmatch(pattern, current, re.DOTALL) is not None
        return (
            recorded == MASK and isinstance(current, int | float) and not isinstance(current, bool)
        )
    # In Python True is 1.
    return type(recorded) is type(current) and bool(recorded == current)


def counted(
    found: Iterable[Difference], request: str, ignored: Sequence[Ignored]
) -> list[Difference]:
    """Return the differences of an answer to this request that count."""
    return [each for each in found if not any(i.covers(request, each.path) for i in ignored)]


def text_of_path(path: Path) -> str:
    """Return a path as text: `$.result.content[0].text`."""
    parts = ["$"]
    for key in path:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif _PLAIN_NAME.match(key):
            parts.append(f".{key}")
        else:
            parts.append(f"[{printable(json.dumps(key, ensure_ascii=False))}]")
    return "".join(parts)


def shown(value: Any) -> str:
    """Return the beginning of a value for people, in one line."""
    if value is MISSING:
        return "nothing"
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def printable(text: str) -> str:
    """Escape what a terminal would obey, and what cannot be written."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
