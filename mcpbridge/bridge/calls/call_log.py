"""The access log: each call and each session is counted, timed, logged and traced.

A call is recorded once, when its exchange has its final answer. This costs an ordinary call a few
additions; the log record is made only if its level is enabled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.tracing import Tracing, end
from mcpbridge.rules.faults import Fault
from mcpbridge.rules.outcome import OK, limit_of, outcome_of
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import Span
from mcpbridge.wire.messages import Request, Result

log = logging.getLogger("mcpbridge.bridge")

_LISTS_TOOLS = "tools/list"
_WRONG_ENDS = ("failed", "child_exited", "shutdown")
"""Reasons for the end of a session that its client did not ask for."""


class CallLog:
    """A recorder of calls and sessions; made in `app.build`, one for a bridge."""

    def __init__(
        self, meters: Meters, *, log_calls: bool = False, tracing: Tracing | None = None
    ) -> None:
        """Make a call log.

        Args:
            meters: Count calls and sessions.
            log_calls: Log each finished call at level info instead of debug.
            tracing: Makes spans; None if calls are not traced.
        """
        self.tracing = tracing
        self._meters = meters
        self._level = logging.INFO if log_calls else logging.DEBUG

    def began(
        self, request: Request, version: str, session_id: str | None
    ) -> tuple[Request, Span | None]:
        """Begin the span of a call, if calls are traced; return the request with the span in it."""
        if self.tracing is None:
            return request, None
        return self.tracing.began(request, version, session_id)

    def ended(self, exchange: Exchange, now: float) -> None:
        """Record a call that has its final answer; `now` is the event loop's time, in seconds."""
        request, reply, fault = exchange.request, exchange.reply, exchange.fault
        assert reply is not None
        outcome = outcome_of(request.method, reply, fault)
        seconds = now - exchange.started_at
        meter = self._meters.calls.meter(request.method, request.params)
        meter.ended(outcome, seconds)
        if fault is not None:
            self._meters.tally("call_faults", fault.reason)
            self.refused(fault)
        # Only what the server names becomes a label of metrics: a client could invent any number.
        elif request.method == _LISTS_TOOLS and isinstance(reply, Result):
            self._meters.calls.learn(reply.result)
        if log.isEnabledFor(self._level):
            facts: dict[str, object] = {"method": meter.method, "outcome": outcome}
            if meter.tool:
                facts["tool"] = meter.tool
            if fault is not None:
                facts["reason"] = fault.reason
            facts["ms"] = round(seconds * 1000, 1)
            if exchange.span is not None:
                # The current task is the child's reader, whose context has no span of this call.
                facts["trace_id"], facts["span_id"] = exchange.span.traceparent.split("-")[1:3]
            log.log(self._level, "call.finished", extra=facts)
        if exchange.span is not None:
            end(exchange.span, request.method, reply, fault)

    def answered(self, method: str, seconds: float) -> None:
        """Record a request that the bridge answered itself, without an exchange."""
        self._meters.calls.meter(method, None).ended(OK, seconds)

    def refused(self, fault: Fault) -> Fault:
        """Count a fault that a limit caused; return the fault."""
        limit = limit_of(fault)
        if limit is not None:
            self._meters.tally("refusals", limit)
        return fault

    def session_began(self, *, one_streamed: bool) -> None:
        """Count a new session; `one_streamed`: it uses the transport of 2024-11-05."""
        self._meters.tally("sessions", "http+sse" if one_streamed else "streamable-http")

    def session_opened(self, client: Callable[[], str], requested: str, revision: str) -> None:
        """Log which client a session serves, if its calls are logged.

        Args:
            client: Returns the client's name.
            requested: The revision that it asked for.
            revision: The revision that it got.
        """
        if log.isEnabledFor(self._level):
            facts = {"client": client(), "requested": requested, "revision": revision}
            log.log(self._level, "session.opened", extra=facts)

    def session_ended(self, why: str, seconds: float) -> None:
        """Record a session that has ended after `seconds`."""
        self._meters.tally("sessions_ended", why)
        self._meters.observe("session_duration_seconds", seconds)
        if self.tracing is not None:
            wrong = why if why in _WRONG_ENDS else None
            self.tracing.tracer.session_ended(seconds, wrong)
