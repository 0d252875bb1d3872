"""An MCP server of either era, or of both, that records its stdin byte for byte.

Usage: `eras.py KIND FOLDER [WORD...]`. Every line it reads is added to `FOLDER/PID` before it is
obeyed. One thread and no clocks.

| kind | what it is |
|---|---|
| `handshake` | speaks 2024-11-05 to 2025-11-25; every unknown method is -32601 |
| `picky` | the same, but what comes before `initialize` is -32602 |
| `mute` | the same, but it never answers what it does not know; `ping` it does |
| `deaf` | the same, and what comes before `initialize` it does not answer at all |
| `late` | as `mute`, but it answers discovery after `initialize`, as a server of 2026-07-28 would |
| `confused` | the same as `handshake`, but after anything else it refuses `initialize` |
| `brittle` | the same, but it exits on anything before `initialize` |
| `plain` | the same, and its capabilities are null |
| `modern` | speaks 2026-07-28 only |
| `future` | answers everything with -32022 and an unknown version |
| `dual` | either, by the first message; the other era is an error from then on |

A word changes its manners: `old` negotiates 2024-11-05 and offers tools alone; `shy` offers
nothing; `gated FIFO` serves once the fifo is opened for writing; `changing` says that its
tools have changed in one write with the answer to each list.

`arguments` of `tools/call` and `prompts/get`, or the JSON after `do:` in the uri of
`resources/read` and in the cursor of `tools/list`, may hold:

| key | what it does, in this order |
|---|---|
| `say` | these lines, `$TOKEN` replaced by the call's progress token |
| `news` | notifications `[NAME, PARAMS]`; in 2026-07-28 to the listens that want them, tagged |
| `exit` | ends the process |
| `ask` | a list of rounds, each a list of questions `{"method": M, "params": P}`; it goes on once \
each of a round has its answer, or at once with `"shrug": true` |
| `hold` | no answer until a call of this process has `release` with the same name |
| `after` | as `say`, straight before the answer |
| `error` | this error for an answer |

Anything else gets `{"content": [{"type": "text", "text": JSON}]}` with the answers and params.
SIGUSR1 is the end of its patience: every call that waits for answers gets its own at once.
"""

import json
import os
import signal
import sys
from typing import Any

from _mcp import REVISIONS, answer, write  # type: ignore[import-not-found]

DATE = "2026-07-28"
RESERVED = "io.modelcontextprotocol/"
HEADED = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "at": {
            "type": "object",
            "properties": {"zone": {"type": "integer", "x-mcp-header": "Zone"}},
        },
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
    },
}
TOOLS = [
    {"name": "do", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}},
    {"name": "ro\u00fbted", "inputSchema": HEADED},
    {"name": "headed", "inputSchema": HEADED},
]
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
    "tasks": {},
}

DISCOVERY = {
    "supportedVersions": [DATE],
    "capabilities": {k: v for k, v in CAPABILITIES.items() if k != "tasks"},
    "resultType": "complete",
    "ttlMs": 5,
    "cacheScope": "private",
    "_meta": {RESERVED + "serverInfo": {"name": "eras", "version": "m"}},
}


def fail(request_id: Any, code: int, message: str = "no", data: Any = None) -> None:
    """The bad answer."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n")


def wishes_of(params: dict[str, Any]) -> dict[str, Any]:
    """What a request is to do."""
    for name in ("uri", "cursor"):
        if str(params.get(name)).startswith("do:"):
            found: dict[str, Any] = json.loads(params[name][3:])
            return found
    return dict(params.get("arguments") or {})


class Call:
    """A request that is being served."""

    def __init__(self, request_id: Any, params: dict[str, Any]) -> None:
        self.id = request_id
        self.params = params
        self.wishes = wishes_of(params)
        self.rounds = list(self.wishes.get("ask", ()))
        self.open: set[Any] = set()
        self.answers: list[Any] = []

    def text(self) -> dict[str, Any]:
        """The result."""
        said = json.dumps({"answers": self.answers, "params": self.params})
        found: dict[str, Any] = {"content": [{"type": "text", "text": said}], "contents": []}
        return {**found, "messages": []}


class Server:
    """What is open at the moment, and what era it is."""

    def __init__(self, kind: str, words: list[str]) -> None:
        self.kind = kind
        self.words = words
        self.era = {"modern": "modern", "dual": None}.get(kind, "legacy")
        self.begun = self.confused = False
        self.late: Any = None
        self.asked = 0
        self.calls: list[Call] = []
        self.held: list[Call] = []
        self.listens: dict[Any, Any] = {}

    @property
    def capabilities(self) -> Any:
        """What it offers."""
        if "shy" in self.words or self.kind == "plain":
            return {} if self.kind != "plain" else None
        return {"tools": {}} if "old" in self.words else CAPABILITIES

    def obey(self, message: dict[str, Any]) -> None:
        """Do what one message asks for."""
        if "method" not in message:
            self.answered(message)
            return
        method, params = message["method"], message.get("params") or {}
        claim = params.get("_meta", {}).get(RESERVED + "protocolVersion")
        if self.era is None:
            self.era = "legacy" if claim is None else "modern"
        if "id" not in message:
            if method == "notifications/cancelled":
                self.cancelled(params.get("requestId"))
        elif self.kind == "future":
            fail(message["id"], -32022, data={"supported": ["2099-01-01"], "requested": claim})
        elif self.era == "modern":
            self.modern(message["id"], method, params, claim)
        else:
            self.handshake(message["id"], method, params)

    def refuses(self, request_id: Any, method: str) -> bool:
        """Before the handshake: whether it does nothing that was asked for."""
        first = method == "initialize"
        match self.kind:
            case "deaf":
                return not first
            case "confused" if self.confused or not first:
                self.confused = True
                fail(request_id, -32600)
                return True
            case "late" if method == "server/discover":
                self.late = request_id
                return True
            case "brittle" if method not in ("initialize", "ping"):
                sys.exit(1)
            case "picky" if method not in ("initialize", "ping"):
                fail(request_id, -32602)
                return True
        return False

    def handshake(self, request_id: Any, method: str, params: dict[str, Any]) -> None:
        """A request of the legacy revisions."""
        if not self.begun and self.refuses(request_id, method):
            return
        if method == "initialize":
            self.begun = True
            version = "2024-11-05" if "old" in self.words else params["protocolVersion"]
            answer(
                request_id,
                {
                    "protocolVersion": version if version in REVISIONS else REVISIONS[-1],
                    "capabilities": self.capabilities,
                    "serverInfo": {"name": "eras", "version": str(os.getpid())},
                    "instructions": "be kind",
                },
            )
            if self.late is not None:
                answer(self.late, DISCOVERY)
        elif method == "ping":
            answer(request_id, {})
        elif method in ("server/discover", "subscriptions/listen"):
            if self.kind != "mute":
                fail(request_id, -32601)
        elif method in ("logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
            uri = str(params.get("uri"))
            if uri.startswith("bad:"):
                fail(request_id, -32002)
            elif not (uri.startswith("mute:") and method == "resources/subscribe"):
                answer(request_id, {})
        else:
            self.either(request_id, method, params)

    def modern(self, request_id: Any, method: str, params: dict[str, Any], claim: Any) -> None:
        """A request of 2026-07-28."""
        if claim != DATE:
            fail(request_id, -32022, data={"supported": [DATE], "requested": claim})
        elif method == "server/discover":
            answer(request_id, DISCOVERY)
        elif method == "subscriptions/listen":
            self.listens[request_id] = params.get("notifications", {})
            meta = {RESERVED + "subscriptionId": request_id}
            told = {"notifications": params.get("notifications", {}), "_meta": meta}
            note("subscriptions/acknowledged", told)
        else:
            self.either(request_id, method, params)

    def either(self, request_id: Any, method: str, params: dict[str, Any]) -> None:
        """What both eras know."""
        if method not in ("tools/list", "tools/call", "prompts/get", "resources/read"):
            fail(request_id, -32601)
            return
        call = Call(request_id, params)
        if method == "tools/list" and not call.wishes:
            self.list_tools(request_id)
        elif self.era == "modern":
            self.modern_call(call)
        else:
            self.begin(call)

    def list_tools(self, request_id: Any) -> None:
        """The tools; twice the tools have changed by then, if it is that kind of server."""
        result: dict[str, Any] = {"tools": TOOLS}
        if self.era == "modern":
            result |= {"resultType": "complete", "ttlMs": 7, "cacheScope": "public"}
        line = json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}) + "\n"
        if "changing" in self.words:
            news = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            line += json.dumps(news) + "\n"
        write(line.encode())

    def modern_call(self, call: Call) -> None:
        """Ask by `input_required`, one round for each retry; the state is the answers so far."""
        self.say(call)
        state = call.params.get("requestState")
        call.answers = json.loads(state) if state else []
        call.answers += list((call.params.get("inputResponses") or {}).values())
        asked = 0
        for round_ in call.rounds:
            if len(call.answers) < asked + len(round_):
                requests = {f"q{asked + n}": question for n, question in enumerate(round_)}
                result = {"resultType": "input_required", "inputRequests": requests}
                answer(call.id, {**result, "requestState": json.dumps(call.answers)})
                return
            asked += len(round_)
        self.conclude(call)

    def begin(self, call: Call) -> None:
        """Serve a call of the legacy era."""
        self.say(call)
        self.ask(call)

    def ask(self, call: Call) -> None:
        """The next round of questions, or the end."""
        if not call.rounds:
            self.conclude(call)
            return
        for question in call.rounds.pop(0):
            write(json.dumps({"jsonrpc": "2.0", "id": self.asked, **question}).encode() + b"\n")
            call.open.add(self.asked)
            self.asked += 1
        if call.wishes.get("shrug"):
            self.conclude(call)
        else:
            self.calls.append(call)

    def answered(self, reply: dict[str, Any]) -> None:
        """An answer of the client."""
        for call in list(self.calls):
            if reply.get("id") in call.open:
                call.open.discard(reply["id"])
                call.answers.append(reply.get("result", reply.get("error")))
                if not call.open:
                    self.calls.remove(call)
                    self.ask(call)

    def say(self, call: Call) -> None:
        """What comes before the answer."""
        self.lines(call, "say")
        for name, params in call.wishes.get("news", ()):
            self.tell(name, params)
        if "exit" in call.wishes:
            sys.exit(1)

    def lines(self, call: Call, key: str) -> None:
        """Say what a call wants to be said."""
        token = json.dumps(call.params.get("_meta", {}).get("progressToken"))
        for line in call.wishes.get(key, ()):
            write(line.replace('"$TOKEN"', token).encode() + b"\n")

    def tell(self, name: str, params: Any) -> None:
        """A notification that belongs to no call."""
        if self.era == "legacy":
            note(name, params)
            return
        flag = name.replace("/list_changed", "ListChanged")
        for request_id, wanted in self.listens.items():
            if wanted.get(flag) or params.get("uri") in wanted.get("resourceSubscriptions", ()):
                note(name, {**params, "_meta": {RESERVED + "subscriptionId": request_id}})

    def lose_patience(self) -> None:
        """Answer what waits for answers."""
        while self.calls:
            self.answer(self.calls.pop())

    def conclude(self, call: Call) -> None:
        """The answer, or later."""
        if "hold" in call.wishes:
            self.held.append(call)
            return
        for other in [o for o in self.held if o.wishes["hold"] == call.wishes.get("release")]:
            self.held.remove(other)
            self.answer(other)
        self.answer(call)

    def answer(self, call: Call) -> None:
        """The answer."""
        self.lines(call, "after")
        if "error" in call.wishes:
            error = call.wishes["error"]
            line = {"jsonrpc": "2.0", "id": call.id, "error": error}
            write(json.dumps(line).encode() + b"\n")
        else:
            extra = {"resultType": "complete"} if self.era == "modern" else {}
            answer(call.id, {**call.text(), **extra})

    def cancelled(self, request_id: Any) -> None:
        """The client does not want it any more."""
        self.listens.pop(request_id, None)
        self.held = [call for call in self.held if call.id != request_id]
        self.calls = [call for call in self.calls if call.id != request_id]


def note(name: str, params: Any) -> None:
    """A notification."""
    line = {"jsonrpc": "2.0", "method": f"notifications/{name}", "params": params}
    write(json.dumps(line).encode() + b"\n")


def main() -> None:
    """Serve stdin until its end."""
    kind, folder, *words = sys.argv[1:]
    server = Server(kind, words)
    if "gated" in words:
        with open(words[words.index("gated") + 1], "rb"):
            pass
    signal.signal(signal.SIGUSR1, lambda *_: server.lose_patience())
    with open(os.path.join(folder, str(os.getpid())), "wb", buffering=0) as record:
        for line in sys.stdin.buffer:
            record.write(line)
            server.obey(json.loads(line))


if __name__ == "__main__":
    main()
