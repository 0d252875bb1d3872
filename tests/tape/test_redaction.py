"""What is recorded holds no secret, and is otherwise what passed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mcpbridge.tape.redaction import MASK, PLAIN_WORDS, Redactor, is_secret_name, secret_values
from mcpbridge.wire.messages import Failure, Notification, Request, Result

SECRET = 'p"w/ö\\1'
LETTERS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="*"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | LETTERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LETTERS, inner, max_size=4),
    max_leaves=12,
)


def shown(value: Any, *secrets: str, name: str = "result") -> Any:
    """What is left of a value."""
    return json.loads(Redactor(secrets).payload(json.dumps(value).encode(), name))


@pytest.mark.parametrize("ascii_alone", [True, False])
def test_a_known_value_is_removed_in_every_spelling(ascii_alone: bool) -> None:
    """In a string, in a key, within longer text, and in JSON that strings hold."""
    inner = json.dumps({"a": SECRET}, ensure_ascii=ascii_alone)
    value = {
        "whole": SECRET,
        "part": f"<{SECRET}>",
        f"k{SECRET}": 1,
        "json": inner,
        "log": f"got {inner}",
    }
    data = json.dumps(value, ensure_ascii=ascii_alone).encode()
    assert json.loads(Redactor([SECRET]).payload(data)) == {
        "whole": MASK,
        "part": f"<{MASK}>",
        f"k{MASK}": 1,
        "json": json.dumps({"a": MASK}),
        "log": f"got {json.dumps({'a': MASK})}",
    }


def test_a_value_spelled_with_needless_escapes_is_removed() -> None:
    """Any character may be written as an escape."""
    data = b'{"a":"x\\u0073ecretly","b":"\\/secretly"}'
    assert json.loads(Redactor(["secretly"]).payload(data)) == {"a": f"x{MASK}", "b": f"/{MASK}"}


@pytest.mark.parametrize(
    "name", ["token", "access_token", "clientSecret", "PASSWORD", "Authorization", "x-api-key"]
)
def test_members_named_like_secrets_are_hidden(name: str) -> None:
    """Strings and numbers, however deep below them."""
    value = {name: "abc", "more": [{name: 12.5}], "deep": {name: {"x": ["y", 1, True, None]}}}
    assert shown(value) == {
        name: MASK,
        "more": [{name: MASK}],
        "deep": {name: {"x": [MASK, MASK, True, None]}},
    }


def test_such_members_are_hidden_in_json_within_a_string() -> None:
    """A structured result comes as text as well."""
    text = json.dumps({"token": "abc", "n": 1}, indent=1)
    found = json.loads(shown({"content": [{"type": "text", "text": text}]})["content"][0]["text"])
    assert found == {"token": MASK, "n": 1}


def test_what_only_resembles_a_secret_is_kept() -> None:
    """Counts of tokens, tokens of progress, and the descriptions of tools."""
    value = {
        "maxTokens": 100,
        "_meta": {"progressToken": 7},
        "description": "needs a token: see the manual",
        "ok": "token",
    }
    assert shown(value) == value


def test_schemas_of_tools_are_kept() -> None:
    """A property called `token` is a type there; beside a schema it is a secret."""
    schema = {"type": "object", "properties": {"token": {"type": "string", "maxLength": 9}}}
    tool = {"name": "t", "inputSchema": schema, "outputSchema": schema, "_meta": {"token": "abc"}}
    value = {"tools": [tool, tool]}
    kept = {**tool, "_meta": {"token": MASK}}
    assert shown(value) == {"tools": [kept, kept]}
    assert shown({"requestedSchema": schema}, name="params") == {"requestedSchema": schema}


def test_a_member_called_schema_elsewhere_hides_nothing() -> None:
    """A client could not smuggle a secret into a recording by its name."""
    hidden = {"inputSchema": {"password": MASK}}
    assert shown({"arguments": {"inputSchema": {"password": "x"}}}, name="params") == {
        "arguments": hidden
    }


def test_short_values_are_removed_as_whole_strings_only() -> None:
    """They occur within words."""
    assert shown({"a": "eu", "b": "neutral"}, "eu") == {"a": MASK, "b": "neutral"}


def test_numbers_that_are_known_are_removed() -> None:
    """Whole numbers, not their digits in others; tokens of progress are not counted."""
    value = {"pin": 482913, "other": 1482913, "list": [482913], "progressToken": 482913}
    assert shown(value, "482913") == {**value, "pin": MASK, "list": [MASK]}


def test_words_of_the_protocol_are_kept() -> None:
    """As the value of a variable they hide nothing."""
    value = {"type": "text", "level": "info"}
    assert shown(value, "text", "info", "", " ", "***") == value


def test_messages_keep_their_envelope() -> None:
    """Ids and known methods stay, whatever their values are; other members are looked through."""
    redactor = Redactor(["tools/call", "1234", "hushhush"])
    call = Request(b"1234", "tools/call", b'{"a":"hushhush"}', b',"x":"hushhush"')
    assert redactor.message(call) == Request(b"1234", "tools/call", b'{"a":"***"}', b',"x":"***"')
    assert redactor.message(Notification("x/hushhush")) == Notification("x/***")
    assert redactor.message(Result(b"1", b'"hushhush"')) == Result(b"1", b'"***"')
    assert redactor.message(Failure(None, b'{"message":"no hushhush"}')) == Failure(
        None, b'{"message":"no ***"}'
    )


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("Authorization: Bearer abc.def x", "Authorization: ***"),
        ("got token=abc123, next", "got token=***, next"),
        ('{"password": "abc", "n": 1}', '{"password": "***", "n": 1}'),
        ("value sesame-1 here", "value *** here"),
        ("plain server up", "plain server up"),
    ],
)
def test_lines_that_are_not_json(line: str, left: str) -> None:
    """Stderr: known values, and what stands after the name of a secret."""
    assert Redactor(["sesame-1"]).text(line) == left


def test_values_of_an_environment() -> None:
    """What the operator set, and what is named like a secret; not the rest."""
    env = {"PATH": "/bin", "GH_TOKEN": "ghp", "REGION": "eu-west", "EMPTY_SECRET": ""}
    assert secret_values(env, ["REGION", "GONE"]) == {"ghp", "eu-west"}
    assert is_secret_name("GH_TOKEN")
    assert not is_secret_name("progressToken")


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_holds_no_secret_is_unchanged(
    value: Any, ascii_alone: bool, indent: int | None
) -> None:
    """Byte for byte."""
    data = json.dumps(value, ensure_ascii=ascii_alone, indent=indent).encode()
    assume(not is_secret_name(data.decode()))
    assert Redactor(["never-in-it"]).payload(data) == data


@given(VALUES, LETTERS.filter(lambda text: len(text.strip()) > 3), st.booleans())
def test_a_secret_is_nowhere(value: Any, secret: str, ascii_alone: bool) -> None:
    """In no string and no key, and what is left is JSON."""
    assume(secret not in PLAIN_WORDS)
    holding = {"a": [value, secret, f"x{secret}y"], secret: json.dumps([secret])}
    data = json.dumps(holding, ensure_ascii=ascii_alone).encode()
    left = json.loads(Redactor([secret]).payload(data))
    assert secret not in json.dumps(left, ensure_ascii=False)
    assert not any(secret in text for text in strings(left))


def strings(value: Any) -> list[str]:
    """All strings and keys in a value."""
    match value:
        case dict():
            return [*value, *(text for each in value.values() for text in strings(each))]
        case list():
            return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    """Also what is not JSON comes to an end."""
    Redactor(["secret-1"]).payload(b'{"a\\":' + data)
