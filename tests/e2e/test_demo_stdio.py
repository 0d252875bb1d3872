"""The bundled example server as a separate process, spoken to in literal bytes."""

import ast
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, TimeoutExpired

import pytest

import mcpbridge.demo

Fields = dict[str, object]
Start = Callable[[], "Peer"]

ARGV = [sys.executable, "-m", "mcpbridge.demo"]
ROOT = Path(__file__).parents[2]
READY = b"mcpbridge-demo ready: MCP on stdin and stdout\n"

WITHIN_S = 10.0
"""Bound of every wait; generous, as only a broken server ever uses it up."""


class Peer:
    """A client of one demo process: writes lines, and reads those that come back."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(ARGV, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._pump = threading.Thread(target=self._read)
        self._pump.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def write(self, line: bytes) -> None:
        """Send a line as it stands."""
        assert self.process.stdin
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def read(self) -> bytes:
        """The next line, without its end; empty at the end of the stream."""
        line = self._lines.get(timeout=WITHIN_S)
        assert line == b"" or line.endswith(b"\n"), "half a line"
        return line.removesuffix(b"\n")

    def receive(self) -> Fields:
        """The next message; it must be one line of compact ASCII JSON."""
        line = self.read()
        message = json.loads(line)
        assert line == json.dumps(message, separators=(",", ":")).encode()
        assert isinstance(message, dict)
        assert message.pop("jsonrpc") == "2.0"
        return message

    def send(self, **message: object) -> None:
        """Send a message."""
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def request(self, method: str, **params: object) -> Fields:
        """What answers a request, which must be the next line: `result` or `error`."""
        self.send(id="r", method=method, params=params)
        answer = self.receive()
        assert answer.pop("id") == "r", answer
        return answer

    def result(self, method: str, **params: object) -> Fields:
        """The result of a request, which must be the next line."""
        result = self.request(method, **params)["result"]
        assert isinstance(result, dict)
        return result

    def call(self, tool: str, **arguments: object) -> Fields:
        """The result of a tool call, which must be the next line."""
        return self.result("tools/call", name=tool, arguments=arguments)

    def error_code(self, method: str, **params: object) -> object:
        """The code of the error that a request meets."""
        error = self.request(method, **params)["error"]
        assert isinstance(error, dict)
        assert isinstance(error["message"], str)
        return error["code"]

    def initialize(
        self, revision: str = "2025-11-25", capabilities: Fields | None = None
    ) -> Fields:
        """Do the handshake; the result."""
        result = self.result(
            "initialize",
            protocolVersion=revision,
            capabilities=capabilities or {},
            clientInfo={"name": "test", "version": "1"},
        )
        self.send(method="notifications/initialized")
        return result

    def start_call(
        self, call_id: object, tool: str, token: object = None, **arguments: object
    ) -> None:
        """Send a tool call and do not wait for anything."""
        params: Fields = {"name": tool, "arguments": arguments}
        if token is not None:
            params["_meta"] = {"progressToken": token}
        self.send(id=call_id, method="tools/call", params=params)

    def call_result(self) -> Fields:
        """The result in the next line."""
        result = self.receive()["result"]
        assert isinstance(result, dict)
        return result

    def finish(self) -> tuple[int, list[bytes], bytes]:
        """Close stdin: the exit status, the lines not read yet, and stderr."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.ended()

    def ended(self) -> tuple[int, list[bytes], bytes]:
        """Wait for the end: the exit status, the lines not read yet, and stderr."""
        assert self.process.stderr
        code = self.process.wait(WITHIN_S)
        self._pump.join(WITHIN_S)
        return code, list(iter(self.read, b"")), self.process.stderr.read()

    def close(self) -> None:
        """End the process, however the test went, and release its pipes."""
        self.process.kill()
        self.process.wait(WITHIN_S)
        self._pump.join(WITHIN_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts demo servers that end with the test."""
    peers: list[Peer] = []

    def started() -> Peer:
        peers.append(Peer())
        return peers[-1]

    yield started
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(start: Start) -> Peer:
    """A demo server that has not heard anything yet."""
    return start()


@pytest.fixture(scope="module")
def stateless() -> Iterator[Peer]:
    """One demo server for the tests that leave no trace in it."""
    shared = Peer()
    shared.initialize()
    yield shared
    shared.close()


def text_of(result: Fields) -> object:
    """The text of a tool result that holds nothing else in its content."""
    content = result["content"]
    assert isinstance(content, list)
    assert [block["type"] for block in content] == ["text"]
    return content[0]["text"]


def imported(path: str) -> set[str]:
    """The modules that a source file names in its imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(path).read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_imports_the_standard_library_only_and_nothing_slow() -> None:
    """It must run where nothing is installed, and start at once."""
    modules = {name.partition(".")[0] for name in imported(mcpbridge.demo.__file__)}
    assert modules <= sys.stdlib_module_names
    assert not modules & {"asyncio", "dataclasses", "inspect", "logging", "typing", "mcpbridge"}


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("", "2025-11-25"),
    ],
)
def test_negotiates_the_revision(stateless: Peer, asked: str, answered: str) -> None:
    """A known revision is taken; for any other the newest is offered."""
    result = stateless.initialize(asked)
    assert result["protocolVersion"] == answered
    info = result["serverInfo"]
    assert isinstance(info, dict)
    assert info["name"] == "mcpbridge-demo"
    assert set(info) == {"name", "title", "version"}
    assert result["capabilities"] == {
        "tools": {},
        "resources": {"subscribe": True},
        "prompts": {},
        "logging": {},
        "completions": {},
    }
    assert isinstance(result["instructions"], str)


@pytest.mark.parametrize(
    "spelled",
    [
        *(b"0", b"-1", b"1", b"9007199254740993", b"12345678901234567890", b"1.5", b"1.0"),
        *(b'""', b'"1"', b'"\\u2028\\r\\n"', b'"\\ud800"', b'"\\ud83d\\ude00"'),
        *(b"null", b"true", b"false", b"[]", b'[1,{"a":null}]', b'{"k":["v",2]}'),
    ],
)
def test_echoes_ids_of_any_type_exactly(stateless: Peer, spelled: bytes) -> None:
    """An id comes back with its type and its digits, in answers, errors and tool results."""
    stateless.write(b'{"jsonrpc":"2.0","id":%s,"method":"ping"}' % spelled)
    assert stateless.read() == b'{"jsonrpc":"2.0","id":%s,"result":{}}' % spelled
    stateless.write(b'{"jsonrpc":"2.0","id":%s,"method":"none"}' % spelled)
    assert stateless.read().startswith(b'{"jsonrpc":"2.0","id":%s,"error":{"code":-32601' % spelled)
    stateless.write(
        b'{"jsonrpc":"2.0","id":%s,"method":"tools/call",'
        b'"params":{"name":"echo","arguments":{"text":"t"}}}' % spelled
    )
    assert stateless.read() == (
        b'{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"t"}]}}' % spelled
    )


def test_lists_its_tools(stateless: Peer) -> None:
    """Each tool has a schema that names its arguments; `add` says what it gives."""
    listed = stateless.result("tools/list")["tools"]
    assert isinstance(listed, list)
    tools = {tool["name"]: tool for tool in listed}
    required = {name: tool["inputSchema"]["required"] for name, tool in tools.items()}
    assert required == {
        "echo": ["text"],
        "add": ["a", "b"],
        "countdown": ["seconds"],
        "ask": ["question"],
        "fail": ["message"],
        "set_greeting": ["text"],
    }
    assert "steps" in tools["countdown"]["inputSchema"]["properties"]
    assert all(tool["description"] for tool in tools.values())
    assert [name for name, tool in tools.items() if "outputSchema" in tool] == ["add"]
    assert tools["add"]["outputSchema"]["required"] == ["sum"]


@pytest.mark.parametrize(
    "text", ["", "hello", "a\r\nb\u2028c\u0085d\0", "😀 é", "\ud800 alone", '"\\', "x" * 300_000]
)
def test_echoes_text(stateless: Peer, text: str) -> None:
    """Whatever a JSON string can hold comes back, on one line."""
    assert text_of(stateless.call("echo", text=text)) == text


def test_reads_and_writes_a_huge_line(stateless: Peer) -> None:
    """A message of megabytes is a message like any other."""
    text = "0123456789abcdef" * 200_000
    assert text_of(stateless.call("echo", text=text)) == text


def test_accepts_raw_utf8_and_a_carriage_return(stateless: Peer) -> None:
    """Clients need not escape, and those on Windows may end a line their way."""
    stateless.write(
        '{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        '"params":{"name":"echo","arguments":{"text":"é\u2028"}}}\r'.encode()
    )
    assert stateless.read().endswith(b'"text":"\\u00e9\\u2028"}]}}')


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        (b"12345678901234567890", b"1", b"12345678901234567891"),
        (b"-98765432109876543210", b"0", b"-98765432109876543210"),
        (b"2", b"0.5", b"2.5"),
        (b"0.1", b"0.2", b"0.30000000000000004"),
    ],
)
def test_adds_exactly(stateless: Peer, a: bytes, b: bytes, total: bytes) -> None:
    """Integers keep all their digits, in the text and in the structure."""
    stateless.write(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"add","arguments":{"a":%s,"b":%s}}}' % (a, b)
    )
    assert stateless.read() == (
        b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%s"}],'
        b'"structuredContent":{"sum":%s}}}' % (total, total)
    )


@pytest.mark.parametrize("term", [b"1e308", b"9" * 4300])
def test_a_sum_that_cannot_be_written_is_a_tool_error(stateless: Peer, term: bytes) -> None:
    """Too large a sum neither ends the server nor yields what is not JSON."""
    stateless.write(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"add","arguments":{"a":%s,"b":%s}}}' % (term, term)
    )
    assert json.loads(stateless.read())["result"]["isError"] is True


@pytest.mark.parametrize(
    ("code", "method", "params"),
    [
        (-32601, "server/discover", {}),
        (-32601, "", {}),
        (-32602, "initialize", {"protocolVersion": 20250618}),
        (-32602, "initialize", {"protocolVersion": "2025-06-18", "capabilities": []}),
        (-32602, "tools/call", {}),
        (-32602, "tools/call", {"name": "nobody"}),
        (-32602, "tools/call", {"name": ["echo"]}),
        (-32602, "tools/call", {"name": "echo"}),
        (-32602, "tools/call", {"name": "echo", "arguments": ["text"]}),
        (-32602, "tools/call", {"name": "echo", "arguments": {"text": 1}}),
        (-32602, "tools/call", {"name": "echo", "arguments": {"text": "t"}, "_meta": 1}),
        (-32602, "tools/call", {"name": "add", "arguments": {"a": 1, "b": True}}),
        (-32602, "tools/call", {"name": "add", "arguments": {"a": 1, "b": "2"}}),
        (-32602, "tools/call", {"name": "countdown", "arguments": {"seconds": "1"}}),
        (-32602, "tools/call", {"name": "countdown", "arguments": {"seconds": 0, "steps": None}}),
        (-32602, "tools/call", {"name": "ask", "arguments": {}}),
        (-32602, "resources/read", {}),
        (-32002, "resources/read", {"uri": "demo://nothing"}),
        (-32002, "resources/subscribe", {"uri": "demo://nothing"}),
        (-32602, "prompts/get", {"name": "nothing"}),
        (-32602, "prompts/get", {"name": "summarize"}),
        (-32602, "prompts/get", {"name": "summarize", "arguments": {"topic": 1}}),
        (-32602, "completion/complete", {}),
        (-32602, "logging/setLevel", {"level": "loud"}),
        (-32602, "logging/setLevel", {}),
    ],
)
def test_refuses_what_it_does_not_know(
    stateless: Peer, code: int, method: str, params: Fields
) -> None:
    """Unknown methods, and parameters that are missing or of the wrong type."""
    assert stateless.error_code(method, **params) == code


@pytest.mark.parametrize(
    "arguments",
    [{"seconds": -1}, {"seconds": 1e300}, {"seconds": 0, "steps": 0}, {"seconds": 0, "steps": 1.5}],
)
def test_a_countdown_out_of_range_is_a_tool_error(stateless: Peer, arguments: Fields) -> None:
    """A model that chose a bad value can read so and choose again."""
    assert stateless.call("countdown", **arguments)["isError"] is True


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"not json", -32700, None),
        (b'{"jsonrpc":"2.0","id":1,', -32700, None),
        (b'\xff\xfe{"id":1}', -32700, None),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', -32700, None),
        (b'{"jsonrpc":"2.0","id":1e400,"method":"ping"}', -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":-Infinity}}', -32700, None),
        (b'{"jsonrpc":"2.0","id":%s,"method":"ping"}' % (b"9" * 5000), -32700, None),
        (b"[" * 100_000, -32700, None),
        (b'"ping"', -32600, None),
        (b"[]", -32600, None),
        (b"{}", -32600, None),
        (b'{"jsonrpc":"2.0","id":7}', -32600, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":7}', -32600, 7),
        (b'{"id":7,"method":"ping"}', -32600, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":false}', -32602, 7),
    ],
)
def test_answers_a_bad_line_and_goes_on(
    stateless: Peer, line: bytes, code: int, request_id: object
) -> None:
    """Each bad line gets one error, and the next line is served."""
    stateless.write(line)
    answer = stateless.receive()
    error = answer["error"]
    assert isinstance(error, dict)
    assert (answer["id"], error["code"]) == (request_id, code)
    assert stateless.result("ping") == {}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"  \r",
        b'{"jsonrpc":"2.0","method":"notifications/unknown","params":[1]}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[{}]}}',
        b'{"jsonrpc":"2.0","method":{}}',
        b'{"jsonrpc":"2.0","id":[1],"result":{}}',
        b'{"jsonrpc":"2.0","id":"question-1","error":{"code":1,"message":"m"}}',
    ],
)
def test_says_nothing_to_what_needs_no_answer(stateless: Peer, line: bytes) -> None:
    """Blank lines, notifications and answers to questions never asked."""
    stateless.write(line)
    assert stateless.result("ping") == {}


def test_serves_a_batch_one_by_one(stateless: Peer) -> None:
    """A batch (revision 2025-03-26) is answered by a line for each request in it."""
    stateless.write(
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"},3,'
        b'{"jsonrpc":"2.0","id":2,"method":"ping"}]'
    )
    assert [stateless.receive()["id"] for _ in range(3)] == [1, None, 2]


def test_shows_resources_prompts_and_completions(stateless: Peer) -> None:
    """What is listed can be read, got and completed."""
    listed = stateless.result("resources/list")["resources"]
    assert isinstance(listed, list)
    assert {resource["uri"] for resource in listed} == {"demo://greeting", "demo://time"}
    assert stateless.result("resources/templates/list") == {"resourceTemplates": []}
    contents = stateless.result("resources/read", uri="demo://time")["contents"]
    assert isinstance(contents, list)
    assert contents[0]["uri"] == "demo://time"
    assert contents[0]["text"].startswith("20")
    prompts = stateless.result("prompts/list")["prompts"]
    assert isinstance(prompts, list)
    assert [prompt["name"] for prompt in prompts] == ["summarize"]
    got = stateless.result("prompts/get", name="summarize", arguments={"topic": "pipes"})
    assert isinstance(got["messages"], list)
    assert "pipes" in got["messages"][0]["content"]["text"]
    ref = {"type": "ref/prompt", "name": "summarize"}
    argument = {"name": "topic", "value": "P"}
    assert stateless.result("completion/complete", ref=ref, argument=argument) == {
        "completion": {"values": ["pipes", "protocols"], "total": 2, "hasMore": False}
    }


def test_tells_subscribers_and_only_them_of_a_change(peer: Peer) -> None:
    """A new greeting is announced from subscribe to unsubscribe, before its answer."""
    peer.initialize()
    peer.call("set_greeting", text="one")
    assert peer.result("resources/subscribe", uri="demo://greeting") == {}
    peer.start_call(5, "set_greeting", text="two")
    assert peer.receive() == {
        "method": "notifications/resources/updated",
        "params": {"uri": "demo://greeting"},
    }
    assert peer.receive()["id"] == 5
    contents = peer.result("resources/read", uri="demo://greeting")["contents"]
    assert contents == [{"uri": "demo://greeting", "mimeType": "text/plain", "text": "two"}]
    assert peer.result("resources/unsubscribe", uri="demo://greeting") == {}
    peer.call("set_greeting", text="three")


def test_logs_from_the_level_that_was_set(peer: Peer) -> None:
    """By default errors are told and debugging is not; each level silences what is below."""
    failed = {"content": [{"type": "text", "text": "why"}], "isError": True}

    def logged() -> list[object]:
        peer.start_call(1, "fail", message="why")
        levels: list[object] = []
        while "method" in (message := peer.receive()):
            assert message["method"] == "notifications/message"
            assert isinstance(message["params"], dict)
            levels.append(message["params"]["level"])
        assert message == {"id": 1, "result": failed}
        return levels

    assert logged() == ["error"]
    assert peer.result("logging/setLevel", level="debug") == {}
    assert logged() == ["debug", "error"]
    peer.result("logging/setLevel", level="error")
    assert logged() == ["error"]
    peer.result("logging/setLevel", level="critical")
    assert logged() == []


@pytest.mark.parametrize("token", ["t", "", 0, 7, "7", 12345678901234567890])
def test_counts_down_with_progress_under_the_token_given(stateless: Peer, token: object) -> None:
    """Progress rises to its total before the answer, and the token keeps its type."""
    stateless.start_call(1, "countdown", token=token, seconds=0.01, steps=3)
    for step in (1, 2, 3):
        progress = stateless.receive()
        assert progress["method"] == "notifications/progress"
        params = progress["params"]
        assert isinstance(params, dict)
        assert isinstance(params.pop("message"), str)
        assert params == {"progressToken": token, "progress": step, "total": 3}
        assert type(params["progressToken"]) is type(token)
    assert text_of(stateless.call_result()) == "liftoff"


def test_counts_down_without_progress_unless_asked(stateless: Peer) -> None:
    """No token, or an invalid one, no notification."""
    assert text_of(stateless.call("countdown", seconds=0)) == "liftoff"
    stateless.start_call("r", "countdown", token=True, seconds=0)
    assert text_of(stateless.call_result()) == "liftoff"


def test_a_countdown_delays_nobody(peer: Peer) -> None:
    """Other calls, and countdowns that end earlier, are answered while one runs."""
    peer.start_call("long", "countdown", seconds=60)
    assert peer.result("ping") == {}
    assert text_of(peer.call("echo", text="meanwhile")) == "meanwhile"
    peer.start_call("second", "countdown", seconds=0.05)
    peer.start_call("first", "countdown", seconds=0)
    assert [peer.receive()["id"] for _ in range(2)] == ["first", "second"]


def test_lines_of_many_threads_never_mix(peer: Peer) -> None:
    """Progress of many calls and large answers all arrive whole, each call's in order."""
    calls, steps, text = 20, 20, "y" * 100_000
    for number in range(calls):
        peer.start_call(number, "countdown", token=number, seconds=0.05, steps=steps)
        peer.start_call(f"echo-{number}", "echo", text=text)
    seen: dict[object, int] = dict.fromkeys(range(calls), 0)
    answered: set[object] = set()
    while len(answered) < 2 * calls:
        message = peer.receive()
        if "method" in message:
            params = message["params"]
            assert isinstance(params, dict)
            seen[params["progressToken"]] += 1
            assert params["progress"] == seen[params["progressToken"]]
            assert params["progressToken"] not in answered
        else:
            answered.add(message["id"])
    assert set(seen.values()) == {steps}


@pytest.mark.parametrize(("call_id", "others"), [(1, '"1"'), ("1", "1"), (None, "0")])
def test_a_cancelled_countdown_is_never_answered(peer: Peer, call_id: object, others: str) -> None:
    """It stops at once; a cancellation of an id of another type touches nothing."""
    peer.start_call(call_id, "countdown", token="t", seconds=1, steps=20)
    peer.write(
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}'
        % others.encode()
    )
    assert peer.receive()["method"] == "notifications/progress"
    peer.send(method="notifications/cancelled", params={"requestId": call_id})
    # Begun later and as long as what was left of the first: would be answered after it.
    peer.start_call("after", "countdown", seconds=0.96)
    while "method" in (said := peer.receive()):
        assert said["method"] == "notifications/progress", "what was said before the cancellation"
    assert said["id"] == "after"
    assert peer.finish()[:2] == (0, [])


def test_refuses_a_second_call_under_an_id_in_use(peer: Peer) -> None:
    """The first call is not disturbed, and the id is free again after its end."""
    peer.start_call(1, "countdown", seconds=60)
    peer.start_call(1, "countdown", seconds=0)
    refused = peer.receive()
    assert refused["id"] == 1
    assert isinstance(refused["error"], dict)
    assert refused["error"]["code"] == -32600
    peer.send(method="notifications/cancelled", params={"requestId": 1})
    peer.start_call(2, "countdown", seconds=0)
    assert peer.receive()["id"] == 2
    peer.start_call(1, "countdown", seconds=0)
    assert peer.receive()["id"] == 1


def asked(peer: Peer, elicitation: Fields | None = None) -> object:
    """Handshake with elicitation, call `ask` under id 9: the id of the question it puts."""
    peer.initialize(capabilities={"elicitation": elicitation or {}})
    peer.start_call(9, "ask", question="Which?")
    question = peer.receive()
    assert question["method"] == "elicitation/create"
    assert question["params"] == {
        "message": "Which?",
        "requestedSchema": {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "required": ["answer"],
        },
    }
    return question["id"]


@pytest.mark.parametrize("declared", [{}, {"form": {}}, {"form": {}, "url": {}}])
def test_asks_and_repeats_the_answer(peer: Peer, declared: Fields) -> None:
    """The question goes to the client as a form, others are served, the answer comes back."""
    question_id = asked(peer, declared)
    assert peer.result("ping") == {}
    content = {"answer": "the blue \ud800"}
    peer.send(id=question_id, result={"action": "accept", "content": content})
    answer = peer.receive()
    assert answer["id"] == 9
    assert answer["result"] == {
        "content": [{"type": "text", "text": "The answer is: the blue \ud800"}]
    }


def test_two_questions_get_their_own_answers(peer: Peer) -> None:
    """Questions open at the same time are told apart by their ids."""
    first = asked(peer)
    peer.start_call(10, "ask", question="And?")
    second = peer.receive()["id"]
    assert first != second
    for question_id, call_id in ((second, 10), (first, 9)):
        peer.send(id=question_id, result={"action": "accept", "content": {"answer": "it"}})
        assert peer.receive()["id"] == call_id


@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_says_that_there_was_no_answer(peer: Peer, action: str) -> None:
    """To decline or to dismiss is an answer, not a failure."""
    peer.send(id=asked(peer), result={"action": action})
    result = peer.call_result()
    assert "isError" not in result
    assert action in str(text_of(result))


def test_a_client_that_fails_to_ask_is_a_tool_error(peer: Peer) -> None:
    """An error instead of an answer reaches the caller of the tool."""
    peer.send(id=asked(peer), error={"code": -32603, "message": "no screen"})
    result = peer.call_result()
    assert result["isError"] is True
    assert "no screen" in str(text_of(result))


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"url": {}}}, {"elicitation": True}])
def test_does_not_ask_a_client_that_cannot(peer: Peer, capabilities: Fields) -> None:
    """Without elicitation of forms declared, the call fails with a reason."""
    peer.initialize(capabilities=capabilities)
    result = peer.call("ask", question="Which?")
    assert result["isError"] is True
    assert "elicitation" in str(text_of(result))


def test_a_cancelled_question_is_withdrawn(peer: Peer) -> None:
    """Cancelling the call cancels the question at the client; a late answer is ignored."""
    question_id = asked(peer)
    peer.send(method="notifications/cancelled", params={"requestId": 9})
    assert peer.receive() == {
        "method": "notifications/cancelled",
        "params": {"requestId": question_id},
    }
    peer.send(id=question_id, result={"action": "accept", "content": {"answer": "late"}})
    assert peer.result("ping") == {}
    assert peer.finish()[:2] == (0, [])


def test_ends_with_stdin(peer: Peer) -> None:
    """The end of stdin is the end, after what was asked before; stderr holds one line."""
    peer.send(id=1, method="ping")
    assert peer.process.stdin
    peer.process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"ping"}')  # a line without its end
    code, lines, errors = peer.finish()
    assert [json.loads(line)["id"] for line in lines] == [1, 2]
    assert (code, errors) == (0, READY)


def test_ends_with_stdin_while_calls_wait(peer: Peer) -> None:
    """A countdown and a question hold nothing up: no wait of theirs is served out."""
    asked(peer)
    peer.start_call(1, "countdown", token=1, seconds=3600, steps=1)
    assert peer.finish() == (0, [], READY)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_ends_quietly_at_a_signal(peer: Peer, signum: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end it at once, also while a countdown runs, without a traceback."""
    peer.start_call(1, "countdown", seconds=3600)
    assert peer.result("ping") == {}
    peer.process.send_signal(signum)
    assert peer.ended() == (0, [], READY)


def test_ends_when_nobody_reads_its_answers() -> None:
    """A broken stdout ends it quietly, though stdin is still open."""
    with subprocess.Popen(ARGV, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert process.wait(WITHIN_S) == 0
        assert process.stderr.read() == READY


def test_finishes_a_line_it_has_begun() -> None:
    """A message larger than the pipe is written to its end, though stdin ends before."""
    text = b"z" * 1_000_000
    with subprocess.Popen(
        ARGV, bufsize=0, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"countdown",'
            b'"arguments":{"seconds":0,"steps":1},"_meta":{"progressToken":"%s"}}}\n' % text
        )
        begun = process.stdout.read(1)
        process.stdin.close()
        with pytest.raises(TimeoutExpired):
            process.wait(0.15)  # it waits for us to read the rest
        lines = (begun + process.stdout.read()).splitlines(keepends=True)
        assert process.wait(WITHIN_S) == 0
    assert text in lines[0]
    assert all(line.endswith(b"}\n") for line in lines)
