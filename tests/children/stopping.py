"""Tells on stdout what asks it to end: `x/eof`, then `x/term`; obeys the last of these only.

Usage: `stopping.py eof|term|kill`. At the end of its stdin it writes, before it obeys or not, far
more than a pipe holds: a bridge that does not read on would find it alive each time.
"""

import os
import signal
import sys

from _mcp import say, serve  # type: ignore[import-not-found]


def main(obeys: str) -> None:
    """Serve, then end as late as asked."""

    def terminated(*_: object) -> None:
        say("x/term")
        if obeys == "term":
            os._exit(7)

    signal.signal(signal.SIGTERM, terminated)
    serve({})
    say("x/eof", {"text": "x" * 1_000_000})
    while obeys != "eof":
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
