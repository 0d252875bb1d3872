"""Reads the memory of processes and its limits, and detects OOM kills.

A child that the kernel killed for memory died of SIGKILL like any other; only the count that its
cgroup keeps tells the difference, which an operator must know.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import msgspec

from mcpbridge.process.linux import stat_of

_CGROUPS = Path("/sys/fs/cgroup")


class OomWatch:
    """A watch on the count of OOM kills of the cgroup of the bridge and its children."""

    def __init__(self, root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> None:
        """Store the current count.

        Args:
            root: Mount point of cgroups.
            own: The file that names the bridge's cgroup.
        """
        self._file = next((file for file in _files(root, own) if _kills(file) is not None), None)
        self._seen = self._now()

    def rose(self) -> bool:
        """Return whether the count rose since the last call; False if the system does not count."""
        before, self._seen = self._seen, self._now()
        return self._seen > before

    def _now(self) -> int:
        return (_kills(self._file) or 0) if self._file is not None else 0


def _files(root: Path, own: Path) -> Iterator[Path]:
    """Yield the files that may hold the count: versions 1 and 2, by full path and at the top.

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


def memory_limit(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the bytes of memory that the bridge and its children may use together.

    That is the least of the limits of their cgroup, of those above it and of the machine; None if
    the system tells none of them.

    Source: Linux, Control Group v2, memory.max; cgroup-v1/memory, memory.limit_in_bytes.
    """
    limits = [limit for file in _limit_files(root, own) if (limit := _limit(file)) is not None]
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((limit for limit in limits if limit > 0), default=None)


def _limit_files(root: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = PurePosixPath(path.strip("/"))
        # A container may see its own cgroup at the top, under the path that it has outside.
        for above in (inside, *inside.parents):
            if not controllers:
                yield root / above / "memory.max"
            elif "memory" in controllers.split(","):
                yield root / "memory" / above / "memory.limit_in_bytes"


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    # "max" in version 2; version 1 writes a number that no machine has, and the machine's counts.
    return int(text) if text.isdecimal() else None


_KIB = 1024


class Footprint(msgspec.Struct, frozen=True):
    """The memory of one process group."""

    bytes: int
    """Resident bytes; pages shared between processes are divided among them if possible."""
    processes: int


def footprint(leader_pid: int) -> Footprint | None:
    """Return the memory of a group; None if there is no /proc or the group has ended."""
    return footprints([leader_pid]).get(leader_pid)


def footprints(leader_pids: Collection[int]) -> dict[int, Footprint]:
    """Return the memory of several groups, by their leaders; unknown ones are left out.

    Reads the process table once, which takes some milliseconds, so call it in a thread.
    """
    sizes: dict[int, list[int]] = {}
    for group, member in _members(frozenset(leader_pids)):
        # A process that is about to end frees its memory before the process table says so.
        if size := _resident(member):
            sizes.setdefault(group, []).append(size)
    return {group: Footprint(sum(each), len(each)) for group, each in sizes.items()}


def own_footprint() -> int:
    """Return the memory of this process alone, in bytes; 0 if there is no /proc."""
    return _resident(Path("/proc/self"))


def _members(groups: Collection[int]) -> Iterator[tuple[int, Path]]:
    try:
        entries = list(Path("/proc").iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.isdigit():
            stat = stat_of(int(entry.name))
            if stat is not None and stat.group in groups and stat.lives:
                yield stat.group, entry


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
