"""mcpbridge on an event loop that writes down its long turns.

    python -m benchmarks.turn_meter FILE PYTHON -m mcpbridge WORDS...

runs `mcpbridge WORDS` in this process and writes a line to FILE for each turn of the loop that took
more than a millisecond of its thread's processor time: when it ended (`time.monotonic`), and its
length in seconds. The loop is asyncio's, whose turns can be seen, and not uvloop.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import anyio

_WORTH_TELLING_S = 0.001


def _metered(path: str) -> None:
    kind: Any = asyncio.base_events.BaseEventLoop
    turn = kind._run_once
    told = open(path, "a", buffering=1)  # noqa: SIM115 # open as long as the process

    def run_once(loop: Any) -> None:
        began = time.thread_time()
        turn(loop)
        took = time.thread_time() - began
        if took > _WORTH_TELLING_S:
            told.write(f"{time.monotonic():.6f} {took:.6f}\n")

    kind._run_once = run_once


def _on_asyncio() -> None:
    run = anyio.run

    def plain(function: Any, *words: Any, **options: Any) -> Any:
        return run(function, *words, **{**options, "backend_options": {}})

    setattr(anyio, "run", plain)  # noqa: B010 # the program itself asks for uvloop


if __name__ == "__main__":
    _metered(sys.argv[1])
    _on_asyncio()
    sys.argv[1:] = sys.argv[sys.argv.index("mcpbridge") + 1 :]
    from mcpbridge.cli.main import main

    main()
