"""What every conversation of a bridge works with, handed down as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from mcpbridge.bridge.commons import Sharer
from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.mux import Tenant
from mcpbridge.bridge.outbox import Spawn
from mcpbridge.rules.correlate import Questions
from mcpbridge.rules.eventlog import Window
from mcpbridge.telemetry.meters import Meters


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """The parts that sessions and calls without one share."""

    window: Window
    meters: Meters
    drain: Drain
    questions: Callable[[], Questions]
    spawn: Spawn
    clock: Callable[[], float]
    """Seconds on the event loop's own clock."""
    sharers: Callable[[], Iterable[Sharer]]
    """The sessions on the shared child."""
    child_lost: Callable[[Tenant], None]
    """Told when the child of a session has ended by itself."""
    question_timeout_s: float
    """How long a question of a child waits for a stream of its client."""
