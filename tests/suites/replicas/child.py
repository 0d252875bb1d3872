"""A stdio MCP server that names what it did: `python child.py LEDGER`.

Each call carries a text that no other call has. `echo` answers it, `steps` says it in three
progress notifications first, `ask` puts it to the client as a question and answers what the client
said, `who` answers it with the id of this process, and `announce` says that the list of tools has
changed. `wait_s` among the arguments is the time that the work takes. The text goes into the ledger
before the work begins, so that what was executed is known even of a process that did not live to
answer; behind it stand the address of the replica and the seconds of the clock that all processes
share. A cancelled call is not answered.
Standard library only.
"""

import heapq
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Fields = dict[str, Any]
READ_BYTES = 1 << 16
STEPS = 3
REPLICA = os.environ.get("POD_IP", "-")
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
ARGUMENTS = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "wait_s": {"type": "number"}},
    "required": ["text"],
}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}


def say(message: Fields) -> None:
    """Write one message."""
    left = (json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode()
    while left:
        left = left[os.write(1, left) :]


def content(text: str) -> Fields:
    """Return a tool result of one text."""
    return {"content": [{"type": "text", "text": text}]}


class Server:
    """The one conversation."""

    def __init__(self, ledger: int) -> None:
        self._ledger = ledger
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(1 << 62))
        self._running: set[object] = set()
        """The ids of calls that are neither answered nor cancelled."""
        self._asked: dict[object, tuple[object, str]] = {}
        """By the id of a question: the call's id and its text."""

    def serve(self) -> None:
        """Obey standard input until it ends."""
        begun = b""
        while True:
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            readable, _, _ = select.select([0], [], [], wait_s)
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            if readable:
                piece = os.read(0, READ_BYTES)
                if not piece:
                    return
                *lines, begun = (begun + piece).split(b"\n")
                for line in lines:
                    self._receive(json.loads(line))

    def _receive(self, message: Fields) -> None:
        method, request_id = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if method == "tools/call":
            self._call(request_id, params)
        elif method == "notifications/cancelled":
            self._running.discard(params.get("requestId"))
        elif method is None and request_id in self._asked:
            call_id, text = self._asked.pop(request_id)
            said = message.get("result", {}).get("content", {}).get("answer", "nothing")
            self._answer(call_id, f"{text} {said}")
        elif method is not None and request_id is not None:
            say({"id": request_id, "result": self._result(method, params)})

    def _result(self, method: str, params: Fields) -> Fields:
        if method == "initialize":
            wanted = params.get("protocolVersion")
            return {
                "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
                "capabilities": {"tools": {"listChanged": True}, "logging": {}},
                "serverInfo": {"name": "replicas", "version": str(os.getpid())},
            }
        if method == "tools/list":
            names = ("echo", "steps", "ask", "announce", "who")
            return {"tools": [{"name": name, "inputSchema": ARGUMENTS} for name in names]}
        return {}

    def _call(self, call_id: object, params: Fields) -> None:
        arguments = params["arguments"]
        text, wait_s = arguments["text"], arguments.get("wait_s", 0)
        os.write(self._ledger, f"{text} {REPLICA} {time.monotonic()}\n".encode())
        self._running.add(call_id)
        token = (params.get("_meta") or {}).get("progressToken")
        step = self._work(params["name"], call_id, text, token)

        def go_on() -> None:
            if call_id in self._running and next(step, None) is not None:
                at = time.monotonic() + wait_s / STEPS
                heapq.heappush(self._due, (at, next(self._numbers), go_on))

        go_on()

    def _work(self, name: str, call_id: object, text: str, token: object) -> Iterator[int]:
        """Do a call in steps; the caller waits after each number."""
        for number in range(1, STEPS + 1):
            if name == "steps" and token is not None:
                told = {"progressToken": token, "progress": number, "message": text}
                say({"method": "notifications/progress", "params": told})
            yield number
        if name == "announce":
            say({"method": "notifications/tools/list_changed"})
        if name == "ask":
            question_id = f"q{next(self._numbers)}"
            self._asked[question_id] = call_id, text
            asked = {"message": text, "requestedSchema": ANSWER}
            say({"id": question_id, "method": "elicitation/create", "params": asked})
        elif name == "who":
            self._answer(call_id, f"{text} {os.getpid()}")
        else:
            self._answer(call_id, text)

    def _answer(self, call_id: object, text: str) -> None:
        if call_id in self._running:
            self._running.discard(call_id)
            say({"id": call_id, "result": content(text)})


if __name__ == "__main__":
    Server(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)).serve()
