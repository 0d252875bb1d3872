"""A server with its own process below it, in its group, that outlives it.

Usage: `group_member.py FILE obeys|ignores`. Writes the other's process id to FILE before it serves;
the other one holds stdout and stderr open and obeys or ignores SIGTERM.
"""

import os
import signal
import sys

from _mcp import serve  # type: ignore[import-not-found]


def main(file: str, manner: str) -> None:
    """Leave a process behind, then serve until stdin ends."""
    # Set before the fork, so that no signal can come before it.
    before = signal.signal(
        signal.SIGTERM, signal.SIG_IGN if manner == "ignores" else signal.SIG_DFL
    )
    other = os.fork()
    if other == 0:
        while True:
            signal.pause()
    signal.signal(signal.SIGTERM, before)
    with open(file, "w") as written:
        written.write(str(other))
    serve({})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
