"""An MCP server that grows, hangs or stops reading when it is told to, and records its stdin.

Usage: `failing.py FOLDER [MANNER...]`. Every line it reads is added to `FOLDER/PID` before it is
obeyed. One thread: while it waits it reads nothing. Manner `gated FIFO`: it serves once a process
has opened the fifo for writing.

| method | params | result |
|---|---|---|
| `x/pid` | | `{"pid": N}` |
| `x/wait` | `{"fifo": PATH}` | `{"pid": N}`, once a process has opened the fifo for writing |
| `x/progress` | `{"until": PATH}` | `{"pid": N}`, once the path exists; progress every 20 ms |
| `x/grow` | `{"bytes": N}` | `{}`, and that much more memory is held |
| `x/forget` | | none, ever |
| `x/freeze` | | `{}`, and from then on it does nothing and reads nothing |
| `x/leave` | | none: it ends, and a process that it started keeps its stdout open |
| `logging/setLevel`, `resources/subscribe`, `resources/unsubscribe` | | `{}` |
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from _mcp import answer, introduce, say  # type: ignore[import-not-found]

HELD: list[bytes] = []


def wait_for(fifo: str) -> None:
    """Do nothing until a process opens it for writing."""
    with open(fifo, "rb"):
        pass


def report_until(path: str, token: Any) -> None:
    """Report progress until a path exists."""
    step = 0
    while not os.path.exists(path):
        step += 1
        say("notifications/progress", {"progressToken": token, "progress": step})
        time.sleep(0.02)  # progress in steps; the path ends it, not the time


def serve(request_id: Any, method: str, params: Any) -> None:
    """Do what one request asks for."""
    match method:
        case "initialize":
            introduce(request_id, params)
        case "x/pid":
            answer(request_id, {"pid": os.getpid()})
        case "x/wait":
            wait_for(params["fifo"])
            answer(request_id, {"pid": os.getpid()})
        case "x/progress":
            report_until(params["until"], params["_meta"]["progressToken"])
            answer(request_id, {"pid": os.getpid()})
        case "x/grow":
            HELD.append(b"x" * params["bytes"])
            answer(request_id, {})
        case "x/forget":
            pass
        case "x/freeze":
            answer(request_id, {})
            signal.pause()
        case "x/leave":
            subprocess.Popen(("sleep", "60"), stdin=subprocess.DEVNULL)
            os._exit(5)
        case _:
            answer(request_id, {})


def main() -> None:
    """Serve stdin until its end."""
    folder, *manners = sys.argv[1:]
    with open(os.path.join(folder, str(os.getpid())), "wb", buffering=0) as record:
        if manners:
            wait_for(manners[1])
        for line in sys.stdin.buffer:
            record.write(line)
            message = json.loads(line)
            if "id" in message and "method" in message:
                serve(message["id"], message["method"], message.get("params", {}))


if __name__ == "__main__":
    main()
