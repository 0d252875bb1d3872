"""A recording answers as the server did."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.replay import MOST_LINE_BYTES, Replay, exchanges_of, serve
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Request,
    Result,
    decode,
    encode,
)

C2S, S2C = Direction.TO_SERVER, Direction.FROM_SERVER


def frames(*passed: tuple[Direction, Message], session: str = "s") -> list[Frame]:
    """Frames of one session."""
    return [
        Frame(session, "demo", seq, seq, direction, message)
        for seq, (direction, message) in enumerate(passed)
    ]


def call(number: int, name: str = "t", meta: str = "", **arguments: Any) -> Request:
    """A `tools/call`."""
    text = json.dumps({"name": name, "arguments": arguments})
    if meta:
        text = f'{{"_meta":{meta},{text[1:]}'
    return Request(b"%d" % number, "tools/call", text.encode())


def answer(number: int, value: str) -> Result:
    """A result."""
    return Result(b"%d" % number, json.dumps(value).encode())


def test_answers_come_in_order_and_the_last_one_again() -> None:
    """Under the client's own ids; `_meta` makes no difference."""
    replay = Replay(
        frames((C2S, call(1)), (S2C, answer(1, "a")), (C2S, call(2)), (S2C, answer(2, "b")))
    )
    said = [replay.receive(call(n, meta=f'{{"x":{n}}}')) for n in (7, 8, 9)]
    assert said == [[answer(7, "a")], [answer(8, "b")], [answer(9, "b")]]


def test_params_are_compared_by_value() -> None:
    """Order of members, spaces, escapes and `1.0` are spelling; types are not."""
    replay = Replay(frames((C2S, call(1, a=1, b="é")), (S2C, answer(1, "x"))))
    same = b'{ "arguments":{"b":"\\u00e9","a":1.0},"name":"t"}'
    assert replay.receive(Request(b"2", "tools/call", same)) == [answer(2, "x")]
    for other in (call(3, a=True, b="é"), call(3, a="1", b="é"), call(3, a=2, b="é"), call(3, a=1)):
        assert isinstance(replay.receive(other)[0], Failure)


def test_absent_params_are_empty_ones() -> None:
    """As clients differ in it."""
    replay = Replay(frames((C2S, Request(b"1", "tools/list")), (S2C, answer(1, "x"))))
    assert replay.receive(Request(b"2", "tools/list", b"{}")) == [answer(2, "x")]


@pytest.mark.parametrize(
    ("request_", "code", "named"),
    [
        (call(5, "gone"), -32602, 'no such request: tools/call {"name": "gone"'),
        (Request(b"5", "prompts/list"), -32601, "no such method: prompts/list"),
    ],
)
def test_what_was_not_recorded_is_named(request_: Request, code: int, named: str) -> None:
    """And no other answer stands in for it."""
    replay = Replay(frames((C2S, call(1)), (S2C, answer(1, "a"))))
    (said,) = replay.receive(request_)
    assert isinstance(said, Failure)
    error = json.loads(said.error)
    assert (said.id, error["code"]) == (b"5", code)
    assert named in error["message"]


def test_a_request_without_a_recorded_answer_gets_an_error() -> None:
    """The recording may have ended before."""
    (said,) = Replay(frames((C2S, call(1)))).receive(call(2))
    assert isinstance(said, Failure)
    assert "no answer to this request: tools/call" in json.loads(said.error)["message"]


def test_any_client_may_introduce_itself() -> None:
    """`initialize` names the client; `ping` needs no recording."""
    replay = Replay(frames((C2S, Request(b"0", "initialize", b'{"a":1}')), (S2C, answer(0, "hi"))))
    assert replay.receive(Request(b"1", "initialize", b'{"a":2}')) == [answer(1, "hi")]
    assert replay.receive(Request(b"2", "ping")) == [Result(b"2", b"{}")]


def test_recorded_errors_are_replayed() -> None:
    """With their code and data."""
    failure = Failure(b"1", b'{"code":-32002,"message":"m","data":{"x":1}}')
    replay = Replay(frames((C2S, call(1)), (S2C, failure)))
    assert replay.receive(call(4)) == [Failure(b"4", failure.error)]


def test_notifications_come_before_the_answer_with_the_clients_token() -> None:
    """Progress belongs to its call, and to no client that did not ask for it."""
    note = Notification("notifications/message", b'{"data":1}')
    mine = Notification("notifications/progress", b'{"progressToken":11,"progress":1}')
    other = Notification("notifications/progress", b'{"progressToken":12,"progress":9}')
    replay = Replay(
        frames(
            (C2S, call(1, "one", '{"progressToken":11}')),
            (C2S, call(2, "two", '{"progressToken":12}')),
            (S2C, other),
            (S2C, mine),
            (S2C, answer(2, "b")),
            (S2C, note),
            (S2C, answer(1, "a")),
            (S2C, note),
        )
    )
    renamed = Notification("notifications/progress", b'{"progressToken":"p","progress":1}')
    told = replay.receive(call(5, "one", '{"progressToken":"p"}'))
    assert told == [renamed, note, answer(5, "a")]
    assert replay.receive(call(6, "two")) == [answer(6, "b")]


def test_a_listen_stays_open_under_its_own_id() -> None:
    """It has no answer before its end."""
    key = "io.modelcontextprotocol/subscriptionId"
    note = Notification(
        "notifications/subscriptions/acknowledged", b'{"_meta":{"%b":3}}' % key.encode()
    )
    listen = Request(b"3", "subscriptions/listen", b"{}")
    replay = Replay(frames((C2S, listen), (S2C, note)))
    (told,) = replay.receive(Request(b'"l"', "subscriptions/listen", b"{}"))
    assert isinstance(told, Notification)
    assert json.loads(told.params or b"") == {"_meta": {key: "l"}}


def test_requests_of_the_server_wait_for_the_client() -> None:
    """Other calls are answered in between, and a cancelled one is not answered at all."""
    asks = Request(b"1", "elicitation/create", b'{"message":"?"}')
    replay = Replay(
        frames(
            (C2S, call(1)),
            (S2C, asks),
            (C2S, answer(1, "yes")),
            (S2C, Notification("notifications/x")),
            (S2C, answer(1, "done")),
            (C2S, call(2, "quick")),
            (S2C, answer(2, "q")),
        )
    )
    (asked,) = replay.receive(call(10))
    assert isinstance(asked, Request)
    assert (asked.method, asked.params) == (asks.method, asks.params)
    assert replay.receive(call(11, "quick")) == [answer(11, "q")]
    assert replay.receive(Result(b'"else"', b"{}")) == []
    assert replay.receive(Result(asked.id, b"{}")) == [
        Notification("notifications/x"),
        answer(10, "done"),
    ]
    assert replay.receive(Result(asked.id, b"{}")) == []
    (again,) = replay.receive(call(12))
    assert isinstance(again, Request)
    assert again.id != asked.id
    replay.receive(Notification("notifications/cancelled", b'{"requestId":12}'))
    assert replay.receive(Result(again.id, b"{}")) == []


def test_ids_of_two_sessions_are_kept_apart() -> None:
    """Each process numbers its calls from the start."""
    one = frames((C2S, call(1, "one")), session="a")
    two = frames((C2S, call(1, "two")), (S2C, answer(1, "2")), session="b")
    late = frames((S2C, answer(1, "1")), session="a")
    assert [each.answer for each in exchanges_of([*one, *two, *late])] == [
        [answer(1, "1")],
        [answer(1, "2")],
    ]


def begun(number: int, capabilities: str) -> Request:
    """An `initialize`."""
    return Request(b"%d" % number, "initialize", f'{{"capabilities":{capabilities}}}'.encode())


@pytest.mark.parametrize(
    ("capabilities", "answers"),
    [
        ('{"roots": {}, "a": 1}', ["y0", "y1", "y1"]),
        ('{"a":1,"roots":{}}', ["y0", "y1", "y1"]),
        ("{}", ["x0", "x1", "x1"]),
        ('{"else":{}}', ["x1", "y1", "y1"]),
        (None, ["x1", "y1", "y1"]),
    ],
)
def test_a_client_gets_the_answers_to_one_with_its_capabilities(
    capabilities: str | None, answers: list[str]
) -> None:
    """A server may offer more to a client that can do more; other clients get them in order."""
    listed = Request(b"2", "tools/list")
    sessions = [
        frames(
            (C2S, begun(1, of)),
            (S2C, answer(1, f"{name}0")),
            (C2S, listed),
            (S2C, answer(2, f"{name}1")),
            session=name,
        )
        for name, of in (("x", "{}"), ("y", '{"a":1,"roots":{}}'))
    ]
    replay = Replay([*sessions[0], *sessions[1]])
    asked: list[Request] = [Request(b"%d" % n, "tools/list") for n in (5, 6, 7)]
    if capabilities is not None and answers[0].endswith("0"):
        asked[0] = begun(5, capabilities)
    elif capabilities is not None:
        replay.receive(begun(4, capabilities))
    said = [replay.receive(each)[-1] for each in asked]
    assert said == [answer(n, text) for n, text in zip((5, 6, 7), answers, strict=True)]


def test_removed_secrets_match_any() -> None:
    """By the names of members, and as parts of texts."""
    redactor = Redactor(["sesame-1"])
    recorded = redactor.message(call(1, password="pw", text="say sesame-1!", n=4))
    other = redactor.message(call(2, text="say no!"))
    replay = Replay(
        frames((C2S, recorded), (S2C, answer(1, "in")), (C2S, other), (S2C, answer(2, "out")))
    )
    assert replay.receive(call(3, password="x", text="say sesame-2!", n=4)) == [answer(3, "in")]
    assert replay.receive(call(4, text="say no!")) == [answer(4, "out")]
    (said,) = replay.receive(call(5, password="x", text="shout sesame-1!", n=4))
    assert isinstance(said, Failure)


def test_a_raw_recording_is_compared_as_it_is() -> None:
    """Nothing was removed from it."""
    replay = Replay(frames((C2S, call(1, token="a")), (S2C, answer(1, "x"))), is_redacted=False)
    assert replay.receive(call(2, token="a")) == [answer(2, "x")]
    assert isinstance(replay.receive(call(3, token="b"))[0], Failure)


def served(replay: Replay, data: bytes) -> list[Any]:
    """What it says to some bytes."""
    sink = io.BytesIO()
    serve(replay, io.BufferedReader(io.BytesIO(data)), sink)
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def test_it_serves_lines() -> None:
    """Batches and an unfinished last line included; what is not a message gets an error."""
    replay = Replay(frames((C2S, call(1)), (S2C, answer(1, "a"))))
    line = encode(call(2))
    said = served(replay, b"nonsense\n[%b,%b]\n%b" % (encode(call(8)), encode(call(9)), line))
    assert said[0]["error"]["code"] == -32700
    assert [each["id"] for each in said] == [None, 8, 9, 2]
    assert served(replay, b'{"jsonrpc":"2.0","id":4,"method":5}\n')[0]["id"] == 4
    (said_of_long,) = served(replay, b"x" * (MOST_LINE_BYTES + 1) + b"\n")
    assert "64 MiB" in said_of_long["error"]["message"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.randoms())
def test_a_session_replayed_is_the_session(names: list[str], random: Any) -> None:
    """Whatever the order of answers was, each request gets its own."""
    asked = [(n, call(n, name)) for n, name in enumerate(names)]
    passed: list[tuple[Direction, Message]] = []
    waiting: list[int] = []
    for number, request in asked:
        passed.append((C2S, request))
        waiting.append(number)
        random.shuffle(waiting)
        passed += [(S2C, answer(n, f"{n}")) for n in waiting[1:]]
        del waiting[1:]
    passed += [(S2C, answer(n, f"{n}")) for n in waiting]
    replay = Replay(frames(*passed))
    for number, request in asked:
        assert replay.receive(decode(encode(request))) == [answer(number, f"{number}")]
