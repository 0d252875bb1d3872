"""A loop that never comes round ends the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.proofs import proves

PROGRAM = """
import asyncio, sys
from mcpbridge.runtime.loop_watchdog import LoopWatchdog

async def wedge(hold_the_log):
    import logging
    with LoopWatchdog(0.1, 0.3).watching():
        if hold_the_log:
            for handler in logging.getLogger().handlers:
                handler.acquire()
        while True:
            pass

import logging

class Shown(logging.Formatter):
    def format(self, record):
        return "\\n".join([record.getMessage(), *getattr(record, "stack", ())])

handler = logging.StreamHandler()
handler.setFormatter(Shown())
logging.basicConfig(handlers=[handler])
asyncio.run(wedge(sys.argv[1] == "held"))
"""


@proves("fault 117")
@pytest.mark.slow
@pytest.mark.parametrize("log", ["free", "held"])
def test_a_loop_that_stands_still_for_good_ends_the_process(log: str) -> None:
    """First its stack is logged; it ends even if it stands still in the log and holds its lock."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, log], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 70
    stalled, _, stuck = ended.stderr.partition(b"loop.stuck")
    assert (b"loop.stuck" in ended.stderr) == (log == "free")
    if log == "free":
        assert stalled.startswith(b"loop.stalled")
        assert b"in wedge" in stalled, "the stack of the loop's thread"
        assert b"loop.stalled" not in stuck, "one stall is told once"
