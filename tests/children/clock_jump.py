"""Runs `python -m MODULE ARGUMENT...` in this process with a wall clock that can be made to jump.

Usage: `clock_jump.py FILE PYTHON -m MODULE ARGUMENT...`. The clock is off by the seconds that FILE
holds, at any moment; monotonic clocks go on as they do. PYTHON is the word that a harness would
have started, and this interpreter.
"""

import runpy
import sys
import time
from pathlib import Path

_, FILE, _, _, module, *arguments = sys.argv
_time, _time_ns = time.time, time.time_ns


def off_s() -> int:
    """By how many seconds the clock is wrong now."""
    return int(Path(FILE).read_text())


if __name__ == "__main__":
    time.time = lambda: _time() + off_s()
    time.time_ns = lambda: _time_ns() + off_s() * 10**9
    sys.argv = [module, *arguments]
    sys.path[0] = ""
    runpy.run_module(module, run_name="__main__", alter_sys=True)
