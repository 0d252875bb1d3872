"""An MCP server of 2026-07-28 that knows no handshake, and records its stdin byte for byte.

Usage: `modern.py FOLDER [--no-lists] [--nameless]`. Every line it reads is added to `FOLDER/PID`
before it is obeyed. What comes in without an envelope, or belongs to the handshake, is refused.
One thread and no clocks: it remembers nothing of a call but what it writes into `requestState`.

| tool | does |
|---|---|
| `echo` | says its arguments |
| `progress` | reports `steps` times, then ends |
| `log` | logs at each of the `levels`, then ends |
| `ask` | asks `questions` (key to request); answers with the responses and the state it got |
| `rounds` | asks one question a round, `count` rounds long |
| `again` | wants to be called again `count` times, and asks nothing |
| `list` | returns an array, as its output schema says |
| `record` | returns an object, as its output schema says |
| `big` | a text of that many `bytes` |
| `hold` | ends once a `release` comes, or never |
| `release` | ends every `hold` |
| `change` | tells the listens of `lists` and `uris` that changed |
| `end` | ends all listens: `by` a result, or a cancellation |
| `fail` | fails with the `error` |
| `odd` | ends with a result of another `kind` |
| `die` | ends the process |

Without tools: `prompts/get` asks one question, `x/asks` does so where it may not.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from _mcp import answer, write  # type: ignore[import-not-found]

Params = dict[str, Any]
KEY = "io.modelcontextprotocol/"
REVISION = "2026-07-28"
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
FLAGS = {"tools": "toolsListChanged", "prompts": "promptsListChanged"}
ARRAY = {"type": "array", "items": {"type": "integer"}}
RECORD = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
QUESTION = {
    "method": "elicitation/create",
    "params": {
        "message": "who?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
SCHEMAS: Params = {"list": ARRAY, "record": RECORD}
TOOLS = (
    "echo",
    "progress",
    "log",
    "ask",
    "rounds",
    "again",
    "list",
    "record",
    "big",
    "hold",
    "release",
    "change",
    "end",
    "fail",
    "odd",
    "die",
)


def refuse(request_id: Any, code: int, message: str, data: Any = None) -> None:
    """The bad answer."""
    error = {"code": code, "message": message, **({} if data is None else {"data": data})}
    write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n")


def tell(method: str, params: Params) -> None:
    """A notification."""
    message = {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params}
    write(json.dumps(message).encode() + b"\n")


def done(request_id: Any, **members: Any) -> None:
    """A whole result, stamped as the revision wants it."""
    meta = {KEY + "serverInfo": {"name": "modern", "version": str(os.getpid())}, "own": 1}
    answer(request_id, {"resultType": "complete", "_meta": meta, **members})


def said(request_id: Any, value: Any) -> None:
    """The good end of a tool: JSON as text."""
    done(request_id, content=[{"type": "text", "text": json.dumps(value)}])


class Modern:
    """What is open at the moment: calls that are held, and listens."""

    def __init__(self, *, lists: bool, named: bool) -> None:
        self._lists = lists
        self._named = named
        self._held: list[Any] = []
        self._listens: dict[Any, Params] = {}
        self._tools: dict[str, Callable[[Any, Params, Params], None]] = {
            name: getattr(self, f"_{name}") for name in TOOLS
        }

    def obey(self, message: Params) -> None:
        """Do what one message asks for."""
        method, params = message.get("method"), message.get("params") or {}
        if method == "notifications/cancelled":
            gone = params["requestId"]
            self._listens.pop(gone, None)
            self._held = [held for held in self._held if held != gone]
        elif method is not None and "id" in message:
            self._serve(message["id"], method, params)

    def _serve(self, request_id: Any, method: str, params: Params) -> None:
        meta = params.get("_meta") or {}
        if meta.get(KEY + "protocolVersion") != REVISION or KEY + "clientCapabilities" not in meta:
            refuse(request_id, -32602, "the envelope is missing")
        elif method == "tools/call":
            tool = self._tools.get(params["name"])
            if tool is None:
                refuse(request_id, -32602, "no such tool")
            else:
                tool(request_id, params, params.get("arguments") or {})
        else:
            self._serve_other(request_id, method, params)

    def _serve_other(self, request_id: Any, method: str, params: Params) -> None:
        match method:
            case "server/discover":
                self._discover(request_id)
            case "tools/list":
                tools = [
                    {
                        "name": name,
                        "inputSchema": {"type": "object"},
                        **({"outputSchema": SCHEMAS[name]} if name in SCHEMAS else {}),
                    }
                    for name in TOOLS
                ]
                done(request_id, tools=tools, ttlMs=5000, cacheScope="public")
            case "subscriptions/listen":
                self._listen(request_id, params["notifications"])
            case "prompts/get" | "x/asks":
                if params.get("inputResponses"):
                    text = json.dumps(params["inputResponses"])
                    message = {"role": "user", "content": {"type": "text", "text": text}}
                    done(request_id, messages=[message])
                else:
                    wanted = {"who": QUESTION}
                    answer(request_id, {"resultType": "input_required", "inputRequests": wanted})
            case "x/echo":
                done(request_id, echo=params)
            case _:
                refuse(request_id, -32601, f"unknown method {method}")

    def _discover(self, request_id: Any) -> None:
        changes = {"listChanged": True} if self._lists else {}
        result = {
            "resultType": "complete",
            "supportedVersions": [REVISION],
            "capabilities": {
                "tools": changes,
                "prompts": changes,
                "resources": {"subscribe": True},
                "logging": {},
                "extensions": {"io.modelcontextprotocol/tasks": {}, "example/other": {}},
            },
            "instructions": "ask me",
            "ttlMs": 0,
            "cacheScope": "public",
        }
        if self._named:
            info = {"name": "modern", "version": str(os.getpid())}
            result["_meta"] = {KEY + "serverInfo": info}
        answer(request_id, result)

    def _listen(self, request_id: Any, wanted: Params) -> None:
        uris = [uri for uri in wanted.get("resourceSubscriptions", []) if "bad" not in uri]
        granted = {**wanted, **({"resourceSubscriptions": uris} if uris else {})}
        if not uris:
            granted.pop("resourceSubscriptions", None)
        self._listens[request_id] = granted
        tag = {KEY + "subscriptionId": request_id}
        tell("subscriptions/acknowledged", {"notifications": granted, "_meta": tag})

    def _echo(self, request_id: Any, params: Params, arguments: Params) -> None:
        said(request_id, arguments)

    def _progress(self, request_id: Any, params: Params, arguments: Params) -> None:
        token = params["_meta"].get("progressToken")
        for step in range(arguments["steps"]):
            if token is not None:
                tell("progress", {"progressToken": token, "progress": step})
        said(request_id, token is not None)

    def _log(self, request_id: Any, params: Params, arguments: Params) -> None:
        least = params["_meta"].get(KEY + "logLevel")
        for level in arguments["levels"]:
            if least is not None and LEVELS.index(level) >= LEVELS.index(least):
                tell("message", {"level": level, "data": level})
        said(request_id, least)

    def _ask(self, request_id: Any, params: Params, arguments: Params) -> None:
        if "inputResponses" in params:
            state = params.get("requestState")
            said(request_id, {"responses": params["inputResponses"], "state": state})
            return
        wanted = {"resultType": "input_required", "inputRequests": arguments["questions"]}
        if "state" in arguments:
            wanted["requestState"] = arguments["state"]
        answer(request_id, wanted)

    def _rounds(self, request_id: Any, params: Params, arguments: Params) -> None:
        passed = int(params.get("requestState", "0"))
        if passed == arguments["count"]:
            said(request_id, passed)
            return
        wanted = {f"q{passed}": QUESTION}
        state = str(passed + 1)
        answer(
            request_id,
            {"resultType": "input_required", "inputRequests": wanted, "requestState": state},
        )

    def _again(self, request_id: Any, params: Params, arguments: Params) -> None:
        passed = int(params.get("requestState", "0"))
        if passed == arguments["count"]:
            said(request_id, {"passed": passed, "responses": params.get("inputResponses")})
        else:
            state = str(passed + 1)
            answer(request_id, {"resultType": "input_required", "requestState": state})

    def _list(self, request_id: Any, params: Params, arguments: Params) -> None:
        done(request_id, content=[], structuredContent=[1, 2])

    def _record(self, request_id: Any, params: Params, arguments: Params) -> None:
        content = [{"type": "text", "text": '{"n":1}'}]
        done(request_id, content=content, structuredContent={"n": 1})

    def _big(self, request_id: Any, params: Params, arguments: Params) -> None:
        done(request_id, content=[{"type": "text", "text": "x" * arguments["bytes"]}])

    def _hold(self, request_id: Any, params: Params, arguments: Params) -> None:
        self._held.append(request_id)

    def _release(self, request_id: Any, params: Params, arguments: Params) -> None:
        held, self._held = self._held, []
        for each in held:
            said(each, "released")
        said(request_id, len(held))

    def _change(self, request_id: Any, params: Params, arguments: Params) -> None:
        for listen, granted in self._listens.items():
            tag = {"_meta": {KEY + "subscriptionId": listen}}
            for name in arguments.get("lists", []):
                if granted.get(FLAGS[name]):
                    tell(f"{name}/list_changed", tag)
            for uri in arguments.get("uris", []):
                if uri in granted.get("resourceSubscriptions", []):
                    tell("resources/updated", {"uri": uri, **tag})
        said(request_id, len(self._listens))

    def _end(self, request_id: Any, params: Params, arguments: Params) -> None:
        ended, self._listens = self._listens, {}
        for listen in ended:
            if arguments["by"] == "result":
                done(listen)
            else:
                tell("cancelled", {"requestId": listen})
        said(request_id, len(ended))

    def _fail(self, request_id: Any, params: Params, arguments: Params) -> None:
        error = arguments["error"]
        refuse(request_id, error["code"], error["message"], error.get("data"))

    def _odd(self, request_id: Any, params: Params, arguments: Params) -> None:
        answer(request_id, {"resultType": arguments["kind"], "taskId": "1"})

    def _die(self, request_id: Any, params: Params, arguments: Params) -> None:
        sys.exit(1)


def main() -> None:
    """Serve stdin until its end."""
    folder, *words = sys.argv[1:]
    modern = Modern(lists="--no-lists" not in words, named="--nameless" not in words)
    with open(os.path.join(folder, str(os.getpid())), "wb", buffering=0) as record:
        for line in sys.stdin.buffer:
            record.write(line)
            modern.obey(json.loads(line))


if __name__ == "__main__":
    main()
