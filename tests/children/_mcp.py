"""What the programs beside it share: bytes written whole, the handshake, and a loop over stdin.

A program gives `serve` a table of methods; everything else a well-behaved server does is here.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Served = Callable[[Any, Any], None]
"""Does what a request asks for, given its id and its params; answering is its own affair."""

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


def write(raw: bytes, fd: int = 1) -> None:
    """These very bytes, all of them."""
    left = memoryview(raw)
    while left:
        left = left[os.write(fd, left) :]


def say(method: str, params: Any = None) -> None:
    """A notification."""
    message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    write(json.dumps(message).encode() + b"\n")


def answer_line(request_id: Any, result: bytes) -> bytes:
    """The good answer without its line end, the result as it is."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (json.dumps(request_id).encode(), result)


def answer(request_id: Any, result: Any) -> None:
    """The good answer."""
    write(answer_line(request_id, json.dumps(result).encode()) + b"\n")


def introduce(request_id: Any, params: Any) -> None:
    """The answer to `initialize`; its version is the process id, so that children can be told."""
    wanted = params.get("protocolVersion")
    result = {
        "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
        "capabilities": {"tools": {"listChanged": True}, "logging": {}},
        "serverInfo": {"name": "child", "version": str(os.getpid())},
    }
    answer(request_id, result)


def echo(request_id: Any, params: Any) -> None:
    """The params are the result."""
    answer(request_id, params)


def serve(methods: Mapping[str, Served]) -> None:
    """Do what stdin asks for until its end; notifications are read and no more."""
    known = {"initialize": introduce, "x/echo": echo, **methods}
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        method = known.get(message["method"])
        if method is None:
            error = b'{"code":-32601,"message":"unknown method"}'
            request_id = json.dumps(message["id"]).encode()
            write(b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (request_id, error))
        else:
            method(message["id"], message.get("params", {}))
