"""The members of a JSON object, found and replaced without decoding their values.

A payload travels as its sender's bytes, so a value that must change (an id, a progress token)
is cut out and replaced in place. msgspec checks the whole text and gives the length of each
value. In the usual compact form these lengths give the position of each value; in any other form
a walk over the keys finds it. Both detect a key named twice, which msgspec and most parsers
silently resolve, each in its own way. Two readers that resolve it differently would let a client
name one token to the bridge and another to the child.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage, TooDeep, TooMany, WireError

MAX_DEPTH = 512
"""Deepest nesting ever allowed in a message; common parsers give up at about 1000."""
MAX_MEMBERS = 1000
"""Most members of an object that is opened. Objects that no rule opens may have more."""
MAX_ELEMENTS = 4000
"""Most elements of an array that is opened, such as a list of tools."""
LONG_BYTES = 1 << 16
"""A text of at least this length keeps its spans when it is changed."""

T = TypeVar("T")

Span = tuple[int, int]
"""Start and end offset of a value."""

_object_decoder = msgspec.json.Decoder(dict[str, Raw])
_array_decoder = msgspec.json.Decoder(list[Raw])
_string_decoder = msgspec.json.Decoder(str)
_text_decoder = msgspec.json.Decoder(Raw)

# Possessive quantifiers: backtracking over a key of 4 MB would need 600 MB.
_KEY = re.compile(rb'[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_AFTER_VALUE = re.compile(rb"[ \t\r\n]*([,}])")
_LEAD = re.compile(rb"[ \t\r\n]*+,?+")
_BETWEEN = re.compile(rb"[ \t\r\n]*+[\[,]?[ \t\r\n]*+")
_HEX2 = rb"[0-9a-fA-F]{2}"
_SURROGATES = re.compile(
    rb"\\\\|\\u[dD][89abAB]%b\\u[dD][c-fC-F]%b|\\u[dD][89a-fA-F]%b" % (_HEX2, _HEX2, _HEX2)
)
# A byte is searched by its number: for `b"x" in data` CPython first takes `b"x"` for a number and
# makes an exception with a text, in 1500 instructions.
BACKSLASH = ord("\\")
_LOW_LINE = ord("_")
_NOT_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_OPENS = ord("[")
_WORTH_A_PASS = 16
"""A pass must remove at least 1/16 of the brackets to be faster than counting them."""
_SLICE_BYTES = 1 << 18
"""Bytes scanned in one call, so that other threads get the interpreter within 1 to 2 ms."""
_LEAST_SPAN = 16
_LONG_BYTES = 4096
_MOST_OF_PLAIN = 512
"""Brackets of a plain text: with many more, its arrays and objects take longer than its bytes."""


class Payload(bytes):
    """The text of an object that several rules open in turn; it is walked once for all of them.

    The params of a request are one, and so is every long text: a walk takes up to 20 ms for 4 MiB.
    Where its members are is found when a rule asks for the first time.
    """

    # A subclass of bytes cannot have non-empty __slots__.
    _found: Mapping[str, Span] | None = None
    _problem: WireError | None = None
    _parts: dict[Span, Payload] | None = None
    _members: dict[str, Payload | None] | None = None

    def spans(self) -> Mapping[str, Span]:
        """Return the members as the function `spans` does; raise what it raises."""
        if self._found is not None:
            return self._found
        if self._problem is not None:
            raise type(self._problem)(self._problem.detail)
        try:
            self._found = _found_spans(self)
        except WireError as problem:
            self._problem = problem
            raise
        return self._found

    @property
    def known(self) -> Mapping[str, Span] | None:
        """The members, if they have been found; None if they have not, or cannot be."""
        return self._found

    def part(self, span: Span) -> Payload:
        """Return the bytes at a span, the same object each time."""
        if self._parts is None:
            self._parts = {}
        found = self._parts.get(span)
        if found is None:
            start, end = span
            found = self._parts[span] = Payload(self[start:end])
        return found

    def object_in(self, name: str) -> Payload | None:
        """Return the object that is a member, the same each time; None if there is none.

        Raises:
            WireError: See `spans`.
        """
        if self._members is None:
            self._members = {}
        elif name in self._members:
            return self._members[name]
        span = self.spans().get(name)
        found = None
        if span is not None and self[span[0] : span[0] + 1] == b"{":
            found = self.part(span)
        self._members[name] = found
        return found

    def knowing(self, found: Mapping[str, Span]) -> Payload:
        """Set where the members are, which its maker knows; return the payload itself."""
        self._found = found
        return self

    def spliced(self, span: Span, value: bytes) -> Payload:
        """Return it with the bytes of one member's value, or within it, replaced."""
        start, end = span
        if len(self) < LONG_BYTES:
            return Payload(b"".join((self[:start], value, self[end:])))
        changed = Payload(_joined(self, [(span, value)]))
        if self._found is None:
            return changed
        longer = len(value) - (end - start)
        moved: dict[str, Span] = {}
        for name, (first, last) in self._found.items():
            moved[name] = (
                first + longer if first >= end else first,
                last + longer if last >= end else last,
            )
        return changed.knowing(moved)


def spans(data: bytes) -> Mapping[str, Span]:
    """Return the position of each member's value in a JSON object, in the object's order.

    Costs one native pass over `data` and a little Python for each member.

    Raises:
        NotJson: `data` is not a JSON text.
        NotMessage: `data` is JSON but not an object.
        DuplicateMember: A key is repeated.
        TooMany: `data` has more than `MAX_MEMBERS` members.
    """
    if type(data) is not Payload:
        return _found_spans(data)
    return data._found or data.spans()


def _found_spans(data: bytes) -> dict[str, Span]:
    try:
        short = len(data) <= _LONG_BYTES
        values = (_object_decoder if short else _decoder_of(data)).decode(data)
    except (msgspec.MsgspecError, RecursionError):
        # Not an object, or with lone surrogates; what is wrong is found below.
        data = _without_lone_surrogates(data)
        values = decode_checked(_decoder_of(data), data, "an object")
    found, end = compact_spans(values, short=len(data) < LONG_BYTES)
    if end != len(data):
        return _walked_spans(data, values)
    return found if short else uncounted(found)


def uncounted(found: Mapping[str, Span]) -> dict[str, Span]:
    """Return spans under plain names, whether or not they were counted."""
    return {str(name): span for name, span in found.items()}


def compact_spans(values: Mapping[str, Raw], *, short: bool) -> tuple[dict[str, Span], int]:
    """Return the spans of an object's members, and its length, if it is in the compact form.

    The lengths of keys, values and punctuation add up to the length of the text only if no key is
    repeated, no key has escapes or characters beyond ASCII, and there is no whitespace between
    tokens: each of these makes the text longer than the sum. So the spans are right if the length
    is.

    Args:
        values: The decoded members, in their order.
        short: The text is shorter than `LONG_BYTES`.
    """
    found: dict[str, Span] = {}
    end, joined = 0 if values else 1, b"".join
    for key, value in values.items():
        start = end + len(key) + 4
        # For a short value a copy takes half of the instructions of a view.
        end = start + (len(joined((value,))) if short else len(memoryview(value)))
        found[key] = (start, end)
    return found, end + 1


def _walked_spans(data: bytes, values: Mapping[str, Raw]) -> dict[str, Span]:
    found: dict[str, Span] = {}
    position = data.index(b"{") + 1
    while (key_match := _KEY.match(data, position)) is not None:
        key = _string_decoder.decode(key_match[1])
        start = key_match.end()
        value = memoryview(values[key])
        end = start + len(value)
        after = _AFTER_VALUE.match(data, end)
        # Not by `==`, which compares views byte by byte and not in one native call.
        if key in found or after is None or not data.startswith(value, start):
            raise DuplicateMember(f"member {key[:64]!r} stands twice in one object")
        found[key] = (start, end)
        position = after.end()
    return found


class Key(str):
    """The name of a member that is counted; msgspec does not encode it."""

    __slots__ = ()


def counting_keys() -> Callable[[type, str], Key]:
    """Return a hook for one use of a decoder of `dict[Key, Raw]`: it ends it if there are too many.

    Decoding the object first and counting then takes 0.4 s and 300 MB for 1,400,000 members.
    """
    numbers = iter(range(MAX_MEMBERS))

    def count(_: type, name: str) -> Key:
        if next(numbers, None) is None:
            raise TooMany(f"an object has more than {MAX_MEMBERS} members")
        return Key(name)

    return count


def may_have_many(data: bytes) -> bool:
    """Return whether an object in a text may have too many members to be opened."""
    return len(data) > _LONG_BYTES and has_more(data, b":", MAX_MEMBERS)


def _decoder_of(data: bytes) -> msgspec.json.Decoder[Any]:
    """Return a decoder of objects; if there may be too many members, one that stops early."""
    if not may_have_many(data):
        return _object_decoder
    return msgspec.json.Decoder(dict[Key, Raw], dec_hook=counting_keys())


@functools.cache
def _bounded_decoder(most: int) -> msgspec.json.Decoder[Any]:
    """Return a decoder of arrays that stops at the first element over the limit."""
    fields = [(f"e{number}", Raw | UnsetType, UNSET) for number in range(most)]
    kind = msgspec.defstruct("Elements", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(kind)


def _elements(data: bytes, most: int) -> list[Raw]:
    if data.count(b",") >= most and data.lstrip(_BLANKS).startswith(b"["):
        try:
            _bounded_decoder(most).decode(data)
        except msgspec.ValidationError:
            raise TooMany(f"an array has more than {most} elements") from None
        except (msgspec.DecodeError, RecursionError):
            pass  # reported by decode_checked below
    return decode_checked(_array_decoder, data, "an array")


def unambiguous(found: Mapping[str, Span], name: str) -> Span | None:
    """Return the span of a member that no reader can mistake, or None if it is absent.

    Some readers ignore case (Go's `encoding/json`), so that `ID` overrides `id` for them.

    Raises:
        DuplicateMember: The name of another member differs in case only.
    """
    folded = name.casefold()
    for other in found:
        if other != name and other.casefold() == folded:
            raise DuplicateMember(f"member {other[:64]!r} could be read as {name!r}")
    return found.get(name)


def elements(data: bytes, most: int = MAX_ELEMENTS) -> list[bytes]:
    """Return the elements of a JSON array, each as its own bytes.

    Raises:
        NotJson: `data` is not a JSON text.
        NotMessage: `data` is JSON but not an array.
        TooMany: It has more than `most` elements.
    """
    if _without_lone_surrogates(data) is not data:
        raise NotJson("lone surrogate in a batch")
    return [bytes(raw) for raw in _elements(data, most)]


def element_spans(data: bytes) -> list[Span]:
    """Return the spans of the elements of a JSON array in order; raise what `elements` raises.

    An element with a lone surrogate has a span too.
    """
    found: list[Span] = []
    position = 0
    for raw in _elements(_without_lone_surrogates(data), MAX_ELEMENTS):
        between = _BETWEEN.match(data, position)
        assert between is not None  # each part of the pattern may be absent
        start = between.end()
        position = start + len(memoryview(raw))
        found.append((start, position))
    return found


def may_hold_meta(data: bytes, sign: bytes) -> bool:
    """Return whether a text may contain `_meta` with `sign` in it, perhaps written with escapes.

    One byte is searched first: that search uses native vector instructions, while a search for
    two or more bytes visits each byte of a long text. A long text whose members are known is not
    searched at all.
    """
    if len(data) >= LONG_BYTES and type(data) is Payload and data.known is not None:
        return any(name.casefold() == "_meta" for name in data.known)
    return (_LOW_LINE in data and data.find(sign) >= 0) or (
        BACKSLASH in data and data.find(b"\\u") >= 0
    )


def part(data: bytes, span: Span) -> bytes:
    """Return the bytes at a span; a long part of a `Payload` is the same object each time."""
    start, end = span
    if end - start >= LONG_BYTES and type(data) is Payload:
        return data.part(span)
    return data[start:end]


def object_at(data: bytes, span: Span) -> bytes:
    """Return the bytes at a span, to be opened; of a `Payload` the same object each time."""
    return data.part(span) if type(data) is Payload else data[slice(*span)]


def member(data: bytes, *path: str) -> bytes | None:
    """Return the raw value at a path of member names, or None if a name on it is absent."""
    left = len(path)
    for name in path:
        span = spans(data).get(name) if data[:1] == b"{" else None
        if span is None:
            return None
        left -= 1
        data = object_at(data, span) if left else part(data, span)
    return data


def spliced(data: bytes, span: Span, value: bytes) -> bytes:
    """Return `data` with the bytes of one member's value, or within it, replaced."""
    start, end = span
    if type(data) is Payload:
        return data.spliced(span, value)
    return b"".join((data[:start], value, data[end:]))


def replaced(data: bytes, changes: Iterable[tuple[Span, bytes]]) -> bytes:
    """Return `data` with the bytes at each span replaced; spans must not overlap.

    For a text that is not opened any more: of a long one nothing is copied but the result.
    """
    return _joined(data, sorted(changes))


def _joined(data: bytes, changes: Sequence[tuple[Span, bytes]]) -> bytes:
    # Slices of a long text would be another copy, and a short view costs more than a copy.
    source = data if len(data) < LONG_BYTES else memoryview(data)
    pieces: list[bytes | memoryview] = []
    position = 0
    for (start, end), value in changes:
        pieces += (source[position:start], value)
        position = end
    pieces.append(source[position:])
    return b"".join(pieces)


def check_text(data: bytes, max_depth: int = MAX_DEPTH) -> bool:
    """Reject what the decoder would accept: invalid UTF-8 in opaque parts, and deep nesting.

    Only a text with more opening brackets than `max_depth` is examined closely.

    Returns:
        Whether the text is pure ASCII, which saves callers another check.

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
    if len(data) > max_depth and _opens_more(data, max_depth):
        _check_depth(data, max_depth)
    return ascii_alone


def check_json(data: bytes) -> None:
    """Reject text that is not JSON.

    Raises:
        NotJson: `data` is not a JSON text.
        TooDeep: `data` is nested too deep to be read.
    """
    decode_checked(_text_decoder, _without_lone_surrogates(data), "a value")


def decode_checked(decoder: msgspec.json.Decoder[T], data: bytes, wanted: str) -> T:
    """Decode `data`; raise WireError in place of msgspec's errors."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise NotMessage(f"not {wanted}") from None
    except msgspec.DecodeError as error:
        raise NotJson(str(error)) from None
    except RecursionError:
        raise TooDeep("nested too deep to be read") from None


def is_plain(data: bytes) -> bool:
    """Return whether a long text is read in little time, at most 8 ms/MiB, whatever is in it.

    Only arrays and objects, and line ends, take several times as long.
    """
    return b"\n" not in data and b"\r" not in data and not _opens_more(data, _MOST_OF_PLAIN)


def _opens_more(data: bytes, most: int) -> bool:
    """Return whether there are more opening brackets, including those inside strings."""
    if len(data) < _LONG_BYTES:
        return data.count(b"[") + data.count(b"{") > most
    return has_more(data, b"[{", most)


def has_more(data: bytes, sought: bytes, most: int) -> bool:
    """Return whether any of these bytes occur more than `most` times, all together.

    Counting visits each byte, 0.3 ms/MB; searching for the next occurrence is native to the
    processor and thirty times as fast.
    """
    for byte in sought:
        position = data.find(byte)
        while position >= 0:
            most -= 1
            if most < 0:
                return True
            position = data.find(byte, position + 1)
    return False


def _check_depth(data: bytes, max_depth: int) -> None:
    depth, in_string, at = 0, False, 0
    while at < len(data):
        piece = data[at : at + _SLICE_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            # The escaped character after the last backslash belongs to this piece.
            piece = data[at : at + len(piece) + 1]
        at += len(piece)
        brackets, quotes = _brackets(piece, in_string)
        if _may_be_deeper(max_depth - depth, brackets) and _deeper_than(
            max_depth - depth, brackets
        ):
            raise TooDeep(f"nested deeper than --max-json-depth {max_depth}")
        depth += 2 * brackets.count(b"[") - len(brackets)
        in_string ^= bool(quotes % 2)


def _may_be_deeper(limit: int, brackets: bytes) -> bool:
    """Return False if square brackets nest no deeper than a limit; True if they may.

    Each native pass removes the empty pairs, which is one level of every leaf, until a pass removes
    little. Each pass reduces the depth of the rest by at most one level.
    """
    if brackets.count(b"[") <= limit:
        return False
    if 2 * brackets.count(b"[") - len(brackets) > limit:
        return True
    # A part may begin or end inside deep nesting and is less deep in between.
    rest = brackets.lstrip(b"]")
    limit += len(brackets) - len(rest)
    rest = rest.rstrip(b"[")
    passes = 0
    while passes <= limit:
        shorter = rest.replace(b"[]", b"")
        if len(shorter) >= len(rest) - len(rest) // _WORTH_A_PASS:
            break
        rest, passes = shorter, passes + 1
    return passes > limit or _deeper_than(limit - passes, rest)


def _brackets(data: bytes, in_string: bool) -> tuple[bytes, int]:
    """Return the brackets outside of strings, braces as square ones; and the number of quotes.

    Native passes only: 3 ms for 1 MB, whatever the content.

    Args:
        data: Part of a text.
        in_string: The part begins inside a string.
    """
    if BACKSLASH in data:
        # A quote after a backslash does not end a string. Pairs of backslashes are removed first,
        # since the second one of a pair escapes nothing.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = data.translate(_SQUARE, _NOT_MARKS)
    quotes = marks.count(b'"')
    if not quotes:
        return b"" if in_string else marks, 0
    # From the first byte outside of strings to the last one.
    start = marks.index(b'"') + 1 if in_string else 0
    outside = marks[start : marks.rindex(b'"') if (quotes - in_string) % 2 else len(marks)]
    pairs = outside.count(b'""')
    if 2 * pairs == outside.count(b'"'):
        # No string contains a bracket, as usual: then it takes a third less.
        return outside.translate(None, b'"'), quotes
    # Two adjacent quotes neither begin nor end a string that contains brackets.
    return b"".join(outside.replace(b'""', b"").split(b'"')[::2]), quotes


def _deeper_than(limit: int, brackets: bytes) -> bool:
    """Return whether square brackets nest deeper than `limit`; count singly only close to it."""
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
    """Return `data` with lone surrogate escapes such as `\\ud800` masked, at the same length.

    They are legal JSON and travel as they came; msgspec alone rejects them.
    """
    if BACKSLASH not in data or (b"\\ud" not in data and b"\\uD" not in data):
        return data

    def mask(match: re.Match[bytes]) -> bytes:
        return b"\\ufffd" if len(match[0]) == len(b"\\ud800") else match[0]

    masked = _SURROGATES.sub(mask, data)
    return data if masked == data else masked


_BLANKS = b" \t\r\n"


def viewed(data: bytes) -> dict[str, bytes | memoryview]:
    """Return what `opened` returns, with views of long values, for an object that is packed again.

    The views are valid as long as `data`.
    """
    view = memoryview(data)
    return {
        name: data[start:end] if end - start < LONG_BYTES else view[start:end]
        for name, (start, end) in spans(data).items()
    }


def opened(data: bytes) -> dict[str, bytes]:
    """Return the members of an object with their raw values; raise what `spans` raises."""
    return {name: part(data, span) for name, span in spans(data).items()}


def packed(members: Mapping[str, bytes | memoryview]) -> bytes:
    """Return an object of these members, in their order."""
    found: dict[str, Span] = {}
    text = b"".join(packed_pieces(members, found))
    return Payload(text).knowing(found) if len(text) >= LONG_BYTES else text


def packed_pieces(
    members: Mapping[str, bytes | memoryview], found: dict[str, Span]
) -> list[bytes | memoryview]:
    """Return the pieces of an object of these members; note in `found` where their values are."""
    pieces: list[bytes | memoryview] = []
    position = 0
    for name, value in members.items():
        head = b"%b%b:" % (b"," if pieces else b"{", msgspec.json.encode(name))
        pieces += (head, value)
        position += len(head) + len(value)
        found[name] = (position - len(value), position)
    pieces.append(b"}" if pieces else b"{}")
    return pieces


def with_members(data: bytes, added: Mapping[str, bytes]) -> bytes:
    """Return the object with these members set."""
    return packed({**opened(data), **added})


def without(data: bytes, names: Container[str]) -> bytes:
    """Return the object without the named members; the same bytes if it has none of them."""
    kept: list[bytes | memoryview] = []
    members = spans(data)
    source = data if len(data) < LONG_BYTES else memoryview(data)
    before = data.index(b"{") + 1
    for name, (_, end) in members.items():
        if name not in names:
            # With the comma before it, its key and its value.
            kept.append(source[before:end])
        before = end
    if len(kept) == len(members):
        return data
    if len(data) < LONG_BYTES:
        return b"{%b}" % b"".join(kept).lstrip(_BLANKS).removeprefix(b",")
    if kept:
        lead = _LEAD.match(kept[0])
        assert lead is not None  # each part of the pattern may be absent
        kept[0] = kept[0][lead.end() :]
    text = b"".join((b"{", *kept, b"}"))
    if len(text) < LONG_BYTES:
        return text
    left = [(name, span) for name, span in members.items() if name not in names]
    return Payload(text).knowing(_backwards(left, map(len, kept), len(text) - 1))


def _backwards(
    members: list[tuple[str, Span]], sizes: Iterable[int], end: int
) -> Mapping[str, Span]:
    """Return the spans of members, each at the end of a piece of some size, before `end`."""
    found: list[tuple[str, Span]] = []
    for (name, (first, last)), size in zip(reversed(members), reversed([*sizes]), strict=True):
        found.append((name, (end - (last - first), end)))
        end -= size
    return dict(reversed(found))
