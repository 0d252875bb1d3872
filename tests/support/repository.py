"""The files of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NOT_OURS = {"node_modules", "build", "dist", "__pycache__"}
"""Folders that no commit holds, without hidden ones."""
_HIDDEN = {".ci", ".github"}
"""Hidden folders that commits hold."""


def repository_files() -> list[Path]:
    """Return the files of the repository, new ones too; without git all but what tools made."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listing = subprocess.run(
            # A clone that belongs to another user is read all the same.
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=30,
        )
        listed = [ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
        return [path for path in listed if path.is_file()]
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name in _HIDDEN or _is_ours(name)]
        found += [Path(folder, name) for name in names]
    return found


def _is_ours(folder: str) -> bool:
    return folder not in _NOT_OURS and not folder.startswith(".")
