"""Starts a process and waits for its end.

The standard library starts it and not the event loop: uvloop leaves copies of its three pipe ends
open in the child, so that the bridge never sees when the child closes its stdout or stdin, and with
them every other inheritable descriptor. `Popen` closes all but three. A pidfd reports the end of
the process, on other systems than Linux a thread that waits; the end of its pipes would not do,
since a grandchild may hold them.

Windows has neither process groups nor signals: there a process is in a job object with all that it
starts, and both signals end the job at once.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import anyio
from anyio import CapacityLimiter, to_thread

from mcpbridge.errors import CommandNotExecutable, CommandNotFound, SpawnError
from mcpbridge.process.linux import group_lives, off_loop
from mcpbridge.process.spec import ChildSpec, startable

if TYPE_CHECKING:
    from mcpbridge.process.windows.job import Job

HAS_GROUPS = hasattr(os, "killpg")
"""Whether the system has process groups and signals; otherwise a process can only be ended."""
KILL = signal.Signals(getattr(signal, "SIGKILL", signal.SIGTERM))
"""The signal that no process can ignore."""
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""On Windows a server has another console, which is not shown, so that Ctrl-C in ours is not for
it."""
_LIMITS = {
    errno.EAGAIN: "processes (ulimit -u, TasksMax=, pids.max)",
    errno.EMFILE: "open files (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "open files of the whole system (fs.file-max)",
}


class Process:
    """A started process of the bridge; made by `spawn`."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen
        self._job = _job_of(popen.pid) if not HAS_GROUPS else None
        # A limiter for each: the one that all share would let 40 processes use up its threads.
        self._waiter = CapacityLimiter(1)

    def signal_group(self, number: signal.Signals) -> bool:
        """Send a signal to its group: see `signal_group`. Without groups end all, return False."""
        if HAS_GROUPS:
            return signal_group(self.pid, number)
        if self._job is not None:
            self._job.end()
        if self._popen.poll() is None:
            self._popen.terminate()
        return False

    async def wait(self) -> int:
        """Wait for its end; any number of tasks may wait.

        Returns:
            The exit code, or the negative number of the signal that ended it.
        """
        while (code := self._popen.poll()) is None:
            await self._until_end()
        return code

    async def _until_end(self) -> None:
        try:
            # It is readable when the process ends; needs neither a thread nor SIGCHLD.
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # Not Linux, a kernel before 5.3, or a sandbox that forbids the call.
            wait = self._popen.wait
            await to_thread.run_sync(wait, abandon_on_cancel=True, limiter=self._waiter)
            return
        try:
            await anyio.wait_readable(fd)
        finally:
            os.close(fd)


def _job_of(pid: int) -> Job | None:
    from mcpbridge.process.windows.job import job_of  # on Windows alone

    return job_of(pid)


def explained(error: OSError) -> str:
    """Return why the system refused, with the limit that an operator can raise if there is one."""
    why = error.strerror or str(error)
    limit = _LIMITS.get(error.errno or 0)
    return f"{why}; raise the limit on {limit}" if limit is not None else why


def spawn(spec: ChildSpec, stdin: int, stdout: int, stderr: int) -> Process:
    """Start a process in a new session and group, with these descriptors and no others.

    Raises:
        CommandNotFound: There is no such file.
        CommandNotExecutable: The file must not or cannot be executed.
        SpawnError: Another reason: too many processes, or a command that is too long.
    """
    command, user = spec.argv[0], spec.user
    try:
        popen = subprocess.Popen(  # nosec B603 # the operator's argv, without a shell
            startable(spec),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=spec.env,
            cwd=spec.cwd,
            start_new_session=HAS_GROUPS,
            creationflags=_NO_WINDOW,
            # Set between fork and exec by the library's own C code.
            user=user.uid if user is not None else None,
            group=user.gid if user is not None else None,
            extra_groups=user.groups if user is not None else None,
        )
    except FileNotFoundError as error:
        raise CommandNotFound(command, error.strerror or "not found") from error
    except PermissionError as error:
        raise CommandNotExecutable(command, error.strerror or "not permitted") from error
    except OSError as error:
        kind = CommandNotExecutable if error.errno == errno.ENOEXEC else SpawnError
        raise kind(command, explained(error)) from error
    return Process(popen)


_LOOK_EVERY_S = 0.05


def signal_group(leader_pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; return False if it has no members.

    Without groups it ends the process alone.
    """
    try:
        (os.killpg if HAS_GROUPS else os.kill)(leader_pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Zombies of another user, or on macOS a group of zombies: no process can be reached.
        return False
    return True


async def group_ends(leader_pid: int) -> None:
    """Wait until no member of a group lives; the caller bounds the wait.

    The system reports no end of a process that is not our child, so this polls.
    """
    while await _lives(leader_pid):  # noqa: ASYNC110 - the system reports no such event
        await anyio.sleep(_LOOK_EVERY_S)


async def _lives(leader_pid: int) -> bool:
    if not HAS_GROUPS:
        return False
    try:
        os.killpg(leader_pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # A member may be a zombie, whose parent has not waited for it; it must not delay the bridge.
    # In a thread: it reads a file for each process of the machine.
    return await off_loop(group_lives, leader_pid) is not False
