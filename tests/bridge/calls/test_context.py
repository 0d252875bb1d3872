"""Whether a call may begin: the limits on all calls, the ledger, a client's pause, its streams."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.tool_filter import ToolFilter
from mcpbridge.errors import ToolDenied
from mcpbridge.rules.access.tool_policy import ToolPolicy
from mcpbridge.rules.faults import last_places
from mcpbridge.rules.supervision.crashes import CrashCharges
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Request
from tests.bridge.legacy.parts import context_of


def context(in_flight: int = 0, **changed: Any) -> CallContext:
    """A context with these limits and that many calls in flight, at the time 0."""
    made = msgspec.structs.replace(context_of(lambda *_: None), clock=lambda: 0.0, **changed)
    for _ in range(in_flight):
        made.drain.call_started()
    return made


def test_a_call_below_all_limits_asks_no_one() -> None:
    """The fast path: no share is counted, no call is looked for that could give way."""

    def asked(caller: bytes) -> Any:
        raise AssertionError

    made = context(7, max_calls=10, undivided_calls=8, shed=asked, over_share=asked)
    assert made.over_load(b"a") is None


def test_the_last_places_are_divided() -> None:
    """From `undivided_calls` on a client is asked for its share, until all places are taken."""
    asked: list[bytes] = []

    def over_share(caller: bytes) -> Any:
        asked.append(caller)
        return last_places("--max-calls", 10, 2) if caller == b"heavy" else None

    made = context(8, max_calls=10, undivided_calls=8, over_share=over_share)
    assert made.over_load(b"light") is None
    fault = made.over_load(b"heavy")
    assert fault is not None
    assert fault.status == 429
    assert asked == [b"light", b"heavy"]
    made.drain.call_started()
    made.drain.call_started()
    assert made.over_load(b"heavy") is not None
    assert asked == [b"light", b"heavy"], "all places are taken: a waiting call has to give way"


def test_at_the_limit_a_call_begins_if_another_gives_way() -> None:
    """Whatever its share is: it takes a place that is not one of the last. Else it is refused."""
    fault = last_places("--max-calls", 2, 1)
    made = context(
        2,
        max_calls=2,
        undivided_calls=1,
        shed=lambda caller: caller == b"light",
        over_share=lambda caller: fault,
    )
    assert made.over_load(b"light") is None
    refused = made.over_load(b"heavy")
    assert refused is not None
    assert (refused.reason, refused.message) == ("capacity", "limit reached: --max-calls 2")


def test_listens_take_no_place_of_calls() -> None:
    """They may last for days."""
    made = context(1, max_calls=2, undivided_calls=2)
    made.drain.call_started(lasting=True)
    assert made.over_load(b"a") is None


def test_no_call_begins_while_memory_is_short() -> None:
    """However few are in flight; the setting is named."""
    budget = Budget(1000)
    made = context(budget=budget)
    budget.charge(900)
    fault = made.over_load(b"a")
    assert fault is not None
    assert (fault.reason, fault.message) == ("memory", "limit reached: --max-memory 1000 bytes")
    budget.charge(-100)
    assert made.over_load(b"a") is None


def test_a_client_that_is_paused_is_told_so_and_no_other_is() -> None:
    """Its pause comes first: memory that is free again would not help it."""
    budget, crashes = Budget(1000), CrashCharges()
    made = context(budget=budget, crashes=crashes)
    for _ in range(2):
        crashes.charge([b"a"], 0.0)
    budget.charge(900)
    reasons = [fault.reason for each in (b"a", b"b") if (fault := made.over_load(each))]
    assert reasons == ["paused", "memory"]
    budget.charge(-900)
    assert made.over_load(b"b") is None


def test_a_session_may_have_so_many_streams() -> None:
    """A call that opens none is not concerned."""
    made = context(max_streams=3)
    assert [made.over_load(b"a", streams) is None for streams in (0, 2, 3)] == [True, True, False]
    fault = made.over_streams(3)
    assert fault is not None
    assert (fault.status, fault.message) == (429, "limit reached: --max-streams 3 of one session")


def test_a_denied_tool_is_refused_before_a_child_is_taken() -> None:
    """Without a policy all tools pass."""
    call = Request(b"1", "tools/call", b'{"name":"wipe"}')
    context().check_tool(call)
    denying = context(tools=ToolFilter(ToolPolicy(denied=("wipe",)), Meters()))
    with pytest.raises(ToolDenied):
        denying.check_tool(call)
