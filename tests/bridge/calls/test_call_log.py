"""What is counted, logged and traced of a call and of a session: once, at its end."""

from __future__ import annotations

import logging

import pytest

from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.tracing import Tracing
from mcpbridge.rules.faults import Fault, capacity, child_exited
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Reply, Request, Result
from tests.bridge.calls.spans import KeepingTracer
from tests.bridge.calls.test_exchange import FakeScope

LIST = b'{"tools":[{"name":"add"}]}'


def finished(
    request: Request, end: Reply | Fault, log: CallLog, version: str = "2025-11-25"
) -> Exchange:
    """An exchange that began at the time 1 and has this final answer."""
    request, span = log.began(request, version, "s")
    exchange = Exchange(request, FakeScope(), 1.0, streams=True, stream=None, span=span)
    if isinstance(end, Fault):
        exchange.fail(end)
    else:
        exchange.answered(end)
    return exchange


def facts(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What the records of finished calls say."""
    names = ("method", "outcome", "tool", "reason", "ms", "trace_id", "span_id")
    records = [each for each in caplog.records if each.getMessage() == "call.finished"]
    return [{n: each.__dict__[n] for n in names if n in each.__dict__} for each in records]


def test_a_call_is_counted_by_method_and_outcome_and_timed() -> None:
    """The server's error is another outcome than a fault of the bridge."""
    meters = Meters(["ping", "tools/list"])
    log = CallLog(meters)
    ping = Request(b"1", "ping")
    for end in (Result(b"1", b"{}"), Failure(b"1", b'{"code":1}'), child_exited(None, "maybe")):
        log.ended(finished(ping, end, log), 3.5)
    meter = meters.calls.meter("ping", None)
    assert dict(meter.outcomes) == {"ok": 1, "error": 1, "fault": 1}
    assert meter.seconds.total_s == 7.5
    assert meters.tallies["call_faults"] == {"child_exited": 1}


def test_tools_are_told_apart_once_the_server_has_named_them() -> None:
    """A client cannot invent labels; a list that failed names none."""
    meters = Meters()
    log = CallLog(meters)
    call = Request(b"2", "tools/call", b'{"name":"add"}')
    log.ended(finished(call, Result(b"2", b"{}"), log), 1.0)
    log.ended(finished(Request(b"1", "tools/list"), Failure(b"1", LIST), log), 1.0)
    assert meters.calls.meter("tools/call", call.params).tool == "other"
    log.ended(finished(Request(b"1", "tools/list"), Result(b"1", LIST), log), 1.0)
    assert meters.calls.meter("tools/call", call.params).tool == "add"


def test_a_limit_that_refused_is_counted_by_its_setting() -> None:
    """Also without an exchange; a fault that no limit caused is not counted."""
    meters = Meters()
    log = CallLog(meters)
    refusal = capacity("--max-calls", 3)
    assert log.refused(refusal) is refusal
    log.ended(finished(Request(b"1", "ping"), refusal, log), 1.0)
    log.refused(child_exited(None, "no"))
    assert meters.tallies["refusals"] == {"--max-calls": 2}


@pytest.mark.parametrize(("log_calls", "level"), [(True, logging.INFO), (False, logging.DEBUG)])
def test_a_finished_call_is_one_record(
    caplog: pytest.LogCaptureFixture, log_calls: bool, level: int
) -> None:
    """At the level that was asked for; a fault adds its reason, a known tool its name."""
    caplog.set_level(logging.DEBUG, "mcpbridge.bridge")
    meters = Meters(["ping"])
    meters.calls.learn(LIST)
    log = CallLog(meters, log_calls=log_calls)
    log.ended(finished(Request(b"1", "ping"), child_exited(None, "no"), log), 1.25)
    call = Request(b"2", "tools/call", b'{"name":"add"}')
    log.ended(finished(call, Result(b"2", b'{"isError":true}'), log), 1.0)
    assert facts(caplog) == [
        {"method": "ping", "outcome": "fault", "reason": "child_exited", "ms": 250.0},
        {"method": "tools/call", "outcome": "tool_error", "tool": "add", "ms": 0.0},
    ]
    assert {each.levelno for each in caplog.records} == {level}


def test_no_record_is_made_at_a_level_that_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Calls are logged at level debug unless the operator asks for them."""
    caplog.set_level(logging.INFO, "mcpbridge.bridge")
    log = CallLog(Meters())
    log.ended(finished(Request(b"1", "ping"), Result(b"1", b"{}"), log), 1.0)
    assert facts(caplog) == []


def test_a_traced_call_has_its_span_in_the_record_and_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The request carries it on to the child."""
    caplog.set_level(logging.DEBUG, "mcpbridge.bridge")
    tracer, meters = KeepingTracer(), Meters()
    log = CallLog(meters, tracing=Tracing(tracer, meters))
    exchange = finished(Request(b"1", "ping"), Failure(b"1", b'{"code":-5}'), log)
    log.ended(exchange, 1.0)
    (span,) = tracer.spans
    assert (span.side, span.call.session_id, span.call.version) == ("server", "s", "2025-11-25")
    assert span.traceparent.encode() in (exchange.request.params or b"")
    assert [code for _, code in span.ends] == [-5]
    (record,) = facts(caplog)
    assert (record["trace_id"], record["span_id"]) == ("a" * 32, f"{1:016x}")


def test_a_request_that_the_bridge_answers_itself_is_a_call_too() -> None:
    """It has no exchange."""
    meters = Meters(["server/discover"])
    CallLog(meters).answered("server/discover", 0.5)
    meter = meters.calls.meter("server/discover", None)
    assert (dict(meter.outcomes), meter.seconds.total_s) == ({"ok": 1}, 0.5)


@pytest.mark.parametrize(("why", "wrong"), [("deleted", None), ("child_exited", "child_exited")])
def test_a_session_is_counted_at_both_ends(why: str, wrong: str | None) -> None:
    """By its transport and by why it ended; its trace says only what its client did not ask for."""
    tracer, meters = KeepingTracer(), Meters()
    log = CallLog(meters, tracing=Tracing(tracer, meters))
    log.session_began(one_streamed=True)
    log.session_began(one_streamed=False)
    log.session_ended(why, 4.0)
    assert meters.tallies["sessions"] == {"http+sse": 1, "streamable-http": 1}
    assert meters.tallies["sessions_ended"] == {why: 1}
    assert tracer.sessions == [(4.0, wrong)]
