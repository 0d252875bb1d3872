"""A server that ends, or as good as ends, in the way that the request `x/NAME` names.

Usage: `exiting.py [FILE]`. `x/echo` behaves; `x/pid` tells which process answers. What is left of
it for others to find is written to FILE.
"""

import os
import signal
import sys
from typing import Any

from _mcp import answer, answer_line, serve, write  # type: ignore[import-not-found]


def pid(request_id: Any, _: Any) -> None:
    """Behaves: tells its process id."""
    answer(request_id, os.getpid())


def crash(_: Any, params: Any) -> None:
    """Words on stderr, then the exit code it was given."""
    write(b"first words\nsecret last words\n", fd=2)
    os._exit(params["code"])


def kill(_: Any, params: Any) -> None:
    """Ends by the signal it was given."""
    os.kill(os.getpid(), params["signal"])


def unfinished(request_id: Any, _: Any) -> None:
    """An answer without a line end, then the end."""
    write(answer_line(request_id, b'{"good":true}'))
    os._exit(0)


def mute(_: Any, __: Any) -> None:
    """Closes stdout and lives on until its stdin ends."""
    os.close(1)
    while os.read(0, 65536):
        pass
    os._exit(0)


def shut(request_id: Any, _: Any) -> None:
    """Closes stdin, answers, and lives on until SIGTERM."""
    os.close(0)
    answer(request_id, {"good": True})
    signal.pause()


def deaf(request_id: Any, _: Any) -> None:
    """Answers, then never reads again, until SIGTERM."""
    answer(request_id, {"good": True})
    signal.pause()


def endless(_: Any, __: Any) -> None:
    """One line that never ends."""
    while True:
        write(b"x" * 65536)


def orphan(_: Any, __: Any) -> None:
    """Ends, and leaves a process in its group that holds stdout and ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    left = os.fork()
    if left == 0:
        while True:
            signal.pause()
    with open(sys.argv[1], "w") as file:
        file.write(str(left))
    os._exit(5)


ENDS = (pid, crash, kill, unfinished, mute, shut, deaf, endless, orphan)

if __name__ == "__main__":
    serve({f"x/{end.__name__}": end for end in ENDS})
