"""A server that leaves behind a process which writes to its stderr as long as it lives.

Usage: `chattering.py FOLDER`. `x/leave` forks twice, answers, and ends the server. What is left has
lost its parent, its session and its environment, so that nothing says whose it is; its pid is in
FOLDER/left. `x/echo` answers.
"""

import os
import sys
from typing import Any

from _mcp import answer, serve  # type: ignore[import-not-found]

WRITE = """
import os, signal
try:
    while True:
        os.write(2, b"y\\n" * 32768)
except BrokenPipeError:
    signal.pause()
"""
"""It stays when the other end of the pipe is closed."""


def leave(request_id: Any, _: Any) -> None:
    """Leave it behind, answer, and end."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 2)
            with open(os.path.join(sys.argv[1], "left"), "w") as written:
                written.write(str(os.getpid()))
            os.execve(sys.executable, [sys.executable, "-S", "-c", WRITE], {})
        os._exit(0)
    os.wait()
    while not os.path.exists(os.path.join(sys.argv[1], "left")):
        pass
    answer(request_id, {})
    os._exit(0)


if __name__ == "__main__":
    serve({"x/leave": leave, "x/echo": lambda request_id, params: answer(request_id, params)})
