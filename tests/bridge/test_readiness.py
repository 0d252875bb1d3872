"""Readiness: everything that stands in the way, by name."""

from __future__ import annotations

from mcpbridge.bridge.readiness import Gate


def test_ready_when_nothing_is_missing_and_started_for_good() -> None:
    """The start is over once, readiness comes and goes (operations 5)."""
    gate = Gate()
    assert (gate.ready, gate.started, dict(gate.missing)) == (False, False, {"child": "starting"})
    gate.lack("room", "full")
    gate.satisfy("child")
    assert (gate.ready, gate.started) == (False, False)
    gate.satisfy("room")
    assert (gate.ready, gate.started) == (True, True)
    gate.lack("child", "restarting")
    gate.lack("child", "child_exited")
    assert (gate.ready, gate.started) == (False, True)
    gate.lack("room", "full")
    gate.satisfy("room")
    assert (gate.ready, gate.started) == (False, True)
    assert dict(gate.missing) == {"child": "child_exited"}


def test_requests_are_taken_unless_the_end_has_begun() -> None:
    """A child that starts is no reason to refuse; giving up and draining are (O11)."""
    for what, serving in (("child", True), ("room", True), ("draining", False)):
        gate = Gate()
        gate.lack(what, "because")
        assert gate.serving is serving
    gate = Gate()
    gate.lack("given_up", "5 ends")
    assert not gate.serving
