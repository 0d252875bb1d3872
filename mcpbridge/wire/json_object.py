"""The members of a JSON object, found and replaced without decoding their values.

A payload travels as its sender's bytes, so a value that must change (an id, a progress token)
is cut out and replaced where it stands. msgspec checks the whole text and tells each value's
length; in the usual compact form the lengths alone tell where each value stands, else a walk over
the keys does. Either sees a key named twice, which msgspec and most parsers silently resolve, each
in its own way. Two readers that resolve
it differently would let a client name one token to us and another to the child.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterable, Mapping
from typing import TypeVar

import msgspec
from msgspec import Raw

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage, TooDeep

MAX_DEPTH = 512
"""Nesting that is ever allowed in a message; common parsers give up at about 1000."""

T = TypeVar("T")

Span = tuple[int, int]
"""Where a value stands: start and end offset."""

_object_decoder = msgspec.json.Decoder(dict[str, Raw])
_array_decoder = msgspec.json.Decoder(list[Raw])
_string_decoder = msgspec.json.Decoder(str)
_text_decoder = msgspec.json.Decoder(Raw)

# Possessive: a key of 4 MB would otherwise leave 600 MB of places to come back to.
_KEY = re.compile(rb'[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_AFTER_VALUE = re.compile(rb"[ \t\r\n]*([,}])")
_BETWEEN = re.compile(rb"[ \t\r\n]*+[\[,]?[ \t\r\n]*+")
_HEX2 = rb"[0-9a-fA-F]{2}"
_SURROGATES = re.compile(
    rb"\\\\|\\u[dD][89abAB]%b\\u[dD][c-fC-F]%b|\\u[dD][89a-fA-F]%b" % (_HEX2, _HEX2, _HEX2)
)
_NOT_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_OPENS = ord("[")
_WORTH_A_PASS = 16
"""A pass that takes less than this part of the brackets away is no faster than to count them."""
_LEAST_SPAN = 16
_RECENT_BYTES = 4096
"""Of longer texts nothing is remembered, so that what is remembered is bounded."""
_LONG_BYTES = 4096
_FEW = 8
"""Brackets that are sought one by one before they are counted; one more for each 4 KiB of text."""


def spans(data: bytes) -> Mapping[str, Span]:
    """Where the value of each member of a JSON object stands, in the object's order.

    Costs one native pass over `data` and a little for each member.

    Raises:
        NotJson: `data` is not a JSON text.
        NotMessage: `data` is JSON but not an object.
        DuplicateMember: A key stands in it twice.
    """
    # One call's params are opened by several rules in turn, and its `_meta` is that of the last.
    return _recent_spans(data) if len(data) <= _RECENT_BYTES else spans_once(data)


def spans_once(data: bytes) -> Mapping[str, Span]:
    """As `spans`, for a text that nobody will open again; cheaper then."""
    found = _plain_spans(data)
    return _walked_spans(data) if found is None else found


_recent_spans = functools.lru_cache(maxsize=64)(spans_once)


def _plain_spans(data: bytes) -> dict[str, Span] | None:
    """The spans in an object in the usual compact form; None where a closer look is due.

    Keys, values and marks add up to the length of the text only if no key stands twice, none is
    spelled with escapes or beyond ASCII, and no blanks are between: each of them makes the text
    longer than its sum.
    """
    try:
        values = _object_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return None
    found: dict[str, Span] = {}
    position = 1
    for key, value in values.items():
        start = position + len(key) + 3
        position = start + len(memoryview(value)) + 1
        found[key] = (start, position - 1)
    return found if position == len(data) else None


def _walked_spans(data: bytes) -> dict[str, Span]:
    data = _without_lone_surrogates(data)
    values = decode_checked(_object_decoder, data, "an object")
    found: dict[str, Span] = {}
    position = data.index(b"{") + 1
    while (key_match := _KEY.match(data, position)) is not None:
        key = _string_decoder.decode(key_match[1])
        start = key_match.end()
        value = bytes(values[key])
        end = start + len(value)
        after = _AFTER_VALUE.match(data, end)
        if key in found or after is None or data[start:end] != value:
            raise DuplicateMember(f"member {key[:64]!r} stands twice in one object")
        found[key] = (start, end)
        position = after.end()
    return found


def unmistakable(found: Mapping[str, Span], name: str) -> Span | None:
    """The span of a member that no reader can take for another; None where it is absent.

    Some readers ignore case (Go's `encoding/json`), so that `ID` overrides `id` for them.

    Raises:
        DuplicateMember: Another member has this name but for case.
    """
    folded = name.casefold()
    for other in found:
        if other != name and other.casefold() == folded:
            raise DuplicateMember(f"member {other[:64]!r} could be read as {name!r}")
    return found.get(name)


def elements(data: bytes) -> list[bytes]:
    """The elements of a JSON array, each as its own bytes.

    Raises:
        NotJson: `data` is not a JSON text.
        NotMessage: `data` is JSON but not an array.
    """
    if _without_lone_surrogates(data) is not data:
        raise NotJson("lone surrogate in a batch")
    return [bytes(raw) for raw in decode_checked(_array_decoder, data, "an array")]


def element_spans(data: bytes) -> list[Span]:
    """Where the elements of a JSON array stand, in order; raises what `elements` raises.

    One with a lone surrogate in it has its place too.
    """
    found: list[Span] = []
    position = 0
    for raw in decode_checked(_array_decoder, _without_lone_surrogates(data), "an array"):
        between = _BETWEEN.match(data, position)
        assert between is not None  # each part of the pattern may be absent
        start = between.end()
        position = start + len(memoryview(raw))
        found.append((start, position))
    return found


def may_hold_meta(data: bytes, sign: bytes) -> bool:
    """Whether `_meta` with this sign in it may stand in a text, be it spelled with escapes.

    One byte is sought first: that is native to the processor, where a search for two or more takes
    each byte of a long text in turn.
    """
    return (b"_" in data and sign in data) or (b"\\" in data and b"\\u" in data)


def member(data: bytes, *path: str) -> bytes | None:
    """The raw value at a path of member names below an object, or None where it ends early."""
    for name in path:
        if not data.startswith(b"{"):
            return None
        span = spans(data).get(name)
        if span is None:
            return None
        data = data[slice(*span)]
    return data


def spliced(data: bytes, span: Span, value: bytes) -> bytes:
    """`data` with the bytes at one span replaced."""
    start, end = span
    return b"%b%b%b" % (data[:start], value, data[end:])


def replaced(data: bytes, changes: Iterable[tuple[Span, bytes]]) -> bytes:
    """`data` with the bytes at each span replaced; spans do not overlap."""
    pieces: list[bytes] = []
    position = 0
    for (start, end), value in sorted(changes):
        pieces += (data[position:start], value)
        position = end
    pieces.append(data[position:])
    return b"".join(pieces)


def check_text(data: bytes, max_depth: int = MAX_DEPTH) -> bool:
    """Refuse what the decoder below would pass: invalid UTF-8 in opaque parts, great depth.

    Only a text with more opening brackets than the depth allowed is looked at closely.

    Returns:
        Whether the text is ASCII alone, for those who would look once more.

    Raises:
        NotJson: `data` is not UTF-8.
        TooDeep: `data` nests more than `max_depth` deep.
    """
    ascii_alone = data.isascii()
    if not ascii_alone:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise NotJson(f"not UTF-8 at byte {error.start}") from None
    if len(data) > max_depth and _openings(data) > max_depth:
        _check_depth(data, max_depth)
    return ascii_alone


def check_json(data: bytes) -> None:
    """Refuse what is not JSON, whatever its value.

    Raises:
        NotJson: `data` is not a JSON text.
        TooDeep: `data` nests too deep to be read.
    """
    decode_checked(_text_decoder, _without_lone_surrogates(data), "a value")


def decode_checked(decoder: msgspec.json.Decoder[T], data: bytes, wanted: str) -> T:
    """Decode, with msgspec's errors turned into ours."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise NotMessage(f"not {wanted}") from None
    except msgspec.DecodeError as error:
        raise NotJson(str(error)) from None
    except RecursionError:
        raise TooDeep("nested too deep to be read") from None


def _openings(data: bytes) -> int:
    """How many brackets a text opens, those in its strings too."""
    if len(data) < _LONG_BYTES:
        return data.count(b"[") + data.count(b"{")
    return _sought(data, b"[") + _sought(data, b"{")


def _sought(data: bytes, byte: bytes) -> int:
    """How often a byte stands in a long text, which mostly is seldom.

    A count takes each byte in turn, 0.3 ms a MB; to seek the next is native to the processor, and
    thirty times as fast where there are few. Where there are not so few the rest is counted.
    """
    found, position = 0, data.find(byte)
    most = _FEW + len(data) // _LONG_BYTES
    while position >= 0:
        found += 1
        if found > most:
            return found + data.count(byte, position + 1)
        position = data.find(byte, position + 1)
    return found


def _check_depth(data: bytes, max_depth: int) -> None:
    brackets = _brackets(data)
    # Flat data is mostly empty pairs: each pass takes one level off every leaf, natively, and is
    # worth it as long as much goes away.
    rest, passes = brackets, 0
    while len(shorter := rest.replace(b"[]", b"")) < len(rest) - len(rest) // _WORTH_A_PASS:
        rest, passes = shorter, passes + 1
    # What is left may be less deep than all, by one level for each pass.
    may_be = passes > max_depth or _deeper_than(max_depth - passes, rest)
    if may_be and _deeper_than(max_depth, brackets):
        raise TooDeep(f"nested deeper than --max-json-depth {max_depth}")


def _brackets(data: bytes) -> bytes:
    """The brackets of a text that stand outside of strings, braces as square ones.

    Native passes alone: 3 ms for a MB, whatever is in it.
    """
    if b"\\" in data:
        # A quote behind a backslash ends no string; pairs of backslashes go first, since the second
        # of a pair escapes nothing.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes with nothing between them neither begin nor end a string that matters here.
    marks = data.translate(_SQUARE, _NOT_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks


def _deeper_than(limit: int, brackets: bytes) -> bool:
    """Whether square brackets nest deeper; counts only where the limit is near."""
    depth = at = 0
    while at < len(brackets):
        headroom = limit - depth
        part = brackets[at : at + max(headroom, _LEAST_SPAN)]
        openings = part.count(b"[")
        if openings > headroom:
            for bracket in part:
                depth += 1 if bracket == _OPENS else -1
                if depth > limit:
                    return True
        else:
            depth += 2 * openings - len(part)
        at += len(part)
    return False


def _without_lone_surrogates(data: bytes) -> bytes:
    """`data` with `\\ud800`-like escapes that stand alone masked, at the same length.

    They are legal JSON, travel as they came, and only msgspec refuses them.
    """
    if b"\\" not in data or (b"\\ud" not in data and b"\\uD" not in data):
        return data

    def mask(match: re.Match[bytes]) -> bytes:
        return b"\\ufffd" if len(match[0]) == len(b"\\ud800") else match[0]

    masked = _SURROGATES.sub(mask, data)
    return data if masked == data else masked


_BLANKS = b" \t\r\n"


def opened(data: bytes) -> dict[str, bytes]:
    """The members of an object, each value as its sender wrote it; raises what `spans` raises."""
    return {name: data[start:end] for name, (start, end) in spans(data).items()}


def packed(members: Mapping[str, bytes]) -> bytes:
    """An object of these members, in their order."""
    pairs = (b"%b:%b" % (msgspec.json.encode(name), value) for name, value in members.items())
    return b"{%b}" % b",".join(pairs)


def with_members(data: bytes, added: Mapping[str, bytes]) -> bytes:
    """The object with these members set."""
    return packed({**opened(data), **added})


def without(data: bytes, names: Container[str]) -> bytes:
    """The object without the members of these names; untouched where it has none of them."""
    kept: list[bytes] = []
    members = spans(data)
    before = data.index(b"{") + 1
    for name, (_, end) in members.items():
        if name not in names:
            # Its comma too, its key and its value.
            kept.append(data[before:end])
        before = end
    if len(kept) == len(members):
        return data
    text = b"".join(kept).lstrip(_BLANKS)
    return b"{%b}" % text.removeprefix(b",")
