"""These tests run on both event loops: the one people may have, and the one the bridge runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops, by the name that stands in a test's id."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
