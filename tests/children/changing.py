"""An MCP server of which tests change a copy while it is served.

What they change stands in `TOOLS` and `KIND`. Each call says which process it came to.

| tool | answers |
|---|---|
| `wait` | when the fifo that its argument names is opened; other calls do not wait for it |
| `ask` | the same, and then only when its client has said its roots |
| any other | at once |

| kind | is |
|---|---|
| `plain` | its own program that announces changes of its tools |
| `framework` | what a framework makes: a banner, three kinds of lists, and no changes of any |
| `modern` | of 2026-07-28 |
| `unlistening` | the same as a framework makes it: it knows no `subscriptions/listen` |
"""

import json
import os
import sys
import threading
from typing import Any

from _mcp import REVISIONS, answer, say, write  # type: ignore[import-not-found]

TOOLS = ["one"]
KIND = "plain"

ANSWERS = threading.Condition()
ROOTS: list[Any] = []
CAPABILITIES: dict[str, Any] = {
    "plain": {"tools": {"listChanged": True}, "logging": {}},
    "framework": {
        "tools": {"listChanged": False},
        "prompts": {"listChanged": False},
        "resources": {"subscribe": False, "listChanged": False},
    },
    "modern": {"tools": {"listChanged": True}},
    "unlistening": {"tools": {}, "resources": {"subscribe": False, "listChanged": False}},
}
MODERN = {"resultType": "complete"} if KIND in ("modern", "unlistening") else {}
KEY = "io.modelcontextprotocol/"


def call(request_id: Any, params: dict[str, Any]) -> None:
    """Answer a call, in a thread if it may take long."""
    wanted = params.get("arguments", {})
    if params["name"] in ("wait", "ask"):
        with open(wanted["fifo"], "rb"):
            pass
    if params["name"] == "ask":
        write(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}\n')
        with ANSWERS:
            ANSWERS.wait_for(lambda: ROOTS)
    said = {"pid": os.getpid(), "roots": ROOTS}
    text = {"type": "text", "text": json.dumps(said)}
    answer(request_id, {"content": [text], **MODERN})


def obey(request_id: Any, method: str, params: dict[str, Any]) -> None:
    """Do what one request asks for."""
    me = {"name": KIND, "version": str(len(TOOLS))}
    if method == "initialize" and not MODERN:
        wanted = params["protocolVersion"]
        revision = wanted if wanted in REVISIONS else REVISIONS[-1]
        told = {"protocolVersion": revision, "capabilities": CAPABILITIES[KIND], "serverInfo": me}
        answer(request_id, told)
    elif method == "server/discover" and MODERN:
        found = {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES[KIND]}
        stamp = {"ttlMs": 0, "cacheScope": "public", "_meta": {KEY + "serverInfo": me}}
        answer(request_id, {**found, **stamp, **MODERN})
    elif method == "subscriptions/listen" and KIND == "unlistening":
        refusal = {"code": -32601, "message": "Method not found"}
        write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": refusal}).encode() + b"\n")
    elif method == "subscriptions/listen":
        tag = {"_meta": {KEY + "subscriptionId": request_id}}
        granted = {"notifications": params["notifications"], **tag}
        say("notifications/subscriptions/acknowledged", granted)
    elif method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        stamp = {"ttlMs": 0, "cacheScope": "public"} if MODERN else {}
        answer(request_id, {"tools": tools, **stamp, **MODERN})
    elif method == "tools/call":
        threading.Thread(target=call, args=(request_id, params), daemon=True).start()
    else:
        answer(request_id, {})


def main() -> None:
    """Obey until stdin ends."""
    if KIND == "framework":
        sys.stderr.write("a banner\n")
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "method" in message and "id" in message:
            obey(message["id"], message["method"], message.get("params", {}))
        elif "result" in message:
            with ANSWERS:
                ROOTS.append(message["result"])
                ANSWERS.notify_all()


if __name__ == "__main__":
    main()
