"""A stdio MCP server to be killed: `python chaos_child.py LEDGER`.

Its one tool answers the text it was given and says in `_meta` which process answered. Before it
answers, it appends the text to the ledger, so that what was executed is known even of a process
that did not live to answer. All calls of one read are answered backwards, so that no order helps
who pairs answers with calls by it. SIGUSR1 closes its stdout; it then reads on without a word.
Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from types import FrameType

READ_BYTES = 1 << 16
WORK_S = 0.05
"""From a call to its answer: whenever a child is killed, it has calls."""


def close_stdout(number: int, frame: FrameType | None) -> None:
    """The handler of SIGUSR1."""
    try:
        os.close(1)
    except OSError:
        return  # a second signal


def answer(message: dict[str, object], done: list[str]) -> str:
    """The reply to one message, empty for a notification; texts executed are added to `done`."""
    if "id" not in message:
        return ""
    result: dict[str, object] = {}
    params = message.get("params")
    if message.get("method") == "initialize" and isinstance(params, dict):
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "chaos-child", "version": "1"},
        }
    elif message.get("method") == "tools/call" and isinstance(params, dict):
        text = params["arguments"]["text"]
        done.append(text)
        result = {"content": [{"type": "text", "text": text}], "_meta": {"pid": os.getpid()}}
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n"


def main() -> None:
    """Serve standard input until it ends."""
    signal.signal(signal.SIGUSR1, close_stdout)
    call_log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    begun = b""
    while piece := os.read(0, READ_BYTES):
        *lines, begun = (begun + piece).split(b"\n")
        done: list[str] = []
        replies = [answer(json.loads(line), done) for line in reversed(lines) if line.strip()]
        if done:
            os.write(call_log, "".join(f"{text}\n" for text in done).encode())
            time.sleep(WORK_S)
        rest = "".join(replies).encode()
        try:
            while rest:
                rest = rest[os.write(1, rest) :]
        except OSError:
            continue  # stdout is closed, or not read: executed and never answered


if __name__ == "__main__":
    main()
