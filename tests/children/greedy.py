"""An MCP server that helps a client to make its bridge keep as much as possible.

The arguments of the tool `greedy` say what a call does before its answer.

| argument | then |
|---|---|
| `say` | progress is reported first, so that the answer needs an event stream |
| `ask`, `size` | that many questions of this size are asked of the client |
| `flood` | asks without end and reads nothing any more |
| `hold` | no answer comes |
| `answer` | the answer has that many bytes |

`x/update` with `uri`, `times` and `size` announces updates of a resource.
"""

import json
import os
from typing import Any

from _mcp import REVISIONS, answer, say, serve, write  # type: ignore[import-not-found]


def question(number: int, size: int) -> bytes:
    """A line that asks the client for something."""
    schema = {"type": "object", "properties": {}}
    params = {"message": "x" * size, "requestedSchema": schema}
    asked = {"jsonrpc": "2.0", "id": f"q{number}", "method": "elicitation/create", "params": params}
    return json.dumps(asked).encode() + b"\n"


def call(request_id: Any, params: Any) -> None:
    """Do what the arguments say."""
    given = params.get("arguments", {})
    token = params.get("_meta", {}).get("progressToken")
    if given.get("say"):
        say("notifications/progress", {"progressToken": token, "progress": 1})
    for number in range(given.get("ask", 0)):
        write(question(number, given["size"]))
    while given.get("flood"):
        write(b"".join(question(number, 8) for number in range(1000)))
    if not given.get("hold"):
        text = "x" * given.get("answer", 1)
        answer(request_id, {"content": [{"type": "text", "text": text}]})


def introduce(request_id: Any, params: Any) -> None:
    """The answer to `initialize`; its version is the process id."""
    wanted = params.get("protocolVersion")
    result = {
        "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
        "capabilities": {"tools": {}, "resources": {"subscribe": True}},
        "serverInfo": {"name": "greedy", "version": str(os.getpid())},
    }
    answer(request_id, result)


def update(request_id: Any, params: Any) -> None:
    """Announce updates."""
    for _ in range(params["times"]):
        told = {"uri": params["uri"], "title": "x" * params["size"]}
        say("notifications/resources/updated", told)
    answer(request_id, {})


def empty(request_id: Any, params: Any) -> None:
    """Agree."""
    answer(request_id, {})


TOOLS = {"tools": [{"name": "greedy", "inputSchema": {"type": "object"}}]}
METHODS = {
    "initialize": introduce,
    "tools/list": lambda request_id, params: answer(request_id, TOOLS),
    "tools/call": call,
    "resources/subscribe": empty,
    "resources/unsubscribe": empty,
    "x/update": update,
}

if __name__ == "__main__":
    serve(METHODS)
