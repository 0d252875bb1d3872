"""How a grace is divided between calls, children and a reserve."""

from __future__ import annotations

import pytest

from mcpbridge.rules.supervision.shutdown_times import (
    AT_A_TERMINAL,
    CONTAINER_GRACE_S,
    default_grace_s,
    times_within,
)


@pytest.mark.parametrize(
    ("grace_s", "cutoff_s", "step_s", "children_s"),
    [
        (6, 0.8, 2.0, 4.8),
        (10, 4.0, 2.0, 8.0),
        (30, 20.0, 2.5, 25.0),
        (60, 45.0, 5.0, 55.0),
        (600, 575.0, 10.0, 595.0),
    ],
)
def test_children_have_a_share_of_the_grace(
    grace_s: float, cutoff_s: float, step_s: float, children_s: float
) -> None:
    """At the cutoff, when calls have had all their time."""
    times = times_within(grace_s)
    assert (times.cutoff_s, times.children_s) == pytest.approx((cutoff_s, children_s))
    assert times.step_s(times.cutoff_s) == pytest.approx(step_s)


@pytest.mark.parametrize(
    ("grace_s", "elapsed_s", "step_s"),
    [(10, 0, 4.0), (10, 2, 3.0), (30, 0, 5.0), (30, 17, 4.0), (60, 0, 5.0), (600, 0, 10.0)],
)
def test_children_have_the_time_that_calls_left(
    grace_s: float, elapsed_s: float, step_s: float
) -> None:
    """Up to what a child has that is stopped while the bridge serves on, or its share if longer."""
    assert times_within(grace_s).step_s(elapsed_s) == pytest.approx(step_s)


@pytest.mark.parametrize("grace_s", [6, 7.5, 10, 11, 24, 25, 30, 59, 120, 121, 3600])
def test_two_steps_always_end_before_the_platform_kills(grace_s: float) -> None:
    """Whenever they begin, with a fifth of a short grace to spare and 5 s of a long one."""
    times = times_within(grace_s)
    assert grace_s - times.children_s == pytest.approx(min(5.0, grace_s / 5))
    for tenth in range(11):
        elapsed_s = times.cutoff_s * tenth / 10
        assert elapsed_s + 2 * times.step_s(elapsed_s) <= times.children_s + 1e-9


def test_a_late_loop_leaves_no_step() -> None:
    """Never a negative time."""
    assert times_within(6).step_s(5.5) == 0.0


def test_a_user_at_a_terminal_waits_less() -> None:
    """Two seconds for each step, whatever the calls left."""
    assert (AT_A_TERMINAL.step_s(0), AT_A_TERMINAL.step_s(AT_A_TERMINAL.cutoff_s)) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("pid", "in_cluster", "grace_s"),
    [(1, False, CONTAINER_GRACE_S), (1, True, 30.0), (7, False, 30.0), (7, True, 30.0)],
)
def test_the_main_process_of_a_container_has_less(
    pid: int, in_cluster: bool, grace_s: float
) -> None:
    """Unless Kubernetes runs it."""
    assert default_grace_s(30.0, pid, in_cluster=in_cluster) == grace_s
