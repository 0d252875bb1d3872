"""`mcpbridge copy-self`: the running program, put where another container finds it.

What can be copied is the tree of `mcpbridge:tree`, which has an interpreter of its own and runs
from wherever it lies. An environment of Python does not: its programs name the interpreter of
their image by its path.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from mcpbridge.errors import ConfigError

_PROGRAM = Path("bin", "mcpbridge")
"""What is executed, below the folder; a link to the program in the tree."""
_SUFFIX = ".part"


def tree() -> Path | None:
    """The folder of the running tree; None when this is an environment of Python."""
    return Path(sys.executable).resolve().parent if getattr(sys, "frozen", False) else None


def copy_self(folder: Path) -> Path:
    """Copy the running tree into a folder, which is made if it is not there.

    May be repeated: each file is written under another name and then takes its place, so that a
    tree that runs from there is not disturbed. What is executed comes last, and so is there only
    when all the rest is.

    Returns:
        The program to execute.

    Raises:
        ConfigError: This is no tree, or the folder lies in it, or files there may not be executed.
        OSError: It cannot be written.
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
        raise ConfigError("copy-self", str(folder), "lies in the tree that is to be copied")
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
    # Modes but no times, no owners: whoever runs this may own nothing.
    shutil.copy(source, part, follow_symlinks=False)
    part.replace(to)
