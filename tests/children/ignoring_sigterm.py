"""A server that nothing but SIGKILL ends, and neither does the process it starts in its group.

Both ignore SIGTERM; the server stays after the end of its stdin. It never answers `x/silent`.
"""

import os
import signal

from _mcp import serve  # type: ignore[import-not-found]


def main() -> None:
    """Start the other one, serve, and stay."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() != 0:
        serve({"x/silent": lambda *_: None})
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
