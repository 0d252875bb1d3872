"""The reaper, a separate program: ends the children of a bridge that was killed.

Run by `mcpbridge.process.reaper` as `python -S _reaper.py TOKEN`, with a pipe from the bridge as
stdin. `+123` on a line: process 123 leads a group that must not outlive the bridge; `-123`: that
group has ended. When the pipe ends, the bridge has ended. Then the groups on the list are ended,
and all processes whose environment has a mark with that token: first they see the end of their
stdin, which came with the bridge's; after half a second they get SIGTERM; after another, SIGKILL.

It imports next to nothing, since it waits for years and must use little memory. `signal` and
`collections` alone would be a third of its start-up time, 5 ms, and 0.7 MiB of its memory.
"""

from __future__ import annotations

import os
import sys
import time

_SIGTERM, _SIGKILL = 15, 9
"""Numbers that POSIX (`kill`) fixes for every system."""
_STEP_S = 0.5
_LOOK_EVERY_S = 0.05
_ENVIRONMENT_BYTES = 1 << 21
_SWEEPS = 20
"""Number of rounds of SIGKILL, since a killed process may just have started others."""


def keep(fd: int, token: str) -> None:
    """Read the list from a pipe until it ends; then end the processes on it."""
    groups: dict[int, bytes] = {}
    rest = b""
    while chunk := os.read(fd, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            pid = int(line[1:])
            if line[:1] == b"+":
                # With its start time: the number may belong to another process when the bridge
                # ends.
                groups[pid] = _started(pid)
            else:
                groups.pop(pid, None)
    _end(groups, b"\0_MCPBRIDGE_CHILD=%b." % token.encode())


def _end(groups: dict[int, bytes], mark: bytes) -> None:
    # 0 sends nothing: first time to end by the end of stdin alone.
    for number in (0, _SIGTERM):
        if number:
            _signal(groups, mark, number)
        until = time.monotonic() + _STEP_S
        while _signal(groups, mark, 0):
            if time.monotonic() > until:
                break
            time.sleep(_LOOK_EVERY_S)
        else:
            return
    for _ in range(_SWEEPS):
        if not _signal(groups, mark, _SIGKILL):
            return
        time.sleep(_LOOK_EVERY_S)


def _signal(groups: dict[int, bytes], mark: bytes, number: int) -> bool:
    """Send a signal to the groups and to all marked processes; return whether any was there."""
    reached = False
    for pid, started in groups.items():
        # Otherwise the number now belongs to another process, so the group has ended.
        if _started(pid) in (b"", started):
            reached = _sent(-pid, number) or reached
    for pid in _marked(mark):
        reached = _sent(pid, number) or reached
    return reached


def _sent(pid: int, number: int) -> bool:
    """Send a signal to a process, or to the group that -pid leads; return whether it was there."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _marked(mark: bytes) -> list[int]:
    """Return the pids of marked processes; none if there is no /proc or the process ended."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    return [int(name) for name in names if name.isdecimal() and _carries(name, mark)]


def _carries(name: str, mark: bytes) -> bool:
    try:
        with open(f"/proc/{name}/environ", "rb", 0) as file:
            return mark in b"\0" + file.read(_ENVIRONMENT_BYTES)
    except OSError:
        return False


def _started(pid: int) -> bytes:
    """Return the start time of a process; empty if it has ended or the time is unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            fields = file.read(1024).rpartition(b") ")[2].split()
    except OSError:
        return b""
    # A zombie has ended; its group may still have members, which `_signal` reaches all the same.
    return b"" if fields[0] in b"ZX" else fields[19]


if __name__ == "__main__":
    keep(0, sys.argv[1])
