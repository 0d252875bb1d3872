"""Programs in their own namespaces, and whether this machine permits them.

A container with default rights does not. CI runs every test: there they fail instead of being left
out.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

OWN_PID_SPACE = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
"""Runs a program as process 1."""
OWN_MOUNTS = ("unshare", "--mount")
"""Runs a program whose mounts no other program sees."""
OTHER_USER = ("unshare", "--user", "--map-root-user", "--mount")
"""Runs a program as root of a user namespace."""
_WHY = "this machine permits no namespaces of a program's own; CI runs this test"


def _permitted() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = (
        subprocess.run([*kind, "true"], capture_output=True, check=False)
        for kind in (OWN_PID_SPACE, OWN_MOUNTS, OTHER_USER)
    )
    return all(done.returncode == 0 for done in tried)


NEEDS_NAMESPACES = pytest.mark.skipif("CI" not in os.environ and not _permitted(), reason=_WHY)
