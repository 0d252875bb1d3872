"""C programs beside this file, made at run time into a folder of the caller's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILE_WITHIN_S = 60


def compiler() -> str | None:
    """The path of this machine's C compiler, or None; None off Linux, for `load.c` needs epoll."""
    if sys.platform != "linux":
        return None
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compile_c(name: str, folder: Path) -> Path:
    """Compile `name`.c into a folder and return the program's path.

    Raises:
        FileNotFoundError: There is no compiler; ask `compiler` first.
        subprocess.CalledProcessError: It refuses the program; its words are in `stderr`.
    """
    path = compiler()
    if path is None:
        raise FileNotFoundError("no C compiler (cc, gcc, clang) on PATH")
    program = folder / name
    subprocess.run(
        [path, "-O2", "-Wall", "-Wextra", "-o", str(program), str(HERE / f"{name}.c")],
        check=True,
        capture_output=True,
        text=True,
        timeout=COMPILE_WITHIN_S,
    )
    return program


@dataclass(frozen=True, slots=True)
class Programs:
    """What is run beside a server: the load generator, and the stdio server behind it."""

    generator: Path | None
    """The compiled one; None for the one in Python."""
    child: list[str]

    @property
    def mark(self) -> str:
        """Stands in the child's command line and in no other."""
        return self.child[-1]


def prepare(child: str, generator: str, folder: Path) -> Programs:
    """The programs in the languages asked for, `c` or `python`, compiled into a folder.

    Raises:
        FileNotFoundError, subprocess.CalledProcessError: See `compile_c`.
    """
    python = [sys.executable, str(HERE / "echo_child.py")]
    argv = [str(compile_c("echo_child", folder))] if child == "c" else python
    return Programs(compile_c("load", folder) if generator == "c" else None, argv)
