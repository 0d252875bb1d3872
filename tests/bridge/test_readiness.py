"""Readiness: everything that stands in the way, by name."""

from __future__ import annotations

from mcpbridge.bridge.readiness import Readiness
from tests.support.proofs import proves


def test_ready_when_nothing_is_missing_and_started_for_good() -> None:
    """The start is over once, readiness comes and goes."""
    readiness = Readiness()
    assert (readiness.ready, readiness.started, dict(readiness.blockers)) == (
        False,
        False,
        {"child": "starting"},
    )
    readiness.block("room", "full")
    readiness.unblock("child")
    assert (readiness.ready, readiness.started) == (False, False)
    readiness.unblock("room")
    assert (readiness.ready, readiness.started) == (True, True)
    readiness.block("child", "restarting")
    readiness.block("child", "child_exited")
    assert (readiness.ready, readiness.started) == (False, True)
    readiness.block("room", "full")
    readiness.unblock("room")
    assert (readiness.ready, readiness.started) == (False, True)
    assert dict(readiness.blockers) == {"child": "child_exited"}


@proves("O11")
def test_requests_are_taken_unless_the_end_has_begun() -> None:
    """A child that starts is not a reason to refuse; giving up and draining are."""
    for what, serving in (("child", True), ("room", True), ("draining", False)):
        readiness = Readiness()
        readiness.block(what, "because")
        assert readiness.serving is serving
    readiness = Readiness()
    readiness.block("given_up", "5 ends")
    assert not readiness.serving
