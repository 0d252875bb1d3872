"""What the program is doing at this moment, for an operator who asks and for a crash's record."""

from __future__ import annotations

import asyncio
import collections
import threading

import anyio

from mcpbridge.app.build import App
from mcpbridge.bridge.bridge import Bridge

_MOST = 50
"""Calls that are listed; the oldest are the ones somebody looks for."""


def state_of(app: App) -> dict[str, object]:
    """Gauges, children, calls in flight with their age in seconds, and what tasks there are.

    No ids of sessions and nothing of any message: it goes to the log.
    """
    gauges = {name: read() for name, read in app.meters.gauges.items()}
    return {
        **gauges,
        "pids": app.process_tree.children,
        "calls": _calls(app.bridge),
        "tasks": _tasks(),
        "threads": threading.active_count(),
        "counts": dict(app.meters.counts()),
    }


def _calls(bridge: Bridge) -> list[dict[str, object]]:
    now = anyio.current_time()
    ages = [
        (now - exchange.started_at, exchange.request.method)
        for session in bridge.sessions
        for exchange in session.in_flight
    ]
    oldest = sorted(ages, reverse=True)[:_MOST]
    return [{"method": method, "age_s": round(age_s, 3)} for age_s, method in oldest]


def _tasks() -> dict[str, int]:
    """How many tasks run each coroutine."""
    names: collections.Counter[str] = collections.Counter()
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        names[getattr(coroutine, "__qualname__", type(coroutine).__name__)] += 1
    return dict(names.most_common())
