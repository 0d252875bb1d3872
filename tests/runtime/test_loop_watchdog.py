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
logging.basicConfig()
asyncio.run(wedge(sys.argv[1] == "held"))
"""


@proves("fault 117")
@pytest.mark.slow
@pytest.mark.parametrize("log", ["free", "held"])
def test_a_loop_that_stands_still_for_good_ends_the_process(log: str) -> None:
    """Even if the loop's thread stands still in the log, whose lock it holds then."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, log], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 70
    assert (b"loop.stuck" in ended.stderr) == (log == "free")
