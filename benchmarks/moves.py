"""How far a reader has to walk: Python calls, modules and moves between modules for one event.

`python -m benchmarks.moves` runs the bridge over the bundled demo, with a profile function that
counts calls of the package's own functions, and prints a table. A move is a call into another
module of the package than its nearest caller in the package. Counts repeat, unlike times; each is
the median of several tries.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

TRIES = 5
WITHIN_S = 30.0
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "moves", "version": "1"},
}
_COUNTED = "mcpbridge."
_NOT_COUNTED = ("mcpbridge.demo", "mcpbridge.config.", "mcpbridge.cli.")


class Walk(NamedTuple):
    """What one event takes."""

    calls: int
    modules: int
    moves: int


class Counter:
    """Counts in the thread that installs it; read from another."""

    def __init__(self) -> None:
        self._calls: list[str] = []
        self._moves = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Count one call: see `sys.setprofile`."""
        if event != "call":
            return
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_COUNTED) or module.startswith(_NOT_COUNTED):
            return
        caller = frame.f_back
        while caller is not None:
            name = caller.f_globals.get("__name__", "")
            if name.startswith(_COUNTED):
                self._moves += name != module
                break
            caller = caller.f_back
        else:
            self._moves += 1
        self._calls.append(module)

    def take(self) -> bytes:
        """The counts since the last time, as a line of JSON."""
        calls, moves = self._calls, self._moves
        self._calls, self._moves = [], 0
        return json.dumps((len(calls), len(set(calls)), moves)).encode() + b"\n"


def count(fd: int, argv: list[str]) -> None:
    """Run the bridge in this process; a byte on the descriptor asks for the counts."""
    control, counter = socket.socket(fileno=fd), Counter()

    def answer() -> None:
        while control.recv(1):
            control.sendall(counter.take())

    threading.Thread(target=answer, daemon=True).start()
    atexit.register(lambda: control.sendall(counter.take()))
    sys.argv = ["mcpbridge", *argv]
    from mcpbridge.cli.main import main

    sys.setprofile(counter)
    main()


class Traced:
    """A running bridge whose calls are counted."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, port: int) -> None:
        self.process = process
        self.port = port
        self._control = control
        self._lines = control.makefile("rb")

    def take(self) -> Walk:
        """The counts since the last time."""
        self._control.sendall(b"?")
        return self.last()

    def last(self) -> Walk:
        """The next counts that come without being asked for: those at the end."""
        return Walk(*json.loads(self._lines.readline()))

    def rest(self, quiet_s: float = 0.05) -> Walk:
        """The counts since the last time, as soon as nothing more comes for that long."""
        found, deadline = self.take(), time.monotonic() + WITHIN_S
        calls, modules, moves = found
        while time.monotonic() < deadline:
            time.sleep(quiet_s)
            more = self.take()
            if not more.calls:
                break
            calls, modules, moves = (
                calls + more.calls,
                max(modules, more.modules),
                moves + more.moves,
            )
        return Walk(calls, modules, moves)

    def child(self) -> int:
        """The pid of the newest server process."""
        pids = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes()
                status = entry.with_name("status").read_text()
            except OSError:
                continue
            if b"mcpbridge.demo" in words and f"PPid:\t{self.process.pid}\n" in status:
                pids.append(int(entry.parent.name))
        return max(pids)


@contextmanager
def bridge(*flags: str) -> Iterator[Traced]:
    """Run a bridge over the demo."""
    ours, theirs = socket.socketpair()
    fd = str(theirs.fileno())
    demo = ["--", sys.executable, "-m", "mcpbridge.demo"]
    argv = [sys.executable, "-m", "benchmarks.moves", "--count", fd, "--port", "0", *flags, *demo]
    process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    try:
        assert process.stderr is not None
        port = 0
        for line in process.stderr:
            if found := re.search(rb'"url": "http://127.0.0.1:(\d+)/', line):
                port = int(found[1])
            if b'"child.ready"' in line:
                break
        drained = threading.Thread(target=process.stderr.read, daemon=True)
        drained.start()
        yield Traced(process, ours, port)
    finally:
        process.kill()
        process.wait()
        ours.close()


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
        self._file = self._socket.makefile("rb")
        self.headers: dict[str, str] = {}

    def post(self, message: object, *, split: str = "") -> None:
        """Send a message in one segment, or in two that part in its `head` or before its `body`.

        A head that comes in pieces takes the ordinary path.
        """
        body = json.dumps(message).encode()
        headers = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Content-Length": str(len(body)),
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = {"head": len(head) // 2, "body": len(head)}.get(split, 0)
        whole = head + body
        if at:
            self._socket.sendall(whole[:at])
            time.sleep(0.05)
        self._socket.sendall(whole[at:])

    def head(self) -> dict[str, str]:
        """Read the head of a response; raises ValueError if it is not a success."""
        status = self._file.readline()
        headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if not status.startswith(b"HTTP/1.1 2"):
            raise ValueError(status.decode())
        return headers

    def body(self, headers: dict[str, str]) -> Any:
        """Read a JSON body of known length; None if it is empty."""
        content = self._file.read(int(headers.get("content-length", "0")))
        return json.loads(content) if content else None

    def event(self) -> Any:
        """Read the next message of an event stream."""
        while line := self._file.readline():
            if line.startswith(b"data: {"):
                return json.loads(line.removeprefix(b"data: "))
        raise ValueError("the stream ended")

    def ask(self, message: object, *, split: str = "") -> Any:
        """Send a message and read the answer."""
        self.post(message, split=split)
        return self.body(self.head())

    def initialize(self, capabilities: dict[str, object]) -> None:
        """Open a session."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "clientInfo": {"name": "moves", "version": "1"},
        }
        self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        headers = self.head()
        if "content-length" in headers:
            self.body(headers)
        self.headers["Mcp-Session-Id"] = headers["mcp-session-id"]
        self.ask({"jsonrpc": "2.0", "method": "notifications/initialized"})


def call(number: int, name: str = "echo", **more: object) -> dict[str, object]:
    """A call of a tool of the demo."""
    arguments = {"text": "hello", "question": "well?"}
    params = {"name": name, "arguments": arguments, **more}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def walks(traced: Traced, event: Callable[[int], object]) -> Walk:
    """What one event takes, the median of several."""
    found = []
    for number in range(TRIES):
        traced.rest()
        event(number + 1)
        found.append(traced.rest())
    return Walk(*(int(statistics.median(column)) for column in zip(*found, strict=True)))


def measured() -> Iterator[tuple[str, Walk]]:
    """Every row of the table."""
    with bridge() as traced:
        client = Client(traced.port)
        client.initialize({})
        yield "legacy tools/call", walks(traced, lambda n: client.ask(call(n), split="head"))
        client.ask(call(100))
        client.ask(call(101))
        yield "legacy tools/call, fast path", walks(traced, lambda n: client.ask(call(n)))
        yield (
            "the same, its body in a second segment",
            walks(traced, lambda n: client.ask(call(n), split="body")),
        )

        modern = Client(traced.port)
        modern.headers = {
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "echo",
        }
        traced.rest()
        modern.ask(call(1, _meta=META), split="head")
        yield "modern tools/call, the first", traced.rest()
        yield (
            "modern tools/call",
            walks(traced, lambda n: modern.ask(call(n, _meta=META), split="head")),
        )
        yield (
            "modern tools/call, fast path",
            walks(traced, lambda n: modern.ask(call(n, _meta=META))),
        )
        traced.rest()
        os.kill(traced.child(), signal.SIGKILL)
        yield "child death", traced.rest(quiet_s=1.0)
        traced.rest()
        traced.process.send_signal(signal.SIGTERM)
        yield "SIGTERM", traced.last()
    with bridge() as traced:
        yield "server request", _server_request(traced)


def _server_request(traced: Traced) -> Walk:
    asked, answering = Client(traced.port), Client(traced.port)
    asked.initialize({"elicitation": {}})
    answering.headers = asked.headers
    traced.rest()
    asked.post(call(1, "ask"))
    asked.head()
    question = asked.event()
    result = {"action": "accept", "content": {"name": "Ada", "answer": "yes", "value": "yes"}}
    answering.ask({"jsonrpc": "2.0", "id": question["id"], "result": result})
    asked.event()
    return traced.rest()


def main() -> None:
    """Print the table, or be the bridge that is counted."""
    if sys.argv[1:2] == ["--count"]:
        count(int(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.parse_args()
    print("| event | calls | modules | moves |\n|---|---|---|---|")
    for name, walk in measured():
        print(f"| {name} | {walk.calls} | {walk.modules} | {walk.moves} |", flush=True)


if __name__ == "__main__":
    main()
