"""Replicas with a store: the words that they say to it, as literal bytes, and what they obey."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx

from mcpbridge.replicas.session_id import Replica
from tests.support.bridge_process import ACCEPT, asked_until, child, initialize, open_session, rpc
from tests.support.fake_redis import FakeRedis, fake_redis
from tests.support.namespaces import NEEDS_NAMESPACES
from tests.support.questioner_bridge import ASKED, result_of
from tests.support.redis_server import free_port
from tests.support.replicas import PEER_PORT, Replicas, listening_at, replicas

WITHIN_S = 60.0
"""However busy the machine is."""
OK = b"+OK\r\n"
NOTHING = b"$-1\r\n"
ELSEWHERE_BOOT = 7
CHANGED = b'{"initialized":true,"level":"error","subscriptions":["test://a"]}'
ASKED_FOR = json.dumps(initialize(1, "2025-06-18", ASKED)["params"]).encode()


def bulk(text: bytes) -> bytes:
    """A string as RESP has it."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def key_of(kind: str, session_id: str) -> bytes:
    """The key of one kind of value of a session."""
    return f"{kind}:{{{hashlib.sha256(session_id.encode()).hexdigest()}}}".encode()


class Words:
    """What a store answers by the command and the kind of the key."""

    def __init__(self) -> None:
        self.of: dict[tuple[bytes, bytes], Callable[[list[bytes]], bytes]] = {
            (b"SET", b"beat"): lambda _: OK,
            (b"SET", b"home"): lambda _: NOTHING,
            (b"SET", b"state"): lambda _: OK,
            (b"SET", b"params"): lambda _: OK,
            (b"GET", b"beat"): lambda _: NOTHING,
            (b"GET", b"home"): lambda _: NOTHING,
            (b"GET", b"state"): lambda _: NOTHING,
            (b"DEL", b"beat"): lambda _: b":1\r\n",
            # The claim is replaced: the answer is the new home, which is the third argument.
            (b"EVAL", b"home"): lambda question: bulk(question[5]),
        }

    def __call__(self, question: list[bytes]) -> bytes:
        """The answer to one question."""
        command = question[0].upper()
        key = question[3] if command == b"EVAL" else question[1]
        return self.of[command, key.partition(b":")[0]](question)


def said(fake: FakeRedis, command: bytes, key: bytes) -> list[list[bytes]]:
    """The questions of one kind."""
    return [each for each in fake.asked if each[0].upper() == command and key in each]


def session_of(running: Replicas, owner: Replica, params: bytes | None = ASKED_FOR) -> str:
    """The id of a session that another replica had."""
    return running.ids(own=owner).new(b"", params)


async def called(client: httpx.AsyncClient, session_id: str, nonce: str) -> httpx.Response:
    """Call the server in a session."""
    headers = {**ACCEPT, "mcp-session-id": session_id}
    return await client.post("/mcp", json=rpc(nonce, "x/echo", {"nonce": nonce}), headers=headers)


async def test_a_session_is_claimed_by_compare_and_set_and_knows_what_changed(
    tmp_path: Path,
) -> None:
    """Its home has ended, and no heartbeat is there; deleted, it is so for all replicas."""
    command = child("questioner", str(tmp_path))
    async with fake_redis() as fake:
        fake.reply = words = Words()
        words.of[b"GET", b"state"] = lambda _: bulk(CHANGED)
        store = ("--store", f"redis://127.0.0.1:{fake.port}/")
        async with replicas(1, *store, command=command) as running:
            (client,) = running.clients
            await running.running[0].logged("store.available")
            own = running.home(await open_session(client))
            dead = Replica(running.addresses[0], PEER_PORT, 1)
            session_id = session_of(running, dead)
            answer = await called(client, session_id, "n1")
            assert answer.json() == result_of("n1", {"nonce": "n1"}), "no replica must be settled"
            (read,) = [f for f in tmp_path.iterdir() if b'"n1"' in f.read_bytes()]
            assert b'"level":"error"' in read.read_bytes()
            assert b'"uri":"test://a"' in read.read_bytes()
            (claim,) = said(fake, b"EVAL", key_of("home", session_id))
            assert claim[2:] == [
                b"1", key_of("home", session_id), str(dead).encode(), str(own).encode(), b"1800000"
            ]  # fmt: skip
            beats = said(fake, b"SET", f"beat:{own}".encode())
            assert beats[0][2:] == [b"1", b"PX", b"15000"]
            level = rpc(2, "logging/setLevel", {"level": "debug"})
            headers = {**ACCEPT, "mcp-session-id": session_id}
            assert (await client.post("/mcp", json=level, headers=headers)).status_code == 200

            async def written() -> bool:
                states = said(fake, b"SET", key_of("state", session_id))
                return bool(states) and b'"level":"debug"' in states[-1][2]

            await asked_until(written, "the level is written", WITHIN_S)
            words.of[b"EVAL", b"home"] = lambda question: bulk(question[6])
            assert (await client.delete("/mcp", headers=headers)).status_code == 200
            *_, grave = said(fake, b"EVAL", key_of("home", session_id))
            assert grave[6] == b"ended"
            words.of[b"GET", b"home"] = lambda _: bulk(b"ended")
            assert (await called(client, session_id, "n2")).status_code == 404


async def test_the_home_that_a_claim_names_is_asked() -> None:
    """It was not known here; what is asked there is forwarded, not adopted."""
    async with fake_redis() as fake:
        fake.reply = words = Words()
        async with replicas(1, "--store", f"redis://127.0.0.1:{fake.port}") as running:
            (client,) = running.clients
            await running.running[0].logged("store.available")
            elsewhere = Replica(running.addresses[2], PEER_PORT, ELSEWHERE_BOOT)
            words.of[b"GET", b"home"] = lambda _: bulk(str(elsewhere).encode())
            session_id = session_of(running, Replica(running.addresses[0], PEER_PORT, 1))
            async with listening_at(elsewhere.host) as asked:
                call = rpc(1, "tools/call", {"name": "x"})
                headers = {**ACCEPT, "mcp-session-id": session_id}
                answer = await client.post("/mcp", json=call, headers=headers)
            assert answer.json()["error"]["data"]["mcpbridge"]["reason"] == "replica_lost"
            assert session_id.encode() in asked[0]
            assert said(fake, b"EVAL", key_of("home", session_id)) == []


async def test_a_session_whose_home_writes_its_heartbeat_waits(tmp_path: Path) -> None:
    """Nothing comes from its address, but it lives: 503, and no claim, until it stops."""
    command = child("questioner", str(tmp_path))
    async with fake_redis() as fake:
        fake.reply = words = Words()
        words.of[b"GET", b"beat"] = lambda _: bulk(b"1")
        store = ("--store", f"redis://127.0.0.1:{fake.port}")
        async with replicas(1, *store, command=command) as running:
            (client,) = running.clients
            await running.running[0].logged("store.available")
            silent = Replica(running.addresses[0], PEER_PORT, 1)
            session_id = session_of(running, silent)
            with socket.socket() as full:
                full.bind((silent.host, silent.port))
                full.listen(0)
                with socket.create_connection((silent.host, silent.port)):
                    answer = await called(client, session_id, "n1")
                    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                    assert said(fake, b"GET", f"beat:{silent}".encode()) != []
                    assert said(fake, b"EVAL", key_of("home", session_id)) == []
                    words.of[b"GET", b"beat"] = lambda _: NOTHING
                    assert (await called(client, session_id, "n2")).status_code == 200


async def test_params_that_have_no_room_in_an_id_are_in_the_store(tmp_path: Path) -> None:
    """Those of another client are not; the session is revived with them."""
    rich = initialize(1, "2025-06-18", ASKED)
    rich["params"]["clientInfo"]["title"] = "".join(
        hashlib.sha256(str(number).encode()).hexdigest() for number in range(40)
    )
    command = child("questioner", str(tmp_path))
    async with fake_redis() as fake:
        fake.reply = words = Words()
        store = ("--store", f"redis://127.0.0.1:{fake.port}")
        async with replicas(1, *store, command=command) as running:
            (client,) = running.clients
            await running.running[0].logged("store.available")
            plain = await open_session(client)
            opened = await client.post("/mcp", json=rich, headers=ACCEPT)
            session_id = opened.headers["mcp-session-id"]
            assert len(session_id) < 200

            async def written() -> bool:
                return bool(said(fake, b"SET", key_of("params", session_id)))

            await asked_until(written, "the params are written", WITHIN_S)
            (kept,) = said(fake, b"SET", key_of("params", session_id))
            assert json.loads(kept[2]) == rich["params"]
            assert said(fake, b"SET", key_of("params", plain["mcp-session-id"])) == []
            orphan = session_of(running, Replica(running.addresses[0], PEER_PORT, 1), None)
            words.of[b"GET", b"params"] = lambda _: bulk(kept[2])
            assert (await called(client, orphan, "n1")).status_code == 200


@NEEDS_NAMESPACES
async def test_a_store_that_is_away_at_the_start_is_used_when_it_comes(tmp_path: Path) -> None:
    """A warning, once; sessions open and are served, and the replica is ready."""
    port = free_port()
    store = ("--store", f"redis://:a-password@127.0.0.1:{port}/3")
    (record := tmp_path / "record").mkdir()
    command = child("questioner", str(record))
    # It finds itself alone by its name, so it is not cut off from a peer.
    async with replicas(1, *store, command=command, hosts=tmp_path / "hosts") as running:
        (client,) = running.clients
        (bridge,) = running.running
        (away,) = await bridge.logged("store.away")
        assert away["level"] == "warning"
        assert (await client.get("/readyz")).status_code == 200
        session = await open_session(client)
        orphan = session_of(running, Replica(running.addresses[0], PEER_PORT, 1))
        waits = await called(client, orphan, "n1")
        assert (waits.status_code, "retry-after" in waits.headers) == (503, True)
        assert (await client.post("/mcp", json=rpc(1, "ping"), headers=session)).status_code == 200
        async with fake_redis(port=port) as fake:
            fake.reply = Words()
            await bridge.logged("store.available")
            assert [b"AUTH", b"a-password"] in fake.setting_up
            assert [b"SELECT", b"3"] in fake.setting_up
            assert (await called(client, orphan, "n2")).status_code == 200
        assert "a-password" not in str(bridge.log) + str(bridge.noise)
