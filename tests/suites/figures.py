"""What a suite measured: one JSON line for each figure, a last line for people, an exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence


class Figures:
    """The figures of one run, printed as they come."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._missed: list[str] = []
        self._count = 0

    def show(self, name: str, value: float | int | str, **facts: object) -> None:
        """Print a figure that has no bound."""
        line = {"suite": self._suite, "figure": name, "value": value, **facts}
        print(json.dumps(line), flush=True)

    def at_most(self, name: str, value: float, bound: float, **facts: object) -> None:
        """Print a figure and judge it."""
        self._judge(name, value, value <= bound, {"at_most": bound, **facts})

    def equal(self, name: str, value: object, wanted: object, **facts: object) -> None:
        """Print a figure that must be exactly so."""
        self._judge(name, value, value == wanted, {"wanted": wanted, **facts})

    def end(self) -> int:
        """Print the last line; the exit status."""
        if self._missed:
            print(f"{self._suite}: MISSED {', '.join(self._missed)}", flush=True)
            return 1
        print(f"{self._suite}: all {self._count} figures reached", flush=True)
        return 0

    def _judge(self, name: str, value: object, good: bool, facts: dict[str, object]) -> None:
        self._count += 1
        if not good:
            self._missed.append(name)
        line = {"suite": self._suite, "figure": name, "value": value, "reached": good, **facts}
        print(json.dumps(line), flush=True)


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of samples `(x, y)`, after Theil and Sen.

    One sample taken at a bad moment does not move it.

    Raises:
        ValueError: Fewer than two different x.
    """
    found = sorted(
        (later - before) / (at - since)
        for place, (since, before) in enumerate(samples)
        for at, later in samples[place + 1 :]
        if at > since
    )
    if not found:
        raise ValueError("a slope needs two different places")
    middle = len(found) // 2
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which this part (0 to 1) of the values lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
