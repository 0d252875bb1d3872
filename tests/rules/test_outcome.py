"""How a call ended, in one word."""

from __future__ import annotations

import pytest

from mcpbridge.rules.faults import Fault, cancelled, capacity, child_exited, timed_out
from mcpbridge.rules.outcome import error_type, is_tool_error, limit_of, outcome_of
from mcpbridge.wire.json_object import LONG_BYTES, Payload
from mcpbridge.wire.messages import Failure, Reply, Result

GOOD = Result(b"1", b'{"content":[]}')
TOOL_FAILED = Result(b"1", b'{"content":[],"isError":true}')
BAD = Failure(b"1", b'{"code":-32602,"message":"no"}')


@pytest.mark.parametrize(
    ("method", "reply", "fault", "outcome", "kind"),
    [
        ("tools/call", GOOD, None, "ok", None),
        ("tools/call", TOOL_FAILED, None, "tool_error", "tool_error"),
        ("x/y", TOOL_FAILED, None, "ok", None),
        ("tools/call", BAD, None, "error", "-32602"),
        ("tools/call", BAD, timed_out("ping", 1), "fault", "timeout"),
        ("tools/call", BAD, child_exited(None, "maybe"), "fault", "child_exited"),
        ("tools/call", GOOD, cancelled(), "cancelled", "cancelled"),
    ],
)
def test_an_end_has_a_word_and_a_kind(
    method: str, reply: Reply, fault: Fault | None, outcome: str, kind: str | None
) -> None:
    """The bridge's own fault stands above what its client was answered."""
    assert outcome_of(method, reply, fault) == outcome
    assert error_type(outcome, reply, fault, -32602) == kind


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (b'{"isError":true}', True),
        (b'{"isError" :\n\ttrue,"content":[]}', True),
        (b'{"content":[{"isError":false}],"isError": true}', True),
        (b'{"isError":false}', False),
        (b'{"isError":"true"}', False),
        (b'{"structuredContent":{"isError":true}}', False),
        (b'{"content":[{"text":"\\"isError\\":true"}]}', False),
        (b'{"isError":true,"isError":true}', False),
        (b"[]", False),
        (b"{}", False),
    ],
)
def test_only_the_result_itself_can_say_that_the_tool_failed(result: bytes, failed: bool) -> None:
    """Neither what is nested in it, nor what a text quotes, nor what is said twice."""
    assert is_tool_error(result) is failed


def test_a_limit_is_known_by_its_flag() -> None:
    """And only where a limit is what the fault reports."""
    assert limit_of(capacity("--max-sessions", 3)) == "--max-sessions"
    assert limit_of(capacity("messages of one session", 3)) == "other"
    assert limit_of(cancelled()) is None


@pytest.mark.parametrize(
    ("members", "failed"),
    [(b'"isError":true', True), (b'"isError":false', False), (b'"a":{"isError":true}', False)],
)
def test_a_long_result_whose_members_are_known_is_not_searched(
    members: bytes, failed: bool
) -> None:
    """It says the same of the tool."""
    result = Payload(b'{"content":"%b",%b}' % (b"x" * LONG_BYTES, members))
    assert is_tool_error(result) is failed
    result.spans()
    assert is_tool_error(result) is failed
