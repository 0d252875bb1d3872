"""Spans of calls: one towards the client, one towards the child, joined by `_meta.traceparent`.

A request carries its parent span in `_meta`: the client's span when it arrives, the bridge's
server span while it is in the bridge, the bridge's client span when the child gets it. So no part
of the bridge needs to be told which call a request belongs to: the message says it.
"""

from __future__ import annotations

from mcpbridge.bridge.children.listeners import Asker, CallEvent, CallFailed, CallSink, Interceptor
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import Fault
from mcpbridge.rules.mcp.correlator import Answered
from mcpbridge.rules.mcp.to_modern import code_of
from mcpbridge.rules.outcome import error_type, outcome_of
from mcpbridge.rules.trace_context import Trace, trace_in, with_trace
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import Span, TracedCall, Tracer
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Failure, Reply, Request, text_of

_TARGETED = frozenset(("tools/call", "prompts/get"))


class Tracing(Interceptor):
    """A maker of spans; exists only if calls are traced."""

    def __init__(self, tracer: Tracer, meters: Meters) -> None:
        self.tracer = tracer
        self._meters = meters

    def began(self, request: Request, version: str, session_id: str | None) -> tuple[Request, Span]:
        """Begin the server span of a client's request; return the request with the span in it."""
        call = self._call(request, request.id, version, session_id)
        return _under(self.tracer.server(call), request)

    def outbound(
        self, request: Request, sink: CallSink, number: int, *, own: bool
    ) -> tuple[Request, CallSink]:
        """Begin the span towards the child: see `Interceptor`."""
        if own:
            return request, sink
        call = self._call(request, b"%d" % number, "", None)
        request, span = _under(self.tracer.client(call), request)
        return request, TracedCallSink(sink, span, request.method)

    def forgotten(self, sink: CallSink) -> None:
        """End the span of a request whose answer is not wanted: see `Interceptor`."""
        if isinstance(sink, TracedCallSink):
            sink.span.end("cancelled")

    def _call(
        self, request: Request, own_id: bytes, version: str, session: str | None
    ) -> TracedCall:
        above = trace_in(request.params)
        meter = self._meters.calls.meter(request.method, request.params)
        return TracedCall(
            method=request.method,
            target=_target(request),
            request_id=text_of(own_id) or own_id.decode("utf-8", "replace"),
            label=(meter.method, meter.tool),
            traceparent=above.traceparent if above is not None else "",
            tracestate=above.tracestate if above is not None else "",
            version=version,
            session_id=session or "",
        )


class TracedCallSink:
    """A sink that ends a span with the answer or fault that it passes on."""

    def __init__(self, sink: CallSink, span: Span, method: str) -> None:
        self.span = span
        self._sink = sink
        self._method = method

    @property
    def lasting(self) -> bool:
        """Whether the wrapped sink is one of a subscription."""
        return self._sink.lasting

    @property
    def caller(self) -> bytes:
        """The client of the wrapped sink."""
        return self._sink.caller

    @property
    def asker(self) -> Asker | None:
        """The sender of the wrapped sink's request."""
        return self._sink.asker

    def receive(self, event: CallEvent) -> None:
        """Pass every event on; an answer or a fault ends the span first."""
        match event:
            # Before the event is passed on: the sink ends the server span, and a child's span must
            # not end after its parent.
            case Answered(reply=reply):
                end(self.span, self._method, reply, None)
            case CallFailed(fault):
                self.span.end(fault.reason)
        self._sink.receive(event)


def end(span: Span, method: str, reply: Reply, fault: Fault | None) -> None:
    """End the span of a call with its final answer."""
    code = code_of(reply.error) if isinstance(reply, Failure) else None
    span.end(error_type(outcome_of(method, reply, fault), reply, fault, code), code)


def _under(span: Span, request: Request) -> tuple[Request, Span]:
    params = with_trace(request.params, Trace(span.traceparent, span.tracestate))
    return Request(request.id, request.method, params, request.extra), span


def _target(request: Request) -> str:
    if request.method not in _TARGETED or request.params is None:
        return ""
    try:
        return text_of(member(request.params, "name")) or ""
    except WireError:
        return ""
