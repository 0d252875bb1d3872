"""Calls one after the other on one connection, each alone: the fast path and its ends.

Nothing outside tells which way a call took, and that is what most of these tests are about:
whatever comes under a head that the bridge knows is served as under one that it sees for the first
time.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import (
    RunningBridge,
    bridge,
    child,
    eventually,
    messages,
    open_session,
    rpc,
)
from tests.support.modern_client import headers_of, meta
from tests.support.proofs import proves
from tests.support.raw_http import RawResponse, Wire, recorded, wire

WAYS = (sys.executable, str(Path(__file__).parents[1] / "support" / "ordinary_path.py"))
OURS = {"PYTHONPATH": str(Path(__file__).parents[2])}
BOTH = "application/json, text/event-stream"


def request(body: Any, headers: dict[str, str]) -> bytes:
    """A POST as most client libraries write it, in one piece."""
    data = json.dumps(body).encode()
    lines = ["POST /mcp HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data


class Caller:
    """A client that keeps to one connection."""

    def __init__(self, connection: Wire, headers: dict[str, str]) -> None:
        self.connection = connection
        self.headers = headers
        self._last = 0

    async def send(self, method: str, params: Any = None) -> int:
        """One call, sent; its id."""
        self._last += 1
        await self.connection.send(request(rpc(self._last, method, params), self.headers))
        return self._last

    async def ask(self, method: str, params: Any = None) -> RawResponse:
        """One call and its response."""
        await self.send(method, params)
        return await self.connection.response()

    async def tool(self, name: str, **arguments: Any) -> RawResponse:
        """One call of a tool."""
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def settle(self) -> None:
        """Enough calls for the bridge to know the head."""
        for number in range(3):
            heard = await self.tool("echo", text=str(number))
            assert result(heard)["content"][0]["text"] == str(number)


def result(heard: RawResponse) -> Any:
    """The result in a JSON response under its own id."""
    assert heard.status == 200, heard
    assert heard.headers["content-type"] == "application/json"
    return json.loads(heard.body)["result"]


@asynccontextmanager
async def caller(running: RunningBridge, **more: str) -> AsyncIterator[Caller]:
    """A client of the legacy era with a session."""
    async with running.client() as client, wire(running.port) as connection:
        session = await open_session(client)
        yield Caller(connection, {**session, "Accept": BOTH, **more})


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--auth-token-file", "TOKENS")], ids=["open", "token"])
async def test_calls_do_take_it(words: tuple[str, ...], tmp_path: Path) -> None:
    """In the whole program: two under each head the ordinary path, and none after them."""
    tokens = tmp_path / "tokens"
    tokens.write_text("someone:" + "s3cr3t" * 8 + "\n", "utf-8")
    tokens.chmod(0o600)
    bearer = {"Authorization": "Bearer " + "s3cr3t" * 8} if words else {}
    given = [str(tokens) if word == "TOKENS" else word for word in words]
    async with bridge(*given, under=WAYS, env=OURS) as running:
        async with running.client(headers=bearer) as client, wire(running.port) as connection:
            session = await open_session(client)
            here = Caller(connection, {**session, "Accept": BOTH, **bearer})
            await here.settle()
            for number in range(10):
                assert result(await here.tool("echo", text=str(number)))
        async with wire(running.port) as connection:
            for number in range(12):
                params = {"name": "echo", "arguments": {"text": str(number)}, "_meta": meta()}
                message = rpc(number, "tools/call", params)
                headers = {"Accept": BOTH, **headers_of(message), **bearer}
                await connection.send(request(message, headers))
                assert result(await connection.response())
        running.signal(signal.SIGUSR1)
        # What was written before that has been read by then.
        await running.logged("serve.state")
        opening, first_and_second = 2, 2
        assert len(running.events("test.ordinary")) == opening + 2 * first_and_second


async def read_by_now(port: int) -> None:
    """Another connection's answer: what was sent before it has been read."""
    async with wire(port) as other:
        await other.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await other.response()).status == 200


@pytest.mark.slow
async def test_calls_whose_bodies_come_after_their_heads_take_it_too() -> None:
    """As httpx sends them, and so the official client library: a head, then its body."""
    async with bridge(under=WAYS, env=OURS) as running, caller(running) as here:
        for number in range(8):
            arguments = {"text": str(number)}
            message = rpc(number, "tools/call", {"name": "echo", "arguments": arguments})
            head, _, body = request(message, here.headers).partition(b"\r\n\r\n")
            for segment in (head + b"\r\n\r\n", body[:20], body[20:]):
                await here.connection.send(segment)
                await read_by_now(running.port)
            heard = await here.connection.response()
            assert result(heard)["content"][0]["text"] == str(number)
            assert answered_by(heard) == number
        running.signal(signal.SIGUSR1)
        # What was written before that has been read by then.
        await running.logged("serve.state")
        opening, first_and_second = 2, 2
        posts = [each for each in running.events("test.ordinary") if each["method"] == "POST"]
        assert len(posts) == opening + first_and_second


@pytest.mark.slow
async def test_a_call_cut_at_any_byte_gets_its_own_answer() -> None:
    """Under a known head, and behind a call that was cut elsewhere."""
    async with bridge() as running, caller(running) as here:
        await here.settle()
        size = len(request(rpc(1000, "ping"), here.headers))
        for cut in range(1, size):
            data = request(rpc(1000 + cut, "ping"), here.headers)
            await here.connection.send(data[:cut])
            await read_by_now(running.port)
            await here.connection.send(data[cut:])
            heard = await here.connection.response()
            assert (answered_by(heard), heard.status) == (1000 + cut, 200)


@proves("fault 52")
@pytest.mark.slow
async def test_a_body_that_does_not_come_is_awaited_no_longer_than_any() -> None:
    """A known head alone, and one with half its body: 408, which names the limit."""
    async with bridge("--body-timeout", "400ms") as running:
        for half in (0, 9):
            async with caller(running) as here:
                await here.settle()
                head, _, body = request(rpc(9, "ping"), here.headers).partition(b"\r\n\r\n")
                await here.connection.send(head + b"\r\n\r\n" + body[:half])
                heard = await here.connection.response()
                assert heard.status == 408
                assert "--body-timeout 0.4 s" in heard.error["message"]
                assert await here.connection.rest() == b""


@pytest.mark.slow
async def test_whatever_comes_under_a_known_head_is_served_as_ever() -> None:
    """Sizes, errors, notifications, nonsense, a call that becomes a stream, two at once."""
    async with bridge("--json-window", "200ms") as running, caller(running) as here:
        await here.settle()
        for size in (0, 1, 80, 1000, 60_000):
            assert result(await here.tool("echo", text="x" * size))["content"][0]["text"] == (
                "x" * size
            )
        unknown = await here.ask("no/such")
        assert unknown.status == 200
        assert json.loads(unknown.body)["error"]["code"] == -32601
        await here.connection.send(
            request({"jsonrpc": "2.0", "method": "notifications/x"}, here.headers)
        )
        assert (await here.connection.response()).status == 202
        for nonsense, code in ((b"{", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0"}', -32600)):
            text = request({}, here.headers).replace(b"Length: 2", b"Length: %d" % len(nonsense))
            await here.connection.send(text.removesuffix(b"{}") + nonsense)
            heard = await here.connection.response()
            assert (heard.status, heard.error["code"]) == (400, code)
        json_only = await here.tool("countdown", seconds=0.6)
        assert json_only.headers["content-type"] == "application/json"
        assert result(json_only)["content"][0]["text"] == "liftoff"
        arguments = {"seconds": 0.6, "steps": 1}
        watched = {"name": "countdown", "arguments": arguments, "_meta": {"progressToken": 1}}
        slow = await here.ask("tools/call", watched)
        assert slow.headers["content-type"] == "text/event-stream"
        assert messages(slow.body.decode())[-1]["result"]["content"][0]["text"] == "liftoff"
        await here.settle()
        first = await here.send("tools/call", {"name": "countdown", "arguments": {"seconds": 0.1}})
        second = await here.send("ping")
        answers = [await here.connection.response(), await here.connection.response()]
        assert [answered_by(answer) for answer in answers] == [first, second]


def answered_by(heard: RawResponse) -> Any:
    """The id of the call that a response answers, as JSON or, on a busy machine, as a stream."""
    text = heard.body.decode()
    streams = heard.headers["content-type"] == "text/event-stream"
    return (messages(text)[-1] if streams else json.loads(text))["id"]


@proves("fault 79", "fault 82")
@pytest.mark.slow
async def test_a_head_that_is_known_names_a_session_that_may_end() -> None:
    """Deleted by another connection: the next call is told so."""
    async with bridge() as running, caller(running) as here:
        await here.settle()
        async with running.client() as other:
            gone = await other.delete("/mcp", headers=here.headers)
            assert gone.status_code == 200
        heard = await here.tool("echo", text="x")
        assert heard.status == 404
        assert json.loads(heard.body)["id"] == 4


@pytest.mark.slow
async def test_a_client_of_2026_07_28_is_served_so_too() -> None:
    """Its head says what the body says; one that does not is refused."""
    async with bridge() as running, wire(running.port) as connection:
        for number in range(6):
            params = {"name": "echo", "arguments": {"text": str(number)}, "_meta": meta()}
            message = rpc(number, "tools/call", params)
            headers = {"Accept": BOTH, **headers_of(message)}
            await connection.send(request(message, headers))
            heard = await connection.response()
            assert result(heard)["content"][0]["text"] == str(number)
        params["name"] = "add"
        await connection.send(request(rpc(7, "tools/call", params), headers))
        refused = await connection.response()
        assert (refused.status, refused.error["code"]) == (400, -32020)
        wrong = rpc(8, "tools/call", {"name": "none", "arguments": {}, "_meta": meta()})
        headers = {"Accept": BOTH, **headers_of(wrong)}
        for _ in range(3):
            await connection.send(request(wrong, headers))
            assert (await connection.response()).status == 200


@proves("fault 56")
@pytest.mark.slow
async def test_a_client_of_2026_07_28_that_leaves_has_cancelled(tmp_path: Path) -> None:
    """The child is told, whichever way the call took."""
    async with bridge("--", *child("recorder", str(tmp_path))) as running:
        async with wire(running.port) as connection:
            for number in range(3):
                message = rpc(number, "x/echo", {"_meta": meta()})
                await connection.send(request(message, {"Accept": BOTH, **headers_of(message)}))
                assert (await connection.response()).status == 200
            held = rpc(3, "x/hold", {"name": "it", "_meta": meta()})
            # Another method is another head: `x/hold` is known after a call that is released.
            release = rpc(4, "x/release", {"name": "it", "_meta": meta()})
            await connection.send(request(held, {"Accept": BOTH, **headers_of(held)}))
            await eventually(lambda: b"x/hold" in recorded(tmp_path), "the child has the call")
            async with wire(running.port) as other:
                await other.send(request(release, {"Accept": BOTH, **headers_of(release)}))
                assert (await other.response()).status == 200
            assert (await connection.response()).status == 200
            await connection.send(request(held, {"Accept": BOTH, **headers_of(held)}))
            await eventually(lambda: recorded(tmp_path).count(b"x/hold") == 2, "it has it again")
        await eventually(lambda: b"notifications/cancelled" in recorded(tmp_path), "it is told")


@proves("fault 96")
@pytest.mark.slow
async def test_a_call_in_flight_at_sigterm_is_answered_with_a_farewell() -> None:
    """Its client is asked to connect elsewhere next."""
    async with bridge() as running, caller(running) as here:
        await here.settle()
        await here.send("tools/call", {"name": "countdown", "arguments": {"seconds": 0.5}})
        running.signal(signal.SIGTERM)
        heard = await here.connection.response()
        assert heard.headers["connection"] == "close"
        assert result(heard)["content"][0]["text"] == "liftoff"
        assert await running.ended() == 0
