"""A child's questions to its client, their numbers, and what either side cancels."""

from __future__ import annotations

import itertools
import json

import pytest

from mcpbridge.errors import DuplicateMember
from mcpbridge.rules.mcp.correlator import Withdrawn, cancel_for, cancelled_id, renamed_cancel
from mcpbridge.rules.mcp.server_requests import (
    DESTINATIONS,
    CallsInFlight,
    Destination,
    ServerRequestTable,
    destination_of,
    roots_result,
)
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Request,
    Result,
    decode,
    encode,
)

CANCELLED = "notifications/cancelled"


@pytest.mark.parametrize(
    ("offered", "calls", "listening", "place"),
    [
        (False, 0, False, Destination.DECLINED),
        (False, 1, True, Destination.DECLINED),
        (True, 0, False, Destination.QUEUE),
        (True, 0, True, Destination.LISTENER),
        (True, 1, False, Destination.ONLY_CALL),
        (True, 1, True, Destination.ONLY_CALL),
        (True, 2, False, Destination.LATEST_CALL),
        (True, 2, True, Destination.LISTENER),
        (True, 100, False, Destination.LATEST_CALL),
    ],
)
def test_a_question_goes_where_it_will_be_heard(
    offered: bool, calls: int, listening: bool, place: Destination
) -> None:
    """A question goes to the only call, else to a client that listens, else to the latest call."""
    assert destination_of(offered, calls, listening) is place


def test_a_question_has_a_place_in_every_case() -> None:
    """The table of places has a row for each number of calls, heard or not."""
    assert set(DESTINATIONS) == set(itertools.product(CallsInFlight, (False, True)))


@pytest.mark.parametrize("first", [1, 1000])
def test_a_question_is_answered_once_under_the_childs_id(first: int) -> None:
    """An answer goes back under the id as the child spelled it, and only the first one does."""
    questions = ServerRequestTable(itertools.count(first))
    number, asked = questions.ask(Request(b'"\\u0071"', "roots/list", b"{ }", b',"x":1'))
    assert (number, asked) == (first, Request(b"%d" % first, "roots/list", b"{ }", b',"x":1'))
    other, _ = questions.ask(Request(b"0", "roots/list"))
    assert len(questions) == 2
    as_text = Result(b'"%d"' % number, b"{ }", b',"y":1')
    answer = Result(b'"\\u0071"', b"{ }", b',"y":1')
    assert questions.answered(as_text) == (number, answer)
    assert questions.answered(as_text) is None
    failed = Failure(b"%d" % other, b"{}", b',"y":1')
    assert questions.answered(failed) == (other, Failure(b"0", b"{}", b',"y":1'))
    assert questions.answered(failed) is None
    assert len(questions) == 0


@pytest.mark.parametrize(
    "raw", [None, b"2", b'"q"', b"-1", b'"x"', b"1.0", b'"\\ud800"', b"9" * 30]
)
def test_an_answer_to_no_question_goes_nowhere(raw: bytes | None) -> None:
    """An answer under an unknown id, the child's own included, is dropped."""
    questions = ServerRequestTable(itertools.count(1))
    questions.ask(Request(b'"q"', "roots/list"))
    assert questions.answered(Failure(raw, b"{}")) is None
    assert len(questions) == 1


def test_sessions_number_their_questions_apart() -> None:
    """With numbers drawn from one source, no session can answer what another was asked."""
    numbers = itertools.count(1)
    one, other = ServerRequestTable(numbers), ServerRequestTable(numbers)
    first, _ = one.ask(Request(b"0", "roots/list"))
    second, _ = other.ask(Request(b"0", "roots/list"))
    assert other.answered(Result(b"%d" % first, b"{}")) is None
    assert one.answered(Result(b"%d" % second, b"{}")) is None
    assert one.answered(Result(b"%d" % first, b"{}")) == (first, Result(b"0", b"{}"))


def test_a_withdrawn_question_is_named_as_the_client_knows_it() -> None:
    """A withdrawal reaches the client under its number, once, and unknown ones nowhere."""
    questions = ServerRequestTable(itertools.count(5))
    questions.ask(Request(b"0", "roots/list"))
    questions.ask(Request(b"1", "roots/list"))
    cancel = Notification(CANCELLED, b'{"requestId": 1 ,"reason":"late"}', b',"x":1')
    expected = Notification(CANCELLED, b'{"requestId": 6 ,"reason":"late"}', b',"x":1')
    assert questions.withdrawn(Withdrawn(b"1", cancel), ()) is None, "of another child"
    assert questions.withdrawn(Withdrawn(b"1", cancel), (5, 6)) == (6, expected)
    assert questions.withdrawn(Withdrawn(b"1", cancel), (5, 6)) is None
    assert questions.withdrawn(Withdrawn(b'"0"', cancel), (5, 6)) is None
    assert questions.answered(Result(b"6", b"{}")) is None


def test_a_question_can_be_given_up() -> None:
    """Giving up tells the child's id if it still waits, and an answer is too late then."""
    questions = ServerRequestTable(itertools.count(1))
    for child_id in (b"0", b'"a"', b"2"):
        questions.ask(Request(child_id, "roots/list"))
    assert questions.give_up(2) == b'"a"'
    assert questions.give_up(2) is None
    assert questions.answered(Result(b"2", b"{}")) is None
    assert questions.answered(Result(b"3", b"{}")) == (3, Result(b"2", b"{}"))
    assert len(questions) == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (None, None),
        (b"{}", None),
        (b"[]", None),
        (b'{"requestId":"7"}', b'"7"'),
        (b'{ "reason":"x", "request\\u0049d" : 7 }', b"7"),
    ],
)
def test_a_cancellation_names_a_request(params: bytes | None, expected: bytes | None) -> None:
    """The id in a cancellation is read as it was spelled, or its absence told."""
    assert cancelled_id(Notification(CANCELLED, params)) == expected


@pytest.mark.parametrize(
    "params",
    [
        b'{"requestId":1,"requestId":2}',
        b'{"requestId":1,"request\\u0049d":2}',
        b'{"requestId":1,"requestID":2}',
        b'{"REQUESTID":2}',
    ],
)
def test_no_client_cancels_what_is_not_its_own(params: bytes) -> None:
    """A cancellation that some reader takes for that of another request is refused."""
    notification = Notification(CANCELLED, params)
    with pytest.raises(DuplicateMember):
        cancelled_id(notification)
    with pytest.raises(DuplicateMember):
        renamed_cancel(notification, b"9")


def test_a_cancellation_is_renamed_in_place() -> None:
    """Only the id changes in a cancellation that is passed on; one without an id is a bug."""
    notification = Notification(CANCELLED, b'{ "reason":"x", "request\\u0049d" : 7 }', b',"x":1')
    expected = Notification(CANCELLED, b'{ "reason":"x", "request\\u0049d" : 91 }', b',"x":1')
    assert renamed_cancel(notification, b"91") == expected
    for params in (None, b"{}", b"[]"):
        with pytest.raises(KeyError):
            renamed_cancel(Notification(CANCELLED, params), b"91")


def test_the_bridge_cancels_in_its_own_name() -> None:
    """A cancellation of the bridge's own is one that a child can read."""
    notification = cancel_for(91, 'a "reason"')
    assert decode(encode(notification)) == notification
    assert notification.method == CANCELLED
    assert json.loads(notification.params or b"") == {"requestId": 91, "reason": 'a "reason"'}


def test_roots_are_named_by_the_last_part_of_their_path() -> None:
    """Clients and servers show the name; the slash at the end of a folder is not part of it."""
    assert json.loads(roots_result(["file:///srv/data/", "file:///x"])) == {
        "roots": [
            {"uri": "file:///srv/data/", "name": "data"},
            {"uri": "file:///x", "name": "x"},
        ]
    }
