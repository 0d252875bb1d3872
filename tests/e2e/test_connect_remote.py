"""`mcpbridge connect URL`: a stdio client with a remote server that fails in every way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import RunningBridge, ran, rpc, started
from tests.support.fake_remote import (
    Got,
    begin_stream,
    event,
    fake_remote,
    introduced,
    respond,
    result,
)
from tests.support.fake_servers import OlderServer, modern_server
from tests.support.modern_client import meta
from tests.support.stdio_client import stdio_client

pytestmark = pytest.mark.slow


async def serving(running: RunningBridge) -> str:
    """Wait until a bridge serves; its endpoint."""
    (record,) = await running.logged("serve.started")
    await running.logged("child.ready")
    running.url = "/".join(str(record["url"]).split("/")[:3])
    return f"{running.url}/mcp"


async def test_a_restarted_remote_serves_the_same_stdio_session() -> None:
    """A bridge is killed and started again at its port; in between each request gets an error."""
    async with started("--port", "0") as first:
        url = await serving(first)
        async with stdio_client(url) as client:
            assert (await client.introduce())["result"]["serverInfo"]["name"] == "mcpbridge-demo"
            tools = (await client.ask("tools/list"))["result"]
            assert "add" in json.dumps(tools)
            assert (await client.ask("logging/setLevel", {"level": "warning"}))["result"] == {}
            first.process.kill()
            await first.process.wait()
            for method in ("tools/list", "tools/call"):
                failed = await client.ask(method, {"name": "add"})
                assert failed["error"]["data"]["mcpbridge"]["executed"] in ("no", "maybe")
            failed = await client.ask("tools/list")
            assert failed["error"]["data"]["mcpbridge"]["reason"] == "unreachable"
            async with started("--port", url.split(":")[2].split("/")[0]) as second:
                await serving(second)
                called = await client.call("add", a=1, b=2)
                assert called["result"]["content"][0]["text"] == "3"
                await client.told("notifications/tools/list_changed")
                assert (await client.ask("tools/list"))["result"] == tools
                assert await client.end() == 0


class Streamable:
    """A remote over Streamable HTTP that forgets its sessions when it restarts."""

    def __init__(self) -> None:
        self.sessions = 0
        self.known = ""
        self.results: dict[str, Any] = {}
        self.cut: set[str] = set()
        self.held: dict[str, asyncio.Event] = {}
        self.listener: asyncio.StreamWriter | None = None

    async def __call__(self, got: Got, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        if got.rpc == "initialize":
            self.sessions += 1
            self.known = f"s{self.sessions}"
            introduced(writer, got, mcp_session_id=self.known)
        elif got.headers.get("mcp-session-id") != self.known:
            respond(writer, "404 Not Found")
        elif got.method == "GET":
            begin_stream(writer)
            self.listener = writer
            await asyncio.Event().wait()
        elif "id" not in got.message or "method" not in got.message:
            respond(writer, "202 Accepted")
        elif got.rpc in self.cut:
            writer.transport.abort()
        else:
            if got.rpc in self.held:
                await self.held[got.rpc].wait()
            result(writer, got, self.results.get(got.rpc, {}))


async def test_a_new_session_is_told_what_the_last_one_was() -> None:
    """The client's handshake, its log level and its subscriptions, before anything else."""
    server = Streamable()
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce({"roots": {}})
        await client.ask("logging/setLevel", {"level": "error"})
        for uri in ("x://a", "x://b"):
            await client.ask("resources/subscribe", {"uri": uri})
        await client.ask("resources/unsubscribe", {"uri": "x://a"})
        await remote.stop()
        remote.got.clear()
        server.known = "forgotten"
        await remote.start()
        assert (await client.call("x"))["result"] == {}
        sent = [each for each in remote.got if each.headers.get("mcp-session-id") == "s2"]
        kinds = [(each.rpc, each.message.get("params")) for each in sent if each.rpc]
        assert kinds[:3] == [
            ("notifications/initialized", None),
            ("logging/setLevel", {"level": "error"}),
            ("resources/subscribe", {"uri": "x://b"}),
        ]
        (handshake,) = remote.all_of("initialize")
        assert handshake.message["params"]["capabilities"] == {"roots": {}}
        assert handshake.message["params"]["clientInfo"]["name"] == "test"
        for method in ("tools/list_changed", "resources/list_changed", "resources/updated"):
            await client.told(f"notifications/{method}")
        assert [each for each in client.lines if each.get("method", "").startswith("prompts")] == []


async def test_an_idle_client_learns_that_its_remote_has_restarted() -> None:
    """By the standalone stream, which ends: no request of the client is needed."""
    server = Streamable()
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce()
        await remote.received(lambda got: got.method == "GET")
        await remote.stop()
        server.known = "forgotten"
        await remote.start()
        await client.told("notifications/tools/list_changed")
        assert server.sessions == 2


@pytest.mark.parametrize(("method", "times"), [("tools/call", 1), ("tools/list", 2)])
async def test_a_tool_call_is_never_sent_twice(method: str, times: int) -> None:
    """If its connection breaks it may have been executed; a list may be asked for again."""
    server = Streamable()
    server.cut = {method}
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce()
        failed = await client.ask(method, {"name": "x"})
        assert failed["error"]["data"]["mcpbridge"]["executed"] == "maybe"
        assert len(remote.all_of(method)) == times
        server.cut = set()
        assert (await client.ask(method, {"name": "x"}))["result"] == {}


async def test_a_tool_call_is_sent_again_if_its_session_was_unknown() -> None:
    """A server that refuses a session has executed nothing."""
    server = Streamable()
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce()
        server.known = "forgotten"
        assert (await client.call("x"))["result"] == {}
        assert [each.headers["mcp-session-id"] for each in remote.all_of("tools/call")] == [
            "s1",
            "s2",
        ]


async def test_a_rewritten_token_file_is_read_again_after_a_401(tmp_path: Path) -> None:
    """Once for each request; without a new token the client gets the error."""
    file, valid = tmp_path / "token", "one"
    file.write_text("one\n")
    server = Streamable()

    async def guarded(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.headers.get("authorization") == f"Bearer {valid}":
            await server(got, writer)
        else:
            respond(writer, "401 Unauthorized")

    async with (
        fake_remote(guarded) as remote,
        stdio_client(remote.url, "--token-file", str(file)) as client,
    ):
        await client.introduce()
        valid = "two"
        refused = await client.call("x")
        assert "401" in refused["error"]["message"]
        assert "--token-file" in refused["error"]["message"]
        file.write_text("two\n")
        assert (await client.call("x"))["result"] == {}
        assert server.sessions == 1


async def test_an_answer_of_the_client_goes_to_the_session_that_asked() -> None:
    """After a restart the server uses its ids again; the old answer reaches no session."""
    server = Streamable()
    asking = {"jsonrpc": "2.0", "id": 7, "method": "roots/list"}
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce({"roots": {}})
        await remote.received(lambda got: got.method == "GET")
        assert server.listener is not None
        server.listener.write(event(asking))
        old = await client.told("roots/list")
        await remote.stop()
        server.known = "forgotten"
        await remote.start()
        withdrawn = await client.told("notifications/cancelled")
        assert withdrawn["params"]["requestId"] == old["id"]
        await remote.received(
            lambda got: got.method == "GET" and got.headers.get("mcp-session-id") == "s2"
        )
        client.lines.clear()
        server.listener.write(event(asking))
        new = await client.told("roots/list")
        assert new["id"] != old["id"]
        for each, said in ((old, "old"), (new, "new")):
            client.write({"jsonrpc": "2.0", "id": each["id"], "result": {"roots": [said]}})
        (answered,) = await remote.received(lambda got: "result" in got.message)
        assert answered.message == {"jsonrpc": "2.0", "id": 7, "result": {"roots": ["new"]}}
        await client.ask("ping")
        assert len([got for got in remote.got if "result" in got.message]) == 1


async def test_a_broken_stream_is_resumed_after_its_last_event() -> None:
    """The answer to a call may come over a second connection; the call is not repeated."""

    async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.rpc == "tools/call":
            begin_stream(writer)
            writer.write(b"retry: 10\n" + event("", event_id="e1"))
            await writer.drain()
            writer.close()
        elif got.method == "GET" and got.headers.get("last-event-id") == "e1":
            begin_stream(writer)
            writer.write(event({"jsonrpc": "2.0", "id": "c1", "result": {"late": True}}))
        elif got.rpc == "initialize":
            introduced(writer, got, mcp_session_id="s")
        else:
            respond(writer, "405 Method Not Allowed" if got.method == "GET" else "202 Accepted")

    async with fake_remote(answer) as remote, stdio_client(remote.url) as client:
        await client.introduce()
        assert (await client.call("x"))["result"] == {"late": True}
        assert len(remote.all_of("tools/call")) == 1


async def test_a_server_of_the_older_transport_is_served_and_may_restart() -> None:
    """HTTP+SSE of 2024-11-05 by the same address, before and after the server is away."""
    server = OlderServer()
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        assert (await client.introduce())["result"]["serverInfo"]["name"] == "older"
        assert (await client.call("x"))["result"] == {"asked": "tools/call"}
        await remote.stop()
        failed = await client.call("x")
        assert failed["error"]["data"]["mcpbridge"]["reason"] in ("unreachable", "session_lost")
        await remote.start()
        await client.told("notifications/tools/list_changed")
        assert (await client.call("x"))["result"] == {"asked": "tools/call"}
        handshakes = [each for each in remote.all_of("initialize") if each.path != "/mcp"]
        assert len(handshakes) == 2


async def test_a_call_of_the_older_transport_fails_with_its_stream() -> None:
    """It may have been executed, so it is not sent again."""
    server = OlderServer()
    server.cut = {"tools/call"}
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce()
        failed = await client.call("x")
        assert failed["error"]["data"]["mcpbridge"]["executed"] == "maybe"
        assert len(remote.all_of("tools/call")) == 1


async def test_the_bridges_own_older_endpoint_is_reached() -> None:
    """`/sse` of mcpbridge itself."""
    async with started("--port", "0") as running:
        url = await serving(running)
        async with stdio_client(url.replace("/mcp", "/sse")) as client:
            await client.introduce()
            called = await client.call("add", a=2, b=2)
            assert called["result"]["content"][0]["text"] == "4", called
            assert await client.end() == 0


async def test_a_modern_client_passes_through_with_its_headers() -> None:
    """Method, name and annotated arguments stand in headers, as 2026-07-28 prescribes."""
    schema = {"type": "object", "properties": {"r": {"type": "string", "x-mcp-header": "Region"}}}

    async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.rpc == "server/discover":
            await modern_server(got, writer)
        else:
            result(writer, got, {"tools": [{"name": "né", "inputSchema": schema}]})

    async with fake_remote(answer) as remote, stdio_client(remote.url) as client:
        await client.ask("tools/list", {"_meta": meta()})
        await client.ask("tools/call", {"name": "né", "arguments": {"r": "eu"}, "_meta": meta()})
        _, listed, called = remote.got
        assert listed.headers["mcp-protocol-version"] == "2026-07-28"
        assert listed.headers["mcp-method"] == "tools/list"
        assert called.headers["mcp-name"] == "=?base64?bsOp?="
        assert called.headers["mcp-param-region"] == "eu"
        assert "mcp-session-id" not in called.headers


async def test_every_request_gets_exactly_one_answer() -> None:
    """Among garbage, duplicates, batches, lines over the limit and cancellations."""
    server = Streamable()
    server.held = {"x/held": asyncio.Event(), "x/cancelled": asyncio.Event()}
    async with (
        fake_remote(server) as remote,
        stdio_client(remote.url, "--max-line-bytes", "2KiB", "--max-calls", "3") as client,
    ):
        await client.introduce()
        client.write(b"garbage\n\xff\xfe\n[]\n")
        client.write(b'{"jsonrpc":"2.0","id":"bad","method":5}\n')
        client.write(rpc("held", "x/held"))
        client.write(rpc("held", "x/held"))
        client.write(rpc("long", "x/long", {"text": "y" * 4096}))
        client.write(b'{"method":"x/long","params":{"t":"%b"},' % (b"y" * 9000))
        client.write(b'"jsonrpc":"2.0","id":"tail"}\n')
        client.write(rpc("gone", "x/cancelled"))
        await remote.received(lambda got: got.rpc == "x/cancelled")
        client.write([rpc("b1", "x/held"), rpc("b2", "x/held")])
        busy = await client.answer_to("b2")
        assert "--max-calls" in busy["error"]["message"]
        cancel = {"requestId": "gone", "reason": "no"}
        client.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
        await remote.received(lambda got: got.rpc == "notifications/cancelled")
        server.held["x/held"].set()
        assert await client.end() == 0
        ids = [each["id"] for each in client.lines if "method" not in each]
        wanted = [0, None, None, None, "bad", "held", "held", "long", "tail", "b1", "b2"]
        assert sorted(map(str, ids)) == sorted(map(str, wanted))
        too_long = next(each for each in client.lines if each["id"] == "tail")
        assert "--max-line-bytes" in too_long["error"]["message"]


async def test_calls_in_flight_finish_after_the_end_of_stdin() -> None:
    """Then the program ends with status 0, and the session is ended at the server."""
    server = Streamable()
    server.held = {"tools/call": asyncio.Event()}
    async with fake_remote(server) as remote, stdio_client(remote.url) as client:
        await client.introduce()
        client.write(rpc("last", "tools/call", {"name": "x"}))
        await remote.received(lambda got: got.rpc == "tools/call")
        ending = asyncio.create_task(client.end())
        server.held["tools/call"].set()
        assert await ending == 0
        assert client.lines[-1] == {"jsonrpc": "2.0", "id": "last", "result": {}}
        assert [each for each in remote.got if each.method == "DELETE"]


async def test_a_call_that_never_ends_is_cut_off_after_the_grace() -> None:
    """The end of stdin is an order, and `--grace` bounds it."""
    server = Streamable()
    server.held = {"tools/call": asyncio.Event()}
    async with fake_remote(server) as remote, stdio_client(remote.url, "--grace", "1s") as client:
        await client.introduce()
        client.write(rpc("last", "tools/call", {"name": "x"}))
        await remote.received(lambda got: got.rpc == "tools/call")
        assert await client.end() == 0
        assert any("connect.cut_off" in line for line in client.running.noise)


@pytest.mark.parametrize("kind", ["json", "stream"])
async def test_an_answer_over_the_limit_is_an_error(kind: str) -> None:
    """Of a JSON body, and of an event of many short lines."""

    async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.rpc == "initialize":
            introduced(writer, got)
        elif got.rpc == "tools/call" and kind == "json":
            result(writer, got, {"text": "x" * 5000})
        elif got.rpc == "tools/call":
            begin_stream(writer)
            writer.write(b"data: xxxxxxxxxx\n" * 500)
        else:
            respond(writer, "202 Accepted")

    async with (
        fake_remote(answer) as remote,
        stdio_client(remote.url, "--max-response-bytes", "2KiB") as client,
    ):
        await client.introduce()
        failed = await client.call("x")
        assert "--max-response-bytes" in failed["error"]["message"]


async def test_headers_hold_variables_and_stay_with_their_origin() -> None:
    """A redirect elsewhere is refused with the address to use; no error has the value."""
    server = Streamable()

    async def moved(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.path == "/mcp":
            respond(writer, "307 Temporary Redirect", location="/mcp/")
        elif got.rpc == "tools/call":
            respond(writer, "307 Temporary Redirect", location="http://localhost:1/else")
        else:
            await server(got, writer)

    async with (
        fake_remote(moved) as remote,
        stdio_client(remote.url, "--header", "X-Key: ${MY_KEY}", env={"MY_KEY": "s3"}) as client,
    ):
        await client.introduce()
        assert {each.headers["x-key"] for each in remote.got} == {"s3"}
        failed = await client.call("x")
        assert "http://localhost:1/else" in failed["error"]["message"]
        assert "s3" not in " ".join(client.running.noise)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("ftp://x",), "is not an http URL"),
        (("http://user:s3cret@x/",), "a URL with credentials"),
        (("http://x", "--header", "nothing"), "write 'Name: value'"),
        (("http://x", "--header", "Host: y"), "mcpbridge sets host itself"),
        (("http://x", "--header", "A: ${NOT_SET_ANYWHERE}"), "NOT_SET_ANYWHERE is not set"),
        (("http://x", "--token-file", "/none"), "cannot read /none"),
        (("http://x", "--max-calls", "0"), "--max-calls"),
        ((), "Missing argument 'URL'"),
    ],
)
async def test_wrong_words_are_refused(words: tuple[str, ...], problem: str) -> None:
    """With status 2, the name of the setting, and no secret."""
    status, said = await ran("connect", *words)
    assert (status, problem in said) == (2, True), said
    assert "s3cret" not in said
