"""Counters of what cannot be seen in any one answer: what was dropped, shed, refused.

One object, made in `app.build` and handed down; names have few values and never come from a peer.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping


class Meters:
    """Counts by name; written from the event loop only."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._counts[name] += by

    def counts(self) -> Mapping[str, int]:
        """Every counter that is not zero, by name."""
        return dict(sorted(self._counts.items()))
