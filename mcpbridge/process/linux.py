"""What only Linux offers: who descends from whom, who inherits orphans, who is killed first.

The one place for it. Elsewhere, and in a sandbox without `/proc`, each function finds nothing or
does nothing, and says so by what it returns; the bridge then does without: what leaves its
child's process group is not found, and the rest stands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import msgspec

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_OOM_ADDED = 500
_OOM_HIGHEST = 1000


class Stat(msgspec.Struct, frozen=True):
    """One line of the process table."""

    state: str
    """`Z` for a process that has ended and that nobody has waited for."""
    parent: int
    group: int
    session: int
    started: int
    """When, in ticks since the machine started: with the pid it names one process for ever."""

    @property
    def lives(self) -> bool:
        """It has not ended."""
        return self.state not in ("Z", "X")


def stat_of(pid: int) -> Stat | None:
    """A process's line of the process table; None where there is no such process."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name, in parentheses, may hold anything; the rest stands behind it.
    fields = text.rpartition(b") ")[2].split()
    if len(fields) < 20:
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def environment_of(pid: int) -> list[bytes]:
    """What a process was given as its environment, `NAME=VALUE` each; empty where nobody may know.

    A program may have written over it since.
    """
    return (_read(f"/proc/{pid}/environ") or b"").split(b"\0")


def children_of(pid: int) -> list[int]:
    """The children of a process, the dead among them too; costs some microseconds for each thread.

    Empty where the system does not list them.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    lists = (_read(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for text in lists if text for child in text.split()]


def descendants_of(pid: int) -> list[int]:
    """All that stands below a process, nearest first; who has lost its parent is not among it."""
    found = children_of(pid)
    for each in found:  # grows meanwhile
        found += children_of(each)
    return found


def group_lives(group: int) -> bool | None:
    """Whether any member of a process group has not ended; None where the system does not tell.

    `killpg` counts the dead too, until their parents have waited for them, and some never do.
    """
    listed = False
    for stat in _everybody():
        listed = True
        if stat.group == group and stat.lives:
            return True
    return False if listed else None


def group_is_stopped(group: int) -> bool:
    """Whether a member of a process group was stopped by a signal; one under a debugger was not."""
    return any(stat.group == group and stat.state == "T" for stat in _everybody())


def inherit_orphans() -> bool:
    """Become the parent of every descendant that loses its own; whether the system does that.

    Without it they go to process 1, and nobody can tell any more where they came from.
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER)


def forbid_new_privileges() -> bool:
    """Let nothing that this thread, or whatever it starts, executes gain privileges; whether so.

    It cannot be undone, and is handed down by fork and exec. Set for ourselves, since Python could
    set it for a child alone only by running code between fork and exec.
    """
    return _prctl(_PR_SET_NO_NEW_PRIVS)


def prefer_for_oom(pid: int) -> bool:
    """Have the kernel kill this process rather than the bridge when memory is short; if it may.

    A child inherits the bridge's own standing; everybody may raise it for a process of theirs.
    """
    own = _read("/proc/self/oom_score_adj")
    if own is None:
        return False
    wanted = min(int(own) + _OOM_ADDED, _OOM_HIGHEST)
    try:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, b"%d" % wanted)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def forbid_cores() -> None:
    """Have no core written when this process or one it starts crashes; any Unix can."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _prctl(option: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes  # only here: it costs some milliseconds

    try:
        return bool(ctypes.CDLL(None).prctl(option, 1, 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False


def _everybody() -> Iterator[Stat]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal() and (stat := stat_of(int(name))) is not None:
            yield stat


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Files of /proc are made while they are read: a list of children may be long.
        return b"".join(iter(lambda: os.read(fd, 1 << 14), b""))
    except OSError:
        return None
    finally:
        os.close(fd)
