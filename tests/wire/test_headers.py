"""Accept, Content-Type and session ids as clients write them."""

from __future__ import annotations

import pytest

from mcpbridge.wire.headers import Acceptable, acceptable, is_json, is_session_id

BOTH = Acceptable(json=True, stream=True, names_stream=False)
NAMED = Acceptable(json=True, stream=True, names_stream=True)
JSON_ONLY = Acceptable(json=True, stream=False, names_stream=False)
STREAM_ONLY = Acceptable(json=False, stream=True, names_stream=True)
NEITHER = Acceptable(json=False, stream=False, names_stream=False)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, BOTH),
        ("", BOTH),
        ("  ", BOTH),
        ("*/*", BOTH),
        ("application/json, text/event-stream", NAMED),
        ("text/event-stream,application/json", NAMED),
        ("APPLICATION/JSON , Text/Event-Stream", NAMED),
        ("application/json;charset=utf-8", JSON_ONLY),
        ("application/json", JSON_ONLY),
        ("application/*", JSON_ONLY),
        ("text/event-stream", STREAM_ONLY),
        ("text/*", Acceptable(json=False, stream=True, names_stream=False)),
        ("text/event-stream, */*;q=0.1", NAMED),
        ("application/json;q=0.001, text/event-stream;q=0", JSON_ONLY),
        ("application/json;q=0, text/event-stream", STREAM_ONLY),
        ("application/json; Q = 0.0, text/event-stream", STREAM_ONLY),
        ("application/json;q=0, */*", Acceptable(json=False, stream=True, names_stream=False)),
        ("text/event-stream;q=0, */*", JSON_ONLY),
        ("*/*;q=0, application/json", JSON_ONLY),
        ("text/event-stream;v=1;q=0, text/event-stream", STREAM_ONLY),
        ("text/event-stream, text/event-stream;v=1;q=0", STREAM_ONLY),
        ("application/json;q=often", JSON_ONLY),
        ("application/json;v=0", JSON_ONLY),
        ("*/*;q=0", NEITHER),
        ("text/html", NEITHER),
        ("application/jsonp", NEITHER),
        (",", NEITHER),
    ],
)
def test_accept_tells_which_answers_a_client_takes(
    accept: str | None, expected: Acceptable
) -> None:
    """No header and wildcards allow both forms, `q=0` refuses, the most specific range decides."""
    assert acceptable(accept) == expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/json;charset=utf-8", True),
        (" Application/JSON ;", True),
        (None, False),
        ("", False),
        ("text/plain", False),
        ("text/json", False),
        ("application/jsonp", False),
        ("text/plain; application/json", False),
        ("application/x-www-form-urlencoded", False),
    ],
)
def test_content_type_says_json_with_any_parameters(
    content_type: str | None, expected: bool
) -> None:
    """JSON is told by the media type alone; a form that any web page may post is not JSON."""
    assert is_json(content_type) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", True),
        ("!~", True),
        ("0123456789abcdef" * 64, True),
        ("0123456789abcdef" * 64 + "0", False),
        ("", False),
        ("a b", False),
        ("a\n", False),
        ("a\t", False),
        ("\x7f", False),
        ("é", False),
        ("a\x00", False),
    ],
)
def test_a_session_id_is_visible_ascii(value: str, expected: bool) -> None:
    """A session id has 1 to 1024 characters from 0x21 to 0x7E."""
    assert is_session_id(value) is expected
