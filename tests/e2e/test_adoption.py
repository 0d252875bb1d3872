"""A session whose replica was killed goes on at another one."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from mcpbridge.replicas.session_id import Replica
from tests.support.bridge_process import ACCEPT, asked_until, child, open_session, rpc
from tests.support.namespaces import NEEDS_NAMESPACES
from tests.support.questioner_bridge import ASKED, Headers, note, question, result_of
from tests.support.raw_http import streaming
from tests.support.replicas import PEER_PORT, Replicas, replicas

ADOPTED_S = 60.0
"""A replica adopts once it has run for 10 s, and a busy machine takes its time."""

pytestmark = [pytest.mark.slow, NEEDS_NAMESPACES]


async def echoed(client: httpx.AsyncClient, headers: Headers, nonce: str) -> bool:
    """Whether a call is answered, and rightly; before there is a home it gets 503."""
    answer = await client.post("/mcp", json=rpc(nonce, "x/echo", {"nonce": nonce}), headers=headers)
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        assert answer.headers["retry-after"]
        return False
    assert answer.json() == result_of(nonce, {"nonce": nonce})
    return True


async def kill(running: Replicas, number: int) -> None:
    """End a replica at once."""
    running.running[number].signal(signal.SIGKILL)
    await running.running[number].ended()


def readers_of(folder: Path, text: str) -> list[str]:
    """The processes that have read a text."""
    return [each.name for each in folder.iterdir() if text.encode() in each.read_bytes()]


async def test_sessions_of_a_killed_replica_have_one_home_each(tmp_path: Path) -> None:
    """All replicas that are left are asked at once; one child was told what the last one was."""
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    async with replicas(3, command=command, hosts=tmp_path / "hosts") as running:
        lost, *left = running.clients
        own = await open_session(lost, "2025-06-18", ASKED)
        shared = await open_session(lost, "2025-06-18")
        for headers in (own, shared):
            assert await echoed(left[0], headers, "before")
        await kill(running, 0)
        for name, headers in (("own", own), ("shared", shared)):

            async def asked(number: int, headers: Headers = headers, name: str = name) -> None:
                client = left[number % 2]

                async def ask() -> bool:
                    return await echoed(client, headers, f"{name}-{number}-")

                await asked_until(ask, "the session has another home", ADOPTED_S)

            await asyncio.gather(*(asked(number) for number in range(12)))
            told = [set(readers_of(folder, f"{name}-{number}-")) for number in range(12)]
            (process,) = set.union(*told)
            read = (folder / process).read_bytes()
            assert read.index(b'"initialize"') < read.index(b"notifications/initialized")
            assert read.index(b"notifications/initialized") < read.index(f"{name}-".encode())
        async with streaming(
            left[0], own, rpc("a", "x/ask", {"lines": [question("q")], "answers": 1})
        ) as call:
            asked_on = await call.next()
            answer = result_of(asked_on["id"], {"action": "accept"})
            assert (await left[1].post("/mcp", json=answer, headers=own)).status_code == 202
            result = (await call.next())["result"]
            assert result["answers"][0]["result"] == {"action": "accept"}


async def test_a_client_of_a_lost_call_is_told_by_the_next_home(tmp_path: Path) -> None:
    """It comes back with the id of the last event that it had, at another replica."""
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    words = ("--json-window", "0")
    async with replicas(3, *words, command=command, hosts=tmp_path / "hosts") as running:
        lost, other, _ = running.clients
        headers = await open_session(lost, "2025-11-25", ASKED)
        hold = rpc("lost-1", "x/hold", {"name": "h", "lines": [note("message", level="info")]})
        async with lost.stream("POST", "/mcp", json=hold, headers=headers) as response:
            event_id = ""
            async for line in response.aiter_lines():
                event_id = line[4:] if line.startswith("id: ") else event_id
                if line.startswith("data: {"):
                    break
        await kill(running, 0)

        async def told() -> bool:
            again = {**headers, "last-event-id": event_id}
            async with other.stream("GET", "/mcp", headers=again) as response:
                assert response.status_code in (200, 503)
                if response.status_code == 503:
                    return False
                text = (await response.aread()).decode()
            assert '"id":"lost-1"' in text
            assert '"replica_lost"' in text
            assert '"executed":"maybe"' in text
            return True

        await asked_until(told, "the lost call is answered", ADOPTED_S)
        assert len(readers_of(folder, '"name":"h"')) == 1, "it is not executed again"


async def test_sessions_of_a_replica_that_ends_go_on_before_it_has_ended(tmp_path: Path) -> None:
    """Its process takes its time over children that do not end; no client is told that it ends."""
    command = child("ignoring_sigterm")
    async with replicas(3, command=command, hosts=tmp_path / "hosts") as running:
        lost, having, other = running.clients
        first = await open_session(lost)
        headers = await open_session(having)
        await kill(running, 0)

        async def answered() -> bool:
            answer = await other.post("/mcp", json=rpc(1, "ping"), headers=first)
            return answer.status_code == 200

        await asked_until(answered, "the replicas have run for long enough to adopt", ADOPTED_S)
        ending = running.running[1]
        for count in (1, 2):
            ending.signal(signal.SIGTERM)
            await ending.logged("drain.phase_changed", count=count)
        await ending.logged("drain.phase_changed", lambda record: record["phase"] == "cutoff")
        answer = await other.post("/mcp", json=rpc(1, "ping"), headers=headers)
        # The server knows no ping, and says so itself.
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32601), answer.text
        await ending.ended()


async def test_a_session_on_the_shared_process_does_not_wait_for_a_replica_that_may_live() -> None:
    """No connection to its replica can be made, and nothing says that it has ended."""
    async with replicas(2, ready=False) as running:
        silent = Replica(running.addresses[0], PEER_PORT, 1)
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}}
        asked = {**params, "capabilities": {"elicitation": {}}}
        client = running.clients[0]
        with socket.socket() as full:
            full.bind((silent.host, silent.port))
            full.listen(0)
            with socket.create_connection((silent.host, silent.port)):
                shared, own = (
                    {**ACCEPT, "mcp-session-id": running.ids(own=silent).new(b"", written(each))}
                    for each in (params, asked)
                )

                async def answered() -> bool:
                    answer = await client.post("/mcp", json=rpc(1, "ping"), headers=shared)
                    assert answer.status_code in (200, 503), answer.text
                    return answer.status_code == 200

                await asked_until(answered, "the session has another home", ADOPTED_S)
                waits = await client.post("/mcp", json=rpc(1, "ping"), headers=own)
                assert (waits.status_code, "retry-after" in waits.headers) == (503, True)


def written(params: object) -> bytes:
    """The params of `initialize` as a client writes them."""
    return json.dumps(params).encode()
