"""A small MCP server over stdio: the example that mcpbridge serves out of the box.

`python -m mcpbridge.demo` speaks the legacy revisions, 2024-11-05 to 2025-11-25, a message a
line. The main thread reads stdin and answers fast requests itself. A tool that waits runs in
its own daemon thread and delays no other request; a cancellation, or the client's answer to a
question, reaches it through the inbox of its `Call`. A new tool is a function and a row in `TOOLS`.

The end of stdin, SIGTERM and Ctrl-C end the process with status 0 and drop waiting calls.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue

Fields = dict[str, object]
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
TOPICS = ("bridges", "JSON-RPC", "pipes", "protocols", "servers", "streams")
GREETING, CLOCK = "demo://greeting", "demo://time"
TEXT, NUMBER = {"type": "string"}, {"type": "number"}
TOPIC = {"name": "topic", "description": "What to summarize.", "required": True}
PROMPTS: Fields = {"prompts": [{"name": "summarize", "arguments": [TOPIC]}]}
RESOURCES: Fields = {
    "resources": [{"uri": GREETING, "name": "greeting"}, {"uri": CLOCK, "name": "time"}]
}
SERVED: Fields = {
    "capabilities": {"resources": {"subscribe": True}}
    | {name: {} for name in ("tools", "prompts", "logging", "completions")},
    "serverInfo": {"name": "mcpbridge-demo", "title": "mcpbridge demo", "version": "1.0.0"},
    "instructions": "An example. Try `add`, `countdown` with a progress token, or `ask`.",
}

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
RESOURCE_NOT_FOUND = -32002  # what the legacy revisions prescribe; later ones use -32602
MAX_COUNTDOWN_S, MAX_STEPS = 3600, 1000
MAX_RUNNING = 256  # calls that wait hold a thread each; a client's mistake must not exhaust them
ANSWER_WITHIN_S = 600.0  # a person answers `ask`, so minutes, but a bound for the thread
LAST_LINE_S = 1.0  # at the end, for a line already begun; its reader may be gone
SECONDS = NUMBER | {"minimum": 0, "maximum": MAX_COUNTDOWN_S}
STEPS = {"type": "integer", "minimum": 1, "maximum": MAX_STEPS, "default": 5}


class Refused(Exception):
    """A request that gets a JSON-RPC error, with its code and reason."""

    def __init__(self, code: int, message: str) -> None:
        self.error: Fields = {"code": code, "message": message}


class ToolFailed(Exception):
    """A call that was understood and failed; the model reads the message (`isError`)."""


class Cancelled(Exception):
    """A call that the client has cancelled; it gets no answer (MCP, Cancellation)."""


def encode(value: object) -> str:
    """Encode JSON on one line, in ASCII so that lone surrogates pass; ValueError if too large."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def text_of(fields: Fields, name: str) -> str:
    """Return a required string among parameters; raise Refused for anything else."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refused(INVALID_PARAMS, f"'{name}' must be a string")
    return value


def number_of(fields: Fields, name: str) -> int | float:
    """Return a required number among parameters; raise Refused for anything else, and booleans."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(INVALID_PARAMS, f"'{name}' must be a number")
    return value


def fields_of(fields: Fields, name: str) -> Fields:
    """Return an optional object among parameters, empty if absent; raise Refused for others."""
    value = {} if fields.get(name) is None else fields[name]
    if not isinstance(value, dict):
        raise Refused(INVALID_PARAMS, f"'{name}' must be an object")
    return value


def content(text: str) -> Fields:
    """Return a tool result of one text."""
    return {"content": [{"type": "text", "text": text}]}


class Call:
    """One `tools/call` as its tool sees it; other threads touch `inbox` only."""

    def __init__(self, server: "Server", request_id: object, params: Fields) -> None:
        self.server = server
        self.request_id = request_id
        self.arguments = fields_of(params, "arguments")
        self.inbox: SimpleQueue[Fields | None] = SimpleQueue()
        """What the reader received for this call: a client's answer, or None for a cancellation."""
        token = fields_of(params, "_meta").get("progressToken")
        self._token = token if type(token) in (str, int) else None  # true is an int to Python

    def wait(self, seconds: float) -> Fields | None:
        """Wait for the client's answer; None after `seconds`, Cancelled if the client cancels."""
        try:
            received = self.inbox.get(timeout=seconds)
        except Empty:
            return None
        if received is None:
            raise Cancelled
        return received

    def report(self, done: int, total: int, message: str) -> None:
        """Send progress if the client gave a progress token."""
        if self._token is not None:
            step = {"progress": done, "total": total, "message": message}
            self.server.notify("notifications/progress", {"progressToken": self._token} | step)


def echo(call: Call) -> Fields:
    """Return the text that was sent."""
    return content(text_of(call.arguments, "text"))


def add(call: Call) -> Fields:
    """Return the sum as text and as structured content; integers are added exactly."""
    a, b = number_of(call.arguments, "a"), number_of(call.arguments, "b")
    try:
        total = a + b
        text = encode(total)
    except (OverflowError, ValueError) as error:
        raise ToolFailed("the sum is too large to write down") from error
    return content(text) | {"structuredContent": {"sum": total}}


def countdown(call: Call) -> Fields:
    """Count down for some seconds, with a progress notification at each step."""
    seconds = number_of(call.arguments, "seconds")
    steps = number_of({"steps": 5} | call.arguments, "steps")
    if not (0 <= seconds <= MAX_COUNTDOWN_S and 1 <= steps <= MAX_STEPS and steps == int(steps)):
        raise ToolFailed(f"0 to {MAX_COUNTDOWN_S} seconds, and 1 to {MAX_STEPS} whole steps")
    begun = time.monotonic()
    for step in range(1, int(steps) + 1):
        # Measured from the start, so that the delays of the steps do not add up.
        call.wait(max(0.0, begun + seconds * step / steps - time.monotonic()))
        call.report(step, int(steps), f"step {step} of {steps:.0f}")
    return content("liftoff")


def ask(call: Call) -> Fields:
    """Ask the client's user a question (elicitation) and return the answer."""
    reply = call.server.elicit(call, text_of(call.arguments, "question"))
    if "error" in reply:
        raise ToolFailed(f"the client did not ask: {text_of(fields_of(reply, 'error'), 'message')}")
    result = fields_of(reply, "result")
    if text_of(result, "action") != "accept":
        return content(f"No answer, but: {result['action']}")
    return content(f"The answer is: {text_of(fields_of(result, 'content'), 'answer')}")


def fail(call: Call) -> Fields:
    """Fail with a message, in the way a tool should; also log it as an error."""
    message = text_of(call.arguments, "message")
    call.server.log("error", f"fail: {message}")
    raise ToolFailed(message)


def set_greeting(call: Call) -> Fields:
    """Change the greeting resource and notify the client if it is subscribed."""
    call.server.greet(text_of(call.arguments, "text"))
    if GREETING in call.server.subscribed:
        call.server.notify("notifications/resources/updated", {"uri": GREETING})
    return content("The greeting is set.")


# For each tool: function, purpose, input properties, and output properties if any.
TOOLS: dict[str, tuple[Callable[[Call], Fields], str, Fields, Fields]] = {
    "echo": (echo, "Say it again.", {"text": TEXT}, {}),
    "add": (add, "Add two numbers.", {"a": NUMBER, "b": NUMBER}, {"sum": NUMBER}),
    "countdown": (countdown, "Report steps, lift off.", {"seconds": SECONDS, "steps": STEPS}, {}),
    "ask": (ask, "Ask the user a question.", {"question": TEXT}, {}),
    "fail": (fail, "Fail with a message.", {"message": TEXT}, {}),
    "set_greeting": (set_greeting, f"Change {GREETING}.", {"text": TEXT}, {}),
}
WAITING = ("countdown", "ask")  # these get a thread and can be cancelled


def schema(properties: Fields) -> Fields:
    """Return the JSON Schema of an object; properties with a default are optional."""
    required = [name for name in properties if "default" not in fields_of(properties, name)]
    return {"type": "object", "properties": properties, "required": required}


class Server:
    """The conversation with the client at the other end of stdin and stdout."""

    def __init__(self) -> None:
        self.greeting = "Hello from mcpbridge."
        self.subscribed: set[str] = set()
        self._elicits = False
        self._log_from = LEVELS.index("info")
        self._running: dict[str, Call] = {}
        self._asking: dict[str, Call] = {}
        """By id as JSON, since 1, 1.0, "1" and true differ: the call's id; the question's id."""
        self._question_ids = count(1)
        self._writing = threading.Lock()
        self._methods: dict[str, Callable[[Fields], Fields]] = {
            "initialize": self._initialize,
            "ping": lambda params: {},
            "tools/list": self._list_tools,
            "resources/list": lambda params: RESOURCES,
            "resources/templates/list": lambda params: {"resourceTemplates": []},
            "resources/read": self._read_resource,
            "resources/subscribe": lambda params: self._watch(params, self.subscribed.add),
            "resources/unsubscribe": lambda params: self._watch(params, self.subscribed.discard),
            "prompts/list": lambda params: PROMPTS,
            "prompts/get": self._get_prompt,
            "completion/complete": self._complete,
            "logging/setLevel": self._set_level,
        }

    def serve(self) -> None:
        """Serve the messages on stdin until it ends."""
        for line in sys.stdin.buffer:
            try:
                if line.strip():
                    self._receive(json.loads(line.decode(), parse_constant=int))  # refuses NaN
            except (ValueError, RecursionError) as error:
                failure = {"code": PARSE_ERROR, "message": f"Parse error: {error}"}
                self._send({"id": None, "error": failure})
        self._writing.acquire(timeout=LAST_LINE_S)  # and keep it: no thread begins another line

    def _receive(self, message: object) -> None:
        # MCP 2025-03-26 alone has batches; answering one by one harms no other revision.
        for member in message if isinstance(message, list) and message else [message]:
            if not isinstance(member, dict):
                self._obey({})
            elif "method" not in member and ("result" in member or "error" in member):
                self._deliver(member, self._asking, member.get("id"))
            elif "method" not in member or "id" in member:
                self._obey(member)
            elif member["method"] == "notifications/cancelled":
                params = member.get("params")
                if isinstance(params, dict):
                    self._deliver(None, self._running, params.get("requestId"))

    def _deliver(self, received: Fields | None, calls: dict[str, Call], called: object) -> None:
        if call := calls.get(encode(called)):
            call.inbox.put(received)

    def _obey(self, request: Fields) -> None:
        request_id, method = request.get("id"), request.get("method")
        try:
            if not isinstance(method, str) or request.get("jsonrpc") != "2.0":
                raise Refused(INVALID_REQUEST, "a request has 'jsonrpc': '2.0' and a 'method'")
            params = fields_of(request, "params")
            if method == "tools/call":
                self._call(Call(self, request_id, params), text_of(params, "name"))
            elif method in self._methods:
                self._send({"id": request_id, "result": self._methods[method](params)})
            else:
                raise Refused(METHOD_NOT_FOUND, f"Method not found: {method}")
        except Refused as refused:
            self._send({"id": request_id, "error": refused.error})

    def _call(self, call: Call, name: str) -> None:
        key = encode(call.request_id)
        if name not in TOOLS:
            raise Refused(INVALID_PARAMS, f"Unknown tool: {name}")
        if key in self._running or len(self._running) >= MAX_RUNNING:
            raise Refused(INVALID_REQUEST, f"id in use, or over {MAX_RUNNING} calls running")
        self.log("debug", f"tools/call {name}")
        self._running[key] = call
        if name in WAITING:
            threading.Thread(target=self._run, args=(key, call, name), daemon=True).start()
        else:
            self._run(key, call, name)

    def _run(self, key: str, call: Call, name: str) -> None:
        try:
            answer: Fields = {"result": TOOLS[name][0](call)}
        except Refused as refused:
            answer = {"error": refused.error}
        except ToolFailed as failed:
            answer = {"result": content(str(failed)) | {"isError": True}}
        except Cancelled:
            return
        finally:
            del self._running[key]
        self._send({"id": call.request_id} | answer)

    def elicit(self, call: Call, message: str) -> Fields:
        """Send the client's user a form of one field; return the reply (`result` or `error`)."""
        if not self._elicits:
            raise ToolFailed("this client cannot be asked: it has not declared elicitation")
        reply, question_id = None, f"question-{next(self._question_ids)}"
        form = {"message": message, "requestedSchema": schema({"answer": TEXT})}
        self._asking[encode(question_id)] = call
        self._send({"id": question_id, "method": "elicitation/create", "params": form})
        try:
            reply = call.wait(ANSWER_WITHIN_S)
        finally:
            del self._asking[encode(question_id)]
            if reply is None:  # cancelled, or timed out
                self.notify("notifications/cancelled", {"requestId": question_id})
        if reply is None:
            raise ToolFailed(f"the client did not answer within {ANSWER_WITHIN_S:.0f} s")
        return reply

    def greet(self, greeting: str) -> None:
        """Change the greeting."""
        self.greeting = greeting

    def notify(self, method: str, params: Fields) -> None:
        """Send a notification; safe from any thread."""
        self._send({"method": method, "params": params})

    def log(self, level: str, text: str) -> None:
        """Send a log message, unless the client asked for more severe ones only."""
        if LEVELS.index(level) >= self._log_from:
            self.notify("notifications/message", {"level": level, "logger": "demo", "data": text})

    def _send(self, message: Fields) -> None:
        line = f"{encode({'jsonrpc': '2.0'} | message)}\n".encode()
        with self._writing:
            try:
                while line:  # not sys.stdout: a daemon thread could hold its lock at the end
                    line = line[os.write(1, line) :]
            except OSError:
                os._exit(0)  # no reader for answers: same as the end of stdin

    def _initialize(self, params: Fields) -> Fields:
        wanted = text_of(params, "protocolVersion")
        asks = fields_of(params, "capabilities").get("elicitation")
        # An empty object stands for forms (MCP 2025-11-25, Elicitation, Capabilities).
        self._elicits = isinstance(asks, dict) and ("form" in asks or "url" not in asks)
        return {"protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1]} | SERVED

    def _list_tools(self, params: Fields) -> Fields:
        tools = [
            {"name": name, "description": purpose, "inputSchema": schema(takes)}
            | ({"outputSchema": schema(gives)} if gives else {})
            for name, (_, purpose, takes, gives) in TOOLS.items()
        ]
        return {"tools": tools}

    def _known(self, params: Fields) -> str:
        uri = text_of(params, "uri")
        if uri not in (GREETING, CLOCK):
            raise Refused(RESOURCE_NOT_FOUND, f"Resource not found: {uri}")
        return uri

    def _read_resource(self, params: Fields) -> Fields:
        uri = self._known(params)
        text = self.greeting if uri == GREETING else time.strftime("%FT%TZ", time.gmtime())
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}

    def _watch(self, params: Fields, change: Callable[[str], None]) -> Fields:
        change(self._known(params))
        return {}

    def _get_prompt(self, params: Fields) -> Fields:
        if text_of(params, "name") != "summarize":
            raise Refused(INVALID_PARAMS, f"Unknown prompt: {params['name']}")
        topic = text_of(fields_of(params, "arguments"), "topic")
        text = {"type": "text", "text": f"Summarize {topic} in three sentences."}
        return {"messages": [{"role": "user", "content": text}]}

    def _complete(self, params: Fields) -> Fields:
        ref, argument = fields_of(params, "ref"), fields_of(params, "argument")
        wanted = (ref.get("type"), ref.get("name"), argument.get("name"))
        if wanted != ("ref/prompt", "summarize", "topic"):
            raise Refused(INVALID_PARAMS, "only 'topic' of the prompt 'summarize' can be completed")
        begun = text_of(argument, "value").casefold()
        values = [topic for topic in TOPICS if topic.casefold().startswith(begun)]
        return {"completion": {"values": values, "total": len(values), "hasMore": False}}

    def _set_level(self, params: Fields) -> Fields:
        if text_of(params, "level") not in LEVELS:
            raise Refused(INVALID_PARAMS, f"'level' must be one of {', '.join(LEVELS)}")
        self._log_from = LEVELS.index(text_of(params, "level"))
        return {}


def main() -> None:
    """Serve stdin and stdout until stdin ends or a signal comes."""
    # Without handlers, PID 1 of a container ignores both signals.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: os._exit(0))
    with suppress(OSError):  # serve even if stderr is closed
        os.write(2, b"mcpbridge-demo ready: MCP on stdin and stdout\n")
    Server().serve()


if __name__ == "__main__":
    main()
