"""What only Linux offers: the tree of processes, adoption of orphans, the order of OOM kills.

No other module depends on Linux. On other systems, and in a sandbox without `/proc`, each function
finds or does nothing and says so by its result; the bridge then does without: processes that leave
their child's process group are not found, and everything else works.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar, TypeVarTuple, Unpack

import msgspec
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_OOM_ADDED = 500
_OOM_HIGHEST = 1000


_CLOEXEC = getattr(os, "O_CLOEXEC", 0)  # Windows has no such flag
_THREADS = 2
_limiter: RunVar[CapacityLimiter] = RunVar("mcpbridge.process.linux")
T = TypeVar("T")
Args = TypeVarTuple("Args")


async def off_loop(read: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """Return what a function that reads many files of `/proc` returns; call it in a thread.

    Not in one of the threads that all share: on systems without pidfds these wait for processes,
    and a process is ended by what is read here.
    """
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await to_thread.run_sync(read, *args, limiter=limiter)


class Stat(msgspec.Struct, frozen=True):
    """One line of the process table."""

    state: str
    """`Z` for a zombie, which has ended and which its parent has not waited for."""
    parent: int
    group: int
    session: int
    started: int
    """Start time in ticks since boot; with the pid it identifies one process uniquely."""

    @property
    def lives(self) -> bool:
        """Whether the process has not ended."""
        return self.state not in ("Z", "X")


def stat_of(pid: int) -> Stat | None:
    """Return a process's line of the process table; None if there is no such process."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name, in parentheses, may contain anything; the other fields follow it.
    fields = text.rpartition(b") ")[2].split()
    if len(fields) < 20:
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def environment_of(pid: int) -> list[bytes]:
    """Return the initial environment of a process as `NAME=VALUE`s; empty if it is unreadable.

    The program may have overwritten it since.
    """
    return (_read(f"/proc/{pid}/environ") or b"").split(b"\0")


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies included; costs some microseconds per thread.

    Empty if the system does not list them.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    lists = (_read(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for text in lists if text for child in text.split()]


def descendants_of(pid: int) -> list[int]:
    """Return the descendants of a process, nearest first, without those that lost their parent."""
    found = children_of(pid)
    for each in found:  # the loop appends to the list it walks
        found += children_of(each)
    return found


def group_lives(group: int) -> bool | None:
    """Return whether a member of a process group has not ended; None if the system hides it.

    `killpg` also counts zombies until their parents have waited for them, and some never do.
    """
    listed = False
    for stat in _everybody():
        listed = True
        if stat.group == group and stat.lives:
            return True
    return False if listed else None


def group_is_stopped(group: int) -> bool:
    """Return whether a signal stopped a member of a process group; a debugger does not count."""
    return any(stat.group == group and stat.state == "T" for stat in _everybody())


def inherit_orphans() -> bool:
    """Become the parent of every descendant that loses its own; return whether this works.

    Otherwise orphans go to process 1, and their origin cannot be found any more.
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER)


def forbid_new_privileges() -> bool:
    """Forbid this thread and all it starts to gain privileges by exec; return whether this works.

    It cannot be undone, and fork and exec pass it on. It is set for the bridge itself, since Python
    can set it for a child alone only by running code between fork and exec.
    """
    return _prctl(_PR_SET_NO_NEW_PRIVS)


def prefer_for_oom(pid: int) -> bool:
    """Make the kernel prefer this process to the bridge when memory is short; return success.

    A child inherits the bridge's own score; any process may raise the score of its children.
    """
    own = _read("/proc/self/oom_score_adj")
    if own is None:
        return False
    wanted = min(int(own) + _OOM_ADDED, _OOM_HIGHEST)
    try:
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | _CLOEXEC)
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
    """Disable core dumps for this process and those it starts, on any Unix."""
    try:
        import resource
    except ImportError:  # Windows makes none
        return
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
        fd = os.open(path, os.O_RDONLY | _CLOEXEC)
    except OSError:
        return None
    try:
        # Files of /proc are made while they are read: a list of children may be long.
        return b"".join(iter(lambda: os.read(fd, 1 << 14), b""))
    except OSError:
        return None
    finally:
        os.close(fd)
