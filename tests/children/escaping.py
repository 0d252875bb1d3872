"""A server that leaves two processes behind outside of its group, as a daemon is made.

Usage: `escaping.py FOLDER obeys|ignores`. One hangs below the server, in its own session; the
other has lost its parent as well. Their ids are in the file FOLDER/PID-of-the-server before it
serves. They obey or ignore SIGTERM. `x/crash` ends the server by a signal; `x/left` starts
processes that end and that no parent waits for; `x/limits` tells what the server was given.
"""

import os
import resource
import signal
import subprocess
import sys
from typing import Any

from _mcp import answer, serve  # type: ignore[import-not-found]


def stray(told: int, manner: str, orphan: bool) -> None:
    """Become one: in another session, and without a parent if so asked."""
    os.setsid()
    if orphan and os.fork():
        os._exit(0)
    if manner == "ignores":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(told, b"%d\n" % os.getpid())
    os.closerange(0, 100)
    while True:
        signal.pause()


def main(folder: str, manner: str) -> None:
    """Leave them behind, then serve."""
    told, tell = os.pipe()
    for orphan in (False, True):
        if os.fork() == 0:
            stray(tell, manner, orphan)
    with open(told, "rb", buffering=0) as lines:
        pids = b""
        while pids.count(b"\n") < 2:
            pids += lines.read(64)
    with open(os.path.join(folder, f".{os.getpid()}"), "wb") as written:
        written.write(pids)
    os.rename(written.name, os.path.join(folder, str(os.getpid())))
    os.wait()  # The one that stood between us and the orphan.
    serve({"x/crash": crash, "x/left": left, "x/limits": limits})


def crash(_: Any, __: Any) -> None:
    """End as a broken C extension does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def left(request_id: Any, _: Any) -> None:
    """Leave dead orphans to the process that inherits them."""
    subprocess.call(["sh", "-c", "for i in 1 2 3; do (: &); done"])
    answer(request_id, {})


def limits(request_id: Any, _: Any) -> None:
    """Tell what was set for this process and its descendants."""
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    core = resource.getrlimit(resource.RLIMIT_CORE)[0]
    answer(request_id, {"oom_score_adj": score, "core": core})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
