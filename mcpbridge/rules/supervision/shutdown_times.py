"""How the time between the first signal and the platform's kill is divided.

Calls in flight finish first. Children then have two steps, one before SIGTERM and one before
SIGKILL, and what is left is a reserve: for the last bytes, the last spans and a busy machine. Each
step is at least a share of the grace, and longer if the calls did not need their time.
"""

from __future__ import annotations

import msgspec

KUBERNETES = "KUBERNETES_SERVICE_HOST"
"""The variable that is set in every container of a cluster."""
CONTAINER_GRACE_S = 10.0
"""Seconds after which `docker stop`, `podman stop` and `docker compose stop` kill by default."""

_MAX_RESERVE_S = 5.0
_MIN_STEP_S = 2.0
_USUAL_STEP_S = 5.0
"""What a child gets that is stopped while the bridge serves on."""
_MAX_STEP_S = 10.0
"""A server that ignores the end of its stdin must not delay each update of a Deployment by more."""


class ShutdownTimes(msgspec.Struct, frozen=True):
    """Deadlines in seconds after the first signal."""

    cutoff_s: float
    """When calls that are still in flight get an error."""
    children_s: float
    """When the last child gets SIGKILL."""
    longest_step_s: float
    """Most seconds of one step of stopping a child."""

    def step_s(self, elapsed_s: float) -> float:
        """Return the seconds of each step of stopping children that begins now.

        Args:
            elapsed_s: Seconds since the first signal.
        """
        return max(0.0, min(self.longest_step_s, (self.children_s - elapsed_s) / 2))


def times_within(grace_s: float) -> ShutdownTimes:
    """Return the times of a shutdown that must end within `grace_s` seconds."""
    children_s = grace_s - min(_MAX_RESERVE_S, grace_s / 5)
    share_s = min(_MAX_STEP_S, max(_MIN_STEP_S, grace_s / 12))
    cutoff_s = max(0.0, children_s - 2 * share_s)
    return ShutdownTimes(cutoff_s, children_s, max(_USUAL_STEP_S, share_s))


AT_A_TERMINAL = ShutdownTimes(cutoff_s=5.0, children_s=9.0, longest_step_s=2.0)
"""Shorter, since a user at the terminal waits after Ctrl-C."""


def default_grace_s(usual_s: float, pid: int, *, in_cluster: bool) -> float:
    """Return the grace if none is set.

    Args:
        usual_s: The grace of Kubernetes.
        pid: Id of this process; 1 is the main process of a container.
        in_cluster: Kubernetes runs the container.
    """
    return CONTAINER_GRACE_S if pid == 1 and not in_cluster else usual_s
