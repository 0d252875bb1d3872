"""The limit on the child's side: calls through a pipe to the stdio server and back, and no HTTP.

Run as a program: CALLS in all, AT_ONCE on their way, BYTES of text each, then the server's command.
It prints its processor time per call, in µs. A line is written by itself, as calls arrive one by
one; what has come back by then is read at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import load

READ_BYTES = 1 << 18


def main(calls: int, at_once: int, size: int, argv: list[str]) -> float:
    """Make the calls; µs of our processor time for each."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    if process.stdin is None or process.stdout is None:
        raise ValueError("the server was started without pipes")
    line = load.call(load.FIRST_ID, size) + b"\n"
    began, sent, answered = time.process_time(), 0, 0
    while answered < calls:
        while sent < calls and sent - answered < at_once:
            process.stdin.write(line)
            sent += 1
        answered += process.stdout.read(READ_BYTES).count(b"\n")
    used = time.process_time() - began
    process.stdin.close()
    process.wait()
    process.stdout.close()
    return used * 1_000_000 / calls


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
