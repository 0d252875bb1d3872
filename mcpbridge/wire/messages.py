"""JSON-RPC 2.0 messages with opaque payloads.

A message is opened one level only. `params`, `result` and `error` stay the bytes their sender
wrote: this is many times cheaper than decoding and encoding, and the only way to preserve integers
of 20 digits, number spelling, key order and unknown members. Line ends and the Unicode line
separators are the exception: between tokens or as an escape they mean the same, and some readers
of lines and of event streams split at them.

Source: JSON-RPC 2.0; MCP 2024-11-05 to 2025-11-25, Base Protocol (an id is a string or an
integer, never null).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mcpbridge.errors import DuplicateMember, NotMessage, TooMany, WireError
from mcpbridge.wire.json_object import (
    BACKSLASH,
    LONG_BYTES,
    MAX_DEPTH,
    Key,
    Payload,
    check_json,
    check_text,
    compact_spans,
    counting_keys,
    elements,
    may_have_many,
    object_at,
    packed_pieces,
    spans,
    uncounted,
)

MAX_ID_BYTES = 1024
"""Most bytes of an id, which is kept until its request is answered; a longer one is rejected."""
MAX_BATCH = 100
"""Messages in one batch of a client; the limit of deployed SDK servers."""

_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)\Z")
_KNOWN = frozenset(("jsonrpc", "id", "method", "params", "result", "error"))
_VERSION = b'"2.0"'
# What every call meets looks at one byte or at a slice: with CPython 3.11 `startswith` takes three
# to five times as many instructions.
_STRUCTURED = b"{["
_ZERO, _LF, _CR, _SPACE = b"0\n\r "
_CACHED_CHARACTERS = 128
_SLICE_BYTES = 1 << 20
_ONE_PASS_BYTES = 1 << 20
_START_BYTES = 32
"""Bytes in which a text that is not compact has a space."""


class Request(msgspec.Struct, frozen=True):
    """A message that asks for an answer under `id`."""

    id: bytes
    """The id as its sender spelled it: `1`, `"1"`, `""`, `9007199254740993`."""
    method: str
    params: bytes | None = None
    extra: bytes = b""
    """Envelope members that JSON-RPC does not define, as `,"name":value…`."""


class Notification(msgspec.Struct, frozen=True):
    """A message that wants no answer."""

    method: str
    params: bytes | None = None
    extra: bytes = b""


class Result(msgspec.Struct, frozen=True):
    """A successful answer to the request with this id."""

    id: bytes
    result: bytes
    extra: bytes = b""


class Failure(msgspec.Struct, frozen=True):
    """An error answer to the request with this id; None if the id could not be read."""

    id: bytes | None
    error: bytes
    extra: bytes = b""


Reply = Result | Failure
Message = Request | Notification | Result | Failure


class _Members(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET


class _Envelope(_Members):
    """A message in the usual form; any other form takes the slow path."""

    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET


class _LongEnvelope(_Members):
    """A long message in the usual form, whose payload is opened in the same pass."""

    params: dict[str, Raw] | UnsetType = UNSET
    result: dict[str, Raw] | UnsetType = UNSET


class _CountedEnvelope(_Members):
    """A long message whose payload may have too many members to be opened."""

    params: dict[Key, Raw] | UnsetType = UNSET
    result: dict[Key, Raw] | UnsetType = UNSET


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_long_envelope_decoder = msgspec.json.Decoder(_LongEnvelope)
_string_decoder = msgspec.json.Decoder(str)
_CALL_BYTES = len('{"jsonrpc":"2.0","method":""}')
_RESULT_BYTES = len('{"jsonrpc":"2.0","id":,"result":}')
_ID_BYTES = len('"id":,')
_PARAMS_BYTES = len('"params":,')
_PARAMS, _RESULT = b'"params":{', b'"result":{'


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> Message:
    """Decode one JSON text into a message.

    Raises:
        NotJson: Not UTF-8, or not a JSON text.
        TooDeep: Nested deeper than `max_depth`.
        NotMessage: Not a JSON-RPC message; carries the id if it could be read.
        DuplicateMember: The envelope names a member twice, perhaps in different case.
        TooMany: The envelope has too many members.
    """
    return _decoded(data, ascii_alone=check_text(data, max_depth))


def _decoded(data: bytes, *, ascii_alone: bool) -> Message:
    """Decode one text that `check_text` has accepted."""
    if not ascii_alone or _LF in data or _CR in data:
        data = _on_one_line(data, ascii_alone=ascii_alone)
    if _may_be_plain(data):
        message = _plain_message(data)
        if message is not None:
            return message
    parts, extra = _any_parts(data)
    return _message(parts, extra)


def _may_be_plain(data: bytes) -> bool:
    """Return whether a text is worth a pass that suits the compact form only.

    A pass takes up to 4 ms/MiB, and another one follows if the text has another form.
    """
    if len(data) < LONG_BYTES:
        return True
    return len(data) <= _ONE_PASS_BYTES and _SPACE not in data[:_START_BYTES]


def is_batch(data: bytes) -> bool:
    """Return whether a JSON text is an array: a batch of MCP 2025-03-26."""
    return data[:1] != b"{" and data.lstrip(b" \t\r\n").startswith(b"[")


def decode_batch(data: bytes, max_depth: int = MAX_DEPTH, most: int = MAX_BATCH) -> list[Message]:
    """Decode the messages of a batch, in order, at most `most`; raise what `decode` raises."""
    ascii_alone = check_text(data, max_depth)
    try:
        found = elements(data, most)
    except TooMany:
        raise TooMany(f"a batch holds 1 to {most} messages") from None
    return [_decoded(element, ascii_alone=ascii_alone) for element in found]


def walked(messages: Iterable[Message]) -> None:
    """Walk long payloads now, so that no rule that opens them later has to do it."""
    for message in messages:
        match message:
            case Result(result=Payload() as payload) | Request(params=Payload() as payload):
                _walk(payload)
            case Notification(params=Payload() as payload) | Failure(error=Payload() as payload):
                _walk(payload)


def _walk(payload: Payload) -> None:
    # The rule that opens the payload reports what is wrong with it.
    with contextlib.suppress(WireError):
        meta = spans(payload).get("_meta")
        if meta is not None:
            spans(object_at(payload, meta))


def encode(message: Message) -> bytes:
    """Encode a message as one JSON text without a line end; payloads are copied unchanged."""
    return b"".join(pieces(message))


class LongText:
    """The text of a long message in parts, which are sent one after the other.

    Joining 16 MB takes 7 ms of processor time, for each stream that gets the message.
    """

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size


Text = bytes | LongText
"""The text of a message on its way to a client."""


def encode_for_stream(message: Message) -> Text:
    """Return the text of `encode`; that of a long message in parts."""
    parts = pieces(message)
    return b"".join(parts) if len(parts[1]) < LONG_BYTES else LongText(parts)


def encode_members(method: str, members: Mapping[str, bytes]) -> Text:
    """Return the text of a notification whose params have these members; see `encode_for_stream`.

    No part of a long one is copied.
    """
    parts = [pieces(Notification(method, b""))[0], *packed_pieces(members, {}), b"}"]
    size = sum(map(len, parts))
    return b"".join(parts) if size < LONG_BYTES else LongText(parts)


def parts_of(text: Text) -> Sequence[bytes | memoryview]:
    """Return a text in the parts that it consists of."""
    return text.parts if isinstance(text, LongText) else (text,)


def whole(text: Text) -> bytes:
    """Return a text as one."""
    return b"".join(text.parts) if isinstance(text, LongText) else text


def pieces(message: Message) -> tuple[bytes, bytes, bytes]:
    """Return the text of `encode` as three parts: before the payload, the payload, after it."""
    # No class patterns: CPython makes a set, a list and a tuple for each that fits.
    if isinstance(message, Result):
        payload = message.result
        head = b'{"jsonrpc":"2.0","id":%b,"result":' % message.id
    elif isinstance(message, Request):
        head = b'{"jsonrpc":"2.0","id":%b,"method":%b' % (message.id, quoted(message.method))
        head, payload = _with_params(head, message.params)
    elif isinstance(message, Notification):
        head = b'{"jsonrpc":"2.0","method":%b' % quoted(message.method)
        head, payload = _with_params(head, message.params)
    else:
        payload = message.error
        head = b'{"jsonrpc":"2.0","id":%b,"error":' % (message.id or b"null")
    return head, payload, message.extra + b"}" if message.extra else b"}"


def _with_params(head: bytes, params: bytes | None) -> tuple[bytes, bytes]:
    return (head, b"") if params is None else (head + b',"params":', params)


def quoted(text: str) -> bytes:
    """Encode a text as a JSON string on one line."""
    # Method names repeat; a long one could be an attempt to fill the cache with megabytes.
    return _quoted_name(text) if len(text) <= _CACHED_CHARACTERS else _quoted(text)


def text_of(raw: bytes | None) -> str | None:
    """Return the text of a raw JSON string, or None if the value is not a string."""
    if raw is None or raw[:1] != b'"':
        return None
    try:
        return _string_decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def canonical_id(raw: bytes) -> bytes:
    """Return an id in one spelling, so that `"a"` and `"\\u0061"` compare as equal.

    The type is kept: `1` and `"1"` stay different.
    """
    if BACKSLASH not in raw:
        return b"0" if raw == b"-0" else raw
    text = text_of(raw)
    return raw if text is None else msgspec.json.encode(text)


def is_request_id(raw: bytes) -> bool:
    """Return whether a raw value may be an id: a string or an integer, not null or a fraction."""
    if len(raw) > MAX_ID_BYTES:
        return False
    plain = raw.isdigit() and raw[0] != _ZERO
    return plain or raw[:1] == b'"' or _INTEGER.match(raw) is not None


@functools.lru_cache(maxsize=256)
def _quoted_name(text: str) -> bytes:
    return _quoted(text)


def _quoted(text: str) -> bytes:
    return _separators_escaped(msgspec.json.encode(text))


def _on_one_line(data: bytes, *, ascii_alone: bool) -> bytes:
    line = data if ascii_alone else _separators_escaped(data)
    if _LF in line or _CR in line:
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    if line != data:
        # In JSON, raw line ends stand only between tokens, and separators never follow a backslash;
        # in text that is not JSON the replacement could turn it into JSON.
        check_json(data)
    return line


def _separators_escaped(data: bytes) -> bytes:
    if data.isascii():
        return data
    for separator, escape in (
        (b"\xe2\x80\xa8", b"\\u2028"),
        (b"\xe2\x80\xa9", b"\\u2029"),
        (b"\xc2\x85", b"\\u0085"),
    ):
        # One byte is searched first: that search is native to the processor.
        if separator[0] in data and _holds(data, separator):
            data = _replaced(data, separator, escape)
    return data


def _replaced(data: bytes, sought: bytes, by: bytes) -> bytes:
    """Return `data.replace(sought, by)` for bytes that do not overlap themselves, by slices.

    One call for 16 MB of separators holds the interpreter for 30 ms; see `channels.off_loop`.
    """
    if len(data) <= _SLICE_BYTES:
        return data.replace(sought, by)
    parts, at = [], 0
    while at < len(data):
        end = at + _SLICE_BYTES
        # No slice ends in the midst of what is sought.
        across = data.find(sought, end - len(sought) + 1, end + len(sought) - 1)
        if across >= 0:
            end = across
        parts.append(data[at:end].replace(sought, by))
        at = end
    return b"".join(parts)


def _holds(data: bytes, sought: bytes) -> bool:
    """Return whether a text contains a few bytes, searched slice by slice; see `_SLICE_BYTES`."""
    starts = range(0, len(data), _SLICE_BYTES)
    return any(data.find(sought, at, at + _SLICE_BYTES + len(sought)) >= 0 for at in starts)


def _plain_message(data: bytes) -> Request | Notification | Result | None:
    """Decode a message in the usual compact form in one native pass; None if it needs a walk.

    The lengths of the members found, their keys and the commas add up to the length of the text
    only if no member is repeated or unknown, none has escapes and there is no whitespace.
    """
    left = len(data)
    short = left < LONG_BYTES
    envelope: Any
    try:
        envelope = _envelope_decoder.decode(data) if short else _long_envelope(data)
    except (msgspec.DecodeError, RecursionError, TooMany):
        return None
    method = envelope.method
    # Joined alone, a part is copied in two thirds of the instructions of `bytes`.
    request_id = b"".join((envelope.id,)) if envelope.id is not UNSET else None
    if request_id is not None and not is_request_id(request_id):
        return None
    if method is UNSET:
        given = envelope.result
        if given is UNSET or request_id is None:
            return None
        result = b"".join((given,)) if short else _opened(given, _RESULT, data)
        whole = _RESULT_BYTES + len(request_id) + len(result)
        return Result(request_id, result) if left == whole else None
    left -= _CALL_BYTES + len(method)
    params = None
    if envelope.params is not UNSET:
        given = envelope.params
        params = Payload(given) if short else _opened(given, _PARAMS, data)
        left -= _PARAMS_BYTES + len(params)
        if params[0] not in _STRUCTURED:
            return None
    if request_id is None:
        return Notification(method, params) if left == 0 else None
    left -= _ID_BYTES + len(request_id)
    return Request(request_id, method, params) if left == 0 else None


def _long_envelope(data: bytes) -> _LongEnvelope | _CountedEnvelope:
    if may_have_many(data):
        return msgspec.json.Decoder(_CountedEnvelope, dec_hook=counting_keys()).decode(data)
    return _long_envelope_decoder.decode(data)


def _opened(values: Mapping[Any, Raw], mark: bytes, data: bytes) -> Payload:
    """Return the payload of a long message, with the spans of its members.

    Its length is wrong if the message is not in the usual form.

    Args:
        values: Its members.
        mark: How it begins, with the name before it.
        data: The message.
    """
    found, size = compact_spans(values, short=False)
    # Within a string a backslash precedes each quote, so this is the payload.
    start = data.find(mark) + len(mark) - 1
    return Payload(data[start : start + size]).knowing(uncounted(found))


def _any_parts(data: bytes) -> tuple[dict[str, bytes], bytes]:
    try:
        found = spans(data)
    except NotMessage:
        raise NotMessage("not a JSON-RPC message: not an object") from None
    view = memoryview(data)
    parts = {name: _copied(name, view[start:end]) for name, (start, end) in found.items()}
    unknown = [name for name in parts if name not in _KNOWN]
    for name in unknown:
        if name.casefold() in _KNOWN:
            # A reader that ignores case would take it for the member that is mapped and checked.
            raise DuplicateMember(f"member {name!r} could be read as {name.casefold()!r}")
    extra = b"".join(b",%b:%b" % (quoted(name), parts.pop(name)) for name in unknown)
    return parts, extra


def _copied(name: str, part: memoryview) -> bytes:
    # The rules open the params of every request, but only a few results.
    return Payload(part) if name == "params" or len(part) >= LONG_BYTES else bytes(part)


def _message(parts: dict[str, bytes], extra: bytes) -> Message:
    raw_id = parts.get("id")
    good_id = raw_id if raw_id is not None and is_request_id(raw_id) else None
    if parts.get("jsonrpc") != _VERSION:
        raise _refused('member "jsonrpc" must be "2.0"', good_id)
    if raw_id is not None and good_id is None and not ("error" in parts and raw_id == b"null"):
        raise _refused(f"an id is a string or an integer of at most {MAX_ID_BYTES} bytes", None)
    if "method" in parts:
        return _call(parts, good_id, extra)
    answers = [name for name in ("result", "error") if name in parts]
    if len(answers) != 1:
        raise _refused("no method, and not exactly one of result and error", good_id)
    if "params" in parts:
        # They have no meaning in an answer; members without a meaning here are passed on.
        extra = b',"params":%b%b' % (parts["params"], extra)
    if "error" in parts:
        if not parts["error"].startswith(b"{"):
            raise _refused('member "error" must be an object', good_id)
        return Failure(good_id, parts["error"], extra)
    if good_id is None:
        raise _refused("a result needs an id", None)
    return Result(good_id, parts["result"], extra)


def _call(
    parts: dict[str, bytes], request_id: bytes | None, extra: bytes
) -> Request | Notification:
    method = text_of(parts["method"])
    if method is None:
        raise _refused('member "method" must be a string', request_id)
    if "result" in parts or "error" in parts:
        raise _refused("both a method and an answer", request_id)
    params = parts.get("params")
    if params == b"null":
        # Not legal JSON-RPC, but some serialisers write null for "none", and it is unambiguous.
        params = None
    if params is not None and not params.startswith((b"{", b"[")):
        raise _refused('member "params" must be an object or an array', request_id)
    if request_id is None:
        return Notification(method, params, extra)
    return Request(request_id, method, params, extra)


def _refused(why: str, request_id: bytes | None) -> NotMessage:
    return NotMessage(f"not a JSON-RPC message: {why}", request_id)
