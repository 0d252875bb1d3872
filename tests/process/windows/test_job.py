"""Job objects, by a library that keeps what Windows would: the calls, in order."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from mcpbridge.process.windows.job import BasicLimits, ExtendedLimits, job_of

JOB, PROCESS = 0x7C, 0x80


class Kernel32:
    """The five functions; `refuses` is the one that fails."""

    def __init__(self, refuses: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._refuses = refuses

    def CreateJobObjectW(self, security: None, name: None) -> int:  # noqa: N802 - Windows' name
        """Make a job."""
        return self._said("CreateJobObjectW", JOB)

    def SetInformationJobObject(  # noqa: N802 - Windows' name
        self, job: ctypes.c_void_p, kind: int, limits: Any, size: int
    ) -> int:
        """Set limits, which are given as an address."""
        raw = ctypes.string_at(ctypes.addressof(limits._obj), size)
        return self._said("SetInformationJobObject", 1, job.value, kind, raw)

    def OpenProcess(self, access: int, inherit: int, pid: int) -> int:  # noqa: N802 - as above
        """Open a process."""
        return self._said("OpenProcess", PROCESS, access, pid)

    def AssignProcessToJobObject(  # noqa: N802 - Windows' name
        self, job: ctypes.c_void_p, process: ctypes.c_void_p
    ) -> int:
        """Put a process into a job."""
        return self._said("AssignProcessToJobObject", 1, job.value, process.value)

    def TerminateJobObject(self, job: ctypes.c_void_p, code: int) -> int:  # noqa: N802 - as above
        """End all processes of a job."""
        return self._said("TerminateJobObject", 1, job.value, code)

    def CloseHandle(self, handle: ctypes.c_void_p) -> int:  # noqa: N802 - Windows' name
        """Close a handle."""
        return self._said("CloseHandle", 1, handle.value)

    def _said(self, name: str, result: int, *words: Any) -> int:
        self.calls.append((name, *words))
        return 0 if name == self._refuses else result


def test_the_limits_have_the_sizes_of_winnt_h() -> None:
    """On a 64-bit system: 64 bytes, and 144."""
    if struct.calcsize("P") == 8:
        assert (ctypes.sizeof(BasicLimits), ctypes.sizeof(ExtendedLimits)) == (64, 144)
    assert BasicLimits.flags.offset == 16


def test_a_process_is_put_into_a_job_that_ends_with_this_program() -> None:
    """And `end` ends all that is in it, once."""
    library = Kernel32()
    job = job_of(4711, library)
    assert job is not None
    made, limited, opened, assigned, closed = library.calls
    assert (made, opened) == (("CreateJobObjectW",), ("OpenProcess", 0x101, 4711))
    assert limited[:3] == ("SetInformationJobObject", JOB, 9)
    assert len(limited[3]) == ctypes.sizeof(ExtendedLimits)
    assert struct.unpack_from("I", limited[3], 16) == (0x2000,)
    assert assigned == ("AssignProcessToJobObject", JOB, PROCESS)
    assert closed == ("CloseHandle", PROCESS)
    job.end()
    job.end()
    assert library.calls[5:] == [("TerminateJobObject", JOB, 1), ("CloseHandle", JOB)]


@pytest.mark.parametrize(
    "refuses",
    ["CreateJobObjectW", "SetInformationJobObject", "OpenProcess", "AssignProcessToJobObject"],
)
def test_what_the_system_refuses_leaves_no_handle(refuses: str) -> None:
    """There is no job then, and the process goes on without."""
    library = Kernel32(refuses)
    assert job_of(1, library) is None
    names = [name for name, *_ in library.calls]
    closed = [words[0] for name, *words in library.calls if name == "CloseHandle"]
    wanted = [] if refuses == "CreateJobObjectW" else [JOB]
    assert closed == ([PROCESS, *wanted] if "AssignProcessToJobObject" in names else wanted)


def test_this_system_has_no_jobs() -> None:
    """It has process groups, and no such library."""
    assert job_of(1) is None
