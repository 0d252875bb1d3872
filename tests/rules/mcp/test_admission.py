"""The ladder of rules on a request: the first one broken decides, with the request's id."""

from __future__ import annotations

import json

import pytest

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage, TooDeep, WireError
from mcpbridge.rules.mcp.admission import (
    Admitted,
    Names,
    Opening,
    Refusal,
    admit_batch,
    admit_message,
    check_names,
    check_post_head,
    duplicate_id,
    echoing,
    refuse,
    refused_text,
    session_gone,
    session_required,
)
from mcpbridge.rules.mcp.revisions import REVISIONS, SERVED, Revision, known
from mcpbridge.wire.headers import Acceptable, acceptable
from mcpbridge.wire.messages import MAX_BATCH, Failure, Message, Notification, Request, Result

BATCHES = known("2025-03-26")
NEWEST = known("2025-11-25")

HELLO = b'{"protocolVersion":"2025-06-18","capabilities":{"roots":{}}}'


def told(refusal: object) -> tuple[int, int, bytes | None]:
    """Status, code and id of what must be a refusal."""
    assert isinstance(refusal, Refusal)
    error = json.loads(refusal.error)
    assert error["message"]
    return refusal.status, error["code"], refusal.request_id


@pytest.mark.parametrize(
    ("accept", "content_type", "encoding", "status"),
    [
        (None, "application/json", None, None),
        ("*/*", "application/json; charset=utf-8", "identity", None),
        ("application/json", "APPLICATION/JSON", " Identity ", None),
        ("text/event-stream", "application/json", None, None),
        (None, "application/json", "gzip", 415),
        (None, "application/json", "", 415),
        (None, None, None, 415),
        (None, "text/plain", None, 415),
        ("text/html", "application/json", None, 406),
        ("text/html", "text/plain", None, 415),
        ("text/html", "text/plain", "gzip", 415),
    ],
)
def test_the_head_of_a_post_is_judged_first(
    accept: str | None, content_type: str | None, encoding: str | None, status: int | None
) -> None:
    """A packed body, one that is not JSON or has an unwanted answer is refused unread."""
    refusal = check_post_head(acceptable(accept), content_type, encoding)
    if status is None:
        assert refusal is None
    else:
        assert told(refusal) == (status, -32600, None)


def test_one_form_of_answer_is_enough() -> None:
    """Either form will do; only a client that takes neither is refused."""
    for json_ok in (True, False):
        for stream_ok in (True, False):
            accept = Acceptable(json=json_ok, stream=stream_ok, names_stream=stream_ok)
            refusal = check_post_head(accept, "application/json", None)
            assert (refusal is None) is (json_ok or stream_ok)


@pytest.mark.parametrize("revision", [None, *(revision.date for revision in SERVED)])
@pytest.mark.parametrize("session_id", [None, "abc", "!" * 1024])
def test_good_names_pass(revision: str | None, session_id: str | None) -> None:
    """Every served revision and any session id in visible ASCII pass, present or not."""
    assert check_names(Names(session_id, revision)) is None


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (Names(None, "2026-07-28"), "2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05"),
        (Names(None, "1999-01-01"), "MCP-Protocol-Version"),
        (Names(None, ""), "MCP-Protocol-Version"),
        (Names("", "x"), "MCP-Protocol-Version"),
        (Names("", None), "Mcp-Session-Id"),
        (Names("a b", "2025-06-18"), "Mcp-Session-Id"),
        (Names("é", None), "Mcp-Session-Id"),
    ],
)
def test_bad_names_are_refused(names: Names, text: str) -> None:
    """A revision that is not served or an id outside the grammar is 400, and the text says why."""
    refusal = check_names(names)
    assert told(refusal) == (400, -32600, None)
    assert refusal is not None
    assert text in json.loads(refusal.error)["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotJson("x"), -32700),
        (NotMessage("x", b"7"), -32600),
        (TooDeep("x"), -32600),
        (DuplicateMember("x"), -32600),
    ],
)
def test_a_body_that_is_no_message_is_told_by_its_error(error: WireError, code: int) -> None:
    """What is not JSON is a parse error, all else an invalid request, with the id it has."""
    assert told(refused_text(error)) == (400, code, error.request_id)


def test_a_refusal_echoes_the_id_once_known() -> None:
    """An id is added to a refusal that has none, and an id it has stays."""
    bare = refuse(405, -32600, "no", allow="GET, POST")
    assert bare.allow == "GET, POST"
    assert echoing(bare, None) is bare
    named = echoing(bare, b"7")
    assert (named.request_id, named.status, named.error) == (b"7", 405, bare.error)
    assert named.allow == "GET, POST"
    assert echoing(named, b"8") is named


def test_a_session_that_is_gone_and_one_that_is_missing_differ() -> None:
    """Clients begin again on 404 only, so a missing header is 400."""
    assert told(session_gone())[:2] == (404, -32001)
    assert told(session_required()) == (400, -32600, None)
    assert told(session_required(b'"7"')) == (400, -32600, b'"7"')


REQUEST = Request(b"7", "tools/list")
NOTIFICATION = Notification("notifications/initialized")
RESULT = Result(b"1", b"{}")
FAILURE = Failure(None, b"{}")


@pytest.mark.parametrize("message", [REQUEST, NOTIFICATION, RESULT, FAILURE])
@pytest.mark.parametrize("session", [None, *SERVED])
@pytest.mark.parametrize("require_session", [True, False])
def test_messages_are_served_inside_a_session(
    message: Message, session: Revision | None, require_session: bool
) -> None:
    """In a session all pass; outside of one answers never do, and others unless it is required."""
    verdict = admit_message(message, session, require_session=require_session)
    outside = session is None and (require_session or isinstance(message, (Result, Failure)))
    if outside:
        request_id = b"7" if message is REQUEST else None
        assert told(verdict) == (400, -32600, request_id)
    else:
        assert verdict == Admitted((message,))


@pytest.mark.parametrize("require_session", [True, False])
def test_initialize_opens_a_session(require_session: bool) -> None:
    """Outside a session `initialize` opens one, with what the client said of itself."""
    request = Request(b"7", "initialize", HELLO)
    opening = admit_message(request, None, require_session=require_session)
    assert isinstance(opening, Opening)
    assert opening.request is request
    assert opening.client_profile.requested == "2025-06-18"
    assert opening.client_profile.abilities == {"roots"}
    again = admit_message(request, NEWEST, require_session=require_session)
    assert told(again) == (400, -32600, b"7")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        (None, -32602),
        (b"[]", -32602),
        (b"{}", -32602),
        (b'{"protocolVersion":1,"capabilities":{}}', -32602),
        (b'{"protocolVersion":"2025-06-18"}', -32602),
        (b'{"protocolVersion":"2025-06-18","capabilities":[]}', -32602),
        (b'{"protocolVersion":"a","protocolVersion":"b","capabilities":{}}', -32600),
        (b'{"protocolVersion":"a","capabilities":{"roots":{},"roots":{}}}', -32600),
    ],
)
def test_an_introduction_that_cannot_be_read_opens_nothing(params: bytes | None, code: int) -> None:
    """`initialize` without what it must hold, or with two of it, is refused with its id."""
    verdict = admit_message(Request(b'""', "initialize", params), None, require_session=False)
    assert told(verdict) == (400, code, b'""')


def test_a_notification_named_initialize_opens_nothing() -> None:
    """Only a request can open a session."""
    message = Notification("initialize", HELLO)
    assert admit_message(message, NEWEST, require_session=True) == Admitted((message,))
    assert told(admit_message(message, None, require_session=True))[0] == 400


@pytest.mark.parametrize("method", ["notifications/cancelled", "notifications/progress"])
def test_a_request_cannot_pose_as_a_notification(method: str) -> None:
    """A request under a notification's name is refused: no id inside it would be mapped."""
    posing = Request(b"7", method, b'{"requestId":1}')
    for session in (None, BATCHES, NEWEST):
        verdict = admit_message(posing, session, require_session=False)
        assert told(verdict) == (400, -32600, b"7")
    assert told(admit_batch([REQUEST, posing], BATCHES)) == (400, -32600, None)
    honest = Notification(method, b'{"requestId":1}')
    assert admit_message(honest, NEWEST, require_session=True) == Admitted((honest,))


@pytest.mark.parametrize("session", [None, *REVISIONS])
def test_batches_are_served_in_one_revision(session: Revision | None) -> None:
    """Only a session of 2025-03-26 has batches."""
    verdict = admit_batch([REQUEST], session)
    if session is BATCHES:
        assert verdict == Admitted([REQUEST], batch=True)
    else:
        assert told(verdict) == (400, -32600, None)


def requests(count: int) -> list[Message]:
    """As many requests with their own ids."""
    return [Request(b"%d" % i, "ping") for i in range(count)]


@pytest.mark.parametrize(
    "messages",
    [
        requests(1),
        requests(MAX_BATCH),
        [NOTIFICATION],
        [NOTIFICATION, REQUEST, NOTIFICATION],
        [RESULT, FAILURE, RESULT],
        [Request(b"1", "ping"), Request(b'"1"', "ping"), Request(b"-1", "ping")],
    ],
)
def test_a_batch_of_questions_or_of_answers_passes(messages: list[Message]) -> None:
    """Up to a hundred requests and notifications pass together, and so do answers."""
    assert admit_batch(messages, BATCHES) == Admitted(messages, batch=True)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "1 to 100"),
        (requests(MAX_BATCH + 1), "1 to 100"),
        ([REQUEST, Request(b"8", "initialize", HELLO)], "initialize"),
        ([REQUEST, REQUEST], "same id"),
        ([Request(b'"a"', "ping"), Request(b'"\\u0061"', "ping")], "same id"),
        ([Request(b"0", "ping"), Request(b"-0", "ping")], "same id"),
        ([REQUEST, RESULT], "not both"),
        ([NOTIFICATION, FAILURE], "not both"),
    ],
)
def test_a_batch_that_cannot_be_served_is_refused_as_a_whole(
    messages: list[Message], why: str
) -> None:
    """Nothing, too much, `initialize`, one id twice or questions among answers are refused."""
    refusal = admit_batch(messages, BATCHES)
    assert told(refusal) == (400, -32600, None)
    assert isinstance(refusal, Refusal)
    assert why in json.loads(refusal.error)["message"]


def test_an_id_still_in_flight_is_an_invalid_request() -> None:
    """The error for a repeated id is the one JSON-RPC has."""
    assert json.loads(duplicate_id())["code"] == -32600
