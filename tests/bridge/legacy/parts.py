"""The parts that sessions are made of, for tests that take them without a bridge around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import anyio

from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.drain import Drain
from mcpbridge.channels.memory import MemoryChannel, memory_pair
from mcpbridge.process.child import Child
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.telemetry.metrics import Meters

ASKED = ClientProfile(b'{"capabilities":{"roots":{}}}', "2025-11-25", frozenset(("roots",)))
"""A client that can be asked for its roots."""


def context_of(
    spawn: Callable[..., object], lost: Callable[[str], None] = lambda _: None
) -> CallContext:
    """What conversations work with; nothing shares their children."""
    return CallContext(
        Window(),
        Meters(),
        CallLog(Meters()),
        Drain(),
        lambda: ServerRequestTable(itertools.count(1)),
        spawn,
        anyio.current_time,
        list,
        lost,
        30.0,
    )


def lease_on_memory(*, shared: bool) -> tuple[Lease, MemoryChannel]:
    """A lease on a child in memory, and the child's end of its channel."""
    here, far = memory_pair()
    mux = Mux(here, Meters(), shared=shared, max_message_bytes=1 << 20)
    child = SimpleNamespace(
        pid=7,
        channel=here,
        exited=anyio.Event(),
        gone=anyio.Event(),
        how=None,
        probed=lambda method: nullcontext(),
    )
    child.gone.set()
    return Lease(cast(Child, child), mux), far
