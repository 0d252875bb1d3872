"""An MCP server that tells what is in its environment, and who it is.

Its one tool, `environ`, answers with the process id and the variables that `names` asks for; `hold`
in its arguments leaves the call open until another one has `release`.
"""

import json
import os
from typing import Any

from _mcp import answer, serve, write  # type: ignore[import-not-found]

TOOL = {"name": "environ", "inputSchema": {"type": "object"}}
HELD: list[Any] = []


def told(request_id: Any, arguments: Any) -> None:
    """The answer of the tool."""
    found = {name: os.environ.get(name) for name in arguments.get("names", ())}
    text = json.dumps({"pid": os.getpid(), **found})
    answer(request_id, {"content": [{"type": "text", "text": text}]})


def call(request_id: Any, params: Any) -> None:
    """The tool."""
    arguments = params.get("arguments", {})
    if arguments.get("hold"):
        HELD.append(request_id)
        return
    if arguments.get("release"):
        while HELD:
            told(HELD.pop(), {})
    told(request_id, arguments)


if __name__ == "__main__":
    write(b"key: %b\n" % os.environ.get("API_KEY", "none").encode(), fd=2)
    write(b"key: %b\n" % os.environ.get("API_KEY", "none").encode())
    serve({"tools/call": call, "tools/list": lambda i, _: answer(i, {"tools": [TOOL]})})
