"""Which waiting call gives way when there are as many as may be."""

from __future__ import annotations

from typing import cast

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.shedding import CallShedder
from mcpbridge.rules.faults import Fault


class Call:
    """As much of an exchange as the shedder looks at."""

    def __init__(self, caller: bytes, *, queued: bool = True) -> None:
        self.caller = caller
        self.queued = queued
        self.fault: Fault | None = None
        self.reply = None

    def abandon(self, fault: Fault) -> None:
        """As an exchange does."""
        self.fault, self.queued = fault, False


def shedder(calls: list[Call], now: list[float]) -> CallShedder:
    """A shedder of these calls, at the last of these times."""
    return CallShedder(
        lambda: cast(list[Exchange], [call for call in calls if call.fault is None]),
        8,
        lambda: now[-1],
        lambda: None,
    )


def test_the_newest_waiting_call_of_the_heaviest_client_gives_way() -> None:
    """Only to a client that will have fewer calls; calls that a child has go on."""
    calls = [Call(b"a", queued=False), *(Call(b"a") for _ in range(3)), Call(b"b"), Call(b"b")]
    made = shedder(calls, [0.0])
    assert not made.shed(b"a")
    assert made.shed(b"c")
    assert [call.fault is not None for call in calls] == [False] * 3 + [True] + [False] * 2
    fault = calls[3].fault
    assert fault is not None
    assert (fault.reason, fault.executed) == ("capacity", "no")
    assert "--max-calls 8" in fault.message


def test_no_call_that_a_child_has_is_ended() -> None:
    """The next client in weight gives way, if it is heavier than the newcomer."""
    calls = [Call(b"a", queued=False) for _ in range(5)] + [Call(b"b") for _ in range(3)]
    made = shedder(calls, [0.0])
    assert made.shed(b"c")
    assert made.shed(b"d")
    assert not made.shed(b"e")
    assert not any(call.fault for call in calls[:5])


def test_calls_are_counted_again_after_a_moment() -> None:
    """What has changed in between is looked at before a call is ended."""
    calls = [Call(b"a") for _ in range(3)]
    now = [0.0]
    made = shedder(calls, now)
    assert made.shed(b"b")
    for call in calls:
        call.queued = False
    assert not made.shed(b"c")
    calls += [Call(b"a") for _ in range(2)]
    assert not made.shed(b"c")
    now.append(1.0)
    assert made.shed(b"c")


def test_a_client_with_its_share_does_not_get_the_last_places() -> None:
    """Its running calls give way to no other; what is admitted counts before the next count."""
    calls = [Call(b"a", queued=False) for _ in range(6)]
    made = shedder(calls, [0.0])
    fault = made.over_share(b"a")
    assert fault is not None
    assert (fault.reason, fault.executed, fault.status) == ("capacity", "no", 429)
    assert "--max-calls 8" in fault.message
    admitted = [made.over_share(b"b") is None for _ in range(3)]
    assert admitted == [True, True, False]
    assert made.over_share(b"c") is None
