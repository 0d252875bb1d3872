"""An MCP server that asks its client, tells it things, and records its stdin byte for byte.

Usage: `questioner.py FOLDER [--newest DATE]`. Every line it reads is added to `FOLDER/PID` before
it is obeyed. It speaks no revision newer than DATE. One thread and no clocks.

| method | params | result |
|---|---|---|
| `x/ask` | `{"lines": [S, ...], "answers": N}` | `{"answers": [...]}`, after these lines on \
stdout, once its client has sent that many answers |
| `x/say` | `{"lines": [S, ...], "times": N}` | `{}`, after these lines on stdout, `#` counted up |
| `x/hold` | `{"name": S}` | `{"held": S}`, once released; `lines` are said at once |
| `x/step` | `{"name": S, "times": N}` | `{}`, after progress of the calls held by that name |
| `x/release` | `{"name": S}` | how many calls were answered by it |
| `x/die` | | none, and no process any more |
| `logging/setLevel`, `resources/subscribe`, `resources/unsubscribe` | \
`{"hold": S}` | `{}`, once released if there is a name to hold it by; an error for a resource that \
begins with `bad:` |
| `x/echo`, `tasks/*`, `x/custom` | anything | the params |

A notification `notifications/x-say` with `lines` says them while no call needs to be in flight.
"""

import json
import os
import sys
from typing import Any

from _mcp import REVISIONS, answer, write  # type: ignore[import-not-found]

CHANGED = "listChanged"


class Questioner:
    """What is open at the moment."""

    def __init__(self, newest: str) -> None:
        self._newest = newest
        self._held: list[tuple[str, Any, Any]] = []
        self._steps = 0
        self._asking: tuple[Any, int] | None = None
        self._answers: list[Any] = []

    def obey(self, message: dict[str, Any]) -> None:
        """Do what one message asks for."""
        params = message.get("params")
        given: dict[str, Any] = params if isinstance(params, dict) else {}
        if "method" not in message:
            self._answers.append(message)
            self._conclude()
        elif message["method"] == "notifications/x-say":
            say(given)
        elif "id" in message:
            self._serve(message["id"], message["method"], given)

    def _serve(self, request_id: Any, method: str, params: dict[str, Any]) -> None:
        match method:
            case "initialize":
                self._introduce(request_id, params)
            case "x/ask":
                say(params)
                self._asking, self._answers = (request_id, params["answers"]), []
                self._conclude()
            case "x/say":
                say(params)
                answer(request_id, {})
            case "x/hold":
                say(params)
                token = params.get("_meta", {}).get("progressToken")
                self._held.append((params["name"], request_id, token))
            case "x/step":
                self._step(params["name"], params.get("times", 1))
                answer(request_id, {})
            case "x/release":
                answer(request_id, {"released": self._release(params["name"])})
            case "x/die":
                sys.exit(1)
            case "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe":
                self._keep(request_id, params)
            case _:
                answer(request_id, params)

    def _introduce(self, request_id: Any, params: dict[str, Any]) -> None:
        if params["clientInfo"].get("name") == "refused":
            error = {"code": -32001, "message": "not you" * params["clientInfo"].get("loud", 1)}
            write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n")
            return
        wanted = str(params.get("protocolVersion"))
        capabilities = {
            "tools": {CHANGED: True},
            "resources": {"subscribe": True, CHANGED: True},
            "logging": {},
        }
        result = {
            "protocolVersion": min(wanted, self._newest) if wanted in REVISIONS else self._newest,
            "capabilities": capabilities,
            "serverInfo": {"name": "questioner", "version": str(os.getpid())},
        }
        answer(request_id, result)

    def _step(self, name: str, times: int) -> None:
        for _ in range(times):
            self._steps += 1
            for held, _, token in self._held:
                if held == name:
                    report = {"progressToken": token, "progress": self._steps}
                    say({"lines": [json.dumps(progress(report))]})

    def _keep(self, request_id: Any, params: dict[str, Any]) -> None:
        if str(params.get("uri")).startswith("bad:"):
            error = {"code": -32002, "message": "no such resource"}
            write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n")
        elif "hold" in params:
            self._held.append((params["hold"], request_id, None))
        else:
            answer(request_id, {})

    def _release(self, name: str) -> int:
        free = [request_id for held, request_id, _ in self._held if held == name]
        self._held = [each for each in self._held if each[0] != name]
        for request_id in free:
            answer(request_id, {"held": name})
        return len(free)

    def _conclude(self) -> None:
        if self._asking is not None and len(self._answers) >= self._asking[1]:
            answer(self._asking[0], {"answers": self._answers})
            self._asking = None


def progress(params: dict[str, Any]) -> dict[str, Any]:
    """A progress notification."""
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def say(params: dict[str, Any]) -> None:
    """The lines, as often as wanted; `#` is the number of the round, from 0."""
    for number in range(params.get("times", 1)):
        for line in params.get("lines", ()):
            write(line.replace("#", str(number)).encode() + b"\n")


def main() -> None:
    """Serve stdin until its end."""
    folder, *newest = sys.argv[1:]
    questioner = Questioner(newest[1] if newest else REVISIONS[-1])
    with open(os.path.join(folder, str(os.getpid())), "wb", buffering=0) as record:
        for line in sys.stdin.buffer:
            record.write(line)
            questioner.obey(json.loads(line))


if __name__ == "__main__":
    main()
