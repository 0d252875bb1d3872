"""What the metrics read from the living parts of the program when somebody asks."""

from __future__ import annotations

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.placement import Placement
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.rules.supervision.lifecycle import DrainState
from mcpbridge.telemetry.metrics import Meters


def watch(meters: Meters, bridge: Bridge, keepalive: KeepAlive, placement: Placement) -> None:
    """Let the meters read sessions, streams, calls, children, readiness and the phase of the end.

    The names are those of `telemetry.export.GAUGES`.
    """
    meters.watch("calls_in_flight", lambda: bridge.drain.held)
    meters.watch("sessions_open", lambda: len(bridge.sessions))
    meters.watch("streams_open", lambda: keepalive.open)
    meters.watch("children", lambda: placement.children)
    meters.watch("ready", lambda: float(bridge.gate.ready))
    meters.watch("missing", lambda: dict.fromkeys(bridge.gate.missing, 1.0))
    meters.watch(
        "drain_phase",
        lambda: {state.value: float(state is bridge.drain.state) for state in DrainState},
    )
