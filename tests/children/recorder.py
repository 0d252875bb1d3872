"""An MCP server that records its stdin byte for byte and does what each request tells it to.

Usage: `recorder.py FOLDER [--gate FIFO]`. Every line it reads is added to `FOLDER/PID` before it is
obeyed, so that after an answer the record holds all that came before. With a gate it serves only
once a process has opened the fifo for writing. One thread and no clocks: a call that is held is
answered when another one releases it.

| method | params | result |
|---|---|---|
| `x/echo` | anything | the params, byte for byte |
| `x/pid` | | `{"pid": N}` |
| `x/big` | `{"bytes": N}` | a text of that length |
| `x/hold` | `{"name": S, "progress": N, "bytes": N}` | `{"held": S}` with that many x after it, \
once released; progress comes at once |
| `x/release` | `{"name": S}` | how many calls were answered by it |
| `x/say` | `{"lines": [S, ...]}` | `{}`, after these very lines on stdout |
| `x/exit` | `{"code": N}` | none |

A client named `refused` gets an error for its `initialize`, one named `vanish` the end of the
process.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
PARAMS = b'"params":'


def write(line: bytes) -> None:
    """One line on stdout, whole."""
    line += b"\n"
    while line:
        line = line[os.write(1, line) :]


def send(message: dict[str, Any]) -> None:
    """A message."""
    write(json.dumps({"jsonrpc": "2.0", **message}).encode())


def answer(request_id: Any, result: bytes) -> None:
    """The good answer, with the result as it is."""
    write(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (json.dumps(request_id).encode(), result))


class Recorder:
    """What has been held so far."""

    def __init__(self) -> None:
        self._held: list[tuple[str, Any, int]] = []
        self._quick: dict[str, Callable[[dict[str, Any]], bytes]] = {
            "tools/list": lambda params: b'{"tools":[]}',
            "ping": lambda params: b"{}",
            "x/pid": lambda params: b'{"pid":%d}' % os.getpid(),
            "x/big": lambda params: b'{"text":"%b"}' % (b"x" * params["bytes"]),
            "x/release": lambda params: b'{"released":%d}' % self._release(params["name"]),
            "x/say": self._say,
            "x/exit": lambda params: sys.exit(params["code"]),
        }

    def obey(self, line: bytes) -> None:
        """Do what one line asks for; notifications are recorded and no more."""
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            return
        request_id, method, params = message["id"], message["method"], message.get("params", {})
        if method == "initialize":
            self._initialize(request_id, params)
        elif method == "x/hold":
            self._hold(request_id, params)
        elif method == "x/echo":
            answer(request_id, line[line.index(PARAMS) + len(PARAMS) : -1])
        elif method in self._quick:
            answer(request_id, self._quick[method](params))
        else:
            error = {"code": -32601, "message": f"unknown method {method}"}
            send({"id": request_id, "error": error})

    def _initialize(self, request_id: Any, params: dict[str, Any]) -> None:
        wanted, name = params.get("protocolVersion"), params.get("clientInfo", {}).get("name")
        if name == "refused":
            error = {"code": -32001, "message": "not you", "data": {"name": name}}
            send({"id": request_id, "error": error})
            return
        if name == "vanish":
            sys.exit(3)
        result = {
            "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "recorder", "version": str(os.getpid())},
        }
        answer(request_id, json.dumps(result).encode())

    def _hold(self, request_id: Any, params: dict[str, Any]) -> None:
        token = params.get("_meta", {}).get("progressToken")
        for step in range(params.get("progress", 0)):
            report = {"progressToken": token, "progress": step}
            send({"method": "notifications/progress", "params": report})
        self._held.append((params["name"], request_id, params.get("bytes", 0)))

    def _say(self, params: dict[str, Any]) -> bytes:
        for text in params["lines"]:
            write(text.encode())
        return b"{}"

    def _release(self, name: str) -> int:
        free = [each for each in self._held if each[0] == name]
        self._held = [each for each in self._held if each[0] != name]
        for _, request_id, size in free:
            answer(request_id, json.dumps({"held": name + "x" * size}).encode())
        return len(free)


def main() -> None:
    """Serve stdin until its end."""
    sys.set_int_max_str_digits(0)
    folder, *gate = sys.argv[1:]
    if gate:
        with open(gate[1], "rb"):
            pass
    recorder = Recorder()
    with open(os.path.join(folder, str(os.getpid())), "wb", buffering=0) as record:
        for line in sys.stdin.buffer:
            record.write(line)
            recorder.obey(line.rstrip(b"\n"))


if __name__ == "__main__":
    main()
