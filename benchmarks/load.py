"""A load to put on a target, the generator that does it, and what came of it.

The generator is a separate process (`load.c` where there is a compiler, else `load_fallback`),
told what to send as preformatted HTTP requests in which only the digits of the call's id change.
So the form of the calls is decided here once, and both generators send the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

FIRST_ID = 100_000_000
"""Nine digits, to leave every message of a run the same size; the generators count up from it."""

FIRST_ROW = 10_000
"""Five digits, to leave the rows of structured content the same size."""
DIGITS = len(str(FIRST_ID))
OUTCOMES = ("right", "status", "shape", "id", "text", "notes", "lost")
"""What may become of a call; the names are explained at `Tally`."""
LONGEST_START_S = 60
"""Bound on what a generator does beside loading: start, connect, report."""


class GeneratorFailed(Exception):
    """The generator ended without a report: no connection, or arguments it does not take."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    def __str__(self) -> str:
        return f"the load generator gave up: {self.words.strip() or 'without a word'}"


@dataclass(frozen=True, slots=True)
class Load:
    """`connections` clients of one endpoint, each calling `echo` as soon as it has its answer."""

    host: str
    """An IPv4 address."""
    port: int
    path: str
    connections: int
    payload_bytes: int
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, beside those of the content."""
    each: tuple[dict[str, str], ...] = ()
    """Further headers, of equal size: the connections take one set each, in turn."""
    meta: dict[str, object] = field(default_factory=dict)
    """The `_meta` of every call's params."""
    structured_bytes: int = 0
    """About how many bytes of structured content every call sends and awaits; 0 for none."""
    notes: int = 0
    """Notifications of progress that every call asks for, and awaits."""
    rate: float = 0.0
    """Calls a second of all connections; 0: each calls as soon as its last call is answered."""
    warm_s: float = 0.0
    """Load before what is measured, in seconds."""
    max_calls: int = 0
    """End after that many calls, if that is sooner; 0 for no such end."""
    patience_s: float = 10.0
    """After that long without any answer those awaited are lost."""
    same_id: bool = False
    """Send one id and payload each time: the target answers a constant (`answer_to_first`)."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of the measured part of a load."""

    calls: int
    """Calls begun; each has exactly one of the seven outcomes below."""
    seconds: float
    """From the first call's begin to the last answer."""
    busy_s: float
    """Processor time of the generator itself in that time."""
    reopened: int
    """Connections the target closed, or that were given up with a lost answer."""
    right: int
    status: int
    """Answers that were not 200."""
    shape: int
    """Answers that hold no JSON-RPC result of a tool, or none that says it went well."""
    id: int
    """Results under another id than the call's."""
    text: int
    """Results with another text, or other structured content, than the call's."""
    notes: int
    """Right results with other notifications of progress than asked for, or in another order."""
    lost: int
    """No answer, or none whose end could be known."""
    p50_us: float
    """Microseconds within which half of the answers came, from when each call was due."""
    p99_us: float
    max_us: float

    @property
    def wrong(self) -> int:
        """Calls without their right answer, and answers that were not asked for."""
        return self.status + self.shape + self.id + self.text + self.notes + self.lost

    @property
    def calls_per_s(self) -> float:
        """Calls answered in a second."""
        return self.calls / self.seconds

    @property
    def busy_share(self) -> float:
        """The share of one processor the generator took; near 1 it was what limited the rate."""
        return self.busy_s / self.seconds


def payload(call_id: int, size: int) -> str:
    """The text of a call: the id's last digits, filled up, so that no two calls send the same."""
    return (str(call_id)[-min(size, DIGITS) :] + "x" * size)[:size] if size else ""


def structured(size: int) -> dict[str, object]:
    """Structured content of about that many bytes: rows with a few members each, as of a table."""
    row = {"id": FIRST_ROW, "name": f"row {FIRST_ROW}", "score": 0.5, "tags": ["a", "b"]}
    row |= {"open": True, "note": None}
    row_bytes = len(json.dumps(row, separators=(",", ":"))) + len(",")
    numbers = range(FIRST_ROW, FIRST_ROW + size // row_bytes)
    return {"rows": [{**row, "id": number, "name": f"row {number}"} for number in numbers]}


def call(
    call_id: int,
    size: int,
    notes: int = 0,
    meta: dict[str, object] | None = None,
    structured_bytes: int = 0,
) -> bytes:
    """The JSON-RPC request of one call."""
    arguments: dict[str, object] = {"text": payload(call_id, size)}
    params: dict[str, object] = {"name": "echo", "arguments": arguments}
    if notes:
        arguments["progress"] = notes
    if structured_bytes:
        arguments["structured"] = structured(structured_bytes)
    if meta:
        params["_meta"] = meta
    message = {"jsonrpc": "2.0", "id": call_id, "method": "tools/call", "params": params}
    return json.dumps(message, separators=(",", ":")).encode()


def answer_to_first(size: int) -> bytes:
    """The right answer to the call of a load with `same_id`, as the echo child would write it."""
    result = {"content": [{"type": "text", "text": payload(FIRST_ID, size)}]}
    message = {"jsonrpc": "2.0", "id": FIRST_ID, "result": result}
    return json.dumps(message, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class _Templates:
    requests: tuple[bytes, ...]
    id_at: int
    text_at: int


def _templates(load: Load) -> _Templates:
    # A token has to be one of a kind among the calls in flight, so each connection has its own.
    count = load.connections if load.notes else max(1, len(load.each))
    parts = [_request(load, number) for number in range(count)]
    if len({(len(head), len(body)) for head, body in parts}) > 1:
        raise ValueError("the requests of a load are not of equal size")
    head, body = parts[0]
    id_at = body.index(b'"id":') + len('"id":')
    text_at = body.index(b'"text":"') + len('"text":"')
    requests = tuple(head + body for head, body in parts)
    return _Templates(requests, len(head) + id_at, len(head) + text_at)


def _request(load: Load, number: int) -> tuple[bytes, bytes]:
    token = {"progressToken": FIRST_ID + number} if load.notes else {}
    meta = {**load.meta, **token}
    body = call(FIRST_ID, load.payload_bytes, load.notes, meta, load.structured_bytes)
    headers = {
        "Host": f"{load.host}:{load.port}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Content-Length": str(len(body)),
        **load.headers,
        **(load.each[number % len(load.each)] if load.each else {}),
    }
    lines = [f"POST {load.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"), body


def command(load: Load, program: Path | None) -> list[str]:
    """The generator's command line: `program` (a compiled `load.c`), or the Python one if None."""
    templates = _templates(load)
    fallback = [sys.executable, str(Path(__file__).with_name("load_fallback.py"))]
    arguments = (
        load.host,
        load.port,
        load.connections,
        load.warm_s,
        load.seconds,
        load.max_calls,
        load.patience_s,
        0 if load.same_id else 1,
        templates.id_at,
        templates.text_at,
        load.payload_bytes,
        load.notes,
        load.rate,
        len(templates.requests),
        len(templates.requests[0]),
    )
    return [*([str(program)] if program else fallback), *map(str, arguments)]


@contextmanager
def warm_generator(load: Load, program: Path | None) -> Iterator[Callable[[], Tally]]:
    """A generator, connected and warm; calling what it yields, once, is the measured load.

    The connections stay open until the context ends.

    Raises:
        GeneratorFailed: On entry or from the call: the target refuses connections.
    """
    process = subprocess.Popen(
        command(load, program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        _say(process, b"".join(_templates(load).requests))
        if _next_line(process) != b"warm\n":
            raise GeneratorFailed(_last_words(process))
        yield lambda: _measure(process)
    finally:
        _end(process)


def _measure(process: subprocess.Popen[bytes]) -> Tally:
    _say(process, b"\n")
    report = _next_line(process)
    if not report:
        raise GeneratorFailed(_last_words(process))
    return Tally(**json.loads(report))


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the generator was started without pipes")
    return pipe


def _say(process: subprocess.Popen[bytes], words: bytes) -> None:
    try:
        _open(process.stdin).write(words)
        _open(process.stdin).flush()
    except BrokenPipeError:
        raise GeneratorFailed(_last_words(process)) from None


def _next_line(process: subprocess.Popen[bytes]) -> bytes:
    # Needs no other bound: a generator ends by itself, after its seconds and its patience.
    return _open(process.stdout).readline()


def _last_words(process: subprocess.Popen[bytes]) -> str:
    try:
        return process.communicate(timeout=LONGEST_START_S)[1].decode(errors="replace")
    except (subprocess.TimeoutExpired, ValueError):
        return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=LONGEST_START_S)
    except (subprocess.TimeoutExpired, ValueError):
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        _open(pipe).close()
