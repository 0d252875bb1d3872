"""The memory that may be used, from the files of either version of cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcpbridge.process.memory import footprints, memory_limit, own_footprint

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V2 = "0::/pods/one\n"
V1 = "5:devices:/pods/one\n4:cpu,memory:/pods/one\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        (V2, {"pods/one/memory.max": "268435456\n"}, 1 << 28),
        (V2, {"pods/one/memory.max": "max\n", "pods/memory.max": "1048576\n"}, 1 << 20),
        (V2, {"pods/one/memory.max": "4096\n", "pods/memory.max": "1048576\n"}, 4096),
        # In a container its own cgroup is at the top.
        (V2, {"memory.max": "268435456\n"}, 1 << 28),
        ("0::/\n", {"memory.max": "268435456\n"}, 1 << 28),
        (V1, {"memory/pods/one/memory.limit_in_bytes": "268435456\n"}, 1 << 28),
        (V1, {"memory/memory.limit_in_bytes": "268435456\n"}, 1 << 28),
        (V1, {"memory/pods/one/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        (V2, {"pods/one/memory.max": "max\n"}, MACHINE),
        (V2, {"pods/one/memory.max": "nonsense\n"}, MACHINE),
        (V2, {}, MACHINE),
        (None, {}, MACHINE),
    ],
)
def test_the_least_limit_counts(
    tmp_path: Path, own: str | None, files: dict[str, str], limit: int
) -> None:
    """That of the cgroup, of one above it, or of the machine."""
    named = tmp_path / "own"
    if own is not None:
        named.write_text(own)
    for name, text in files.items():
        file = tmp_path / "cgroups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert memory_limit(tmp_path / "cgroups", named) == limit


def test_several_groups_are_measured_at_once() -> None:
    """What is not there is left out; a process alone is no more than its group."""
    ours = os.getpgrp()
    found = footprints([ours, 1 << 30])
    assert list(found) == [ours]
    assert 0 < own_footprint() <= found[ours].bytes
