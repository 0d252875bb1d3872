"""One condition for readiness: everything that stands in the way, by name.

Source: Kubernetes, probes: readiness sends traffic elsewhere, liveness ends the container, start-up
is looked at once.
"""

from __future__ import annotations

from collections.abc import Mapping


class Readiness:
    """What is missing before this bridge can serve one more session."""

    def __init__(self) -> None:
        self._missing: dict[str, str] = {"child": "starting"}
        self.started = False
        """Has been ready once; stays."""

    @property
    def ready(self) -> bool:
        """Nothing is missing."""
        return not self._missing

    @property
    def serving(self) -> bool:
        """Requests are taken: neither draining nor given up; a child may still be starting."""
        return self._missing.keys().isdisjoint(("draining", "given_up"))

    @property
    def blockers(self) -> Mapping[str, str]:
        """What stands in the way, with the reason."""
        return self._missing

    def block(self, what: str, why: str) -> None:
        """Something stands in the way now."""
        self._missing[what] = why

    def unblock(self, what: str) -> None:
        """It does no longer."""
        self._missing.pop(what, None)
        self.started = self.started or not self._missing
