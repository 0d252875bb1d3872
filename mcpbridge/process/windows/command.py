"""Finds the file that a command names, as a shell would.

Windows itself searches the PATH of mcpbridge in place of the server's, and adds no other ending
than `.exe`: of `npx` it finds nothing, since the file is called `npx.cmd`. Such files are run by
`cmd.exe`, which reads their arguments once more, in another way than all other programs.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcpbridge.errors import CommandNotExecutable

_BATCH = (".bat", ".cmd")
_READ_AGAIN = '&|<>^%"\r\n'
"""What has a meaning to `cmd.exe` in an argument that stands without quotes."""


def check_words(file: str, words: Sequence[str]) -> None:
    """Check that a program receives its arguments as they are.

    Args:
        file: The program's file.
        words: Its arguments.

    Raises:
        CommandNotExecutable: `cmd.exe` would change one of them.
    """
    if not file.lower().endswith(_BATCH):
        return
    for word in words:
        found = next((each for each in word if each in _READ_AGAIN), None)
        if found is not None:
            problem = (
                f"it is a batch file, and cmd.exe would change the argument {word!r}, which has"
                f" {found!r}; start the program that it starts, such as node with a script"
            )
            raise CommandNotExecutable(file, problem)
