"""Objects changed at their top level."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage
from mcpbridge.wire.json_object import (
    LONG_BYTES,
    MAX_MEMBERS,
    Payload,
    may_hold_meta,
    opened,
    packed,
    replaced,
    spans,
    spliced,
    viewed,
    with_members,
    without,
)

SPELLED = b'{ "a" : 1.0, "b":{"x": [1 ,2]},"\\u0063":"\\ud800" }'


def test_values_are_their_senders_bytes() -> None:
    """Opened and packed again, each value is spelled as it was, in its order."""
    members = opened(SPELLED)
    assert members == {"a": b"1.0", "b": b'{"x": [1 ,2]}', "c": b'"\\ud800"'}
    assert packed(members) == b'{"a":1.0,"b":{"x": [1 ,2]},"c":"\\ud800"}'
    assert packed({}) == b"{}"
    assert opened(b" {} ") == {}


@pytest.mark.parametrize("name", ["", '"', "\\", "é", "\n", "\u2028"])
def test_any_name_survives(name: str) -> None:
    """Whatever a member is called, what is packed is JSON and opens again."""
    data = packed({name: b"1"})
    assert json.loads(data) == {name: 1}
    assert opened(data) == {name: b"1"}


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"[]", NotMessage), (b"{", NotJson), (b'{"a":1,"\\u0061":2}', DuplicateMember)],
)
def test_what_is_no_object_is_not_opened(data: bytes, error: type[Exception]) -> None:
    """Nor is one that says a thing twice."""
    for change in (opened, lambda d: with_members(d, {}), lambda d: without(d, ("a",))):
        with pytest.raises(error):
            change(data)


def test_members_are_set_where_they_stand_or_at_the_end() -> None:
    """A member that is there keeps its place."""
    assert with_members(b'{"a":1,"b":2}', {"c": b"3", "a": b"9"}) == b'{"a":9,"b":2,"c":3}'


def test_members_are_taken_out_and_the_rest_is_untouched() -> None:
    """Where nothing is unwanted, the very bytes come back."""
    assert without(SPELLED, ("z",)) is SPELLED
    assert without(SPELLED, ("a", "c")) == b'{ "b":{"x": [1 ,2]}}'


@given(
    st.dictionaries(st.sampled_from('abcdé"\\,'), st.sampled_from([1, "x, y", {"a": [1]}, []])),
    st.sets(st.sampled_from('abcdé"\\,')),
    st.sampled_from([None, 2]),
    st.sampled_from([(",", ":"), (" , ", " : ")]),
)
def test_what_is_left_is_the_object_without_them(
    members: dict[str, object], names: set[str], indent: int | None, marks: tuple[str, str]
) -> None:
    """First, last, all or none; whatever stands between the members."""
    data = json.dumps(members, indent=indent, separators=marks).encode()
    left = json.loads(without(data, names))
    assert list(left.items()) == [(k, v) for k, v in members.items() if k not in names]


def test_an_object_with_many_colons_is_packed_again() -> None:
    """Its members are counted as they are read; their names are ordinary ones all the same."""
    value = b"[" + b",".join([b'{"a":1}'] * (MAX_MEMBERS + 1)) + b"]"
    members = opened(b'{"b":%b}' % value)
    assert packed(members) == b'{"b":%b}' % value
    assert {type(name) for name in members} == {str}


FILLER = b"x" * LONG_BYTES


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"FILL","_meta":{"b":1},"c":[1]}',
        b'{ "_META" : 1 , "a" : "FILL" , "c" : 3 }',
        b'{"c":1 ,"\\u0061":"FILL","d":{"_meta":2}}',
        b'{"d":"_meta","a":"FILL"}',
    ],
)
def test_a_long_object_is_changed_as_a_short_one_is(text: bytes, known: bool) -> None:
    """It is not copied as often, and not searched if its members are known."""
    short, long = Payload(text), Payload(text.replace(b"FILL", FILLER))

    def shortened(data: bytes) -> bytes:
        assert len(data) >= LONG_BYTES
        return data.replace(FILLER, b"FILL")

    if known:
        long.spans()
    for names in ([], ["c"], ["_meta", "c"], ["_META"], ["d"], ["c", "d"]):
        changed = without(long, names)
        assert shortened(changed) == without(short, names)
        assert spans(changed) == spans(bytes(changed))
    for name in spans(short).keys() - {"a"}:
        (own, wanted) = (spans(data)[name] for data in (long, short))
        assert shortened(replaced(long, [(own, b"77")])) == replaced(short, [(wanted, b"77")])
        changed = spliced(long, own, b"77")
        assert shortened(changed) == spliced(short, wanted, b"77")
        assert spans(changed) == spans(bytes(changed))
    assert shortened(packed(viewed(long))) == packed(opened(short))
    if known:
        assert may_hold_meta(long, b"_meta") is (b'"_meta":{"b' in text or b"_META" in text)
