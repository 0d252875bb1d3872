"""The policy on tools between callers and the server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.bridge.calls.tool_filter import ToolFilter
from mcpbridge.bridge.children.listeners import CallEvent, CallFailed
from mcpbridge.errors import ToolDenied, WireError
from mcpbridge.rules.access.tool_policy import ToolPolicy
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result


class Caller:
    """A sink that keeps what it receives."""

    lasting = False
    asker = None
    caller = b""

    def __init__(self) -> None:
        self.events: list[CallEvent] = []

    def receive(self, event: CallEvent) -> None:
        """See `CallSink`."""
        self.events.append(event)


class FilteredCaller:
    """A filter that denies `wipe`, and one caller."""

    def __init__(self) -> None:
        self.meters, self.caller = Meters(), Caller()
        self.filter = ToolFilter(ToolPolicy(denied=("wipe",)), self.meters)

    def answered(self, method: str, reply: Reply) -> CallEvent:
        """Send a request and have it answered; what the caller receives."""
        request = Request(b"1", method, None)
        sent, sink = self.filter.outbound(request, self.caller, 7, own=False)
        assert sent is request
        sink.receive(Answered(self.caller, reply, 7))
        (event,) = self.caller.events
        return event


def call_of(name: str) -> Request:
    """A call of a tool."""
    return Request(b"1", "tools/call", json.dumps({"name": name}).encode())


def tools(*names: str) -> bytes:
    """The result of a list."""
    return json.dumps({"tools": [{"name": name} for name in names], "nextCursor": "c"}).encode()


def test_a_call_of_a_denied_tool_is_refused_and_counted() -> None:
    """A call of another tool goes to the server as it is, and its answer to the caller."""
    filtered = FilteredCaller()
    with pytest.raises(ToolDenied):
        filtered.filter.outbound(call_of("wipe"), filtered.caller, 1, own=False)
    assert filtered.meters.counts() == {"denied_tool": 1}
    request = call_of("read")
    assert filtered.filter.outbound(request, filtered.caller, 2, own=False) == (
        request,
        filtered.caller,
    )
    assert filtered.meters.counts() == {"denied_tool": 1}


@pytest.mark.parametrize(
    ("method", "params"),
    [("TOOLS/CALL", b'{"name":"read"}'), ("tools/call", b'{"name":"read","name":"wipe"}')],
)
def test_a_call_that_can_be_read_in_two_ways_is_refused(method: str, params: bytes) -> None:
    """A server that reads it another way would carry out what is denied."""
    filtered = FilteredCaller()
    with pytest.raises(WireError):
        filtered.filter.check(Request(b"1", method, params))
    assert filtered.meters.counts() == {"unreadable_tool": 1}


def test_a_list_is_shown_without_denied_tools() -> None:
    """Everything else in it stays."""
    filtered = FilteredCaller()
    event = filtered.answered("tools/list", Result(b"1", tools("read", "wipe")))
    assert isinstance(event, Answered)
    assert (event.number, event.owner) == (7, filtered.caller)
    assert isinstance(event.reply, Result)
    assert json.loads(event.reply.result) == json.loads(tools("read"))


def test_a_list_that_cannot_be_read_is_not_shown() -> None:
    """What it names could be denied."""
    event = FilteredCaller().answered(
        "tools/list", Result(b"1", b'{"tools":[],"tools":[{"name":"wipe"}]}')
    )
    assert isinstance(event, CallFailed)


def test_errors_and_other_answers_pass() -> None:
    """Only the result of a list names tools."""
    error = Failure(b"1", b'{"code":-1,"message":"no"}')
    result: Any = Result(b"1", tools("wipe"))
    for method, reply in (("tools/list", error), ("prompts/list", result)):
        event = FilteredCaller().answered(method, reply)
        assert isinstance(event, Answered)
        assert event.reply is reply


@pytest.mark.parametrize(
    ("method", "dropped"),
    [("tools/call", True), ("Tools/Call", True), ("notifications/initialized", False)],
)
def test_a_notification_that_calls_a_tool_is_dropped(method: str, dropped: bool) -> None:
    """Some servers carry out a call without an id."""
    filtered = FilteredCaller()
    assert filtered.filter.drops(Notification(method, b'{"name":"read"}')) is dropped
    assert filtered.meters.counts() == ({"unreadable_tool": 1} if dropped else {})
    assert not filtered.filter.drops(call_of("read"))
