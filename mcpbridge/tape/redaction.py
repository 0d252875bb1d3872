"""Removes secrets from what is recorded: known values, and members with the name of a secret.

A known value is removed in any spelling: as bytes, escaped as JSON, and inside JSON that a string
holds. Strings are visited one by one, so that no step takes long however long a message is.
Schemas of tools keep their members: a property called `token` there is a type.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from mcpbridge.wire.json_object import check_json
from mcpbridge.wire.messages import Failure, Message, Notification, Request, Result

MASK = "***"
LEAST_CHARACTERS = 4
"""A shorter value is removed only if it is a whole string: it occurs inside of words."""

_MASK = MASK.encode()
_NAME = re.compile(r"token|secret|passw|authorization|api[_-]?key|credential", re.IGNORECASE)
_COUNT = re.compile(r"tokens\Z", re.IGNORECASE)
"""`maxTokens` and its like are numbers, and not secret."""
_NOT_SECRET = frozenset(("progressToken", "requestId"))
PLAIN_WORDS = frozenset((
    "true", "false", "null", "none", "text", "json", "info", "debug", "warning", "error", "string",
    "object", "array", "number", "integer", "boolean", "image", "audio", "resource", "user",
    "assistant", "form", "accept", "decline", "cancel", "mcpbridge",
))  # fmt: skip
"""Words of the protocol: as the value of a variable they hide nothing."""
_SCHEMAS = frozenset(
    (
        ("result", "tools", "", "inputSchema"),
        ("result", "tools", "", "outputSchema"),
        ("params", "requestedSchema"),
    )
)
# Possessive, and in bounded pieces: no match takes long.
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.){0,4096}+', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*+:")
_BRACKET = re.compile(rb"[\[\]{}]")
_NUMBER = re.compile(rb"-?[0-9][0-9.eE+-]*+")
_IN_TEXT = re.compile(
    r"((?:token|secret|passw(?:or)?d|authorization|api[_-]?key|credentials?)[\"']?\s*[:=]\s*[\"']?"
    r"(?:(?:bearer|basic)\s+)?)([^\s\"',;}\]]+)",
    re.IGNORECASE,
)
_HEADER_IN_TEXT = re.compile(r"(authorization[\"']?\s*[:=]\s*)(\S.*)", re.IGNORECASE)
_QUOTE = ord('"')
_SHORT_BYTES = 1 << 16
"""Up to this length a text is searched as a whole first: most have no secret."""
_DEEPEST = 4
"""JSON in strings of JSON is followed to this depth."""


def is_secret_name(name: str) -> bool:
    """Return whether a member, header or variable of this name holds a secret."""
    return name not in _NOT_SECRET and _NAME.search(name) is not None


def secret_values(env: Mapping[str, str], given: Iterable[str]) -> frozenset[str]:
    """Return the values to remove, of a child's environment.

    Args:
        env: The child's whole environment; variables named like a secret count.
        given: Names of variables that the operator or a client has set; all of them count.
    """
    names = {name for name in env if is_secret_name(name)} | set(given)
    return frozenset(env[name] for name in names if env.get(name))


class Redactor:
    """Removes a set of known values, and members named like secrets."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Make a redactor of these values."""
        hiding = {each for each in values if each not in PLAIN_WORDS and each.strip(" *")}
        known = sorted(hiding, key=len)[::-1]
        self._whole = frozenset(known)
        self._values = [each for each in known if len(each) >= LEAST_CHARACTERS]
        escaped = {form for each in self._values for form in _spellings(each)}
        self._spellings = sorted(escaped, key=len)[::-1]
        self._bytes = [form.encode("utf-8", "surrogatepass") for form in self._spellings]
        self._numbers = frozenset(each.encode() for each in self._values if each.isdecimal())

    def text(self, text: str) -> str:
        """Return a line that is not JSON without secrets."""
        text = _HEADER_IN_TEXT.sub(rf"\g<1>{MASK}", self._without_values(text))
        return _IN_TEXT.sub(rf"\g<1>{MASK}", text)

    def message(self, message: Message) -> Message:
        """Return a message without secrets; the same if it has none."""
        match message:
            case Request(id, method, params, extra):
                params = self.payload(params, "params") if params is not None else None
                return Request(id, self._method(method), params, self._extra(extra))
            case Notification(method, params, extra):
                params = self.payload(params, "params") if params is not None else None
                return Notification(self._method(method), params, self._extra(extra))
            case Result(id, result, extra):
                return Result(id, self.payload(result, "result"), self._extra(extra))
            case Failure(id, error, extra):
                return Failure(id, self.payload(error, "error"), self._extra(extra))

    def payload(self, data: bytes, name: str = "") -> bytes:
        """Return a JSON text without secrets; `name`: the member of the envelope that it is."""
        return data if self._is_clean(data) else _Walk(self, data, name).run()

    def _is_clean(self, data: bytes) -> bool:
        """Return whether a short text holds nothing to remove; False if only a walk can tell."""
        if len(data) > _SHORT_BYTES or b"\\" in data or len(self._whole) > len(self._values):
            return False
        named = _NAME.search(data.decode("utf-8", "replace")) is not None
        return not named and not any(each in data for each in self._bytes)

    def string(self, raw: bytes, depth: int = 0) -> bytes:
        """Return the inside of a JSON string without known values, as JSON again."""
        if b"\\" not in raw:
            if raw.decode("utf-8", "replace") in self._whole:
                return _MASK
            for each in self._bytes:
                if each in raw:
                    raw = raw.replace(each, _MASK)
            return raw
        try:
            text = json.loads(b'"' + raw + b'"', strict=False)
        except ValueError:
            return _MASK
        shown = self._decoded(text, depth)
        return raw if shown == text else json.dumps(shown)[1:-1].encode()

    def is_known_number(self, raw: bytes) -> bool:
        """Return whether a number is written like a known value."""
        return raw in self._numbers

    @property
    def knows_numbers(self) -> bool:
        """Whether a known value is a number."""
        return bool(self._numbers)

    def _decoded(self, text: str, depth: int) -> str:
        """Return the text of a string without secrets; it may be JSON again."""
        if text in self._whole:
            return MASK
        if depth < _DEEPEST and text.lstrip()[:1] in ("{", "["):
            data = text.encode("utf-8", "surrogatepass")
            with contextlib.suppress(WireError):
                check_json(data)
                text = _Walk(self, data, "", depth + 1).run().decode("utf-8", "surrogatepass")
        return self._without_values(text)

    def _without_values(self, text: str) -> str:
        for each in self._spellings:
            if each in text:
                text = text.replace(each, MASK)
        return text

    def _method(self, method: str) -> str:
        if method in KNOWN_REQUESTS or method.startswith("notifications/"):
            return method
        return self._without_values(method)

    def _extra(self, extra: bytes) -> bytes:
        return b"," + self.payload(b"{%b}" % extra[1:])[1:-1] if extra else extra


class _Walk:
    """One pass over a JSON text."""

    def __init__(self, redactor: Redactor, data: bytes, name: str, depth: int = 0) -> None:
        self._redactor = redactor
        self._data = data
        self._depth = depth
        self._key = name
        """The member whose value comes next; empty in an array."""
        self._open: list[tuple[str, bool, bool]] = []
        """Of each open container: its name, whether it is hidden, whether it is a schema."""
        self._written: list[bytes] = []

    def run(self) -> bytes:
        """Return the text without secrets."""
        data, at = self._data, 0
        while (start := data.find(b'"', at)) >= 0:
            self._between(data[at:start])
            end = _string_end(data, start + 1)
            self._string(data[start + 1 : end], is_key=_COLON.match(data, end + 1) is not None)
            at = end + 1
        self._between(data[at:])
        return b"".join(self._written)

    def _string(self, raw: bytes, *, is_key: bool) -> None:
        if is_key:
            self._key = _plain(raw)
            shown = self._redactor.string(raw, self._depth)
        else:
            hides = self._hides(self._key)
            shown = _MASK if hides else self._redactor.string(raw, self._depth)
            self._key = ""
        self._written.append(b'"%b"' % shown)

    def _between(self, gap: bytes) -> None:
        at = 0
        for bracket in _BRACKET.finditer(gap):
            self._written.append(self._scalars(gap[at : bracket.start()]) + bracket[0])
            at = bracket.end()
            if bracket[0] in b"{[":
                self._open.append((self._key, self._hides(self._key), self._is_schema()))
            elif self._open:
                self._open.pop()
            self._key = ""
        self._written.append(self._scalars(gap[at:]))

    def _scalars(self, gap: bytes) -> bytes:
        if not gap or gap.isspace():
            return gap
        if self._key in _NOT_SECRET:
            return gap
        if self._hides(self._key) and _COUNT.search(self._key) is None:
            return _NUMBER.sub(b'"%b"' % _MASK, gap)
        if not self._redactor.knows_numbers:
            return gap
        return _NUMBER.sub(self._number, gap)

    def _number(self, found: re.Match[bytes]) -> bytes:
        return b'"%b"' % _MASK if self._redactor.is_known_number(found[0]) else found[0]

    def _hides(self, key: str) -> bool:
        _, hidden, schema = self._open[-1] if self._open else ("", False, False)
        return hidden or (not schema and is_secret_name(key))

    def _is_schema(self) -> bool:
        if self._open and self._open[-1][2]:
            return True
        return (*(name for name, _, _ in self._open[:3]), self._key) in _SCHEMAS


def _string_end(data: bytes, at: int) -> int:
    """Return the position of the quote that ends a string, or the end of the text."""
    while True:
        found = _INSIDE.match(data, at)
        assert found is not None  # the pattern may match nothing
        if found.end() >= len(data) or data[found.end()] == _QUOTE:
            return found.end()
        if found.end() == at:
            return len(data)  # a backslash that escapes nothing
        at = found.end()


def _plain(raw: bytes) -> str:
    """Return the text of a key."""
    if b"\\" not in raw:
        return raw.decode("utf-8", "replace")
    try:
        text: str = json.loads(b'"' + raw + b'"', strict=False)
    except ValueError:
        return raw.decode("utf-8", "replace")
    return text


def _spellings(value: str) -> Iterable[str]:
    """Return a value as it is, and as JSON writes it, once and twice."""
    yield value
    for escape in (json.dumps, lambda text: msgspec.json.encode(text).decode()):
        try:
            once = escape(value)[1:-1]
            yield once
            yield once.replace("/", "\\/")
            yield escape(once)[1:-1]
        except UnicodeEncodeError:
            continue  # a lone surrogate has no such spelling
