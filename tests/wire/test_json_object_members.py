"""Objects changed at their top level."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage
from mcpbridge.wire.json_object import MAX_MEMBERS, opened, packed, with_members, without

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
