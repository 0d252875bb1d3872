"""What is not a message: refused with its reason, and with its id where it could be read."""

from __future__ import annotations

import pytest

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage
from mcpbridge.wire.messages import (
    MAX_ID_BYTES,
    decode,
    is_request_id,
)


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"1.5",
        b"1.0",
        b"1e3",
        b"-0.0",
        b"true",
        b"false",
        b"{}",
        b"[]",
        b'{"id":1}',
        b'"' + b"x" * (MAX_ID_BYTES - 1) + b'"',
        b"1" * (MAX_ID_BYTES + 1),
    ],
)
@pytest.mark.parametrize("blank", [b"", b" "])
def test_what_is_no_id_is_refused_and_not_echoed(raw: bytes, blank: bytes) -> None:
    """Null, fractions, booleans, containers and more than a KiB are not ids."""
    assert not is_request_id(raw)
    head = b'{"jsonrpc":"2.0","id":' + blank + raw
    for tail in (b',"method":"a"}', b',"result":1}'):
        with pytest.raises(NotMessage) as caught:
            decode(head + tail)
        assert caught.value.request_id is None
    if raw != b"null":
        with pytest.raises(NotMessage, match="at most 1024 bytes"):
            decode(head + b',"error":{}}')


REFUSED = [
    (b'{"id":7,"method":"a"}', '"jsonrpc" must be', b"7"),
    (b'{"jsonrpc":"1.0","id":7,"method":"a"}', '"jsonrpc" must be', b"7"),
    (b'{"jsonrpc":2.0,"id":7,"method":"a"}', '"jsonrpc" must be', b"7"),
    (b'{"jsonrpc":"2.0","id":"7","method":1}', '"method" must be', b'"7"'),
    (b'{"jsonrpc":"2.0","id":7,"method":null}', '"method" must be', b"7"),
    (b'{"jsonrpc":"2.0","id":7,"method":"\\ud800"}', '"method" must be', b"7"),
    (b'{"jsonrpc":"2.0","id":7,"method":"a","params":1}', '"params" must be', b"7"),
    (b'{"jsonrpc":"2.0","id":7,"method":"a","params":"{}"}', '"params" must be', b"7"),
    (b'{"jsonrpc":"2.0","method":"a","params":false}', '"params" must be', None),
    (b'{"jsonrpc":"2.0","id":7,"method":"a","result":1}', "both a method and", b"7"),
    (b'{"jsonrpc":"2.0","id":null,"method":"a","error":{}}', "both a method and", None),
    (b'{"jsonrpc":"2.0","id":7}', "no method, and not exactly", b"7"),
    (b'{"jsonrpc":"2.0","id":7,"params":{}}', "no method, and not exactly", b"7"),
    (b'{"jsonrpc":"2.0","id":7,"result":1,"error":{}}', "no method, and not exactly", b"7"),
    (b'{"jsonrpc":"2.0","id":7,"error":1}', '"error" must be', b"7"),
    (b'{"jsonrpc":"2.0","id":7,"error":null}', '"error" must be', b"7"),
    (b'{"jsonrpc":"2.0","result":1}', "a result needs an id", None),
    (b"{}", '"jsonrpc" must be', None),
    (b"[]", "not an object", None),
    (b'"a"', "not an object", None),
    (b" 1 ", "not an object", None),
    (b"null", "not an object", None),
]


@pytest.mark.parametrize(("data", "why", "echoed"), REFUSED)
def test_a_refusal_says_why_and_carries_the_id(data: bytes, why: str, echoed: bytes | None) -> None:
    """JSON that is not a message is refused with its reason, and with its id where it has one."""
    for text in (data, data.replace(b",", b" , "), b" " + data):
        with pytest.raises(NotMessage, match="not a JSON-RPC message") as caught:
            decode(text)
        assert why in str(caught.value)
        assert caught.value.request_id == echoed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"{",
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":-Infinity}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"\xed\xa0\x80"}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"a\nb"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"a\rb"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"a\tb"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"a\\\xe2\x80\xa8b"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"a\\\xc2\x85b"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":["\\ud8","]}',
        b'{"jsonrpc":"2.0","id":1,"method":"a"}\xe2\x80\xa8',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"a"}',
        b'{"jsonrpc":"2.0","id":01,"method":"a"}',
        b'{"jsonrpc":"2.0","id":1,"method":"a",}',
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    """No byte that JSON forbids is passed on, and none is mended."""
    with pytest.raises(NotJson) as caught:
        decode(data)
    assert caught.value.request_id is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","\\u0069d":2}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","method":"a"}',
        b'{"jsonrpc":"2.0","jsonrpc":"2.0","method":"a"}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{},"params":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":1,"result":2}',
        b'{"jsonrpc":"2.0","id":1,"result":1,"x":1,"x":2}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","ID":2}',
        b'{"jsonrpc":"2.0","method":"a","Id":2}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","Params":{}}',
        '{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}'.encode(),
        b'{"jsonrpc":"2.0","id":1,"method":"a","re\\u017fult":{}}',
    ],
)
def test_an_envelope_that_two_readers_read_differently_is_refused(data: bytes) -> None:
    """A member that stands twice, in escapes or in capitals too, is refused."""
    with pytest.raises(DuplicateMember):
        decode(data)
