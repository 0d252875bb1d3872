"""Spans of calls: one towards the client, one towards the child, joined by what messages carry."""

from __future__ import annotations

import pytest

from mcpbridge.bridge.calls.tracing import TracedCallSink, Tracing
from mcpbridge.bridge.children.listeners import CallEvent, CallFailed, Logged
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.memory import memory_pair
from mcpbridge.rules.faults import child_exited
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.rules.trace_context import trace_in
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result
from tests.bridge.calls.spans import KeepingTracer
from tests.bridge.playbook import arrived, bounded

PARENT = f"00-{'b' * 32}-{'c' * 16}-01"


class Caller:
    """A sink that keeps what it receives."""

    lasting = True
    caller = b"me"
    asker = None

    def __init__(self) -> None:
        self.events: list[CallEvent] = []

    def receive(self, event: CallEvent) -> None:
        """See `CallSink`."""
        self.events.append(event)


def traced() -> tuple[Tracing, KeepingTracer]:
    """A tracing and the tracer whose spans it makes."""
    tracer = KeepingTracer()
    return Tracing(tracer, Meters()), tracer


def parent_of(request: Request) -> str | None:
    """The parent span that a request carries."""
    trace = trace_in(request.params)
    return trace.traceparent if trace is not None else None


def test_both_spans_are_joined_by_the_message_alone() -> None:
    """The client's span is the parent of the server span, and that of the span to the child."""
    tracing, tracer = traced()
    params = b'{"name":"add","_meta":{"traceparent":"%b"}}' % PARENT.encode()
    request, _ = tracing.began(Request(b'"a"', "tools/call", params), "2025-11-25", "s")
    sent, _ = tracing.outbound(request, Caller(), 7, own=False)
    server, client = tracer.spans
    assert server.call.traceparent == PARENT
    assert client.call.traceparent == server.traceparent == parent_of(request)
    assert parent_of(sent) == client.traceparent
    assert (server.call.request_id, client.call.request_id) == ("a", "7")
    assert [each.call.target for each in (server, client)] == ["add", "add"]


@pytest.mark.parametrize(
    ("method", "params", "target"),
    [
        ("tools/call", b'{"name":"add"}', "add"),
        ("prompts/get", b'{"name":"p"}', "p"),
        ("resources/read", b'{"name":"x"}', ""),
        ("tools/call", b'{"name":7}', ""),
        ("tools/call", None, ""),
    ],
)
def test_a_target_is_named_only_by_methods_that_have_one(
    method: str, params: bytes | None, target: str
) -> None:
    """And only if it is text."""
    tracing, tracer = traced()
    tracing.began(Request(b"1", method, params), "", None)
    assert tracer.spans[0].call.target == target


def test_requests_of_the_bridge_itself_are_not_traced() -> None:
    """A ping to the child is not a call of a client."""
    tracing, tracer = traced()
    request, caller = Request(b"1", "ping"), Caller()
    assert tracing.outbound(request, caller, 1, own=True) == (request, caller)
    assert tracer.spans == []


@pytest.mark.parametrize(
    ("reply", "error_type", "code"),
    [
        (Result(b"1", b"{}"), None, None),
        (Result(b"1", b'{"isError":true}'), "tool_error", None),
        (Failure(b"1", b'{"code":-7}'), "-7", -7),
    ],
)
def test_an_answer_ends_the_span_before_it_is_passed_on(
    reply: Reply, error_type: str | None, code: int | None
) -> None:
    """The wrapped sink receives every event and says itself whose it is."""
    tracing, tracer = traced()
    caller = Caller()
    _, sink = tracing.outbound(Request(b"1", "tools/call", b"{}"), caller, 1, own=False)
    assert (sink.lasting, sink.caller) == (True, b"me")
    log_message = Logged(Notification("notifications/message"))
    answered = Answered(sink, reply, 1)
    sink.receive(log_message)
    assert tracer.spans[0].ends == []
    sink.receive(answered)
    assert tracer.spans[0].ends == [(error_type, code)]
    assert caller.events == [log_message, answered]


@bounded
async def test_a_call_that_fails_or_is_forgotten_ends_its_span() -> None:
    """On a mux, as the bridge uses it: by the fault's reason, or as cancelled."""
    tracing, tracer = traced()
    near, far = memory_pair()
    mux = Mux(near, Meters(), shared=True, max_message_bytes=1000, interceptors=[tracing])
    caller = Caller()
    forgotten = mux.request(Request(b"1", "ping"), caller)
    mux.request(Request(b"2", "ping"), caller)
    sent = [parent_of(each) for each in await arrived(far)]
    assert sent == [each.traceparent for each in tracer.spans]
    mux.forget(forgotten)
    mux.fail_all(child_exited(None, "maybe"))
    assert [each.ends for each in tracer.spans] == [[("cancelled", None)], [("child_exited", None)]]
    assert [type(each) for each in caller.events] == [CallFailed]


def test_only_a_traced_sink_is_ended() -> None:
    """Other interceptors wrap sinks too."""
    tracing, _ = traced()
    caller = Caller()
    tracing.forgotten(caller)
    assert not isinstance(caller, TracedCallSink)
    assert caller.events == []
