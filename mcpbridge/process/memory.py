"""Whether the kernel has killed somebody here for want of memory.

A child that was killed so has died of SIGKILL like any other; only the count that its cgroup keeps
tells the difference, and the difference is what an operator has to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mcpbridge.process.linux import stat_of

_CGROUPS = Path("/sys/fs/cgroup")


class OomWatch:
    """Watches the count of the cgroup that the bridge and its children are in."""

    def __init__(self, root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> None:
        """Note the count as it stands.

        Args:
            root: Where cgroups are mounted.
            own: The file that names our own.
        """
        self._file = next((file for file in _files(root, own) if _kills(file) is not None), None)
        self._seen = self._now()

    def rose(self) -> bool:
        """Whether it has risen since the last call; never, where the system does not count."""
        before, self._seen = self._seen, self._now()
        return self._seen > before

    def _now(self) -> int:
        return (_kills(self._file) or 0) if self._file is not None else 0


def _files(root: Path, own: Path) -> Iterator[Path]:
    """Where the count may stand: version 2 and 1, by our full path and, in a container, at the top.

    Source: Linux, Control Group v2, memory.events; cgroup-v1/memory, memory.oom_control.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for inside in (path.strip("/"), ""):
            if not controllers:
                yield root / inside / "memory.events"
            elif "memory" in controllers.split(","):
                yield root / "memory" / inside / "memory.oom_control"


def _kills(file: Path) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else None


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
