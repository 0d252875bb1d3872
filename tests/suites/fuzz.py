"""`make fuzz`: whatever bytes come, they are read right or refused.

| target | what is asked of it |
|---|---|
| lines | the same lines as `bytes.split`, however the bytes are cut into chunks |
| envelope | id, method and all else as `json` reads them, or a refusal; nothing plain refused |
| sse | an independent decoder reads back the payloads, one event each, ids in order |
| headers | no value breaks a reader; what was encoded is read back |
| http | the running program answers or closes, never with 500, and logs no error |
| framing | good requests, however framed and cut: their answers in order, each with its own id |

Each runs for SECONDS_EACH (60), beginning with the inputs of `tests.suites.corpus`, then with
mutations of them; SEED repeats them. Of a failure the input is printed, to be added there. The
mutations are our own: they know the words of the formats, need no compiler and run under every
Python that the bridge does, a million inputs a minute; a search guided by coverage has no wheels
for some of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.errors import WireError
from mcpbridge.http.responses import EventStream
from mcpbridge.rules.event_log import EventId, Window, read_event_id
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.headers import (
    MAX_VALUE_BYTES,
    acceptable,
    decoded_value,
    is_json,
    is_session_id,
)
from mcpbridge.wire.lines import BOM, KEPT_BYTES, LineSplitter, OverlongLine, encode_line
from mcpbridge.wire.messages import Failure, Message, Notification, Request, decode, encode
from tests.http.fakes import Wire, http_request
from tests.suites import pipelining
from tests.suites.corpus import ENVELOPES, HEADERS, HTTP, LINES, WORDS
from tests.suites.figures import Figures
from tests.support.bridge_process import END_S, RunningBridge, bridge
from tests.support.modern_client import header_value

MAX_LINE = 64
MAX_INPUT = 1 << 15
CONNECTIONS = 32
ARRIVAL_S = 1.0
"""The bridge cuts requests that do not arrive within this."""
ANSWER_WITHIN_S = 10.0
CHILD = Path(__file__).parents[2] / "benchmarks" / "echo_child.py"

Target = Callable[[bytes], None]


def mutations(corpus: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """The corpus, then inputs made of it, without end."""
    yield from corpus
    while True:
        found = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 2, 3, 6))):
            _mutate(found, corpus, chance)
        yield bytes(found[:MAX_INPUT])


def _mutate(data: bytearray, corpus: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16, 64)))
    match chance.randrange(6):
        case 0:
            data[start:end] = chance.choice(WORDS)
        case 1:
            del data[start:end]
        case 2:
            data[start:end] = chance.randbytes(end - start)
        case 3:
            data[start:start] = data[start:end] * chance.choice((1, 2, 100))
        case 4:
            other = chance.choice(corpus)
            data[start:end] = other[chance.randint(0, len(other)) :]
        case _:
            del data[start:]


def lines(data: bytes) -> None:
    """The line splitter against `bytes.split`."""
    whole = data + b"\n"
    wanted = [line for raw in whole.split(b"\n")[:-1] if (line := _line(raw))]
    sizes = itertools.cycle([len(data) % 7 + 1, len(data) % 97 + 1, 1])
    splitter, place = LineSplitter(MAX_LINE), 0
    found: list[bytes | OverlongLine] = []
    while place < len(data):
        size = next(sizes)
        found += splitter.feed(data[place : place + size])
        place += size
    found += splitter.end()
    assert found == wanted
    assert LineSplitter(MAX_LINE).feed(whole) == wanted


def _line(raw: bytes) -> bytes | OverlongLine:
    if len(raw) > MAX_LINE:
        return OverlongLine(len(raw), raw[:KEPT_BYTES], raw[-KEPT_BYTES:])
    return raw.removeprefix(BOM).strip(b" \t\r")


def envelope(data: bytes) -> None:
    """The envelope against `json`: agreement or refusal."""
    try:
        message = decode(data)
    except WireError:
        assert not _is_plain(data), "a plain message is refused"
        return
    said = _json(data.decode())
    assert isinstance(said, dict)
    if isinstance(message, Request | Notification) and said.get("params", ...) is None:
        del said["params"]  # some serialisers write null for none; it can mean no other
    if isinstance(message, Failure) and message.id is None:
        said.setdefault("id", None)  # JSON-RPC 2.0, 5: where it cannot be known it is null
    found = _json(encode_line(encode(message)).decode())
    assert found == said
    assert encode(message).splitlines() in ([encode(message)], [])
    if isinstance(message, Request | Notification):
        # Integers stay text: Python converts none of more than 4300 digits.
        assert json.loads(data, parse_int=str)["method"] == message.method
    request_id = b"" if isinstance(message, Notification) else message.id
    if request_id:
        assert _json(request_id.decode()) == said["id"]
    assert isinstance(message, Notification) == ("id" not in said)


def _json(text: str) -> Any:
    """As `json` reads it, numbers as they are spelled, members in a fixed order, none twice."""

    def members(pairs: list[tuple[str, Any]]) -> Any:
        # Of the names of members, and nothing else, half a character is written as U+FFFD.
        pairs = [(re.sub(r"[\ud800-\udfff]", "\ufffd", name), value) for name, value in pairs]
        return dict(pairs) if len(dict(pairs)) == len(pairs) else sorted(map(repr, pairs))

    return json.loads(
        text, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=members
    )


def _refuse(name: str) -> None:
    raise ValueError(name)


def _is_plain(data: bytes) -> bool:
    """A request or a notification that can be taken for nothing else."""
    if not data.isascii() or b"\\" in data or b"\n" in data or b"\r" in data:
        return False
    try:
        said = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    if not isinstance(said, dict) or not said.keys() <= {"jsonrpc", "id", "method", "params"}:
        return False
    once = all(data.lower().count(b'"%b"' % name.encode()) <= 1 for name in said)
    request_id, params = said.get("id", 0), said.get("params", {})
    return (
        once
        and said.get("jsonrpc") == "2.0"
        and isinstance(said.get("method"), str)
        and (type(request_id) is int or isinstance(request_id, str))
        and re.search(rb'"id"\s*:\s*-0\b', data) is None
        and len(str(request_id)) < 1000
        and isinstance(params, dict)
        and data.count(b"{") + data.count(b"[") < 32
    )


class Sse:
    """The encoder of event streams against a decoder written from the standard."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def __call__(self, data: bytes) -> None:
        """One stream with two payloads made of the input."""
        told = {"jsonrpc": "2.0", "method": "x", "params": {"t": data.decode("utf-8", "replace")}}
        sent = [decode(json.dumps(told, ensure_ascii=False).encode())]
        with contextlib.suppress(WireError):
            sent.append(decode(data))
        self._loop.run_until_complete(self._check(sent))

    async def _check(self, sent: Sequence[Message]) -> None:
        stream, wire = Stream(Window(), Meters(), first_id=EventId("ab", 1, 0)), Wire()
        payloads = [encode(message) for message in sent]
        for payload in payloads:
            stream.append(payload, sheddable=False)
        stream.close()
        with stream.attach() as reader:
            await EventStream(reader).serve(http_request(wire))
        events = list(read_events(b"".join(wire.chunks)))
        texts = [payload.decode() for payload in payloads]
        wanted = [(f"ab-1-{number}", "message", text) for number, text in enumerate(texts, 1)]
        assert events == wanted


def read_events(stream: bytes) -> Iterator[tuple[str, str, str]]:
    """Id, type and data of each event, as WHATWG HTML, 9.2.6, has it; fields in any order."""
    text = stream.decode().removeprefix("\ufeff")
    last_id, kind, data = "", "", list[str]()
    for line in re.split(r"\r\n|\n|\r", text):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if not line:
                if data:
                    yield last_id, kind or "message", "\n".join(data)
                kind, data = "", []
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                last_id = value
            case "event":
                kind = value


def headers(data: bytes) -> None:
    """Readers of header values: no value breaks them, and what was written is read back."""
    value = data.decode("latin-1")
    takes = acceptable(value)
    assert not takes.names_stream or takes.stream
    more = acceptable(f"{value}, x/y")
    assert (more.json, more.stream) >= (False, False)
    assert not is_json(value) or value.partition(";")[0].strip().lower() == "application/json"
    assert not is_session_id(value) or (value.isascii() and value.isprintable())
    event_id = read_event_id(value)
    if event_id is not None:
        written = f"{event_id.prefix.decode()}{event_id.number}"
        assert read_event_id(written) == event_id
    read = decoded_value(value)
    assert read is None or read == value.strip(" \t") or "=?base64?" in value
    text = data.decode("utf-8", "replace").strip(" ")
    marked = text.startswith("=?base64?") and text.endswith("?=")
    if not marked and len(header_value(text)) <= MAX_VALUE_BYTES:
        assert decoded_value(header_value(text)) == text


async def http(running: RunningBridge, inputs: Iterator[bytes], until: float) -> int:
    """Requests as bytes against the running program; how many.

    Raises:
        AssertionError: With the input that was not answered, or with 500.
    """
    count = 0

    async def client() -> None:
        nonlocal count
        while monotonic() < until:
            data = next(inputs)
            count += 1
            answer = await _answer(running.port, data)
            assert not re.match(rb"HTTP/1\.1 500", answer), (data, answer)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CONNECTIONS):
            clients.create_task(client())
    async with running.client() as client_of_health:
        response = await client_of_health.get("/livez")
        assert response.status_code == 200, response
    return count


async def _answer(port: int, data: bytes) -> bytes:
    """The first bytes of the answer; none if the connection was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await reader.read(1 << 16)
    except TimeoutError:
        raise AssertionError(f"neither answered nor closed: {data!r}") from None
    except OSError:
        return b""
    finally:
        writer.close()


async def framing(running: RunningBridge, chance: random.Random, until: float) -> int:
    """Good requests on one connection each, against the running program; how many connections.

    Raises:
        AssertionError: With the requests and the answers that are not theirs.
    """
    count = 0

    async def client() -> None:
        nonlocal count
        while monotonic() < until:
            sent = pipelining.requests(chance)
            groups = pipelining.segments(sent, chance)
            count += 1
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    received = await pipelining.answers(running.port, groups)
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                raise AssertionError(f"{error!r}: {groups!r}") from None
            pipelining.check(sent, received)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CONNECTIONS):
            clients.create_task(client())
    return count


async def run_program(
    figures: Figures,
    name: str,
    target: Callable[[RunningBridge, float], Awaitable[int]],
    arrival_s: float,
    seconds: float,
) -> None:
    """A target that is the running program, which cuts requests that take longer to arrive."""
    limits = ("--header-timeout", str(arrival_s), "--body-timeout", str(arrival_s))
    words = (*limits, "--unused-session-timeout", "1", "--", sys.executable, "-S", str(CHILD))
    failures, count = 0, 0
    try:
        async with bridge(*words) as running:
            count = await target(running, monotonic() + seconds)
    except* AssertionError as group:
        failures = 1
        for error in group.exceptions:
            figures.show("failure", repr(error))
    figures.equal(name, failures, 0, inputs=count)


def run(
    figures: Figures, name: str, target: Target, inputs: Iterator[bytes], seconds: float
) -> None:
    """One target for that many seconds, or until it fails."""
    until, count, failures = monotonic() + seconds, 0, 0
    for data in inputs:
        count += 1
        try:
            target(data)
        except Exception:
            failures = 1
            figures.show("failure", repr(data), target=name)
            traceback.print_exc()
            break
        if count % 64 == 0 and monotonic() > until:
            break
    figures.equal(name, failures, 0, inputs=count)


def main() -> int:
    """All targets; the exit status."""
    seconds = float(os.environ.get("SECONDS_EACH") or 60)
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    figures = Figures("fuzz")
    figures.show("seed", seed, seconds_each=seconds)
    targets: tuple[tuple[str, Target, Sequence[bytes]], ...] = (
        ("lines", lines, LINES),
        ("envelope", envelope, ENVELOPES),
        ("sse", Sse(), ENVELOPES),
        ("headers", headers, HEADERS),
    )
    for name, target, corpus in targets:
        run(figures, name, target, mutations(corpus, random.Random(seed)), seconds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        inputs, chance = mutations(HTTP, random.Random(seed)), random.Random(seed)
        programs = (
            ("http", lambda running, until: http(running, inputs, until), ARRIVAL_S),
            ("framing", lambda running, until: framing(running, chance, until), END_S),
        )
        for name, program, arrival_s in programs:
            runner.run(run_program(figures, name, program, arrival_s, seconds))
    return figures.end()


if __name__ == "__main__":
    sys.exit(main())
