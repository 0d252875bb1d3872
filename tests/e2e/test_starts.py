"""Many server processes that start at the same moment, and those that never finish starting."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import eventually, initialize
from tests.support.failing_child import ROOTS, Worn, new_fifo, open_fifo, wearing
from tests.support.proofs import proves

pytestmark = pytest.mark.slow
AT_ONCE = 2 * (os.cpu_count() or 1)
LATE = 3
WAITS = {"accept": "application/json"}
"""A client that reads no event streams."""


def started(worn: Worn) -> int:
    """How many processes have been started for single sessions."""
    return len(worn.bridge.events("child.started")) - 1


@proves("fault 4", "fault 48")
async def test_a_storm_of_starts_is_taken_in_turns(tmp_path: Path) -> None:
    """Twice as many processes as there are cores start at once; the others wait their turn.

    The time limit for a start begins with the turn: those whose turn comes after the limit of the
    first ones are served all the same.
    """
    fifo = new_fifo(tmp_path, "fifo")
    words = ("--isolation", "session", "--max-children", "200", "--start-timeout", "3s")
    async with wearing(tmp_path, *words, manners=("gated", fifo), ready=False) as worn:
        passed = open_fifo(fifo)
        await worn.bridge.logged("child.ready")
        os.close(passed)
        body: Any = initialize(0, capabilities=ROOTS)
        opening = [
            asyncio.create_task(worn.client.post("/mcp", json=body, headers=WAITS))
            for _ in range(AT_ONCE + LATE)
        ]
        await eventually(lambda: started(worn) == AT_ONCE, "the first ones have been started")
        # The first answers: nobody has opened the fifo for those that were started.
        await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
        passed = open_fifo(fifo)
        answers = await asyncio.gather(*opening)
        os.close(passed)
        found = [answer.json() for answer in answers]
        faults = [each["error"]["data"]["mcpbridge"] for each in found if "error" in each]
        assert faults
        assert {fault["reason"] for fault in faults} == {"start_timeout"}
        assert len(found) - len(faults) >= LATE
        assert started(worn) == AT_ONCE + LATE
