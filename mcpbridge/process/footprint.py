"""How much memory a child's process group takes, where the system tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mcpbridge.process.linux import stat_of

_KIB = 1024


class Footprint(NamedTuple):
    """The memory of one process group."""

    bytes: int
    """Resident; what several processes share is divided among them where the kernel tells."""
    processes: int


def footprint(leader_pid: int) -> Footprint | None:
    """The memory of a group at this moment; None where there is no /proc, or nobody is left."""
    # One that is about to end has given its memory back before the process table says so.
    sizes = [size for member in _members(leader_pid) if (size := _resident(member))]
    return Footprint(sum(sizes), len(sizes)) if sizes else None


def _members(leader_pid: int) -> Iterator[Path]:
    try:
        entries = list(Path("/proc").iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.isdigit():
            stat = stat_of(int(entry.name))
            if stat is not None and stat.group == leader_pid and stat.lives:
                yield entry


def _resident(entry: Path) -> int:
    for name, field in (("smaps_rollup", b"Pss:"), ("status", b"VmRSS:")):
        try:
            lines = (entry / name).read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1]) * _KIB
    return 0
