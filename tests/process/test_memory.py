"""The memory of a process group, as the kernel counts it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mcpbridge.process.memory import footprint

GROWN = 'import os; os.fork(); held = b"x" * (1 << 24); os.write(1, b"up\\n"); os.read(0, 1)'


@pytest.mark.slow
def test_all_of_a_group_is_counted() -> None:
    """Two processes of 16 MiB each; none of another group, and none that has ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", GROWN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert [process.stdout.readline() for _ in range(2)] == [b"up\n", b"up\n"]
        taken = footprint(process.pid)
        process.stdin.write(b"..")
        process.stdin.close()
        assert process.stdout.read() == b"", "both have ended"
    assert taken is not None
    assert taken.processes == 2
    assert 2 << 24 < taken.bytes < 1 << 27
    assert footprint(process.pid) is None


def test_ours_is_found() -> None:
    """The group of the tests themselves."""
    taken = footprint(os.getpgrp())
    assert taken is not None
    assert taken.processes >= 1
    assert taken.bytes > 1 << 20
