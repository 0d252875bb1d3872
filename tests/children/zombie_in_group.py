"""A server whose process group cannot be emptied: a zombie stays in it that no parent waits for.

Usage: `zombie_in_group.py`. It starts a process in its own group, and that one a second, which
goes back to the server's group. Killing the server's group kills the second; its parent never asks.
Serves once both are in place; the parent is left to the process that runs this.
"""

import os
import signal

from _mcp import serve  # type: ignore[import-not-found]


def main() -> None:
    """Put the family in place, then serve."""
    ours, (told, tell) = os.getpgrp(), os.pipe()
    if os.fork() == 0:
        os.setpgid(0, 0)
        for fd in (0, 1, 2):
            os.close(fd)
        if os.fork() == 0:
            os.setpgid(0, ours)
            os.write(tell, b".")
        while True:
            signal.pause()
    os.read(told, 1)
    serve({})


if __name__ == "__main__":
    main()
