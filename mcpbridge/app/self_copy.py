"""`mcpbridge copy-self`: copies the running program to where another container finds it.

Only the tree of `mcpbridge:tree` can be copied: it contains an interpreter and runs from any
folder. The programs of an ordinary Python environment name the interpreter of their image by its
path.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from mcpbridge.errors import ConfigError

_PROGRAM = Path("bin", "mcpbridge")
"""The executable below the folder; a link to the program in the tree."""
_SUFFIX = ".part"


def tree() -> Path | None:
    """Return the folder of the running tree; None if this is an ordinary Python environment."""
    return Path(sys.executable).resolve().parent if getattr(sys, "frozen", False) else None


def copy_self(folder: Path) -> Path:
    """Copy the running tree into a folder, which is created if it is missing.

    May be repeated: each file is written under another name and then renamed, so that a program
    that runs from there is not disturbed. The executable comes last, and so exists only when
    everything else does.

    Returns:
        The program to execute.

    Raises:
        ConfigError: This is not a tree, or the folder is inside it, or files there are not
            executable.
        OSError: The folder cannot be written.
    """
    source = tree()
    if source is None:
        raise ConfigError(
            "copy-self",
            "",
            f"this mcpbridge needs the interpreter of its image, {sys.executable}, and would not"
            " run elsewhere",
            "run copy-self in the image mcpbridge:tree",
        )
    if folder.resolve().is_relative_to(source):
        raise ConfigError("copy-self", str(folder), "is inside the tree to copy")
    program = folder / _PROGRAM
    with suppress(FileNotFoundError):
        program.unlink()
    for path, folders, files in os.walk(source):
        to = folder / Path(path).relative_to(source)
        to.mkdir(parents=True, exist_ok=True)
        # A link to a folder is copied like one to a file.
        linked = [name for name in folders if Path(path, name).is_symlink()]
        for name in [*files, *linked]:
            if Path(path, name) != source / _PROGRAM:
                _replace(Path(path, name), to / name)
    _replace(source / _PROGRAM, program)
    if not os.access(program, os.X_OK):
        raise ConfigError(
            "copy-self", str(folder), "files there may not be executed", "is it mounted noexec?"
        )
    return program


def _replace(source: Path, to: Path) -> None:
    part = to.with_name(to.name + _SUFFIX)
    with suppress(FileNotFoundError):
        part.unlink()
    # Modes but no times or owners: the user may own nothing.
    shutil.copy(source, part, follow_symlinks=False)
    part.replace(to)
