"""What a recording asks again, and the reports of what came of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from mcpbridge.tape.comparison import Difference
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.verification import (
    CheckedRequest,
    RecordedConversation,
    RecordedRequest,
    conversations,
    junit,
    line_of,
    summary,
)
from mcpbridge.wire.messages import Failure, Message, Notification, Request, Result

ASKED, SAID = Direction.TO_SERVER, Direction.FROM_SERVER
INITIALIZED = Notification("notifications/initialized")


def frames(*pairs: tuple[Direction, Message], session: str = "s", server: str = "a") -> list[Frame]:
    """The frames of one session."""
    return [
        Frame(session, server, number, 0, direction, message)
        for number, (direction, message) in enumerate(pairs)
    ]


def names(conversation: RecordedConversation) -> list[str]:
    """What is said again."""
    steps = conversation.steps
    return [each.name if isinstance(each, RecordedRequest) else each.method for each in steps]


def test_a_session_is_asked_again_in_its_order() -> None:
    """Without pings, the probe of the other era, and what was cancelled or never answered."""
    (found,) = conversations(
        frames(
            (ASKED, Request(b"1", "server/discover")),
            (SAID, Failure(b"1", b"{}")),
            (ASKED, Request(b"2", "initialize", b'{"clientInfo":{"name":"x"}}')),
            (SAID, Result(b"2", b"{}")),
            (ASKED, INITIALIZED),
            (ASKED, Request(b"3", "ping")),
            (SAID, Result(b"3", b"{}")),
            (ASKED, Request(b"4", "tools/call", b'{"name":"t"}')),
            (ASKED, Request(b"5", "resources/read", b'{"uri":"x://y"}')),
            (ASKED, Notification("notifications/cancelled", b'{"requestId":4}')),
            (SAID, Failure(b"5", b"{}")),
        )
    )
    assert names(found) == ["initialize", "notifications/initialized", "resources/read x://y"]
    assert found.server == "a"


def test_a_modern_session_has_its_discovery() -> None:
    """It is the answer of a server of that era."""
    (found,) = conversations(
        frames((ASKED, Request(b"1", "server/discover")), (SAID, Result(b"1", b"{}")))
    )
    assert names(found) == ["server/discover"]


def test_sessions_are_told_apart() -> None:
    """Their ids are the same; one without a request is left out."""
    request, result = Request(b"1", "tools/list"), Result(b"1", b"{}")
    one = frames((ASKED, request), (SAID, result), session="one")
    two = frames((ASKED, request), (SAID, Failure(b"1", b"{}")), session="two", server="b")
    mixed = [one[0], two[0], two[1], one[1], *frames((ASKED, INITIALIZED), session="three")]
    found = conversations(mixed)
    assert [(each.server, len(each.steps)) for each in found] == [("a", 1), ("b", 1)]
    answers = [each.answer for c in found for each in c.steps if isinstance(each, RecordedRequest)]
    assert answers == [result, Failure(b"1", b"{}")]


def test_a_request_with_a_removed_secret_is_skipped() -> None:
    """What it said is not known any more."""
    request = Request(b"1", "tools/call", b'{"name":"t","arguments":{"token":"***"}}')
    (found,) = conversations(frames((ASKED, request), (SAID, Result(b"1", b"{}"))))
    (step,) = found.steps
    assert isinstance(step, RecordedRequest)
    assert step.skipped == "a secret was removed from its params"


def test_questions_of_the_server_have_the_answers_of_the_client() -> None:
    """Each one once, the one to an equal question first."""
    (found,) = conversations(
        frames(
            (ASKED, Request(b"1", "tools/list")),
            (SAID, Request(b'"q"', "elicitation/create", b'{"n":1}')),
            (ASKED, Result(b'"q"', b'{"is":1}')),
            (SAID, Request(b'"r"', "elicitation/create", b'{"n":2}')),
            (ASKED, Result(b'"r"', b'{"is":2}')),
            (SAID, Result(b"1", b"{}")),
        )
    )
    ask = Request(b"7", "elicitation/create", b'{"n":2}')
    assert found.answer_to(ask) == Result(b"7", b'{"is":2}')
    assert found.answer_to(ask) == Result(b"7", b'{"is":1}')
    assert found.answer_to(ask) is None
    assert found.answer_to(Request(b"8", "roots/list")) is None


OUTCOMES = [
    CheckedRequest("a", "tools/list", seconds=0.25),
    CheckedRequest("a", "tools/call x\x1b", [Difference(("result", 0), "\x00<", 1)] * 25),
    CheckedRequest("b", "tools/call y", problem="no answer: gone"),
    CheckedRequest("b", "tools/call z", skipped="why"),
]


def test_outcomes_as_text() -> None:
    """A line each, below it what differs."""
    ok, differs, missing, skipped = map(line_of, OUTCOMES)
    assert ok == "ok    tools/list"
    lines = differs.splitlines()
    assert lines[:2] == [
        "DIFF  tools/call x\\x1b",
        '      $.result[0]: recorded "\\u0000<", now 1',
    ]
    assert lines[-1] == "      and 5 more"
    assert len(lines) == 22
    assert missing == "DIFF  tools/call y\n      no answer: gone"
    assert skipped == "skip  tools/call z: why"
    assert summary(OUTCOMES) == "4 requests: 2 with another answer, 1 skipped"


def test_outcomes_as_junit_are_xml() -> None:
    """With the numbers that readers add up, and no character that XML cannot hold."""
    suites = ET.fromstring(junit(OUTCOMES, "tape\x02.jsonl"))
    suite = suites[0]
    assert suite.get("name") == "tape\ufffd.jsonl"
    counts = [suite.get(each) for each in ("tests", "failures", "errors", "skipped", "time")]
    assert counts == ["4", "2", "0", "1", "0.250"]
    cases = list(suite)
    assert [each.get("name") for each in cases] == [
        "1 tools/list",
        "2 tools/call x\ufffd",
        "3 tools/call y",
        "4 tools/call z",
    ]
    assert [each.get("classname") for each in cases] == ["a", "a", "b", "b"]
    assert [[below.tag for below in each] for each in cases] == [
        [],
        ["failure"],
        ["failure"],
        ["skipped"],
    ]
    assert (cases[1][0].text or "").startswith("$.result[0]: recorded")
