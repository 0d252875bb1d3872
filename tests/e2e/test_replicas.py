"""Several replicas: any of them serves any session, stream and parked call."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from mcpbridge.http.peers.held import HELD_S
from mcpbridge.replicas.peer_client import BUFFER_BYTES
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from tests.e2e.test_legacy_sse import connected
from tests.support.bridge_process import (
    asked_until,
    child,
    eventually,
    messages,
    open_session,
    rpc,
)
from tests.support.modern_client import FORM, asking, form, headers_of, meta, retry_of, text_of
from tests.support.questioner_bridge import ASKED, note, question, reading, result_of
from tests.support.raw_http import recorded, streaming
from tests.support.replicas import Replicas, replicas

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = 300
ADOPTED_S = 60.0


class Asked(NamedTuple):
    """Replicas of a server that asks, and the folder in which its processes record their stdin."""

    all: Replicas
    folder: Path

    async def until_heard(self, text: str) -> None:
        """Wait until the server has read a text."""
        await eventually(lambda: text.encode() in recorded(self.folder), f"{text} is read")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    """Three replicas of a server that asks its client."""
    folder = tmp_path_factory.mktemp("record")
    command = child("questioner", str(folder))
    async with replicas(3, "--json-window", "200ms", command=command) as running:
        yield Asked(running, folder)


async def test_any_replica_answers_each_call_of_any_session(asked: Asked) -> None:
    """Each call its own answer, whichever replica has the session and whichever is asked."""
    clients = asked.all.clients
    sessions = [await open_session(client) for client in clients]
    assert all(len(each["mcp-session-id"]) <= 128 for each in sessions)
    homes = [asked.all.home(each) for each in sessions]
    assert len({home.host for home in homes}) == 3

    async def call(number: int) -> None:
        client, headers = clients[number % 3], sessions[(number // 3) % 3]
        answer = await client.post(
            "/mcp", json=rpc(number, "x/echo", {"nonce": f"n{number}"}), headers=headers
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == result_of(number, {"nonce": f"n{number}"})

    for start in range(0, CALLS, 30):
        await asyncio.gather(*(call(number) for number in range(start, start + 30)))
    for headers in sessions:
        (first, *others) = [
            c for c in clients if str(c.base_url.host) != asked.all.home(headers).host
        ]
        assert (await first.delete("/mcp", headers=headers)).status_code == 200
        for client in (first, *others, *clients):
            gone = await client.post("/mcp", json=rpc(1, "ping"), headers=headers)
            assert (gone.status_code, gone.json()["id"]) == (404, 1)


async def test_a_session_is_opened_with_the_id_of_an_old_one_in_the_head(asked: Asked) -> None:
    """Clients that start again send it, and its replica may be gone."""
    _, second, third = asked.all.clients
    old = await open_session(third)
    body = rpc(0, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}})
    answer = await second.post("/mcp", json=body, headers=old)
    assert answer.status_code == 200
    assert asked.all.home(answer.headers).host == second.base_url.host


async def test_streams_and_questions_cross_replicas(asked: Asked) -> None:
    """GET on one, POST on another, and a third has the session."""
    listening, posting, having = asked.all.clients
    headers = await open_session(having, "2025-06-18", ASKED)
    async with streaming(listening, headers) as news:
        params = {"lines": [question("q1"), note("tools/list_changed")], "answers": 1}
        async with streaming(posting, headers, rpc("a", "x/ask", params)) as call:
            asked_on = await call.next()
            assert asked_on["method"] == "elicitation/create"
            assert (await news.next())["method"] == "notifications/tools/list_changed"
            told = await listening.post(
                "/mcp", json=result_of(asked_on["id"], {"action": "accept"}), headers=headers
            )
            assert told.status_code == 202
            answer = await call.next()
            assert answer["result"]["answers"][0]["result"] == {"action": "accept"}
            assert await call.next() is None
        assert (await posting.delete("/mcp", headers=headers)).status_code == 200
        assert await news.next() is None


async def test_a_call_is_cancelled_through_another_replica(asked: Asked) -> None:
    """The server gets the cancellation under the id that it knows."""
    first, second, having = asked.all.clients
    headers = await open_session(having, "2025-06-18", ASKED)
    held = asyncio.create_task(
        first.post("/mcp", json=rpc("c", "x/hold", {"name": "cancelled"}), headers=headers)
    )
    await asked.until_heard('"name":"cancelled"')
    body = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": "c", "reason": "by-the-second"},
    }
    assert (await second.post("/mcp", json=body, headers=headers)).status_code == 202
    await asked.until_heard("by-the-second")
    await second.delete("/mcp", headers=headers)
    await held


async def test_a_stream_is_resumed_at_another_replica(asked: Asked) -> None:
    """With the events that came in between, each once."""
    first, second, having = asked.all.clients
    headers = await open_session(having, "2025-11-25", ASKED)
    params = {"name": "resumed", "lines": [], "_meta": {"progressToken": "t"}}
    async with reading(first, headers, rpc("r", "x/hold", params)) as blocks:
        primer = await blocks.next()
        assert primer is not None
    step = rpc("s", "x/step", {"name": "resumed", "times": 2})
    assert (await second.post("/mcp", json=step, headers=headers)).status_code == 200
    async with reading(second, headers, after=primer.id) as blocks:
        _, *found = await blocks.some(3)
        numbers = [block.message["params"]["progress"] for block in found]
        assert numbers == [1, 2]
        freed = await first.post(
            "/mcp", json=rpc("f", "x/release", {"name": "resumed"}), headers=headers
        )
        assert freed.status_code == 200
        (last,) = await blocks.some(1)
        assert last.message == result_of("r", {"held": "resumed"})
        assert await blocks.next() is None


async def test_the_older_transport_posts_to_any_replica(asked: Asked) -> None:
    """The stream stays where it was opened; its end ends the key everywhere."""
    async with connected(asked.all.clients[0]) as line:
        await line.open()
        for number in range(9):
            sent = await asked.all.clients[number % 3].post(
                line.endpoint, json=rpc(number, "x/echo", {"n": number})
            )
            assert sent.status_code == 202, sent.text
            assert await line.next() == result_of(number, {"n": number})

    async def ended_at(client: httpx.AsyncClient) -> bool:
        return (await client.post(line.endpoint, json=rpc(1, "ping"))).status_code == 404

    for client in asked.all.clients:
        await asked_until(functools.partial(ended_at, client), "the key has ended")


async def test_a_slow_client_makes_the_replica_with_the_session_wait(asked: Asked) -> None:
    """A large answer passes whole, in pieces that the replica between does not gather."""
    first, _, having = asked.all.clients
    headers = await open_session(having)
    text = "y" * (16 * BUFFER_BYTES)
    body = rpc(1, "x/echo", {"text": text})
    async with first.stream("POST", "/mcp", json=body, headers=headers) as response:
        assert response.status_code == 200
        got = b"".join([piece async for piece in response.aiter_raw(4096)])
    assert json.loads(got)["result"] == {"text": text}


async def test_batches_cross_replicas() -> None:
    """In the one revision that has them; each request its answer."""
    async with replicas(2) as running:
        headers = await open_session(running.clients[0], "2025-03-26")
        batch = [rpc(1, "ping"), {"jsonrpc": "2.0", "method": "notifications/x"}, rpc(2, "ping")]
        answer = await running.clients[1].post("/mcp", json=batch, headers=headers)
        assert sorted(each["id"] for each in messages(answer.text)) == [1, 2]


async def test_a_parked_call_goes_on_at_its_replica(tmp_path: Path) -> None:
    """Whichever replica gets the retry; if its replica is gone the client is told."""
    command = child("eras", "legacy", str(tmp_path))
    async with replicas(2, "--child-era", "legacy", command=command) as running:
        first, second = running.clients
        params = asking([form()])

        async def send(client: httpx.AsyncClient, given: Any) -> Any:
            body = rpc(1, "tools/call", {**given, "_meta": meta(FORM)})
            answer = await client.post("/mcp", json=body, headers=headers_of(body))
            assert answer.status_code == 200, answer.text
            return messages(answer.text)[-1]

        parked = (await send(first, params))["result"]
        (key,) = parked["inputRequests"]
        yes = {"action": "accept", "content": {"name": "Ada"}}
        done = await send(second, retry_of(params, parked, **{key: yes}))
        assert text_of(done["result"])["answers"], done
        again = (await send(first, params))["result"]
        (key,) = again["inputRequests"]
        running.running[0].signal(signal.SIGKILL)
        await running.running[0].ended()
        lost = await send(second, retry_of(params, again, **{key: yes}))
        facts = lost["error"]["data"]["mcpbridge"]
        assert (facts["reason"], facts["executed"]) == ("replica_lost", "maybe")


async def served_again(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Wait until a session is adopted: only a replica that has run for 10 s does that."""

    async def answered() -> bool:
        response = await client.post("/mcp", json=rpc(1, "ping"), headers=headers)
        assert response.status_code in (200, 503), response.text
        return response.status_code == 200

    await asked_until(answered, "the session has another home", ADOPTED_S)


async def test_a_call_whose_replica_is_killed_is_told_so(tmp_path: Path) -> None:
    """It may have been executed; its session gets another home, and others are not affected."""
    command = child("questioner", str(tmp_path))
    async with replicas(2, "--json-window", "200ms", command=command) as running:
        having, other = running.clients
        headers, mine = await open_session(having), await open_session(other)
        plain = {**headers, "accept": "application/json"}
        hold = rpc("h", "x/hold", {"name": "lost"})
        waiting = asyncio.create_task(other.post("/mcp", json=hold, headers=plain))
        progress = rpc("p", "x/hold", {"name": "seen", "_meta": {"progressToken": "t"}})
        async with streaming(other, headers, progress) as call:
            step = rpc("s", "x/step", {"name": "seen", "times": 1})
            assert (await other.post("/mcp", json=step, headers=headers)).status_code == 200
            assert (await call.next())["params"]["progress"] == 1
            await eventually(lambda: b'"name":"lost"' in recorded(tmp_path), "the call is there")
            running.running[0].signal(signal.SIGKILL)
            for answer in ((await waiting).json(), await call.next()):
                facts = answer["error"]["data"]["mcpbridge"]
                assert answer["id"] in ("h", "p")
                assert (facts["reason"], facts["executed"]) == ("replica_lost", "maybe")
            assert await call.next() is None
        await running.running[0].ended()
        await served_again(other, headers)
        assert (await other.post("/mcp", json=rpc(1, "ping"), headers=mine)).status_code == 200


async def test_a_call_waits_until_a_replica_may_adopt_its_session(tmp_path: Path) -> None:
    """Its replica was killed before the others have run for 10 s; it is executed once."""
    command = child("questioner", str(tmp_path))
    async with replicas(3, command=command) as running:
        having, *others = running.clients
        headers = await open_session(having)
        # A call that would have to wait for longer is refused at once.
        await asyncio.sleep(SETTLED_AFTER_S - HELD_S + 0.5)  # no event says how long they have run
        running.running[0].signal(signal.SIGKILL)
        await running.running[0].ended()

        async def call(number: int) -> httpx.Response:
            body = rpc(number, "x/echo", {"text": f"nonce-{number}-"})
            return await others[number % 2].post("/mcp", json=body, headers=headers)

        for number, answer in enumerate(await asyncio.gather(*map(call, range(8)))):
            assert answer.status_code == 200, answer.text
            assert answer.json() == result_of(number, {"text": f"nonce-{number}-"})
        read = recorded(tmp_path)
        assert [read.count(b"nonce-%d-" % number) for number in range(8)] == [1] * 8


async def test_a_replica_that_ends_finishes_what_it_forwards(tmp_path: Path) -> None:
    """Calls get their answers, and streams that listen end so that clients connect elsewhere."""
    command = child("questioner", str(tmp_path))
    async with replicas(2, command=command) as running:
        having, other = running.clients
        headers = await open_session(having, "2025-06-18", ASKED)
        hold = rpc("h", "x/hold", {"name": "held"})
        plain = {**headers, "accept": "application/json"}
        async with streaming(other, headers) as news:
            waiting = asyncio.create_task(other.post("/mcp", json=hold, headers=plain))
            await eventually(lambda: b'"name":"held"' in recorded(tmp_path), "the call is there")
            running.running[1].signal(signal.SIGTERM)
            assert await news.next() is None
        release = rpc("r", "x/release", {"name": "held"})
        assert (await having.post("/mcp", json=release, headers=headers)).status_code == 200
        assert (await waiting).json() == result_of("h", {"held": "held"})
        assert await running.running[1].ended() == 0


async def test_credentials_stay_where_the_client_came_to() -> None:
    """A session is its own client's everywhere, and no token goes to another replica."""
    tokens = {"MCPBRIDGE_AUTH_TOKEN": "one-token-0123456789"}
    pairs = ("--header-env", "X-Api-Key=API_KEY?")
    async with replicas(2, *pairs, env=tokens, ready=False) as running:
        first, second = running.clients
        mine = {"authorization": "Bearer one-token-0123456789", "x-api-key": "secret-value"}
        first.headers.update(mine)
        headers = {**await open_session(first), **mine}
        assert (await second.post("/mcp", json=rpc(1, "ping"), headers=headers)).status_code == 200
        without = {name: value for name, value in headers.items() if name != "authorization"}
        assert (await second.post("/mcp", json=rpc(1, "ping"), headers=without)).status_code == 401
        others = {**headers, "x-api-key": "another-value"}
        assert (await second.post("/mcp", json=rpc(1, "ping"), headers=others)).status_code == 404
