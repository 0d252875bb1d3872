"""A server with one of the everyday troubles, or in good health, by its first argument.

| argument | what it is |
|---|---|
| `well` | nothing is wrong with it |
| `noisy` | prints for people on stdout, before and between its messages |
| `missing` | imports what is not installed |
| `usage` | prints how to use it |
| `http` | says that it listens on a port, and reads nothing |
| `tty` | wants a terminal |
| `keyless` | wants a variable |
| `done` | ends at once, with 0 and without a word |
| `hoarding` | keeps its answers in a buffer until its input ends |
| `behind` | answers each message only when the next one comes |
| `slow SECONDS` | takes that long to start |
| `deaf` | ignores the end of its input |
| `late` | takes 3 s to end after its input |
| `stalled` | answers `initialize`, and never `tools/list` |
| `misnumbered` | answers under the id 99, whatever it is asked |
| `devtools` | has the tools of Chrome DevTools, that of a window behind twenty others |
| `rooted` | asks its client for its roots, as soon as it may |
| `framed` | writes its messages as language servers do |
| `wide` | has one tool whose description takes 100 KB |
| `many` | has 100 tools |
| `logging` | logs before each answer |
| `browser` | has tools that work on a window |
| `big` | answers `tools/list` with 3 MB |
| `paged` | gives its tools one a page |
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from _mcp import REVISIONS, say, write  # type: ignore[import-not-found]


def tool(name: str, description: str = "Does nothing.") -> dict[str, Any]:
    """A tool without arguments."""
    return {"name": name, "description": description, "inputSchema": {"type": "object"}}


TOOLS = {
    "wide": [tool("wide", "x" * 100_000)],
    "many": [tool(f"tool_{number}") for number in range(100)],
    "browser": [tool("browser_click"), tool("browser_navigate")],
    "big": [tool("big", "x" * 3_000_000)],
    "paged": [tool(f"page_{number}") for number in range(3)],
    "devtools": [*(tool(f"inspect_{number}") for number in range(25)), tool("take_screenshot")],
}


def answer_to(kind: str, message: Any) -> bytes:
    """The line that answers a request."""
    result: Any = {}
    params = message.get("params") or {}
    if message["method"] == "initialize":
        wanted = params["protocolVersion"]
        result = {
            "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
            "capabilities": {"tools": {}, **({"logging": {}} if kind == "logging" else {})},
            "serverInfo": {"name": kind, "version": "1"},
        }
    elif message["method"] == "tools/list":
        tools = TOOLS.get(kind, [tool("only")])
        if kind == "paged":
            page = int(params.get("cursor", "0"))
            more = {"nextCursor": str(page + 1)} if page + 1 < len(tools) else {}
            result = {"tools": [tools[page]], **more}
        else:
            result = {"tools": tools}
    elif message["method"] not in ("ping", "logging/setLevel"):
        error = {"code": -32601, "message": "unknown method"}
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode() + b"\n"
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\n"


def requests() -> Iterator[Any]:
    """What stdin asks for."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message and "method" in message:
            yield message


def serve(kind: str) -> None:
    """Answer at once, with what its kind puts around it."""
    for message in requests():
        if kind == "noisy":
            write(b"handling " + message["method"].encode() + b"\n")
        elif kind == "logging" and message["method"] != "initialize":
            say("notifications/message", {"level": "info", "data": "about to answer"})
        if kind == "stalled" and message["method"] == "tools/list":
            continue
        if kind == "misnumbered":
            message["id"] = 99
        line = answer_to(kind, message)
        if kind == "framed":
            line = b"Content-Length: %d\r\n\r\n%b" % (len(line), line)
        write(line)


def hoarding() -> None:
    """Answer when the input has ended."""
    write(b"".join([answer_to("hoarding", message) for message in requests()]))


def behind() -> None:
    """Answer each message when the next one has come."""
    held = b""
    for message in requests():
        write(held)
        held = answer_to("behind", message)
    write(held)


def rooted() -> None:
    """Ask for roots once the client has said that it is there and that it has some."""
    has_roots = False
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "method" in message and "id" in message:
            if message["method"] == "initialize":
                has_roots = "roots" in message["params"]["capabilities"]
            write(answer_to("rooted", message))
        elif message.get("method") == "notifications/initialized" and has_roots:
            write(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}\n')


def ends(words: str, code: int) -> Callable[[], None]:
    """Say something on stderr and end."""

    def end() -> None:
        write(words.encode(), fd=2)
        sys.exit(code)

    return end


def missing() -> None:
    """Import what is not there."""
    __import__("a_module_that_is_not_installed")


def http() -> None:
    """Serve another client without end."""
    write(b"INFO:     Uvicorn running on http://127.0.0.1:9999 (Press CTRL+C to quit)\n", fd=2)
    while os.read(0, 65536):
        pass


def tty() -> None:
    """Ask for the size of a terminal."""
    os.get_terminal_size(0)


def deaf() -> None:
    """Serve, and stay."""
    serve("deaf")
    while True:
        time.sleep(60)  # until a signal ends it


def late() -> None:
    """Serve, and be slow to end."""
    serve("late")
    time.sleep(3)  # what a busy machine makes of a quick end


SPECIAL: dict[str, Callable[[], None]] = {
    "missing": missing,
    "usage": ends("usage: server [-h] {stdio,http}\nserver: error: arguments required\n", 2),
    "http": http,
    "tty": tty,
    "keyless": ends("Error: ACME_API_KEY environment variable is required\n", 1),
    "done": ends("", 0),
    "hoarding": hoarding,
    "behind": behind,
    "rooted": rooted,
    "deaf": deaf,
    "late": late,
}


def main(kind: str, *words: str) -> None:
    """Be of that kind."""
    if kind == "noisy":
        write(b"Server ready!\n")
    elif kind == "slow":
        time.sleep(float(words[0]))  # a start that takes its time is what this kind is for
    special = SPECIAL.get(kind)
    if special is not None:
        special()
    else:
        serve(kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
