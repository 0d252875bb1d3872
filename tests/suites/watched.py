"""Runs `python -m MODULE ARGUMENT...` in this process and tells what it holds when asked.

    python watched.py PYTHON -m MODULE ARGUMENT...

For each line on standard input, one line of JSON on standard output: the asyncio tasks that are
not done, the threads and the sessions. Tasks of the start are not among them, since the bridge
takes what its start made away from the collector; they would only add the same number each time. It
is asked from its own thread, which leaves the program as it is. PYTHON is the word that a
harness would have started, and this interpreter.
"""

from __future__ import annotations

import asyncio
import gc
import json
import runpy
import sys
import threading
from collections import Counter


def kind(thing: object) -> str:
    """What is counted, by its name; empty for all else."""
    if isinstance(thing, asyncio.Task) and not thing.done():
        return "task"
    # By name: what runs here is not imported here.
    return "session" if type(thing).__name__ == "Session" else ""


def tell() -> None:
    """Answer each line until there are no more."""
    for _ in sys.stdin:
        gc.collect()
        kinds = Counter(map(kind, gc.get_objects()))
        told = {
            "tasks": kinds["task"],
            "threads": threading.active_count(),
            "sessions": kinds["session"],
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _, _, _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    sys.path[0] = ""
    threading.Thread(target=tell, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
