"""Members found and replaced where they stand, against the json module and against attackers."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage, TooDeep, TooMany, WireError
from mcpbridge.wire import json_object
from mcpbridge.wire.json_object import (
    LONG_BYTES,
    MAX_DEPTH,
    MAX_MEMBERS,
    Payload,
    check_json,
    check_text,
    element_spans,
    elements,
    member,
    opened,
    packed,
    replaced,
    spans,
    spliced,
    unambiguous,
    without,
)
from tests.wire.strategies import objects, values


@pytest.mark.slow
@given(objects)
def test_spans_agree_with_the_json_module(data: bytes) -> None:
    """Each span holds exactly the value that the json module reads under that name, in order."""
    expected = json.loads(data)
    found = spans(data)
    assert list(found) == list(expected)
    for name, (start, end) in found.items():
        raw = data[start:end]
        assert raw == raw.strip(b" \t\r\n")
        assert json.loads(raw) == expected[name]


@pytest.mark.slow
@given(objects, values, st.data())
def test_replacing_changes_the_chosen_members_alone(
    data: bytes, value: bytes, draw: st.DataObject
) -> None:
    """An object with some values replaced reads as before but for these."""
    found = spans(data)
    names = draw.draw(st.sets(st.sampled_from(list(found)))) if found else set[str]()
    changed = replaced(data, [(found[name], value) for name in names])
    expected = json.loads(data)
    expected.update(dict.fromkeys(names, json.loads(value)))
    assert json.loads(changed) == expected
    if not names:
        assert changed == data


@pytest.mark.slow
@given(st.lists(values), st.sampled_from([b",", b" ,", b",\n", b" \t,\r\n "]))
def test_element_spans_agree_with_the_elements(raws: list[bytes], between: bytes) -> None:
    """Each span holds exactly the bytes of one element, whatever stands between them."""
    data = b" [ %b ] " % between.join(raws)
    found = [data[start:end] for start, end in element_spans(data)]
    assert found == [raw.strip(b" \t\r\n") for raw in raws]


def test_an_element_with_a_lone_surrogate_has_its_place() -> None:
    """It is legal JSON; what is not an array has no elements."""
    data = b'["\\ud800" , [ {} ] ]'
    assert [data[start:end] for start, end in element_spans(data)] == [b'"\\ud800"', b"[ {} ]"]
    with pytest.raises(NotMessage):
        element_spans(b'{"a":1}')


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}", {}),
        (b" \t\r\n{ \n} ", {}),
        (b'{"a":1}', {"a": b"1"}),
        (b' { "a" :\t1 ,\r\n"b": [ 1 , 2 ] } ', {"a": b"1", "b": b"[ 1 , 2 ]"}),
        (b'{"":""}', {"": b'""'}),
        (b'{"\\u0061":1}', {"a": b"1"}),
        (b'{"a\\"b\\\\":1}', {'a"b\\': b"1"}),
        (b'{"a":{"a":{"a":1}}}', {"a": b'{"a":{"a":1}}'}),
        (b'{"a":"\\ud800","b":"\\uDC00\\ud83d\\ude00"}', {"a": b'"\\ud800"', "b": None}),
        (b'{"a":"\\\\ud800"}', {"a": b'"\\\\ud800"'}),
        ('{"é":"ü\u2028"}'.encode(), {"é": '"ü\u2028"'.encode()}),
    ],
)
def test_values_keep_their_spelling(data: bytes, expected: dict[str, bytes | None]) -> None:
    """A value is cut out as its sender spelled it, whatever stands around it."""
    found = {name: data[start:end] for name, (start, end) in spans(data).items()}
    assert list(found) == list(expected)
    assert all(raw is None or found[name] == raw for name, raw in expected.items())


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":2,"a":1}',
        b'{"a":12,"a":1}',
        b'{"a":1,"a":12}',
        b'{"a":1,"\\u0061":2}',
        b'{"\\u0061":1,"b":0,"a":2}',
        b'{"a":[1],"a":[1,2]}',
        b'{"a":"x","a":"x,"}',
        b'{"a":1 ,"a":1}',
        b'{"":1,"":2}',
    ],
)
def test_a_name_that_stands_twice_is_refused(data: bytes) -> None:
    """Two members of one name are seen, however they are spelled and whatever they hold."""
    with pytest.raises(DuplicateMember, match="stands twice"):
        spans(data)


@pytest.mark.slow
@given(objects, st.data())
def test_any_member_repeated_is_refused(data: bytes, draw: st.DataObject) -> None:
    """Whatever member of whatever object is repeated, with whatever value, it is seen."""
    found = spans(data)
    if not found:
        return
    name = draw.draw(st.sampled_from(list(found)))
    value = draw.draw(values)
    inner = data.rstrip()[:-1]
    again = inner + b"," + json.dumps(name).encode() + b":" + value + b"}"
    with pytest.raises(DuplicateMember):
        spans(again)


@pytest.mark.parametrize("data", [b"[]", b"1", b'"{}"', b"null"])
def test_what_is_no_object_has_no_members(data: bytes) -> None:
    """JSON of another kind is told from text that is not JSON."""
    with pytest.raises(NotMessage, match="not an object"):
        spans(data)


NOT_JSON = [
    b"",
    b"{",
    b'{"a":1',
    b'{"a":1}}',
    b'{"a":1,}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b"{'a':1}",
    b'{"a":01}',
    b'{"a":"x\ny"}',
    b'{"a":"\x01"}',
    b'{"a":"\\ud8"}',
    b'{"a":"\\ud8","}',
    b'{"a":"\\ud83d\\ude","}',
    b'{"a":"\\ud80g"}',
    b'{"a":1}\x00',
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("data", NOT_JSON)
def test_text_that_is_no_json_is_refused(data: bytes) -> None:
    """Neither constants of JavaScript nor broken escapes nor a byte-order mark pass as JSON."""
    with pytest.raises(NotJson):
        spans(data)
    with pytest.raises(NotJson):
        check_json(data)


@pytest.mark.parametrize("data", [b"[]", b" 1 ", b'"\\ud800"', b"null", b'{"a":1,"a":2}'])
def test_any_json_value_passes_the_check(data: bytes) -> None:
    """The plain check takes every value, lone surrogate escapes among them."""
    check_json(data)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("a",), b'{"b":{"c":1.0}}'),
        (("a", "b", "c"), b"1.0"),
        (("a", "x"), None),
        (("x", "b"), None),
        (("a", "b", "c", "d"), None),
        (("list", "0"), None),
        ((), b'{"a":{"b":{"c":1.0}},"list":[1]}'),
    ],
)
def test_a_path_leads_to_a_raw_value(path: tuple[str, ...], expected: bytes | None) -> None:
    """A path ends in the raw value, or in None if something on the way is not an object."""
    assert member(b'{"a":{"b":{"c":1.0}},"list":[1]}', *path) == expected


def test_elements_keep_their_spelling() -> None:
    """The elements of an array come one by one, each as it was spelled."""
    assert elements(b' [ 1.0 , {"a" : 1}, "\\ud83d\\ude00" ] ') == [
        b"1.0",
        b'{"a" : 1}',
        b'"\\ud83d\\ude00"',
    ]
    assert elements(b"[]") == []


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"{}", NotMessage), (b"[1", NotJson), (b"[1,]", NotJson), (b'["\\ud800"]', NotJson)],
)
def test_what_is_no_array_has_no_elements(data: bytes, error: type[WireError]) -> None:
    """An object, a broken text and a lone surrogate in an array are refused."""
    with pytest.raises(error):
        elements(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"ID":1}',
        b'{"id":1,"Id":2}',
        b'{"Id":2,"id":1}',
        b'{"\\u0049d":1}',
    ],
)
def test_a_name_in_other_capitals_is_refused(data: bytes) -> None:
    """A member that a reader without regard to case takes for the wanted one is refused."""
    with pytest.raises(DuplicateMember, match="could be read as 'id'"):
        unambiguous(spans(data), "id")


def test_letters_that_fold_to_ascii_count_as_capitals() -> None:
    """The long s and the Kelvin sign stand for s and k to readers that fold case."""
    for name in ("progre\u017f\u017fToken", "progressTo\u212aen", "PROGRESSTOKEN"):
        with pytest.raises(DuplicateMember):
            unambiguous({name: (0, 1)}, "progressToken")


def test_an_unambiguous_member_is_found() -> None:
    """The wanted member is found among others, and its absence told."""
    assert unambiguous({"a": (0, 1), "id": (2, 3)}, "id") == (2, 3)
    assert unambiguous({"a": (0, 1)}, "id") is None


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An empty container inside others, `depth` in all."""
    return opening * depth + closing * depth


@pytest.mark.parametrize(
    "data",
    [
        nested(MAX_DEPTH),
        nested(MAX_DEPTH - 1, b'{"a":', b"}").replace(b":}", b":{}}", 1),
        b"[[]," + nested(MAX_DEPTH - 1) + b"]",
        b"[[]," + b'{"a":' * (MAX_DEPTH - 1) + b"0" + b"}" * (MAX_DEPTH - 1) + b"]",
        b"[" + b"[]," * 5000 + b"[]]",
        b"[" + b'{"a":[]},' * 5000 + b"0]",
        nested(300)[:-300] + b",".join([nested(200)] * 20) + b"]" * 300,
        b'["' + b"[{" * 5000 + b'"]',
        b'["\\"' + b"[" * 5000 + b'","' + b"\\\\" * 3 + b'",' + nested(500) + b"]",
    ],
)
def test_depth_up_to_the_limit_passes(data: bytes) -> None:
    """The limit counts depth, not brackets, and none inside strings."""
    check_text(data)
    check_json(data)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, MAX_DEPTH + 2, MAX_DEPTH + 8, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b"[[],", b"]")])
def test_depth_beyond_the_limit_is_refused(depth: int, opening: bytes, closing: bytes) -> None:
    """One level too many is refused, before any parser has to go down there."""
    inner = b"0" if opening.endswith((b":", b",")) else b""
    data = opening * depth + inner + closing * depth
    with pytest.raises(TooDeep, match="512"):
        check_text(data)
    with pytest.raises(TooDeep):
        check_text(data.replace(b"]", b" ]").replace(b"[", b"[ "))


def test_depth_beside_much_that_is_flat_is_refused() -> None:
    """Flat parts are taken away first, and with them a level of what is deep."""
    flat = b"[[]]," * 5000
    check_text(b"[" + flat + nested(MAX_DEPTH - 1) + b"]")
    with pytest.raises(TooDeep):
        check_text(b"[" + flat + nested(MAX_DEPTH) + b"]")


def depth_of(value: object) -> int:
    """How deep a value nests, each array and object a level."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


TRICKY = st.text(st.sampled_from('[]{}"\\,: a'), max_size=12)


@given(
    st.recursive(
        TRICKY,
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TRICKY, inner, max_size=6),
        max_leaves=60,
    ),
    st.sampled_from([1, 2, 3, 7, 1 << 18]),
)
def test_the_depth_that_is_counted_is_the_depth_there_is(value: object, slice_bytes: int) -> None:
    """Whatever stands in strings: brackets, quotes, backslashes before either; however sliced."""
    data, depth = json.dumps(value).encode(), depth_of(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_object, "_SLICE_BYTES", slice_bytes)
        check_text(data, depth)
        if depth:
            with pytest.raises(TooDeep):
                check_text(data, depth - 1)


@pytest.mark.parametrize("depth", [100_000])
def test_depth_hidden_from_the_count_ends_in_an_error(depth: int) -> None:
    """Closing brackets before the opening ones deceive the count, but not the parser."""
    data = b"]" * depth + b"[" * depth
    check_text(data)
    with pytest.raises(NotJson):
        check_json(data)
    with pytest.raises(TooDeep):
        check_json(nested(depth))


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b'"\xff"', 1),
        (b'"\xc3"', 1),
        (b'"\xed\xa0\x80"', 1),
        (b'"ab\xc0\xaf"', 3),
        (b'"\xe2\x80', 1),
    ],
)
def test_invalid_utf_8_is_refused(data: bytes, at: int) -> None:
    """Bytes that are not UTF-8 are refused, with the place of the first."""
    with pytest.raises(NotJson, match=f"not UTF-8 at byte {at}"):
        check_text(data)


def test_a_string_without_an_end_is_read_once() -> None:
    """Escaped quotes after a quote that is never closed do not cost their number squared.

    A square of two million would take longer than any bound on a test run.
    """
    for end in (b"", b"\\", b"x"):
        data = b"[" * (MAX_DEPTH + 1) + b'"' + b'\\"' * 2_000_000 + end
        with pytest.raises(TooDeep):
            check_text(data)
        shallow = b'"' + b'\\"[' * 1_000_000 + end
        check_text(shallow)


def test_a_long_key_costs_its_own_size() -> None:
    """A key of a megabyte is found in a few times its size of memory."""
    size = 1_000_000
    for key in (b"a" * size, b"\\n" * (size // 2), b'\\"' * (size // 2)):
        data = b'{"' + key + b'":1}'
        tracemalloc.start()
        try:
            (span,) = spans(data).values()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert data[slice(*span)] == b"1"
        assert peak < 16 * size


def many(count: int, colon: bytes) -> bytes:
    """An object of that many members, each with an object below."""
    return b"{" + b",".join(b'"k%d"%b{"a":[]}' % (i, colon) for i in range(count)) + b"}"


@pytest.mark.parametrize("colon", [b":", b" : "])
@pytest.mark.parametrize("kind", [bytes, Payload])
def test_members_are_counted_before_they_are_walked(colon: bytes, kind: type[bytes]) -> None:
    """As many as the limit are found, one more is refused; those below do not count."""
    data = kind(many(MAX_MEMBERS, colon))
    found = spans(data)
    assert len(found) == MAX_MEMBERS
    assert data[slice(*found[f"k{MAX_MEMBERS - 1}"])] == b'{"a":[]}'
    for _ in range(2):
        with pytest.raises(TooMany, match="more than 1000 members"):
            spans(kind(many(MAX_MEMBERS + 1, colon)))
    assert list(spans(kind(b'{"a":%b}' % many(MAX_MEMBERS + 1, colon)))) == ["a"]


def test_a_long_payload_is_walked_once() -> None:
    """Its members are the same object each time, and so is a long part of it; problems too."""
    payload = Payload(b'{"a":{"b":"' + b"x" * LONG_BYTES + b'"},"c":1}')
    assert spans(payload) is spans(payload)
    first = member(payload, "a")
    assert first is not None
    assert member(payload, "a") is first
    assert spans(first) is spans(first)
    assert member(payload, "c") == b"1"
    wrong = Payload(b'{"a":1,"a":2}' + b" " * LONG_BYTES)
    for _ in range(2):
        with pytest.raises(DuplicateMember, match="stands twice"):
            spans(wrong)


@pytest.mark.parametrize("element", [b"1", b"{}", b'{"a":[1,2],"b":","}'])
def test_elements_are_counted_before_they_are_copied(element: bytes) -> None:
    """As many as the limit are given, one more is refused."""
    assert len(elements(b"[" + b",".join([element] * 7) + b"]", 7)) == 7
    with pytest.raises(TooMany, match="more than 7 elements"):
        elements(b"[" + b",".join([element] * 8) + b"]", 7)
    with pytest.raises(NotMessage):
        elements(b'{"a":"' + b"," * 9 + b'"}', 7)
    with pytest.raises(NotJson):
        elements(b'["' + b"," * 9 + b'",1', 7)


@pytest.mark.slow
def test_many_surrogates_cost_one_step_each() -> None:
    """A walk that began again for each would take longer than any bound on a test run."""
    count = 100_000
    masked = b'{"s":"' + b"\\ud800" * count + b'"}'
    assert spans(masked) == {"s": (5, len(masked) - 1)}
    assert spans(b'{"s":"\\ud8ff' + b"\\\\" * count + b'"}')


def respelled(data: bytes) -> bytes:
    """The same text as a payload whose members have been found."""
    payload = Payload(data)
    spans(payload)
    return payload


@pytest.mark.parametrize("size", [1, LONG_BYTES])
@pytest.mark.parametrize("kind", [bytes, Payload, respelled])
@pytest.mark.parametrize("blank", [b"", b" "])
def test_a_changed_payload_knows_its_members(
    size: int, kind: Callable[[bytes], bytes], blank: bytes
) -> None:
    """Spans after a change are those of a walk over the new text."""
    long = b'"' + b"x" * size + b'"'
    raw = b'{"a":1,%b"_meta":{"t":7},%b"b":%b,"c":[2]}' % (blank, blank, long)
    data = kind(raw)
    found = spans(data)
    first, last = found["_meta"]
    inner = (first + len(b'{"t":'), last - 1)
    changed = [
        spliced(data, inner, b"12345"),
        spliced(data, found["_meta"], b"{}"),
        spliced(data, found["a"], b'"longer"'),
        spliced(data, found["c"], b"3"),
        spliced(spliced(data, inner, b"0"), found["a"], b"11"),
        without(data, ("a",)),
        without(data, ("_meta", "c")),
        without(data, ("c",)),
        packed({"z": b"1", **opened(data), 'q"': b"{}"}),
    ]
    for each in changed:
        assert spans(each) == spans(bytes(each))
        assert opened(each) == {n: bytes(v) for n, v in opened(bytes(each)).items()}
        assert type(each) is bytes or isinstance(each, Payload)
    assert data == raw


def test_a_long_payload_is_not_walked_again_after_a_change() -> None:
    """A walk over 4 MiB takes up to 20 ms, and rules change params on the event loop."""
    # No walk could find a member of it.
    text = b'{"a":1,"b":' + b"x" * LONG_BYTES + b"}"
    with pytest.raises(NotJson):
        spans(Payload(text))
    data = Payload(text).knowing({"a": (5, 6), "b": (11, len(text) - 1)})
    assert spans(spliced(data, (5, 6), b"12")) == {"a": (5, 7), "b": (12, len(text))}
    assert spans(without(data, ("a",))) == {"b": (5, len(text) - 7)}
    assert list(spans(packed({**opened(data), "c": b"{}"}))) == ["a", "b", "c"]
