"""The benchmarks can be believed: generators see wrong answers, children give right ones."""

from __future__ import annotations

import io
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import cast

import pytest

from benchmarks import (
    bare,
    bench,
    calls,
    crowd,
    gate,
    goals,
    images,
    latency,
    lives,
    load,
    load_fallback,
    measure,
    moves,
)
from benchmarks.calls import SMALL
from benchmarks.compiled import Programs, compile_c, compiler, prepare
from benchmarks.figures import Figure, table
from benchmarks.target import TargetFailed

HERE = Path(__file__).resolve().parents[2] / "benchmarks"
LANGUAGES = ["python", *(["c"] if compiler() else [])]
REFUSALS = [-32602, -32601, -32700]
ROUNDS = 5
"""How often a test has each answer of the table given."""


def _message(call_id: object, text: str, **more: object) -> bytes:
    result = {"content": [{"type": "text", "text": text}], **more}
    return json.dumps({"jsonrpc": "2.0", "id": call_id, "result": result}).encode()


def _http(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunked(body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [body[:7], body[7:]]
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in [*pieces, b""])


def _stream(*messages: bytes) -> bytes:
    events = b"".join(b"event: message\r\ndata: %b\r\n\r\n" % message for message in messages)
    return _chunked(b": hello\r\n\r\n" + events, "text/event-stream")


PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"id":1}}'
ERROR = b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32603,"message":"no"}}'

# What the responder makes of a call (id, text), and what the generator must make of that. An empty
# answer closes the connection.
ANSWERS: list[tuple[str, Callable[[int, str], bytes]]] = [
    ("right", lambda i, t: _http(_message(i, t))),
    ("right", lambda i, t: _http(_message(i, t), kind="application/json; charset=utf-8")),
    ("right", lambda i, t: _chunked(_message(i, t))),
    ("right", lambda i, t: _stream(PROGRESS, _message(i, t))),
    ("right", lambda i, t: _http(b'{"x":{"id":1},"a":"\\"id\\\\",' + _message(i, t)[1:])),
    ("status", lambda i, t: _http(_message(i, t), status="500 Oh")),
    ("status", lambda i, t: _http(b"", status="202 Accepted")),
    ("shape", lambda i, t: _http(ERROR % i)),
    ("shape", lambda i, t: _http(_message(i, t, isError=True))),
    ("shape", lambda i, t: _http(_message(i, t)[:-1])),
    ("shape", lambda i, t: _http(_message(i, t) * 2)),
    ("shape", lambda i, t: _stream(PROGRESS)),
    ("shape", lambda i, t: _stream(_message(i, t), _message(i, t))),
    ("id", lambda i, t: _http(_message(i + 1, t))),
    ("id", lambda i, t: _http(_message(str(i), t))),
    ("id", lambda i, t: _stream(_message(i - 1, t))),
    ("text", lambda i, t: _http(_message(i, t[:-1]))),
    ("text", lambda i, t: _http(_message(i, "1" + t[1:-1] + "y"))),
    ("text", lambda i, t: _chunked(_message(i, t + "x"))),
    ("lost", lambda i, t: b""),
    ("lost", lambda i, t: _http(_message(i, t)) * 2),
    ("lost", lambda i, t: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
]


def _note(token: int, number: int) -> bytes:
    params = {"progressToken": token, "progress": number}
    message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    return json.dumps(message).encode()


# The same of a call that asks for two notifications of progress, under its token.
TOLD: list[tuple[str, Callable[[int, str, int], bytes]]] = [
    ("right", lambda i, t, k: _stream(_note(k, 1), _note(k, 2), _message(i, t))),
    ("notes", lambda i, t, k: _http(_message(i, t))),
    ("notes", lambda i, t, k: _stream(_message(i, t))),
    ("notes", lambda i, t, k: _stream(_note(k, 1), _message(i, t))),
    ("notes", lambda i, t, k: _stream(_note(k, 2), _note(k, 1), _message(i, t))),
    ("notes", lambda i, t, k: _stream(_note(k, 1), _note(k, 1), _message(i, t))),
    ("notes", lambda i, t, k: _stream(_note(k + 1, 1), _note(k + 1, 2), _message(i, t))),
    ("notes", lambda i, t, k: _stream(_note(k, 1), _message(i, t), _note(k, 2))),
    ("notes", lambda i, t, k: _stream(*(_note(k, n) for n in (1, 2, 3)), _message(i, t))),
    ("text", lambda i, t, k: _stream(_note(k, 1), _note(k, 2), _message(i, t + "x"))),
]


def _with_content(call_id: int, text: str, content: object) -> bytes:
    result = {"content": [{"type": "text", "text": text}], "structuredContent": content}
    message = {"jsonrpc": "2.0", "id": call_id, "result": result}
    return _http(json.dumps(message, separators=(",", ":")).encode())


# The same of a call whose arguments hold structured content, which is awaited back.
STRUCTURED: list[tuple[str, Callable[[int, str, dict[str, list[object]]], bytes]]] = [
    ("right", _with_content),
    ("text", lambda i, t, s: _http(_message(i, t))),
    ("text", lambda i, t, s: _with_content(i, t, {})),
    ("text", lambda i, t, s: _with_content(i, t, {"rows": s["rows"][:-1]})),
    ("text", lambda i, t, s: _with_content(i, t, {"rows": s["rows"][::-1]})),
    ("text", lambda i, t, s: _with_content(i, t + "x", s)),
    ("id", lambda i, t, s: _with_content(i + 1, t, s)),
]


class _Responder(socketserver.StreamRequestHandler):
    """Answers each call from the tables, by the call's id."""

    def handle(self) -> None:
        seen = set()
        while self.rfile.readline():
            size = 0
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
                seen |= {value.strip()} if name.lower() == b"x-who" else set()
            request = json.loads(self.rfile.read(size))
            call_id, text = request["id"], request["params"]["arguments"]["text"]
            token = request["params"].get("_meta", {}).get("progressToken")
            structured = request["params"]["arguments"].get("structured")
            if structured is not None:
                answer = STRUCTURED[call_id % len(STRUCTURED)][1](call_id, text, structured)
            elif token is not None:
                answer = TOLD[call_id % len(TOLD)][1](call_id, text, token)
            elif seen:
                answer = _http(_message(call_id, text))
            else:
                answer = ANSWERS[call_id % len(ANSWERS)][1](call_id, text)
            if not answer:
                return
            self.wfile.write(answer)
        if isinstance(self.server, _Server):
            self.server.seen.append(seen)


class _Server(socketserver.ThreadingTCPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Responder)
        self.seen: list[set[bytes]] = []
        """What each connection that has ended named itself."""


@contextmanager
def _responding() -> Iterator[_Server]:
    """A responder; every connection's handler has ended when the context has."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def responder() -> Iterator[tuple[str, int]]:
    with _responding() as server:
        yield "127.0.0.1", int(server.server_address[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_generator_counts_every_kind_of_wrong_answer(
    language: str, folder: Path, responder: tuple[str, int]
) -> None:
    """Each answer is counted under what it is, none as right that is not, whatever its framing."""
    calls = ROUNDS * len(ANSWERS)
    work = load.Load(*responder, "/mcp", 3, payload_bytes=40, seconds=30, max_calls=calls)
    program = compile_c("load", folder) if language == "c" else None
    with load.warm_generator(work, program) as measured:
        tally = asdict(measured())
    expected = dict.fromkeys(load_fallback.REASONS, 0)
    for reason, _ in ANSWERS:
        expected[reason] += ROUNDS
    assert {reason: tally[reason] for reason in expected} == expected
    assert tally["calls"] == calls
    assert tally["reopened"] == expected["lost"]


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_generator_counts_lost_and_misplaced_notifications(
    language: str, folder: Path, responder: tuple[str, int]
) -> None:
    """All that was asked for, in order, under the call's token and before its answer, or wrong."""
    work = load.Load(*responder, "/mcp", 3, 40, seconds=30, max_calls=ROUNDS * len(TOLD), notes=2)
    program = compile_c("load", folder) if language == "c" else None
    with load.warm_generator(work, program) as measured:
        tally = measured()
    expected = Counter(reason for reason, _ in TOLD for _ in range(ROUNDS))
    assert {name: getattr(tally, name) for name in expected} == expected
    assert tally.calls == expected.total()


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_generator_compares_structured_content(
    language: str, folder: Path, responder: tuple[str, int]
) -> None:
    """What is missing, shorter, or as long and in another order is wrong."""
    count = ROUNDS * len(STRUCTURED)
    work = load.Load(*responder, "/mcp", 3, 40, seconds=30, max_calls=count, structured_bytes=1000)
    program = compile_c("load", folder) if language == "c" else None
    with load.warm_generator(work, program) as measured:
        tally = measured()
    expected = Counter(reason for reason, _ in STRUCTURED for _ in range(ROUNDS))
    assert {name: getattr(tally, name) for name in expected} == expected
    assert tally.calls == expected.total()


def test_structured_content_has_its_size_and_many_members() -> None:
    """About as many bytes as asked for, a member in every 15."""
    body = load.call(load.FIRST_ID, 100, structured_bytes=1_000_000)
    assert 0.95 < len(body) / 1_000_000 < 1.05
    assert body.count(b'":') > 60_000


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_connection_keeps_to_its_own_headers(language: str, folder: Path) -> None:
    """Further headers go to the connections in turn, one set each."""
    who = ({"X-Who": "a"}, {"X-Who": "b"})
    program = compile_c("load", folder) if language == "c" else None
    with _responding() as server:
        host, port = "127.0.0.1", int(server.server_address[1])
        work = load.Load(host, port, "/mcp", 4, 40, seconds=30, max_calls=40, each=who)
        with load.warm_generator(work, program) as measured:
            tally = measured()
    assert (tally.calls, tally.right) == (40, 40)
    assert sorted(server.seen, key=sorted) == [{b"a"}, {b"a"}, {b"b"}, {b"b"}]


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_generator_gives_up_on_silence(language: str, folder: Path) -> None:
    """An answer that never comes is lost after the patience, and the load ends."""
    program = compile_c("load", folder) if language == "c" else None
    silent = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)
    with silent:  # listens, and so takes connections, but serves none
        port = int(silent.server_address[1])
        work = load.Load("127.0.0.1", port, "/", 2, 10, seconds=30, patience_s=0.05)
        with load.warm_generator(work, program) as measured:
            tally = measured()
    assert (tally.calls, tally.right, tally.lost) == (2, 0, 2)


STALL_S = 0.2


class _Stalling(socketserver.StreamRequestHandler):
    """Answers the first call after a stall, those behind it at once."""

    def handle(self) -> None:
        stalled = False
        while self.rfile.readline():
            size = 0
            while line := self.rfile.readline().strip():
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            self.rfile.read(size)
            if not stalled:
                time.sleep(STALL_S)  # what is tested is the latency of the calls behind it
            stalled = True
            self.wfile.write(_http(load.answer_to_first(10)))


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_calls_that_were_due_during_a_stall_have_its_latency(language: str, folder: Path) -> None:
    """Ten calls are due within 10 ms of the first; no answer comes before the stall has ended."""

    class Server(socketserver.TCPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """The client's end is not an error."""

    with Server(("127.0.0.1", 0), _Stalling) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        host, port = "127.0.0.1", int(server.server_address[1])
        work = load.Load(host, port, "/", 1, 10, 30, max_calls=10, rate=1000, same_id=True)
        program = compile_c("load", folder) if language == "c" else None
        with load.warm_generator(work, program) as measured:
            tally = measured()
        thread.join()
    assert (tally.calls, tally.right) == (10, 10)
    assert (STALL_S - 0.01) * 1e6 <= tally.p50_us <= tally.p99_us <= tally.max_us


def test_generator_says_that_nobody_listens() -> None:
    """A target that is not there is an error, not a tally of nothing."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as closed:
        port = int(closed.server_address[1])
    work = load.Load("127.0.0.1", port, "/", 1, 10, seconds=1)
    with pytest.raises(load.GeneratorFailed, match="refused"), load.warm_generator(work, None):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_echo_child_is_a_correct_server(language: str, folder: Path) -> None:
    """It negotiates, lists, echoes exactly, refuses by the book, and is quiet when it must."""
    python = [sys.executable, str(HERE / "echo_child.py")]
    argv = python if language == "python" else [str(compile_c("echo_child", folder))]
    long_text = "x" * 600_000 + '\\ "\n\u2028\U0001f600'
    asked = [
        b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}',
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        b'{"jsonrpc":"2.0","id":"1","method":"ping"}\r',
        b'{"params":{},"method":"tools/list","id":2}',
        load.call(load.FIRST_ID, 30),
        json.dumps({**json.loads(load.call(4, 1)), "params": _echo(long_text)}).encode(),
        b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"other"}}',
        b'{"jsonrpc":"2.0","id":6,"method":"no/such"}',
        load.call(7, 3, 2, {"progressToken": "mine"}),
        load.call(8, 3, structured_bytes=1000),
        b"",
        b"not JSON",
    ]
    done = subprocess.run(argv, input=b"\n".join([*asked, b""]), capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    told = [reply["params"] for reply in replies if "method" in reply]
    assert told == [{"progressToken": "mine", "progress": number} for number in (1, 2)]
    assert "method" in replies[7]
    replies = [reply for reply in replies if "method" not in reply]
    assert [reply["id"] for reply in replies] == [0, "1", 2, load.FIRST_ID, 4, 5, 6, 7, 8, None]
    assert replies[0]["result"]["protocolVersion"] == "2025-06-18"
    assert [tool["name"] for tool in replies[2]["result"]["tools"]] == ["echo"]
    assert done.stdout.splitlines()[3] == load.answer_to_first(30)
    assert replies[4]["result"]["content"][0]["text"] == long_text
    assert replies[8]["result"]["structuredContent"] == load.structured(1000)
    assert [reply["error"]["code"] for reply in replies if "error" in reply] == REFUSALS


def _echo(text: str) -> dict[str, object]:
    return {"name": "echo", "arguments": {"text": text}}


def test_processor_time_of_a_lost_thread_is_counted_in_ticks() -> None:
    """Fine figures are used while they can be true; a thread that ended takes its own with it."""
    before = measure.CpuReading({1: 10_000, 2: 5_000}, ticks=7)
    grown = measure.CpuReading({1: 12_000, 2: 5_000, 3: 1_000}, ticks=7)
    after_loss = measure.CpuReading({1: 12_000}, ticks=107)
    without = measure.CpuReading({}, ticks=107)
    assert measure.cpu_ns_between(before, grown) == 3_000
    assert measure.cpu_ns_between(before, after_loss) == measure.NS_PER_S
    assert measure.cpu_ns_between(before, without) == measure.NS_PER_S


PARENT = """
import subprocess, sys
words = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
started = [subprocess.Popen([*words, name], stdout=subprocess.PIPE) for name in ("own", "served")]
[each.stdout.readline() for each in started]
print(*(each.pid for each in started), flush=True)
sys.stdin.read()
"""


def test_stdio_servers_are_not_a_servers_own_processes() -> None:
    """Who is marked is left out, other descendants are counted."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        own, served = map(int, parent.stdout.readline().split())
        assert set(measure.own_pids(parent.pid, "served")) == {parent.pid, own}
        assert set(measure.own_pids(parent.pid, "\0\0")) == {parent.pid, own, served}
        parent.stdin.close()


@pytest.mark.parametrize(
    ("counted", "complaints"), [(1000, 0), (1029, 0), (901, 0), (1031, 1), (899, 1)]
)
def test_gate_admits_a_tenth_less_and_three_hundredths_more(counted: int, complaints: int) -> None:
    """Much cheaper does not pass either: the record would let it become dear again."""
    assert len(gate.judge({"legacy": counted}, {"legacy": 1000})) == complaints


def test_gate_counts_again_what_is_beyond_and_takes_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most three times; once if the first count is within."""
    counts = [{"a": 110, "b": 100}, {"a": 105, "b": 120}, {"a": 104, "b": 99}, {"a": 1, "b": 1}]
    left = list(counts)
    monkeypatch.setattr(gate, "per_call", lambda folder: left.pop(0))
    assert gate.least({"a": 100, "b": 100}) == {"a": 104, "b": 99}
    assert len(left) == 1
    left[:] = counts
    assert gate.least({"a": 110, "b": 100}) == {"a": 110, "b": 100}
    assert len(left) == 3


TEXT_OF_7 = load.payload(7, SMALL)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (_http(_message(7, TEXT_OF_7)), True),
        (_http(_message(7, TEXT_OF_7), "202 Accepted"), False),
        (_http(_message(7, "other")), False),
        (_http(_message(8, TEXT_OF_7)), False),
        (_http(ERROR % 7), False),
        (_http(b""), False),
        (b"", False),
    ],
)
def test_gate_takes_only_the_right_answer_to_a_call_in_two_segments(
    answer: bytes, right: bool
) -> None:
    """Anything else ends the count: it would be the count of something else."""
    answers = io.BytesIO(answer)
    if right:
        gate.check_answer(answers, 7)
        assert not answers.read()
    else:
        with pytest.raises(TargetFailed):
            gate.check_answer(answers, 7)


def test_gate_fails_without_a_record_and_says_how_to_make_one() -> None:
    """An interpreter without a record must not pass for one that has changed nothing."""
    for recorded in (None, {"modern": 1000}):
        (complaint,) = gate.judge({"legacy": 1000}, recorded)
        assert "no record" in complaint
        assert "make bench-gate GATE_ARGS=--record" in complaint


def test_a_crowd_of_sessions_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bridge whose turns are written down."""
    monkeypatch.setattr(crowd, "_descriptors", lambda: crowd.FILES_BESIDE + 8)
    monkeypatch.setattr(crowd, "WATCHED_S", 0.2)
    figures = list(
        crowd.crowd(bench.Bench(prepare("python", "python", folder), seconds=0.2, rounds=1))
    )
    assert [figure.row for figure in figures] == ["8 sessions with an open stream each"] * 4
    arriving, *_, memory = figures
    assert memory.value > 10
    assert "descriptors" in arriving.note


def test_a_goal_is_met_or_not_in_table_and_line() -> None:
    """The median decides; a figure without a goal claims nothing."""
    met = Figure("row", "met", "us", [9.0, 1.0, 2.0], at_most=2)
    missed = Figure("row", "missed", "us", [9.0, 1.0, 2.1], at_most=2, obstacle="a wall")
    beside = Figure("row", "beside", "us", [3.0])
    assert [json.loads(each.line()).get("met") for each in (met, missed, beside)] == [
        True,
        False,
        None,
    ]
    _, *rows, blank, _, obstacle = table([met, missed, beside]).splitlines()
    assert [line.split()[-1] for line in rows] == ["yes", "NO", "us"]
    assert (blank, obstacle) == ("", "row, missed: a wall")
    assert json.loads(missed.line())["obstacle"] == "a wall"


def test_moves_are_calls_into_another_module_of_the_package() -> None:
    """Frames of others between two of the package do not count, nor do returns."""

    def frame(name: str, back: object = None) -> FrameType:
        return cast(FrameType, SimpleNamespace(f_globals={"__name__": name}, f_back=back))

    counter = moves.Counter()
    bridge = frame("mcpbridge.bridge.bridge", frame("asyncio.events"))
    for each in (bridge, frame("mcpbridge.bridge.bridge", bridge), frame("json", bridge)):
        counter(each, "call", None)
        counter(each, "return", None)
    counter(frame("mcpbridge.wire.messages", frame("functools", bridge)), "call", None)
    assert counter.take() == b"[3, 2, 2]\n"
    assert counter.take() == b"[0, 0, 0]\n"


DOCKER = """#!/bin/sh
case "$*" in
    version) ;;
    "build --quiet --target node "*) echo 'node: no route to host' >&2; exit 1 ;;
    "build --quiet --target "*) echo "sha256:$4" ;;
    "pull --quiet "*) ;;
    *sha256:slim) echo 165000000 ;;
    *python:*) echo 120000000 ;;
    *) echo 200000000 ;;
esac
"""


def test_images_are_measured_by_an_engine_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slim beside the image that it begins with; what cannot be built says why."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = {each.name: each for each in images.images()}
    assert [each.rounds for each in found.values()] == [[165], [], [200], [200], [200], [45]]
    assert found["node"].note == "docker build: node: no route to host"
    assert found["slim beyond its base"].met is False


def test_without_an_engine_the_size_of_images_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is there, neither met nor missed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(images.images())
    assert {(each.note, each.met) for each in found} == {("no engine", None)}
    assert table(found).count("not measured") == len(found) == 6
    assert json.loads(found[0].line())["median"] is None


def _lives(server: str, mine: int, timers: int) -> Callable[..., gate.Life]:
    """Return what counts lives: `mine` instructions a call of 16 connections, twice that of 64."""

    def count(
        _: bench.Bench, of: str, folder: Path, asked: dict[int, int], idle_s: float
    ) -> gate.Life:
        seconds = idle_s + sum(asked.values()) / 100
        a_call = mine if of == server else 100
        instructions = 9_000_000 + asked[16] * a_call + asked[64] * 2 * a_call
        return gate.Life(instructions + round(timers * seconds), seconds)

    return count


def test_instructions_beside_the_bare_server_hold_no_start_and_no_timers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By server and number of connections; the ratio of each number has its goal."""
    monkeypatch.setenv("PATH", str(tmp_path))
    valgrind = tmp_path / "valgrind"
    valgrind.write_text("#!/bin/sh\n")
    valgrind.chmod(0o755)
    monkeypatch.setattr(bare, "_count", _lives(bare.BRIDGE, mine=120, timers=70_000))
    monkeypatch.setattr(bare, "_live", lambda *_: (0, 0.0))
    found = list(bare.beside_bare(bench.Bench(Programs(None, ["child"]), 1.0, 3)))
    assert [round(each.value, 4) for each in found] == [0.12, 0.1, 1.2, 0.24, 0.2, 1.2]
    assert [each.met for each in found] == [None, None, False] * 2


@pytest.mark.slow
def test_without_valgrind_the_bare_server_is_compared_by_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both answer under load, and the ratio says how it was measured."""
    programs = prepare("python", "python", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    made = bench.Bench(programs, seconds=0.1, rounds=1)
    found = list(bare.beside_bare(made))
    ratios = [each for each in found if each.at_most is not None]
    assert [(each.at_most, each.note) for each in ratios] == [
        (1.0, "by processor time: no valgrind")
    ] * 2
    assert all(each.value > 0 for each in found)
    assert made.wrong == 0


def _step(number: int, cpu_us: float, *p99_ms: float) -> latency.Step:
    tally = load.Tally(1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, p50_us=0, p99_us=0, max_us=0)
    told = [replace(tally, p99_us=each * 1000) for each in p99_ms]
    return latency.Step(number, 1000, cpu_us, {latency.LEVELS[0]: told})


def test_a_cliff_is_a_cost_more_than_doubled_or_a_latency_that_outgrows_the_number() -> None:
    """The worst step decides, by the best round of each."""
    even = [_step(1, 10, 1, 9), _step(16, 12, 9, 16), _step(64, 21, 30, 36)]
    dearer, slower = latency.cliffs("connections", even)
    assert (dearer.value, dearer.note, dearer.met) == (1.75, "from 16 to 64", True)
    assert (round(slower.value, 2), slower.note, slower.met) == (0.83, "from 16 to 64", True)
    steep = [*even, _step(128, 43, 61, 70)]
    assert [each.met for each in latency.cliffs("connections", steep)] == [False, False]


@pytest.mark.slow
def test_sessions_are_compared_with_the_same_requests_to_the_bare_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round by round, in one run, beside the times and their goals."""
    monkeypatch.setattr(lives, "SHARED", lives.CLIENTS)
    monkeypatch.setattr(lives, "FORKED", lives.CLIENTS)
    made = bench.Bench(prepare("python", "python", tmp_path), seconds=0.1, rounds=2)
    found = {each.name: each for each in lives.sessions(made)}
    mine, its = found["shared child"].rounds, found["the same requests to bare_asgi"].rounds
    ratio = found["shared child / bare_asgi"]
    assert list(ratio.rounds) == [one / other for one, other in zip(mine, its, strict=True)]
    assert ratio.at_most == lives.TO_BARE_REQUESTS
    assert min(found["forked child"].rounds) > 0


@pytest.mark.slow
def test_one_megabyte_is_compared_with_the_prototype_as_text_and_as_structured_content(
    tmp_path: Path,
) -> None:
    """Every answer is checked; each row has its goal."""
    made = bench.Bench(prepare("python", "python", tmp_path), seconds=0.1, rounds=1)
    ratios = [each for each in calls.payloads(made) if each.name == "bridge / prototype"]
    assert [(each.row, each.at_most) for each in ratios] == [
        ("call of 10 kB, 16 connections", 1.5),
        ("call of 1000 kB, 4 connections", 1.5),
        ("call of 1000 kB structured, 4 connections", 2.0),
    ]
    assert made.wrong == 0


def test_the_table_of_goals_has_the_bare_server_and_the_levels_of_load() -> None:
    """`make bench` measures all parts unless it is told which."""
    assert {"bare", "payloads", "sessions", "latency"} <= set(goals.options([]).only)


@pytest.mark.slow
def test_light_calls_are_measured_on_one_child_and_with_a_child_for_each_session(
    tmp_path: Path,
) -> None:
    """The goal is on the shared one; every answer of both loads is checked."""
    made = bench.Bench(prepare("python", "python", tmp_path), seconds=0.05, rounds=1)
    found = {each.name: each for each in latency.beside(made)}
    ratio = found["99 % beside / alone"]
    assert list(ratio.rounds) == [found["beside, 99 %"].value / found["alone, 99 %"].value]
    assert [each.name for each in found.values() if each.at_most] == [ratio.name]
    assert found["beside, a child for each session, 99 %"].value > 0
    assert made.wrong == 0
