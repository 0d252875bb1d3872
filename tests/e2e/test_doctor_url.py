"""`mcpbridge doctor URL` in front of endpoints that break one rule each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.support.bridge_process import asked_until, bridge
from tests.support.doctor import DoctorRun, as_operator, doctor

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

EVENTS = "text/event-stream"
NEVER = b""
"""No answer; the connection stays until its client leaves."""
WAIT = b": wait\r\n\r\n"
"""The end of an answer after which the connection stays as well."""
LONG = "x" * 70_000


class Asked(NamedTuple):
    """One request to an endpoint."""

    verb: str
    path: str
    message: Any

    @property
    def method(self) -> str:
        """The JSON-RPC method; empty for none."""
        return str(self.message.get("method", "")) if isinstance(self.message, dict) else ""


Rule = Callable[[Asked], bytes | None]
"""What an endpoint answers; None for what a good one would."""


def http(body: bytes, status: int = 200, kind: str = "application/json") -> bytes:
    """A whole response."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream(*data: bytes, kind: str = EVENTS) -> bytes:
    """A response whose events have these data, and that ends with its connection."""
    events = b"".join(b"event: message\r\ndata: %b\r\n\r\n" % each for each in data)
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + events


def reply(request_id: Any, result: Any) -> bytes:
    """A good answer."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode()


def client_profile(asked: Asked, **changes: Any) -> bytes:
    """The answer to `initialize`."""
    result = {
        "protocolVersion": "2024-11-05",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "fake", "version": "1"},
    }
    return reply(asked.message["id"], {**result, **changes})


def good(asked: Asked) -> bytes:
    """What breaks no rule."""
    match (asked.verb, asked.path, asked.method):
        case ("GET", "/health", _):
            return http(b"{}")
        case ("POST", "/mcp", "initialize"):
            return http(client_profile(asked))
        case ("POST", "/mcp", "notifications/initialized"):
            return http(b"", 202)
        case ("POST", "/mcp", "tools/list"):
            return http(reply(asked.message["id"], {"tools": []}))
        case _:
            return http(b"{}", 404)


def on(method: str, answer: Callable[[Asked], bytes]) -> Rule:
    """A rule for one JSON-RPC method."""
    return lambda asked: answer(asked) if asked.method == method else None


def tools(asked: Asked, text: str = "") -> bytes:
    """The answer to `tools/list`."""
    return reply(asked.message["id"], {"tools": [{"name": "t", "description": text}]})


LOG = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
BROKEN: dict[str, tuple[Rule, str, str]] = {
    # What is broken: how, the check that fails by it, and a part of what is said.
    "404": (lambda a: http(b"{}", 404) if a.verb == "POST" else None, "sse", "answered 404"),
    "silent": (on("initialize", lambda _: NEVER), "streamable", "no head in time: 2 s"),
    "endless": (on("tools/list", lambda _: stream() + WAIT), "tools/list", "no end in time: 5 s"),
    "charset": (
        on("initialize", lambda a: stream(client_profile(a), kind=f"{EVENTS}; charset=utf-8")),
        "initialize",
        "is not a JSON object",
    ),
    "long line": (on("tools/list", lambda a: stream(tools(a, LONG))), "tools/list", "65536 bytes"),
    "log first": (
        on("tools/list", lambda a: stream(LOG, tools(a))),
        "tools/list",
        "is not a JSON object",
    ),
    "text id": (
        on("tools/list", lambda _: http(reply("2", {"tools": []}))),
        "tools/list",
        "came back as '2'",
    ),
    "newer": (
        on("initialize", lambda a: http(client_profile(a, protocolVersion="2025-11-25"))),
        "revision",
        "2025-11-25",
    ),
    "nameless": (
        on("initialize", lambda a: http(client_profile(a, serverInfo={}))),
        "server_info",
        "serverInfo.name",
    ),
    "told 400": (on("notifications/initialized", lambda _: http(b"{}", 400)), "initialized", "400"),
    "login": (
        on("tools/list", lambda _: http(b'{"error":"upstream said 401"}', 502)),
        "tools/list",
        "takes the server for one with a login",
    ),
    "no list": (on("tools/list", lambda a: http(reply(2, {}))), "tools/list", "no list of tools"),
    "error": (
        on("tools/list", lambda _: http(b'{"jsonrpc":"2.0","id":2,"error":{"code":1}}')),
        "tools/list",
        "answered with an error",
    ),
    "sick": (lambda a: http(b"{}", 503) if a.path == "/health" else None, "health", "503"),
    "no http": (lambda _: b"220 mail.example ESMTP\r\n", "streamable", "not HTTP"),
    "closes": (lambda _: b"HTTP/1.1 200", "streamable", "disconnected"),
}


@asynccontextmanager
async def endpoint(rule: Rule) -> AsyncIterator[str]:
    """An endpoint that keeps a rule where it has one, and is good elsewhere; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            verb, path, _ = head[0].split()
            sizes = [line for line in head if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(sizes[0].partition(":")[2]) if sizes else 0)
            asked = Asked(verb, path, json.loads(body) if body else None)
            answer = rule(asked)
            writer.write(good(asked) if answer is None else answer)
            await writer.drain()
            if answer == NEVER or (answer and answer.endswith(WAIT)):
                await reader.read()  # until the client leaves
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def visited(rule: Rule, *words: str) -> DoctorRun:
    """What the operator says of an endpoint."""
    async with endpoint(rule) as url:
        return await as_operator(url, "--retry-wait", "0s", *words)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visits() -> dict[str, DoctorRun]:
    """What the operator says of each broken endpoint."""
    few = asyncio.Semaphore(4)

    async def in_turn(rule: Rule) -> DoctorRun:
        # The operator's deadlines are short: not all programs may start at once.
        async with few:
            return await visited(rule)

    found = await asyncio.gather(*(in_turn(rule) for rule, _, _ in BROKEN.values()))
    return dict(zip(BROKEN, found, strict=True))


async def test_a_good_endpoint_passes() -> None:
    """So that what fails below fails by its one broken rule."""
    said = await visited(lambda _: None)
    assert (said.status, said.failed(), said.report["attempts"]) == (0, [], 1), said.out
    events = await visited(lambda a: stream(tools(a)) if a.method == "tools/list" else None)
    assert events.status == 0, events.out


@pytest.mark.parametrize("what", BROKEN)
async def test_one_broken_rule_is_found(visits: dict[str, DoctorRun], what: str) -> None:
    """The check that fails by it, what was seen, and what the operator does about it."""
    _, check, part = BROKEN[what]
    said = visits[what]
    assert (said.status, said.failed()) == (1, [check]), said.out
    (found,) = [each for each in said.report["checks"] if each["mark"] == "failed"]
    everything = " ".join(f"{each['words']} {each['then']}" for each in said.report["checks"])
    assert part in everything
    assert found["then"]


async def test_only_what_time_may_mend_is_tried_again(visits: dict[str, DoctorRun]) -> None:
    """Silence, a refused connection and 5xx cost an attempt; a broken rule is final."""
    again = {what for what, said in visits.items() if said.report["attempts"] == 2}
    assert again >= {"silent", "endless"}

    async def was_final(what: str) -> bool:
        rule, _, _ = BROKEN[what]
        return bool((await visited(rule)).report["attempts"] == 1)

    # On a busy machine a visit can miss the operator's own deadlines: it is then made again, alone.
    for what in again - {"silent", "endless"}:
        await asked_until(partial(was_final, what), f"a visit of one attempt to {what}")
    unavailable = await visited(on("initialize", lambda _: http(b"{}", 503)))
    assert unavailable.report["attempts"] == 2
    async with endpoint(lambda _: None) as url:
        pass
    refused = await as_operator(url, "--retry-wait", "0s")
    assert (refused.status, refused.failed(), refused.report["attempts"]) == (1, ["port"], 2)


def old(endpoint_event: bytes, kind: str = EVENTS) -> Rule:
    """An endpoint of the older transport that names a place and says no more."""

    def rule(asked: Asked) -> bytes | None:
        if asked.path != "/sse":
            return http(b"", 202) if asked.path == "/messages" else None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode()
        return head + endpoint_event + WAIT

    return rule


async def test_the_older_transport_is_looked_at_as_closely() -> None:
    """Its type, its first event, the time to its answers; and where a POST is 405."""
    place = b"event: endpoint\r\ndata: /messages\r\n\r\n"
    cases: list[tuple[Rule, str, str]] = [
        (old(place, kind=f"{EVENTS};charset=utf-8"), "sse_type", "to the letter"),
        (old(b""), "sse", "no endpoint event within 1 s"),
        (old(b"data: hello\r\n\r\n"), "sse", "not 'endpoint'"),
        (old(place), "sse", "no answer to initialize within 2 s"),
        (old(b"event: endpoint\r\ndata: /none\r\n\r\n"), "sse", "POST /none: 404"),
        (old(place + b"data: " + b"x" * 70_000 + b"\r\n\r\n"), "sse", "65536"),
    ]
    runs = await asyncio.gather(*(visited(rule, "--protocol", "sse") for rule, _, _ in cases))
    for said, (_, check, part) in zip(runs, cases, strict=True):
        assert (said.status, said.failed()) == (1, [check]), said.out
        assert part in said.out
    latched = await visited(lambda a: http(b"", 405) if a.verb == "POST" else None)
    assert latched.marks() == {"port": "ok", "streamable": "note", "sse": "failed"}
    strict = await visited(
        lambda a: http(b"", 405) if a.verb == "POST" else None, "--protocol", "streamable-http"
    )
    assert strict.failed() == ["streamable"]


async def test_the_lifecycle_operator_wants_a_handshake() -> None:
    """Of either era; its checks say what is missing."""

    def modern(asked: Asked) -> bytes | None:
        if asked.method == "server/discover":
            return http(reply(asked.message["id"], {"supportedVersions": ["2026-07-28"]}))
        return http(b'{"error":1}', 400) if asked.method == "initialize" else None

    async with endpoint(modern) as new, endpoint(lambda _: http(b"no", 500)) as bad:
        runs = [await doctor(url, "--as", "lifecycle-operator", "--json") for url in (new, bad)]
    assert [said.status for said in runs] == [0, 1]
    assert runs[0].marks() == {
        "readiness": "ok",
        "initialize": "note",
        "handshake": "ok",
        "cancelled": "ok",
    }
    assert runs[1].failed() == ["handshake"]


async def test_the_health_of_any_endpoint() -> None:
    """Every revision and transport of a bridge; and where nothing of MCP is."""
    async with bridge() as running, endpoint(lambda _: http(b"<p>\nhello")) as nothing:
        words, facts, none = await asyncio.gather(
            doctor(running.url), doctor(running.url, "--json"), doctor(nothing, "--json")
        )
        assert (words.status, facts.status, none.status) == (0, 0, 1)
        for part in ("2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25", "2026-07-28", "HTTP+SSE"):
            assert part in words.out
        assert set(facts.marks().values()) == {"ok"}
        assert none.failed() == ["served"]
        assert any("<p> hello" in each["words"] for each in none.report["checks"])
    gone = await doctor(running.url)
    assert gone.status == 1
    assert "no client can use it" in gone.out
