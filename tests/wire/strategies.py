"""JSON texts and messages as peers may spell them, for property tests."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from mcpbridge.wire.messages import Failure, Message, Notification, Request, Result

SPELLINGS = (
    b"0",
    b"-0",
    b"-0.0",
    b"1.0",
    b"1e-7",
    b"1E+400",
    b"12345678901234567890",
    b"9007199254740993",
    b"true",
    b"false",
    b"null",
    b'""',
    b'"a"',
    b'"\\u0061"',
    b'"\\ud83d\\ude00"',
    b'"\\ud800"',
    b'"\\udc00\\ud800x"',
    b'"\\\\ud800"',
    b'"\\"},{\\"id\\":7"',
    b'"\\r\\n\\/"',
    b'"]}["',
    '"\u2028\u2029\u0085 é 😀"'.encode(),
)
"""Values whose spelling a parser and a printer would change, or a careless reader mistake."""

blanks = st.sampled_from((b"", b"", b"", b" ", b"\t", b"\n", b"\r\n"))
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def quote(text: str, ascii_only: bool) -> bytes:
    """A JSON string, with escapes for everything beyond ASCII or with none."""
    return json.dumps(text, ensure_ascii=ascii_only).encode()


quoted_strings = st.builds(quote, strings, st.booleans())


def _array(parts: list[bytes], blank: bytes) -> bytes:
    return b"[" + blank + (blank + b"," + blank).join(parts) + blank + b"]"


def object_text(members: list[tuple[bytes, bytes]], blank: bytes) -> bytes:
    """An object of raw names and raw values, with the same blanks between all its tokens."""
    spelled = [name + blank + b":" + blank + value for name, value in members]
    return b"{" + blank + (blank + b"," + blank).join(spelled) + blank + b"}"


def _objects(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    members = st.lists(
        st.tuples(quoted_strings, values), max_size=4, unique_by=lambda pair: json.loads(pair[0])
    )
    return st.builds(object_text, members, blanks)


values = st.recursive(
    st.one_of(st.sampled_from(SPELLINGS), quoted_strings),
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=4), blanks), _objects(inner)
    ),
    max_leaves=12,
)
"""Any JSON value, raw."""

objects = _objects(values)
"""Any JSON object without a name that stands twice, raw."""

ids = st.sampled_from(
    (b"0", b"-0", b"1", b'"1"', b'""', b"9007199254740993", b"12345678901234567890", b'"\\u0061"')
)


def one_line(raw: bytes) -> bytes:
    """A raw value as it must look on one line; an independent spelling of that rule."""
    text = raw.decode().replace("\r", " ").replace("\n", " ")
    for separator in "\u2028\u2029\u0085":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text.encode()


_extras = st.sampled_from((b"", b',"x":1', b',"_meta":{"a":[1.0]},"\xc3\xa9":"\\ud800"'))
_payloads = values.map(one_line)
_params = st.one_of(
    st.none(),
    objects.map(one_line),
    st.builds(_array, st.lists(_payloads, max_size=3), st.just(b"")),
)
_methods = st.one_of(st.sampled_from(("ping", "tools/call", "")), strings)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, ids, _methods, _params, _extras),
    st.builds(Notification, _methods, _params, _extras),
    st.builds(Result, ids, _payloads, _extras),
    st.builds(Failure, st.one_of(st.none(), ids), objects.map(one_line), _extras),
)
"""Any message, its payloads on one line as decoding leaves them."""
