"""The garbage collector scans few objects at once, however many are alive."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from mcpbridge.app.lifecycle import settle_memory
from mcpbridge.runtime.startup import collect_seldom

scanned = []
def told(phase, info):
    if phase == "start":
        each = (len(gc.get_objects(generation=n)) for n in range(info["generation"] + 1))
        scanned.append(sum(each))

collect_seldom()
settle_memory()
gc.callbacks.append(told)
alive = [[] for _ in range(600_000)]
print(max(scanned))
"""


def test_a_collection_scans_few_objects_while_many_are_made() -> None:
    """As with 27,000 sessions; each takes 0.4 us, and no call is served in that time."""
    words = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(words, capture_output=True, timeout=60, check=True)
    assert 0 < int(ended.stdout) <= 35_000
