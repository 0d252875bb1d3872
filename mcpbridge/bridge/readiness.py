"""The condition for readiness: the reasons against it, by name.

Source: Kubernetes, probes: a failed readiness probe sends traffic elsewhere, a failed liveness
probe ends the container, the start-up probe must succeed once.
"""

from __future__ import annotations

from collections.abc import Mapping

REMOTE = "remote"
"""The blocker of a server that is reached by HTTP and is away."""


class Readiness:
    """A set of the reasons why this bridge cannot serve a further session."""

    def __init__(self) -> None:
        self._missing: dict[str, str] = {"child": "starting"}
        self._problems: dict[str, str] = {}
        self.started = False
        """Whether it has been ready once."""

    @property
    def ready(self) -> bool:
        """Whether nothing blocks readiness."""
        return not self._missing

    @property
    def serving(self) -> bool:
        """Whether requests are accepted: not draining and not given up; a child may be starting."""
        return self._missing.keys().isdisjoint(("draining", "given_up"))

    @property
    def blockers(self) -> Mapping[str, str]:
        """Each blocker by name, with its reason."""
        return self._missing

    def problem(self, what: str) -> str:
        """Return details of a blocker, for operators only; empty if there are none."""
        return self._problems.get(what, "")

    def block(self, what: str, why: str, problem: str = "") -> None:
        """Add a blocker, or change its reason; `problem` has details for operators only."""
        self._missing[what] = why
        self._problems[what] = problem

    def unblock(self, what: str) -> None:
        """Remove a blocker; no effect if it does not block."""
        self._missing.pop(what, None)
        self._problems.pop(what, None)
        self.started = self.started or not self._missing
