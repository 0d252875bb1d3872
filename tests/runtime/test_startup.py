"""What the process prepares for itself."""

from __future__ import annotations

import platform
import subprocess
import sys

PROGRAM = """
import resource
from mcpbridge.runtime.startup import keep_freed_memory

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        texts = [bytes(1_000_000) for _ in range(4)]
        del texts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(keep_freed_memory())
faults(2)
print(faults(20))
"""


def test_memory_that_is_freed_serves_the_next_message() -> None:
    """Else the kernel fills each page of it with zeros again: 1000 pages for four of 1 MB."""
    words = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    kept, faults = ended.stdout.split()
    assert kept == str(platform.libc_ver()[0] == "glibc")
    if kept == "True":
        assert int(faults) < 1000
