"""Job objects: all that a process starts belongs to its job, and ends with it.

They take the place of process groups, and of the reaper: the system ends a job when its last handle
is closed, so also if this program is killed. A process that was started between the start of the
child and its assignment, which follows at once, is not in the job.

Handles are passed as numbers: Windows guarantees that they fit into 32 bits.

Source: Microsoft, Win32 API, Job Objects; winnt.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

_EXTENDED_LIMITS = 9
"""JobObjectExtendedLimitInformation."""
_KILL_ON_CLOSE = 0x2000
"""JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE."""
_ASSIGNS = 0x0100 | 0x0001
"""PROCESS_SET_QUOTA and PROCESS_TERMINATE, which an assignment needs."""
_EXIT_CODE = 1


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("process_time", ctypes.c_int64),
        ("job_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("least_working_set", ctypes.c_size_t),
        ("most_working_set", ctypes.c_size_t),
        ("most_processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority", ctypes.c_uint32),
        ("scheduling", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("basic", BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


class Job:
    """A job object with one process and all that it starts; made by `job_of`."""

    def __init__(self, kernel32: Any, handle: int) -> None:
        self._kernel32 = kernel32
        self._handle = handle

    def end(self) -> None:
        """End all its processes; do nothing if that has been done."""
        if self._handle:
            handle, self._handle = ctypes.c_void_p(self._handle), 0
            self._kernel32.TerminateJobObject(handle, _EXIT_CODE)
            self._kernel32.CloseHandle(handle)


def job_of(pid: int, kernel32: Any = None) -> Job | None:
    """Put a process that has just been started into a job; return None if that is impossible.

    Args:
        pid: The process.
        kernel32: The system's library; None: the one of this system, if it has it.
    """
    if kernel32 is None:
        load = getattr(ctypes, "WinDLL", None)
        if load is None:
            return None
        kernel32 = load("kernel32")
    number = kernel32.CreateJobObjectW(None, None)
    if not number:
        return None
    if _assigned(kernel32, ctypes.c_void_p(number), pid):
        return Job(kernel32, number)
    kernel32.CloseHandle(ctypes.c_void_p(number))
    return None


def _assigned(kernel32: Any, job: ctypes.c_void_p, pid: int) -> bool:
    limits = ExtendedLimits(basic=BasicLimits(flags=_KILL_ON_CLOSE))
    size = ctypes.sizeof(limits)
    if not kernel32.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), size):
        return False
    opened = kernel32.OpenProcess(_ASSIGNS, 0, pid)
    if not opened:
        return False
    process = ctypes.c_void_p(opened)
    assigned = kernel32.AssignProcessToJobObject(job, process)
    kernel32.CloseHandle(process)
    return bool(assigned)
