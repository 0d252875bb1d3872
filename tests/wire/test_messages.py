"""JSON-RPC messages: opened one level, their payloads as they came, refused with their id."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage, TooDeep, TooMany, WireError
from mcpbridge.wire.json_object import LONG_BYTES, MAX_DEPTH, Payload, packed, spans
from mcpbridge.wire.lines import LineSplitter, encode_line
from mcpbridge.wire.messages import (
    MAX_ID_BYTES,
    Failure,
    LongText,
    Message,
    Notification,
    Request,
    Result,
    _plain_message,
    canonical_id,
    decode,
    decode_batch,
    encode,
    encode_for_stream,
    encode_members,
    is_batch,
    is_request_id,
    parts_of,
    pieces,
    quoted,
    text_of,
    whole,
)
from tests.wire.strategies import SPELLINGS, ids, messages, object_text, one_line, values

SEPARATORS = ("\u2028", "\u2029", "\u0085")


@pytest.mark.slow
@given(messages)
def test_what_was_encoded_decodes_to_itself(message: Message) -> None:
    """Any message, written and read, is the same message."""
    assert decode(encode(message)) == message


@pytest.mark.slow
@given(messages)
def test_an_encoded_message_is_one_line_to_every_reader(message: Message) -> None:
    """No reader that cuts at CR, LF or a Unicode line separator cuts a message in two."""
    line = encode(message)
    assert line.decode().splitlines() == [line.decode()]
    assert LineSplitter(1 << 20).feed(encode_line(line) * 2) == [line, line]


def strictly_json(data: bytes) -> bool:
    """Whether the json module takes these bytes, without its own liberties."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


@pytest.mark.slow
@given(
    st.one_of(messages.map(encode), values),
    st.integers(0, 60),
    st.integers(0, 3),
    st.sampled_from((b"", b"\n", b"\r", b"\\", b'"', b"\x01", b"\xff", b"{", b"]", b",", b"\\ud8"))
    | st.sampled_from(SEPARATORS).map(str.encode),
)
@example(b'{"jsonrpc":"2.0","method":"a\xe2\x80\xa8"}', 28, 0, b"\\")
@example(b'{"jsonrpc":"2.0","method":"ab"}', 28, 0, b"\n")
def test_nothing_but_json_is_decoded(data: bytes, at: int, cut: int, patch: bytes) -> None:
    """What decodes is JSON to a strict parser, before and after, and means the same."""
    changed = data[:at] + patch + data[at + cut :]
    try:
        message = decode(changed)
    except NotJson:
        assert not strictly_json(changed)
    except WireError:
        pass
    else:
        assert strictly_json(changed)
        before, after = json.loads(changed), json.loads(encode(message))
        if before.get("params", ...) is None:
            del before["params"]
        if "error" in after:
            before.setdefault("id", None)
        assert after == before


MESSAGES: list[tuple[bytes, Message]] = [
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', Request(b"1", "ping")),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"b":1.0}}', Request(b"1", "a", b'{"b":1.0}')),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":[ 1 ]}', Request(b"1", "a", b"[ 1 ]")),
    (b'{"jsonrpc":"2.0","id":1,"method":"a","params":null}', Request(b"1", "a")),
    (b'{"method":"a\\u0062\\n","id":1,"jsonrpc":"2.0"}', Request(b"1", "ab\n")),
    (b'{"jsonrpc":"2.0","\\u0069d":1,"m\\u0065thod":"a"}', Request(b"1", "a")),
    (b' {\t"jsonrpc" : "2.0" ,\r\n"id": 1, "method":"a" } ', Request(b"1", "a")),
    (b'{"jsonrpc":"2.0","method":"n"}', Notification("n")),
    (b'{"jsonrpc":"2.0","method":"n","params":{}}', Notification("n", b"{}")),
    (b'{"jsonrpc":"2.0","id":1,"result":{}}', Result(b"1", b"{}")),
    (b'{"jsonrpc":"2.0","id":1,"result":null}', Result(b"1", b"null")),
    (b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}', Failure(b"1", b'{"code":1}')),
    (b'{"jsonrpc":"2.0","id":null,"error":{}}', Failure(None, b"{}")),
    (b'{"jsonrpc":"2.0","error":{}}', Failure(None, b"{}")),
    (
        b'{"jsonrpc":"2.0","x":1.0,"id":1,"method":"a","\\u0079":[ ]}',
        Request(b"1", "a", None, b',"x":1.0,"y":[ ]'),
    ),
    (b'{"jsonrpc":"2.0","id":1,"result":1,"x":2}', Result(b"1", b"1", b',"x":2')),
]


@pytest.mark.parametrize(("data", "message"), MESSAGES)
def test_messages_are_told_apart(data: bytes, message: Message) -> None:
    """Each kind is known by its members, whatever their order, spelling and surroundings."""
    assert decode(data) == message
    assert decode(encode(message)) == message


def test_the_usual_form_is_taken_apart_in_one_pass() -> None:
    """A compact message with known members only needs no second look, any other one does."""
    for line in (
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"b":"\xc3\xa9"}}',
        b'{"method":"a","jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":"x","result":[ 1 ]}',
    ):
        plain = _plain_message(line)
        assert plain is not None
        assert json.loads(encode(plain)) == json.loads(line)
        for other in (line + b" ", line.replace(b":", b": ", 1), line[:-1] + b',"x":1}'):
            assert _plain_message(other) is None


@pytest.mark.parametrize("size", [10, 5_000, 70_000, 1_000_000])
@pytest.mark.parametrize("method", ["a", '\\"params\\":{'])
def test_the_members_of_compact_params_are_known_without_another_walk(
    size: int, method: str
) -> None:
    """Wherever the params stand, and whatever looks like them in a string."""
    text = "x" * size
    params = f'{{"name":"e","arguments":{{"params":{{"text":"{text}"}}}},"\\u0061":1}}'
    plain = params.replace("\\u0061", "a")
    for line in (
        f'{{"jsonrpc":"2.0","id":"{method}","method":"a","params":{plain}}}',
        f'{{"params":{plain},"method":"a","id":1,"jsonrpc":"2.0"}}',
    ):
        message = decode(line.encode())
        assert isinstance(message, Request)
        assert isinstance(message.params, Payload)
        assert message.params == plain.encode()
        if size >= LONG_BYTES:
            assert message.params.known == spans(plain.encode())
    escaped = decode(f'{{"jsonrpc":"2.0","id":1,"method":"a","params":{params}}}'.encode())
    assert isinstance(escaped, Request)
    assert isinstance(escaped.params, Payload)
    assert escaped.params.known is None
    assert spans(escaped.params) == spans(params.encode())


@pytest.mark.parametrize("count", [2, 20_000])
def test_the_members_of_a_long_compact_result_are_known_without_another_walk(count: int) -> None:
    """However many values it has, but not if it has too many members."""
    rows = b",".join(b'{"id":%d,"result":{"a":"%b"}}' % (n, b"x" * 9) for n in range(count))
    text = b'{"content":[],"structuredContent":[%b],"text":"%b"}' % (rows, b"x" * 70_000)
    message = decode(b'{"jsonrpc":"2.0","id":1,"result":%b}' % text)
    assert isinstance(message, Result)
    assert message.result == text
    assert isinstance(message.result, Payload)
    # One pass is for texts of up to 1 MiB.
    if len(text) < 1_000_000:
        assert message.result.known == spans(text)
    many = b",".join(b'"m%d":1' % number for number in range(20_000))
    message = decode(b'{"jsonrpc":"2.0","id":1,"result":{%b}}' % many)
    assert isinstance(message, Result)
    assert isinstance(message.result, Payload)
    assert message.result.known is None
    with pytest.raises(TooMany):
        spans(message.result)


@pytest.mark.parametrize("size", [10, 5_000, 70_000])
def test_compact_params_with_a_member_named_twice_are_found_out(size: int) -> None:
    """When a rule opens them: the envelope is a message all the same."""
    message = decode(
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"b":"%b","b":2}}' % (b"x" * size)
    )
    assert isinstance(message, Request)
    assert message.params is not None
    with pytest.raises(DuplicateMember):
        spans(message.params)


def test_long_params_of_many_members_are_refused_when_they_are_opened() -> None:
    """And not decoded whole before."""
    members = ",".join(f'"m{number}":{number}' for number in range(100_000))
    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"a","params":{%b}}' % members.encode())
    assert isinstance(message, Request)
    assert isinstance(message.params, Payload)
    assert message.params.known is None
    with pytest.raises(TooMany):
        spans(message.params)


@pytest.mark.parametrize(("data", "message"), MESSAGES)
def test_a_message_cut_short_or_followed_by_more_is_none(data: bytes, message: Message) -> None:
    """Neither a part of a message nor a message with trailing bytes is a message."""
    text = data.strip()
    for end in range(len(text)):
        with pytest.raises(NotJson):
            decode(text[:end])
    for more in (b"x", b"{}", b",", b"\x00", text):
        with pytest.raises(NotJson):
            decode(data + more)
    assert decode(data + b" \t\r\n") == message


@pytest.mark.parametrize(
    "raw",
    [
        b"0",
        b"-0",
        b"1",
        b"-1",
        b"9007199254740992",
        b"9007199254740993",
        b"12345678901234567890",
        b"-12345678901234567890",
        b'""',
        b'"1"',
        b'"\\u0061"',
        b'"\\ud800"',
        b'"\\""',
        '"é"'.encode(),
        b'"' + b"x" * (MAX_ID_BYTES - 2) + b'"',
        b"1" * MAX_ID_BYTES,
    ],
)
def test_an_id_travels_as_it_was_spelled(raw: bytes) -> None:
    """Zero, the empty string, 20 digits and escapes come out of every kind as they went in."""
    assert is_request_id(raw)
    for blank in (b"", b" "):
        head = b'{"jsonrpc":"2.0","id":' + blank + raw + blank
        for tail in (b',"method":"a"}', b',"result":1}', b',"error":{}}'):
            message = decode(head + tail)
            assert not isinstance(message, Notification)
            assert message.id == raw
            assert b'"id":' + raw + b"," in encode(message)


PAYLOADS = [
    *SPELLINGS,
    b'{"a":1,"a":2}',
    b'{ "b" : 1.0 , "a" : [ -0.0 , 1e-7 ] }',
    b"-12345678901234567890.10",
    b"1" * 5000,
]


@pytest.mark.parametrize("value", PAYLOADS)
def test_a_payload_travels_as_it_was_spelled(value: bytes) -> None:
    """Digits, exponents, blanks, escapes, order and even repeated names survive both ways."""
    expected = one_line(value)
    for blank in (b"", b" ", b"\n"):
        members = [
            (b'"jsonrpc"', b'"2.0"'),
            (b'"id"', b"1"),
            (b'"method"', b'"a"'),
            (b'"params"', b"[" + value + b"]"),
        ]
        request = decode(object_text(members, blank))
        assert request == Request(b"1", "a", b"[" + expected + b"]")
        assert encode(request).endswith(b'"params":[' + expected + b"]}")
        result = decode(object_text([*members[:2], (b'"result"', value)], blank))
        assert result == Result(b"1", expected)
        error = decode(object_text([*members[:2], (b'"error"', b'{"x":' + value + b"}")], blank))
        assert error == Failure(b"1", b'{"x":' + expected + b"}")
        extra = decode(object_text([*members[:3], (b'"other"', value)], blank))
        assert extra == Request(b"1", "a", None, b',"other":' + expected)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_separators_leave_as_escapes_wherever_they_stand(separator: str) -> None:
    """In a method, an id, a name or a value, escaped or not, separators leave as escapes."""
    escape = f"\\u{ord(separator):04x}"
    template = (
        '{"jsonrpc":"2.0","id":"i@","method":"m@","params":{"p@":"v@"},"x@":["y@"],"z":"\\\\u@"}'
    )
    for spelled in (separator, escape):
        message = decode(template.replace("@", spelled).encode())
        assert isinstance(message, Request)
        assert message.method == "m" + separator
        assert encode(message) == template.replace("@", escape).encode()


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("before", range(4))
def test_separators_of_a_long_text_leave_as_escapes(separator: str, before: int) -> None:
    """Wherever the slices end in which a long text is searched."""
    template = '{"jsonrpc":"2.0","id":1,"result":{"a":"%s"}}'
    text = "a" * before + separator * (1 << 20) + "z"
    message = decode((template % text).encode())
    escaped = text.replace(separator, f"\\u{ord(separator):04x}")
    assert encode(message) == (template % escaped).encode()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b"\n\n \r"])
def test_line_ends_between_tokens_become_blanks(end: bytes) -> None:
    """A message printed over many lines is one line when it leaves, and means the same."""
    data = b'{@"jsonrpc"@:@"2.0"@,@"id"@:@1@,@"method":"a",@"params"@:@{@"x"@:@[@1@]@}@}@'
    message = decode(data.replace(b"@", end))
    line = encode(message)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == json.loads(data.replace(b"@", b""))


def test_depth_is_limited_exactly() -> None:
    """A message of depth 512 passes, one of 513 or 100,000 does not."""

    def message(depth: int) -> bytes:
        inner = b"[" * (depth - 1) + b"]" * (depth - 1)
        return b'{"jsonrpc":"2.0","id":1,"method":"a","params":' + inner + b"}"

    assert isinstance(decode(message(MAX_DEPTH)), Request)
    for depth in (MAX_DEPTH + 1, 1000, 100_000):
        with pytest.raises(TooDeep):
            decode(message(depth))
        with pytest.raises(TooDeep):
            decode_batch(b"[" + message(depth) + b"]")
    unended = message(100_000)[:100_000]
    with pytest.raises(TooDeep):
        decode(unended)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[]", True),
        (b" \t\r\n[", True),
        (b"{}", False),
        (b'"["', False),
        (b"", False),
        (b"\xef\xbb\xbf[]", False),
    ],
)
def test_a_batch_is_known_by_its_first_character(data: bytes, expected: bool) -> None:
    """An array is a batch, whatever blanks stand before it."""
    assert is_batch(data) is expected


def test_a_batch_holds_messages_in_order() -> None:
    """The messages of a batch come in its order, each as it would alone."""
    batch = b' [ {"jsonrpc":"2.0","id":1,"method":"a"} ,\n{"jsonrpc":"2.0","method":"b"}]'
    assert decode_batch(batch) == [Request(b"1", "a"), Notification("b")]
    assert decode_batch(b"[]") == []


@pytest.mark.parametrize(
    ("data", "error", "echoed"),
    [
        (b"[1]", NotMessage, None),
        (b"[[]]", NotMessage, None),
        (b'[{"jsonrpc":"2.0","method":"a"},{"id":7,"method":"b"}]', NotMessage, b"7"),
        (b"{}", NotMessage, None),
        (b"[", NotJson, None),
        (b'["\xff"]', NotJson, None),
        (b'[{"jsonrpc":"2.0","method":"a","params":["\\ud800"]}]', NotJson, None),
        (b'[{"jsonrpc":"2.0","method":"a","method":"b"}]', DuplicateMember, None),
    ],
)
def test_one_bad_message_spoils_its_batch(
    data: bytes, error: type[WireError], echoed: bytes | None
) -> None:
    """A batch is refused as a whole for its first invalid message."""
    with pytest.raises(error) as caught:
        decode_batch(data)
    assert caught.value.request_id == echoed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'"a"', b'"\\u0061"', True),
        (b'"/"', b'"\\/"', True),
        ('"é"'.encode(), b'"\\u00e9"', True),
        ('"\u2028"'.encode(), b'"\\u2028"', True),
        (b'"\\n"', b'"\\u000A"', True),
        (b"0", b"-0", True),
        (b"1", b'"1"', False),
        (b"1", b"-1", False),
        (b'"1"', b'"\\u0031"', True),
        (b'"A"', b'"a"', False),
        (b'""', b"0", False),
        (b'"\\ud800"', b'"\\ud801"', False),
        (b"9007199254740992", b"9007199254740993", False),
    ],
)
def test_ids_are_the_same_by_value_and_type(one: bytes, other: bytes, same: bool) -> None:
    """Two spellings of one id have one canonical form; other types and values have others."""
    assert (canonical_id(one) == canonical_id(other)) is same


@given(ids)
def test_a_canonical_id_is_its_own(raw: bytes) -> None:
    """What is canonical stays as it is."""
    assert canonical_id(canonical_id(raw)) == canonical_id(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, None),
        (b'"a"', "a"),
        (b'"\\u0061\\n"', "a\n"),
        (b'""', ""),
        (b"1", None),
        (b"null", None),
        (b'{"a":"b"}', None),
        (b'"\\ud800"', None),
        (b'"a', None),
    ],
)
def test_only_a_string_has_a_text(raw: bytes | None, expected: str | None) -> None:
    """The text of a raw string is told; of anything else, or a lone surrogate, none is."""
    assert text_of(raw) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_quoted_text_is_read_back(text: str) -> None:
    """A text quoted, short or long, reads as itself and stays on one line."""
    raw = quoted(text)
    assert json.loads(raw) == text
    assert raw.decode().splitlines() == [raw.decode()]


def test_long_methods_are_not_kept() -> None:
    """What a client names its methods does not stay in memory after them."""
    size = 100_000
    tracemalloc.start()
    try:
        for i in range(50):
            method = f"{i}-" + "x" * size
            assert len(encode(Notification(method))) > size
        del method
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 5 * size


@pytest.mark.parametrize("answer", [b'"result":"x"', b'"error":{"code":1,"message":"x"}'])
def test_an_answer_with_params_keeps_them(answer: bytes) -> None:
    """They mean nothing there, and are not ours to drop."""
    data = b'{"jsonrpc":"2.0","id":"a",%b,"params":{}}' % answer
    assert json.loads(encode(decode(data))) == json.loads(data)


@pytest.mark.parametrize(
    "message",
    [
        Result(b"1", b'{"a":1}'),
        Notification("x"),
        Result(b"1", b'{"a":"%b"}' % (b"x" * LONG_BYTES), b',"b":1'),
        Notification("x", b'{"a":"%b"}' % (b"x" * LONG_BYTES)),
        Request(b"1", "x", b"[%b]" % (b" " * LONG_BYTES)),
        Failure(None, b'{"data":"%b"}' % (b"x" * LONG_BYTES)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_text_for_a_stream_is_that_of_the_message(message: Message) -> None:
    """In parts if it is long, of which the payload is the message's own."""
    text = encode_for_stream(message)
    assert whole(text) == encode(message)
    assert len(text) == len(encode(message))
    long = len(text) > LONG_BYTES
    assert isinstance(text, LongText) is long
    assert any(part is pieces(message)[1] for part in parts_of(text)) is long


@pytest.mark.parametrize("size", [1, LONG_BYTES])
def test_a_notification_is_written_with_the_members_of_its_params(size: int) -> None:
    """What is written is what was given, whatever the size."""
    members = {"a": b'"%b"' % (b"x" * size), "\u00e9": b"2"}
    text = encode_members("x", members)
    assert whole(text) == encode(Notification("x", packed(members)))
    assert isinstance(text, LongText) is (size > 1)
