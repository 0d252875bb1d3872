"""The transport of 2024-11-05 from outside: one stream down, POSTs to a second path up."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    asked_until,
    bridge,
    child,
    initialize,
    rpc,
)
from tests.support.proofs import proves
from tests.support.questioner_bridge import (
    ASKED,
    Blocks,
    Served,
    note,
    question,
    result_of,
    serving,
)
from tests.support.raw_http import exchanged, post, wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STREAM = {"accept": "text/event-stream"}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ENDPOINT = re.compile(r"/messages\?session_id=[0-9a-f]{64}")
CONNECT = b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge with the default isolation."""
    async with serving(tmp_path_factory.mktemp("record")) as some:
        yield some


class Line:
    """One connection of a client of 2024-11-05: its stream and the place for its messages."""

    def __init__(self, client: httpx.AsyncClient, blocks: Blocks, endpoint: str) -> None:
        self.client = client
        self.blocks = blocks
        self.endpoint = endpoint

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        """POST whatever this is."""
        return await self.client.post(self.endpoint, json=body, headers=headers)

    async def send(self, body: Any, **headers: str) -> None:
        """POST a message that is taken."""
        answer = await self.post(body, **headers)
        assert answer.status_code == 202, answer.text
        assert "mcp-session-id" not in answer.headers

    async def next(self) -> Any:
        """The next message on the stream; None at its end."""
        block = await self.blocks.next()
        if block is None:
            return None
        assert set(block.fields) == {"event", "data"}
        assert block.fields["event"] == "message"
        return block.message

    async def call(self, request_id: Any, method: str, **params: Any) -> Any:
        """The answer to a call, which must be the next message."""
        await self.send(rpc(request_id, method, params))
        return await self.next()

    async def open(self, revision: str = "2024-11-05", capabilities: Any = None) -> Any:
        """Initialize; the server's result."""
        await self.send(initialize("open", revision, capabilities))
        answer = await self.next()
        assert answer["id"] == "open"
        await self.send(INITIALIZED)
        return answer["result"]


@asynccontextmanager
async def connected(
    client: httpx.AsyncClient, path: str = "/sse", **headers: str
) -> AsyncIterator[Line]:
    """Connect and read the first event."""
    given = httpx.Headers({**STREAM, **headers}, encoding="latin-1")
    async with client.stream("GET", path, headers=given) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream"
        blocks = Blocks(response)
        first = await blocks.next()
        assert first is not None
        assert set(first.fields) == {"event", "data"}
        assert first.fields["event"] == "endpoint"
        yield Line(client, blocks, first.fields["data"])


@proves("O8", "O16", "C17", "C91")
@pytest.mark.slow
async def test_the_endpoint_comes_first_at_once_and_alone_before_any_child_is_there(
    tmp_path: Path,
) -> None:
    """In its own flush; what is posted waits for the child."""
    record, readiness = tmp_path / "record", tmp_path / "gate"
    record.mkdir()
    os.mkfifo(readiness)
    command = child("recorder", str(record), "--gate", str(readiness))
    async with bridge("--", *command, ready=False) as running, wire(running.port) as line:
        await line.send(CONNECT)
        head = await line.head()
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
        assert head.headers["x-accel-buffering"] == "no"
        assert {"no-cache", "no-transform"} <= set(head.headers["cache-control"].split(", "))
        event, endpoint = (await line.chunk()).split(b"\n")[:2]
        assert event == b"event: endpoint"
        path = endpoint.removeprefix(b"data: ").decode()
        assert ENDPOINT.fullmatch(path)
        body = json.dumps(initialize(7)).encode()
        assert (await exchanged(running.port, post(body, path=path))).status == 202
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        body = json.dumps({**cancel, "params": {"requestId": 7}}).encode()
        assert (await exchanged(running.port, post(body, path=path))).status == 202
        with readiness.open("wb"):
            await running.logged("child.ready")
        event, data = (await line.chunk()).split(b"\n")[:2]
        assert event == b"event: message"
        answer = json.loads(data.removeprefix(b"data: "))
        assert (answer["id"], "result" in answer) == (7, True), "initialize is never cancelled"


@proves("C17", "C63")
@pytest.mark.parametrize("revision", [*REVISIONS, "2099-01-01"])
@pytest.mark.parametrize("capabilities", [{}, ASKED], ids=["shared", "own"])
async def test_any_handshake_revision_is_spoken_over_it(
    served: Served, revision: str, capabilities: Any
) -> None:
    """Answers are `message` events without ids or primers, whatever was negotiated."""
    async with connected(served.client) as line:
        assert ENDPOINT.fullmatch(line.endpoint)
        result = await line.open(revision, capabilities)
        spoken = revision if revision in REVISIONS else REVISIONS[-1]
        assert result["protocolVersion"] == spoken
        for number, version in enumerate((spoken, "1.0", "")):
            headers = {"mcp-protocol-version": version}
            await line.send(rpc(number, "x/echo", {"n": number}), **headers)
            assert await line.next() == result_of(number, {"n": number})


@proves("C17", "C15")
async def test_one_stream_carries_everything_in_the_order_of_the_child(served: Served) -> None:
    """Progress, questions, news and answers; the client's answer gets through."""
    async with connected(served.client) as line:
        await line.open(capabilities=ASKED)
        params = {"name": "sse", "_meta": {"progressToken": "t"}}
        await line.send(rpc(0, "x/hold", params))
        assert await line.call(1, "x/echo", n=1) == result_of(1, {"n": 1})
        await line.send(rpc(2, "x/step", {"name": "sse"}))
        told = [await line.next(), await line.next()]
        assert told[0]["params"] == {"progressToken": "t", "progress": 1}
        assert told[1] == result_of(2, {})
        news = [note("tools/list_changed"), note("message", level="info", data=1), note("x/y")]
        await line.send(rpc("", "x/ask", {"lines": [*news, question(0)], "answers": 1}))
        assert [await line.next() for _ in news] == [json.loads(each) for each in news]
        asked = await line.next()
        assert asked["method"] == "elicitation/create"
        await line.send(result_of(asked["id"], {"action": "decline"}))
        answers = [result_of(0, {"action": "decline"})]
        assert await line.next() == result_of("", {"answers": answers})
        await line.send(rpc(3, "x/release", {"name": "sse"}))
        assert await line.next() == result_of(0, {"held": "sse"})
        assert await line.next() == result_of(3, {"released": 1})


@proves("C18")
async def test_closing_the_stream_ends_the_session_and_its_own_child(served: Served) -> None:
    """It reads the end of its stdin; later POSTs are 404; the shared child goes on."""
    async with connected(served.client) as shared:
        pid = (await shared.open())["serverInfo"]["version"]
        async with connected(served.client) as line:
            own = (await line.open(capabilities=ASKED))["serverInfo"]["version"]
            await line.send(rpc(1, "x/hold", {"name": "never"}))
            assert await line.call(2, "x/echo") == result_of(2, {})
        (stopped,) = await served.bridge.logged(
            "child.stopped", lambda record: record["pid"] == int(own)
        )
        assert stopped["how"] == "exit code 0"
        for body in (rpc(3, "x/echo"), INITIALIZED, initialize(4)):
            answer = await line.post(body)
            assert answer.status_code == 404
            assert answer.json()["id"] == body.get("id")
        assert await shared.call(1, "x/echo", n=1) == result_of(1, {"n": 1})
    async with connected(served.client) as again:
        assert (await again.open())["serverInfo"]["version"] == pid


@proves("fault 62", "C06", "C17")
async def test_clients_with_colliding_ids_are_told_apart(served: Served) -> None:
    """Each has its key, and its stream only what is its own."""
    async with connected(served.client) as one, connected(served.client) as other:
        assert one.endpoint != other.endpoint
        for line in (one, other):
            await line.open()
        for number, line in enumerate((one, other)):
            await line.send(rpc(1, "x/hold", {"name": f"sse-{number}"}))
            await served.until_heard(f'"name":"sse-{number}"')
        for number, line in ((1, other), (0, one)):
            assert await served.ask({}, "x/release", name=f"sse-{number}") == {"released": 1}
            assert await line.next() == result_of(1, {"held": f"sse-{number}"})


@proves("fault 79", "C17", "C78")
async def test_a_key_that_is_none_is_refused(served: Served) -> None:
    """Missing 400, unknown 404, with the id of the request."""
    for query, status in (
        ("", 400),
        ("?session_id=", 400),
        ("?sessionId=x", 400),
        (f"?session_id={'0' * 64}", 404),
        ("?session_id=%00", 404),
        (f"?session_id={'0' * 64}&session_id={'1' * 64}", 400),
    ):
        answer = await served.client.post(f"/messages{query}", json=rpc("k", "x/echo"))
        assert answer.status_code == status, query
        assert answer.json()["id"] == "k"
        assert "mcp-session-id" not in answer.headers


@proves("fault 68", "fault 66", "C56", "C78", "C93")
async def test_what_cannot_be_taken_is_refused_and_the_session_goes_on(served: Served) -> None:
    """On the stream if it is well-formed; no JSON and another type by the status."""
    async with connected(served.client) as line:
        await line.send([rpc("early", "x/echo"), INITIALIZED, rpc("too", "x/echo")])
        for request_id in ("early", "too"):
            refused = await line.next()
            assert (refused["id"], refused["error"]["code"]) == (request_id, -32600)
        assert (await line.post([INITIALIZED])).status_code == 400
        await line.send({"jsonrpc": "2.0", "id": 1, "result": {}})
        await line.open(capabilities=ASKED)
        before = len(served.heard("initialize"))
        await line.send(initialize("twice", capabilities=ASKED))
        refused = await line.next()
        assert (refused["id"], refused["error"]["code"]) == ("twice", -32600)
        for content, kind, status, code in (
            (b"{", "application/json", 400, -32700),
            (b"\xff", "application/json", 400, -32700),
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', "application/json", 400, -32600),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "text/plain", 415, -32600),
        ):
            headers = {"content-type": kind}
            answer = await served.client.post(line.endpoint, content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert await line.call(1, "x/echo", n=1) == result_of(1, {"n": 1})
        assert len(served.heard("initialize")) == before
        huge = post(b"{", f"Content-Length: {5 << 20}", path=line.endpoint)
        assert (await exchanged(served.bridge.port, huge)).status == 413


async def test_a_connection_that_has_not_initialized_is_served_without_a_session(
    served: Served,
) -> None:
    """As after a reconnection; progress comes too, and what it sends is never refused."""
    async with connected(served.client) as line:
        await line.send(INITIALIZED)
        assert await line.call("early", "x/echo", n=1) == result_of("early", {"n": 1})
        params = {"name": "outside", "_meta": {"progressToken": "t"}}
        await line.send(rpc(1, "x/hold", params))
        await served.until_heard('"name":"outside"')
        await line.send(rpc(2, "x/step", {"name": "outside"}))
        told = [await line.next(), await line.next()]
        assert told[0]["params"] == {"progressToken": "t", "progress": 1}
        assert told[1] == result_of(2, {})
        # The session that begins now leaves the call alone.
        await line.open()
        await line.send(rpc(3, "x/release", {"name": "outside"}))
        ends = [await line.next(), await line.next()]
        assert ends == [result_of(1, {"held": "outside"}), result_of(3, {"released": 1})]


async def test_the_era_without_a_handshake_is_declined_on_the_stream(served: Served) -> None:
    """Its clients go on with `initialize`; no header of another transport is named."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with connected(served.client) as line:
        refused = await line.call("first", "server/discover", _meta=meta)
        assert (refused["id"], refused["error"]["code"]) == ("first", -32600)
        assert "2025-11-25" in refused["error"]["message"]
        assert "session-id" not in json.dumps(refused).lower()
        await line.open("2025-11-25")


async def test_calls_without_a_session_end_with_their_stream(served: Served) -> None:
    """The server is told that no client waits, when the client leaves and when its session ends."""
    async with connected(served.client) as line:
        await line.send(rpc(1, "x/hold", {"name": "left"}))
        await served.until_heard('"name":"left"')
    await served.until_heard('"reason":"the session was closed')
    async with connected(served.client) as line:
        await line.send(rpc(1, "x/hold", {"name": "refused"}))
        await served.until_heard('"name":"refused"')
        await line.send(refused_opening())
        assert {(await line.next())["id"] for _ in range(2)} == {1, "no"}
        assert await line.next() is None
    assert await served.ask({}, "x/echo", n=1) == {"n": 1}


@pytest.mark.slow
async def test_with_required_sessions_the_stream_says_what_is_missing(tmp_path: Path) -> None:
    """An error for a request, nothing for the rest, and the connection goes on."""
    async with serving(tmp_path, "--require-session") as some, connected(some.client) as line:
        await line.send(INITIALIZED)
        await line.send({"jsonrpc": "2.0", "id": 1, "result": {}})
        refused = await line.call("early", "x/echo")
        assert refused["error"]["message"] == (
            "the connection has no session: begin with initialize"
        )
        await line.open()


@pytest.mark.slow
async def test_at_the_end_a_call_without_a_session_gets_its_answer(tmp_path: Path) -> None:
    """Its stream stays until then."""
    async with serving(tmp_path) as some, connected(some.client) as line:
        await line.send(rpc(1, "x/hold", {"name": "last"}))
        await some.until_heard('"name":"last"')
        async with connected(some.client) as busy:
            await busy.open()
            await busy.send(rpc(2, "x/hold", {"name": "busy"}))
            await some.until_heard('"name":"busy"')
            await draining(some.bridge)
            refused = await line.call(3, "x/echo")
            assert refused["error"]["data"]["mcpbridge"]["reason"] == "draining"
            await busy.send(rpc(4, "x/release", {"name": "last"}))
            assert await line.next() == result_of(1, {"held": "last"})
            await busy.send(rpc(5, "x/release", {"name": "busy"}))
            assert [(await busy.next())["id"] for _ in range(3)] == [4, 2, 5]
        assert await line.next() is None
        assert await some.bridge.ended() == 0


@pytest.mark.slow
async def test_over_the_rate_the_stream_says_so(tmp_path: Path) -> None:
    """A client that got 429 instead would wait for the answer without end."""
    async with serving(tmp_path, "--rate-limit", "3/h") as some, connected(some.client) as line:
        answers = [await line.call(number, "x/echo") for number in range(10)]
        assert answers[0] == result_of(0, {})
        assert answers[-1]["error"]["data"]["mcpbridge"]["reason"] == "quota"
        assert (await line.post(INITIALIZED)).status_code == 429


@proves("fault 90", "fault 92", "C07", "C08")
async def test_verbs_sources_and_forms_are_checked_as_everywhere(served: Served) -> None:
    """405 with Allow, 406, 403 and 421, before anything is opened."""
    ask = served.client.request
    for verb, path, allow in (("GET", "/messages", "POST"), ("POST", "/sse", "GET")):
        answer = await ask(verb, path, json=rpc(1, "ping"))
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    answer = await ask("GET", "/sse", headers={"accept": "application/json"})
    assert answer.status_code == 406
    evil: list[tuple[dict[str, str], int]] = [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 421),
    ]
    for headers, status in evil:
        assert (await ask("GET", "/sse", headers={**STREAM, **headers})).status_code == status
        answer = await ask("POST", "/messages?session_id=0", json=INITIALIZED, headers=headers)
        assert answer.status_code == status
    async with connected(served.client, "/sse/", accept="*/*") as line:
        await line.open()


@proves("fault 70", "C61", "C62")
async def test_batches_are_taken_apart_on_the_stream(served: Served) -> None:
    """Where they were negotiated; elsewhere each request gets an error."""
    batch = [rpc(1, "x/echo", {"n": 1}), INITIALIZED, rpc("1", "x/echo", {"n": 2})]
    async with connected(served.client) as line:
        await line.open("2025-03-26", ASKED)
        await line.send(batch)
        expected = [result_of(1, {"n": 1}), result_of("1", {"n": 2})]
        assert [await line.next(), await line.next()] == expected
    async with connected(served.client) as line:
        await line.open("2025-06-18")
        await line.send(batch)
        for request_id in (1, "1"):
            refused = await line.next()
            assert (refused["id"], refused["error"]["code"]) == (request_id, -32600)


@proves("fault 5", "C54")
async def test_a_child_that_ends_answers_on_the_stream_and_the_session_goes_on(
    served: Served,
) -> None:
    """The call gets its error, the next one a new child."""
    async with connected(served.client) as line:
        pid = (await line.open(capabilities=ASKED))["serverInfo"]["version"]
        failed = await line.call(1, "x/die")
        assert failed["error"]["data"]["mcpbridge"]["reason"] == "child_exited"
        await line.send(rpc(2, "x/echo", {"n": 2}))
        while (message := await line.next()).get("id") != 2:
            assert message["method"].endswith("list_changed")
        assert message == result_of(2, {"n": 2})
        assert pid.isdigit()


def refused_opening(loud: int = 1) -> dict[str, Any]:
    """An `initialize` that the questioner refuses, so loudly."""
    opening = initialize("no", capabilities=ASKED)
    opening["params"]["clientInfo"] = {"name": "refused", "version": "1", "loud": loud}
    return opening


@proves("C58")
async def is_told_of_a_refused_opening(served: Served) -> bool:
    """Whether the child's error came on the stream, which ends, and its process is gone."""
    async with connected(served.client) as line:
        before = {record["pid"] for record in served.bridge.events("child.started")}
        await line.send(refused_opening())
        answer = await line.next()
        if "result" in answer:
            return False
        assert (answer["id"], answer["error"]["code"]) == ("no", -32001)
        assert await line.next() is None
    await served.bridge.logged("child.stopped", lambda record: record["pid"] not in before)
    return True


async def test_a_refused_opening_is_told_on_the_stream_which_ends(served: Served) -> None:
    """The child's own error, and nothing is left of the session or its child.

    A process that takes long to refuse is answered for by the bridge, from what it knows of the
    server: then another one refuses.
    """
    await asked_until(lambda: is_told_of_a_refused_opening(served), "the child's own error")


async def refuses_after_a_refused_opening(served: Served) -> bool:
    """Whether a session takes nothing more whose client has not read that it was refused."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", served.bridge.port))
        deaf.sendall(CONNECT)
        text = b""
        while b"\n\n" not in text.partition(b"session_id=")[2]:
            text += deaf.recv(1024)
        (path,) = ENDPOINT.findall(text.decode())
        before = len(served.bridge.events("child.stopped"))
        answer = await served.client.post(path, json=refused_opening(loud=1_500_000))
        assert answer.status_code == 202
        await served.bridge.logged("child.stopped", count=before + 1)
        bodies = (rpc(1, "x/echo"), initialize(2), INITIALIZED)
        answers = [await served.client.post(path, json=body) for body in bodies]
        return {each.status_code for each in answers} == {404}


@proves("fault 54")
async def test_a_session_that_ended_while_its_client_does_not_read_takes_nothing(
    served: Served,
) -> None:
    """404 although the end has not got through yet; the bridge is unharmed."""
    for _ in range(10):
        if await refuses_after_a_refused_opening(served):
            break
        # The process was so slow to refuse that the bridge had answered in its place, from what it
        # knows of the server: the session goes on.
    else:
        pytest.fail("no session ended")
    assert await served.ask({}, "x/echo", n=1) == {"n": 1}


@proves("fault 83")
@pytest.mark.slow
async def test_limits_are_told_before_or_on_the_stream(tmp_path: Path) -> None:
    """Too many streams 503 with Retry-After; no room for a child on the stream."""
    words = ("--max-sessions", "2", "--max-children", "1", "--isolation", "session")
    async with (
        serving(tmp_path, *words) as some,
        connected(some.client) as line,
        connected(some.client) as other,
    ):
        answer = await some.client.get("/sse", headers=STREAM)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "--max-sessions" in answer.text
        await line.send(initialize("full", capabilities=ASKED))
        failed = await line.next()
        assert failed["id"] == "full"
        assert "--max-children" in failed["error"]["message"]
        assert await line.next() is None
        # The other stream goes on: it still takes messages.
        await other.send(initialize("too", capabilities=ASKED))
        assert "--max-children" in (await other.next())["error"]["message"]


@proves("fault 83")
@pytest.mark.slow
async def test_at_the_limit_an_idle_session_gives_its_stream_to_a_newcomer(tmp_path: Path) -> None:
    """The one that has been idle longest; its stream ends."""
    async with (
        serving(tmp_path, "--max-sessions", "2") as some,
        connected(some.client) as idle,
        connected(some.client) as other,
    ):
        for line in (idle, other):
            await line.open()
        async with connected(some.client) as newcomer:
            assert await idle.next() is None
            assert (await newcomer.open())["serverInfo"]["name"] == "questioner"
            await other.send(rpc(5, "ping"))
            assert (await other.next())["id"] == 5


@proves("C17")
@pytest.mark.slow
async def test_behind_a_proxy_the_endpoint_has_its_prefix(tmp_path: Path) -> None:
    """The configured or the forwarded one; none that leads elsewhere."""
    async with serving(tmp_path, "--root-path", "/tools/git/") as some:
        for forwarded, prefix in (
            (None, "/tools/git"),
            ("/a/b-1", "/a/b-1"),
            ("/a/", "/a"),
            ("", "/tools/git"),
            ("//evil.example", "/tools/git"),
            ("http://evil.example", "/tools/git"),
            ("/a b", "/tools/git"),
            ("/a?x=", "/tools/git"),
            ("/a\\b", "/tools/git"),
            ("\u00ff", "/tools/git"),
        ):
            headers = {} if forwarded is None else {"x-forwarded-prefix": forwarded}
            async with connected(some.client, **headers) as line:
                assert line.endpoint.startswith(f"{prefix}/messages?session_id="), forwarded
                assert ENDPOINT.fullmatch(line.endpoint.removeprefix(prefix))
        async with connected(some.client, "/tools/git/sse") as line:
            assert line.endpoint.startswith("/tools/git/messages?")
            await line.open()
            line.endpoint = line.endpoint.removeprefix("/tools/git")
            assert await line.call(1, "x/echo") == result_of(1, {}), "the proxy may strip it too"


@pytest.mark.slow
@pytest.mark.parametrize(("path", "below"), [("/k3y/mcp", "/k3y/mcp"), ("/", "")])
async def test_below_a_path_of_the_operators_choice_and_nowhere_else(
    tmp_path: Path, path: str, below: str
) -> None:
    """Who does not know the path reaches no MCP, by either transport."""
    async with serving(tmp_path, "--path", path) as some:
        async with connected(some.client, f"{below}/sse") as line:
            assert ENDPOINT.fullmatch(line.endpoint.removeprefix(below))
            await line.open()
            assert await line.call(1, "x/echo") == result_of(1, {})
            known = {path, f"{below}/sse", f"{below}/messages"}
            for other in {"/", "/mcp", "/sse", "/messages", "/k3y", "/k3y/"} - known:
                query = line.endpoint.partition("?")[2]
                answer = await some.client.post(f"{other}?{query}", json=rpc(2, "x/echo"))
                assert answer.status_code == 404, other
                answer = await some.client.get(other, headers=STREAM)
                assert answer.status_code == 404, other
        answer = await some.client.post(path, json=rpc(2, "x/echo"), headers=ACCEPT)
        assert answer.status_code == 200
        assert (await some.client.get("/health")).status_code == 200


@proves("fault 96")
@pytest.mark.slow
async def test_the_end_of_the_process_ends_streams_after_their_last_answers(
    tmp_path: Path,
) -> None:
    """Idle ones at once, busy ones after the answer; no new ones until then; exit 0."""
    async with serving(tmp_path) as some, connected(some.client) as idle:
        await idle.open()
        async with connected(some.client) as silent, connected(some.client) as busy:
            await busy.open(capabilities=ASKED)
            await busy.send(rpc(1, "x/hold", {"name": "last"}))
            await some.until_heard('"name":"last"')
            await draining(some.bridge)
            for line in (idle, silent):
                assert await line.next() is None
            answer = await some.client.get("/sse", headers=STREAM)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            await busy.send(rpc(2, "x/release", {"name": "last"}))
            ids = {(await busy.next())["id"] for _ in range(2)}
            assert ids == {1, 2}
            assert await busy.next() is None
            assert await some.bridge.ended() == 0


async def draining(running: RunningBridge) -> None:
    """Send the first signal and wait until calls in flight are all that holds the end up."""
    running.signal(15)
    await running.logged("drain.phase_changed", lambda record: record["phase"] == "draining")
