"""The sessions of a replica that is told to end go on at others, and their clients see nothing."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import asked_until, child, eventually, messages, open_session, rpc
from tests.support.namespaces import NEEDS_NAMESPACES
from tests.support.questioner_bridge import ASKED, note, result_of
from tests.support.raw_http import recorded, streaming
from tests.support.replicas import NAME, PEER_PORT, Replicas, replicas

LONG = 300_000

pytestmark = [pytest.mark.slow, NEEDS_NAMESPACES]


async def until_taken(running: Replicas, count: int) -> None:
    """Wait until the replicas that stay have taken `count` sessions."""

    def taken() -> int:
        return sum(len(each.events("session.taken_over")) for each in running.running)

    await eventually(lambda: taken() >= count, f"{count} sessions are taken over")
    assert taken() == count


def read_by(folder: Path, text: str) -> list[bytes]:
    """What each process has read that has read a text."""
    found = [each.read_bytes() for each in folder.iterdir()]
    return [each for each in found if text.encode() in each]


async def test_sessions_go_on_with_what_their_clients_had_asked_for(tmp_path: Path) -> None:
    """Level, subscriptions and `initialized` go with them; a client opens its stream again."""
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    async with replicas(3, command=command, hosts=tmp_path / "hosts") as running:
        ending, *left = running.clients
        sessions = {
            "own": await open_session(ending, "2025-11-25", ASKED),
            "shared": await open_session(ending, "2025-11-25"),
        }
        for name, headers in sessions.items():
            for method, params in (
                ("logging/setLevel", {"level": "warning"}),
                ("resources/subscribe", {"uri": f"file:///{name}"}),
            ):
                answer = await ending.post("/mcp", json=rpc(1, method, params), headers=headers)
                assert answer.status_code == 200, answer.text
        async with left[0].stream("GET", "/mcp", headers=sessions["own"]) as stream:
            assert stream.status_code == 200
            running.running[0].signal(signal.SIGTERM)
            text = (await stream.aread()).decode()
        assert "retry: " in text.rpartition("data: \n")[2], "its client opens the stream again"
        await until_taken(running, len(sessions))
        assert await running.running[0].ended() == 0
        for name, headers in sessions.items():
            for client in left:
                nonce = {"nonce": f"{name}-after"}
                answer = await client.post("/mcp", json=rpc(2, "x/echo", nonce), headers=headers)
                assert answer.status_code == 200, answer.text
                assert messages(answer.text)[-1] == result_of(2, nonce)
            (told,) = read_by(folder, f"{name}-after")
            before, _, _ = told.partition(f"{name}-after".encode())
            assert b'"logging/setLevel"' in before
            assert f'"uri":"file:///{name}"'.encode() in before.replace(b": ", b":")
            assert b"notifications/initialized" in before


async def test_a_session_goes_once_its_call_is_answered(tmp_path: Path) -> None:
    """The call is neither lost nor executed twice, and the next one is served elsewhere."""
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    async with replicas(2, command=command, hosts=tmp_path / "hosts") as running:
        ending, other = running.clients
        headers = await open_session(ending, "2025-11-25")
        hold = rpc("held", "x/hold", {"name": "held-1"})
        call = asyncio.create_task(other.post("/mcp", json=hold, headers=headers))
        await eventually(lambda: b"held-1" in recorded(folder), "the call is with the server")
        running.running[0].signal(signal.SIGTERM)
        await running.running[0].logged("drain.phase_changed", lambda e: e["phase"] == "draining")
        release = rpc("free", "x/release", {"name": "held-1"})
        answer = await other.post("/mcp", json=release, headers=headers)
        assert messages(answer.text)[-1] == result_of("free", {"released": 1})
        assert messages((await call).text)[-1] == result_of("held", {"held": "held-1"})
        await until_taken(running, 1)
        assert await running.running[0].ended() == 0
        answer = await other.post("/mcp", json=rpc("next", "x/echo", {"n": 1}), headers=headers)
        assert answer.json() == result_of("next", {"n": 1})
        assert recorded(folder).count(b'"x/hold"') == 1


async def test_a_held_session_keeps_its_process_until_it_ends(tmp_path: Path) -> None:
    """Others forward to it, streams too; the replica ends with its last session of that kind."""
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    words = ("--hold-sessions", "5m", "--grace", "10m")
    async with replicas(2, *words, command=command, hosts=tmp_path / "hosts") as running:
        ending, other = running.clients
        own = await open_session(ending, "2025-11-25", ASKED)
        shared = await open_session(ending, "2025-11-25")
        await other.post("/mcp", json=rpc(1, "x/echo", {"n": "own-before"}), headers=own)
        running.running[0].signal(signal.SIGTERM)
        (held,) = await running.running[0].logged("handover.held")
        assert held["sessions"] == 1
        # The session on the shared process goes, the other one does not.
        await until_taken(running, 1)
        answer = await other.post("/mcp", json=rpc(2, "x/echo", {"n": "own-held"}), headers=own)
        assert answer.json() == result_of(2, {"n": "own-held"})
        (told,) = read_by(folder, "own-before")
        assert b"own-held" in told, "the same process has read both"
        refused = await ending.get("/mcp", headers=own)
        assert refused.status_code == 503, "clients are to listen elsewhere"
        async with other.stream("GET", "/mcp", headers=own) as stream:
            assert stream.status_code == 200
            await other.delete("/mcp", headers=own)
            assert await running.running[0].ended() == 0
        answer = await other.post("/mcp", json=rpc(3, "x/echo", {"n": "after"}), headers=shared)
        assert answer.json() == result_of(3, {"n": "after"})


async def test_an_answer_that_was_not_delivered_goes_with_its_session(tmp_path: Path) -> None:
    """Its client had lost the connection, and comes back for it elsewhere; it may be long."""
    name = "h" * LONG
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    words = ("--json-window", "0")
    async with replicas(2, *words, command=command, hosts=tmp_path / "hosts") as running:
        ending, other = running.clients
        headers = await open_session(ending, "2025-11-25", ASKED)
        hold = rpc("late", "x/hold", {"name": name, "lines": [note("message", level="info")]})
        async with ending.stream("POST", "/mcp", json=hold, headers=headers) as response:
            last = ""
            async for line in response.aiter_lines():
                last = line[4:] if line.startswith("id: ") else last
                if line.startswith("data: {"):
                    break
        async with streaming(ending, headers, rpc("free", "x/release", {"name": name})) as release:
            assert await release.next() == result_of("free", {"released": 1})
        running.running[0].signal(signal.SIGTERM)
        await until_taken(running, 1)
        assert await running.running[0].ended() == 0
        again = {**headers, "last-event-id": last}
        async with other.stream("GET", "/mcp", headers=again) as response:
            assert response.status_code == 200
            text = (await response.aread()).decode()
        assert messages(text) == [result_of("late", {"held": name})]
        # It has all of that stream now.
        ids = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
        again["last-event-id"] = ids[-1]
        assert (await other.get("/mcp", headers=again)).status_code == 405


async def test_a_deleted_session_is_not_revived(tmp_path: Path) -> None:
    """Each replica knows that its client has deleted it, even once its home is gone."""
    async with replicas(3, hosts=tmp_path / "hosts") as running:
        home, through, third = running.clients
        headers = await open_session(home)
        assert (await through.delete("/mcp", headers=headers)).status_code == 200
        running.running[0].signal(signal.SIGTERM)
        assert await running.running[0].ended() == 0
        for client in (through, third):
            answer = await client.post("/mcp", json=rpc(1, "ping"), headers=headers)
            assert answer.status_code == 404, answer.text


class FakePeer:
    """A peer port that a test answers for."""

    def __init__(self, address: str) -> None:
        self.name = f"{address}:{PEER_PORT}/0000000b"
        self.offered = asyncio.Event()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.calls: list[Any] = []
        self.told: dict[str, object] = {"answer": "has_not"}
        """What it answers to questions about sessions."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                said = json.loads(await reader.readexactly(length))
                body = json.dumps(await self._answered(head, said)).encode()
                kind = "content-type: application/json\r\ncontent-length"
                writer.write(f"HTTP/1.1 200 OK\r\n{kind}: {len(body)}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answered(self, head: bytes, said: Any) -> Any:
        if head.startswith(b"POST /mcpbridge/handover "):
            if said["type"] != "session":
                return {"answer": "has_not"}
            self.offered.set()
            return await asyncio.shield(self.answer)
        if head.startswith(b"POST /mcpbridge/homes "):
            return self.told
        self.calls.append(said)
        return result_of(said["id"], "elsewhere")


@asynccontextmanager
async def offering(
    folder: Path, *words: str
) -> AsyncIterator[tuple[Replicas, FakePeer, Callable[[], bytes]]]:
    """A replica that will end, its only peer, and what its server has read."""
    record = folder / "record"
    record.mkdir()
    hosts = folder / "hosts"
    command = child("questioner", str(record))
    async with replicas(1, *words, command=command, hosts=hosts) as running:
        peer = FakePeer(running.addresses[0])
        server = await asyncio.start_server(peer.serve, running.addresses[0], PEER_PORT)
        try:
            # In its place: the replica has this very file mounted.
            hosts.write_text(f"{hosts.read_text('utf-8')}{running.addresses[0]} {NAME}\n", "utf-8")
            yield running, peer, lambda: recorded(record)
        finally:
            server.close()


@pytest.mark.parametrize("accepts", [True, False])
async def test_what_arrives_while_a_session_leaves_is_held(tmp_path: Path, accepts: bool) -> None:
    """It goes where the session goes: to the peer that takes it, or to the server that it has."""
    async with offering(tmp_path) as (running, peer, read):
        (client,) = running.clients
        headers = await open_session(client)
        running.running[0].signal(signal.SIGTERM)
        await peer.offered.wait()
        call = rpc("call", "x/echo", {"n": "held-1"})
        held = asyncio.create_task(client.post("/mcp", json=call, headers=headers))

        async def arrived() -> bool:
            return "mcpbridge_calls_in_flight 1.0" in (await client.get("/metrics")).text

        await asked_until(arrived, "the call is held")
        assert not held.done()
        assert b"held-1" not in read()
        has = {"answer": "has", "home": peer.name}
        peer.answer.set_result(has if accepts else {"answer": "has_not"})
        answer = await held
        assert answer.status_code == 200, answer.text
        wanted = "elsewhere" if accepts else {"n": "held-1"}
        assert answer.json() == result_of("call", wanted)
        assert (b"held-1" in read()) is not accepts
        assert [each["id"] for each in peer.calls] == (["call"] if accepts else [])
        assert await running.running[0].ended() == 0
