"""Processor time and memory of processes, read from /proc (Linux only).

The kernel counts a thread's run time in nanoseconds (`schedstat`) and a process's in ticks, mostly
of 10 ms (`stat`). The first is exact for threads that are asleep, but a thread that has ended is
gone from it; the second keeps them and is coarse. `cpu_ns_between` takes the fine figure, and the
coarse one where the two cannot both be true.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NS_PER_S = 1_000_000_000
TICKS_OFF = 3
"""How far utime+stime may stand apart from the truth over one stretch: a tick for each, and one."""


@dataclass(frozen=True, slots=True)
class CpuReading:
    """The processor time some processes had used up to one moment."""

    thread_ns: dict[int, int]
    """Run time of each living thread by its id; empty where the kernel keeps no schedstat."""
    ticks: int
    """utime + stime of the whole processes, ended threads included, in clock ticks."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a process, in KiB."""

    rss_kib: int
    peak_rss_kib: int


def read_cpu(*pids: int) -> CpuReading:
    """The processor time of processes until now, of all their threads.

    Raises:
        OSError: There is no such process, or no /proc.
    """
    readings = [_read_one(pid) for pid in pids]
    thread_ns = {tid: ns for reading in readings for tid, ns in reading.thread_ns.items()}
    return CpuReading(thread_ns, sum(reading.ticks for reading in readings))


def _read_one(pid: int) -> CpuReading:
    thread_ns = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            thread_ns[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has just ended, or the kernel was built without schedstat
    # The name in parentheses may hold anything, blanks and parentheses too: count from its end.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return CpuReading(thread_ns, int(fields[11]) + int(fields[12]))


def cpu_ns_between(before: CpuReading, after: CpuReading) -> int:
    """Nanoseconds of processor time processes used between two readings of them.

    Ticks decide where schedstat is missing or has lost time with a thread that ended.
    """
    tick_ns = NS_PER_S // os.sysconf("SC_CLK_TCK")
    ticks = after.ticks - before.ticks
    fine_ns = sum(ns - before.thread_ns.get(tid, 0) for tid, ns in after.thread_ns.items())
    if not after.thread_ns or fine_ns < (ticks - TICKS_OFF) * tick_ns:
        return ticks * tick_ns
    return fine_ns


def read_memory(pid: int) -> Memory:
    """What a process holds now and the most it ever held.

    Raises:
        OSError: There is no such process, or no /proc.
        KeyError: It has ended and only its exit status is left.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return Memory(int(facts["VmRSS"].split()[0]), int(facts["VmHWM"].split()[0]))


def own_pids(root: int, mark: str) -> tuple[int, ...]:
    """A process and its descendants, without those whose command line holds a mark.

    So the processes a server is made of are told from the stdio server it has started.

    Raises:
        OSError: There is no /proc.
    """
    parents, words = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            words[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        # What has ended, or is about to, has no command line any more.
        if fields[0] != "Z" and words[int(entry.name)]:
            parents[int(entry.name)] = int(fields[1])
    own = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in own and mark not in words[pid]}
        if more <= own:
            return tuple(sorted(own))
        own |= more
