"""Collects the current state of the program, for an operator and for a crash's log record."""

from __future__ import annotations

import asyncio
import collections
import threading

import anyio

from mcpbridge.app.build import App
from mcpbridge.bridge.bridge import Bridge

_MOST = 50
"""Most calls listed; the oldest are the interesting ones."""


def state_of(app: App) -> dict[str, object]:
    """Return gauges, children, calls in flight with their age in seconds, and the number of tasks.

    Contains no session ids and no part of a message, since it goes to the log.
    """
    gauges = {name: read() for name, read in app.meters.gauges.items()}
    return {
        **gauges,
        "pids": app.process_tree.children,
        "calls": _calls(app.bridge),
        "tasks": tasks_by_coroutine(),
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


def tasks_by_coroutine() -> dict[str, int]:
    """Return the number of tasks by coroutine."""
    names: collections.Counter[str] = collections.Counter()
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        names[getattr(coroutine, "__qualname__", type(coroutine).__name__)] += 1
    return dict(names.most_common())
