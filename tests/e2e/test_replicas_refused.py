"""What is refused by replicas: ids, proofs and settings, and that nothing is sent anywhere then."""

from __future__ import annotations

import asyncio
import re
import string
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mcpbridge.replicas import session_id
from mcpbridge.replicas.peer_messages import MAX_HANDOVER_BYTES
from mcpbridge.replicas.peer_proof import SKEW_S
from mcpbridge.replicas.peer_questions import HANDOVER_PATH
from mcpbridge.replicas.session_id import MAX_AGE_S, Replica
from mcpbridge.rules.access.principals import ANONYMOUS, Principal, key_of
from tests.support.bridge_process import ACCEPT, open_session, rpc, started
from tests.support.raw_http import exchanged, post
from tests.support.replicas import KEY, PEER_PORT, Replicas, listening_at, proofs, replicas

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER_KEY = "another-key-" * 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Replicas]:
    """Two replicas of the example server."""
    async with replicas(2) as running:
        yield running


def forged(text: str) -> list[str]:
    """Texts that are like an id and are not one."""
    letters = string.ascii_lowercase + string.digits
    changed = [text[:at] + letters[letters.index(text[at]) - 1] + text[at + 1 :] for at in (1, 40)]
    return [*changed, text[:-1], text[: len(text) // 2], text + "a", text.upper(), "m", "0" * 64]


async def test_an_id_that_does_not_open_is_refused_and_nobody_is_asked(two: Replicas) -> None:
    """Forged, cut, another key's, another client's, too old: 404. A newer release's: 503."""
    async with listening_at(two.addresses[0]) as asked:
        good = two.ids().new(b"")
        refused = [
            *forged(good),
            two.ids(OTHER_KEY).new(b""),
            two.ids().new(key_of("somebody")),
            two.ids(age_s=MAX_AGE_S + 60).new(b""),
        ]
        client = two.clients[0]

        async def status(named: str, verb: str = "POST") -> int:
            headers = {**ACCEPT, "mcp-session-id": named}
            body = rpc(1, "ping") if verb == "POST" else None
            return (await client.request(verb, "/mcp", json=body, headers=headers)).status_code

        for text in refused:
            assert [await status(text, verb) for verb in ("POST", "GET", "DELETE")] == [404] * 3
            sent = await client.post(f"/messages?session_id={text}", json=rpc(1, "ping"))
            assert sent.status_code == 404
        with pytest.MonkeyPatch.context() as newer:
            newer.setattr(session_id, "VERSION", 2)
            text = two.ids().new(b"")
        assert [await status(text, verb) for verb in ("POST", "GET", "DELETE")] == [503] * 3
        assert asked == []
        # One that opens is forwarded: the list above is empty for a reason.
        headers = {**ACCEPT, "mcp-session-id": good}
        call = await client.post("/mcp", json=rpc(1, "tools/call", {}), headers=headers)
        assert call.json()["error"]["data"]["mcpbridge"]["reason"] == "replica_lost"
        assert len(asked) == 1, "it may have been executed"
        assert b"authorization" not in asked[0].lower()
        assert await status(good) == 503
        assert len(asked) > 2, "what may be executed twice is sent again"


async def test_a_replica_that_is_not_there_ends_its_sessions(two: Replicas) -> None:
    """Nothing listens at its address: the client is told to begin again."""
    gone = two.ids(own=Replica(two.addresses[0], 1, 1)).new(b"")
    headers = {**ACCEPT, "mcp-session-id": gone}
    answer = await two.clients[0].post("/mcp", json=rpc(7, "ping"), headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (404, 7)


async def test_an_earlier_start_at_the_same_address_has_no_sessions(two: Replicas) -> None:
    """A container that restarts keeps its address: its clients begin again."""
    home = Replica(two.addresses[2], PEER_PORT, 0)
    headers = {**ACCEPT, "mcp-session-id": two.ids(own=home).new(b"")}
    answer = await two.clients[0].post("/mcp", json=rpc(7, "ping"), headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (404, 7)


async def test_the_peer_port_serves_nobody_without_a_valid_proof(two: Replicas) -> None:
    """None, another key's, a stale one, one for another replica or start: 403, even for a page."""
    client = two.clients[0]
    session = await open_session(client)
    home = two.home(session)
    here = Replica(two.addresses[0], PEER_PORT, 5)
    other = Replica(home.host, home.port, home.boot ^ 1)
    good = proofs(here).header_for(home, ANONYMOUS)
    bad = [
        None,
        b"",
        b"1.2.3",
        good[:-1] + (b"b" if good.endswith(b"a") else b"a"),
        proofs(here, OTHER_KEY).header_for(home, ANONYMOUS),
        proofs(here, age_s=SKEW_S + 60).header_for(home, ANONYMOUS),
        proofs(here, age_s=-SKEW_S - 60).header_for(home, ANONYMOUS),
        proofs(here).header_for(other, ANONYMOUS),
    ]
    url = f"http://{home.host}:{home.port}/mcp"

    async def status(proof: bytes | None, verb: str = "POST") -> int:
        headers = {key.encode(): value.encode() for key, value in session.items()}
        if proof is not None:
            headers[b"mcpbridge-peer"] = proof
        body = rpc(1, "ping") if verb == "POST" else None
        return (await client.request(verb, url, json=body, headers=headers)).status_code

    for proof in bad:
        found = [await status(proof, verb) for verb in ("POST", "GET", "DELETE")]
        assert found == [403] * 3, proof
    # On one connection after a good one: the head of that is known, that of the next is not.
    assert [await status(good), await status(good), await status(bad[5])] == [200, 200, 403]
    for path in ("/livez", "/metrics", "/"):
        answer = await client.get(url.removesuffix("/mcp") + path)
        assert answer.status_code in (403, 404), path


async def test_a_proof_serves_the_client_that_it_names_alone(two: Replicas) -> None:
    """The session of another is answered like one that never existed."""
    client = two.clients[0]
    session = await open_session(client)
    home = two.home(session)
    proof = proofs(Replica(two.addresses[0], PEER_PORT, 5)).header_for(
        home, Principal(key_of("somebody"), "somebody")
    )
    url = f"http://{home.host}:{home.port}/mcp"
    headers = {**session, "mcpbridge-peer": proof.decode()}
    assert (await client.post(url, json=rpc(1, "ping"), headers=headers)).status_code == 404


async def test_the_peer_port_takes_no_session_that_none_has_handed_over(two: Replicas) -> None:
    """Without a proof, under an id that opens for no client, as other bytes, and at any length."""
    client = two.clients[0]
    home = two.home(await open_session(client))
    url = f"http://{home.host}:{home.port}{HANDOVER_PATH}"
    proof = proofs(Replica(two.addresses[0], PEER_PORT, 5)).header_for(home, ANONYMOUS).decode()
    offered = {"type": "session", "session": "m" * 60, "asker": "127.0.0.9:8001", "params": ""}
    answer = await client.post(url, json=offered)
    assert answer.status_code == 403
    proven = {"mcpbridge-peer": proof}
    answer = await client.post(url, json=offered, headers=proven)
    assert (answer.status_code, answer.json()["answer"]) == (200, "has_not")
    for body in (
        b"",
        b"{}",
        b"[]",
        b'{"type":"later"}',
        b'{"type":"session","session":1}',
        b"\xff",
    ):
        answer = await client.post(url, content=body, headers=proven)
        assert answer.status_code == 400, body
    # The head alone: the connection is closed after the answer, whatever is still on its way.
    too_long = (f"Host: {home.host}", f"Content-Length: {MAX_HANDOVER_BYTES + 1}")
    head = post(b"", *too_long, f"mcpbridge-peer: {proof}", path=HANDOVER_PATH)
    answered = await exchanged(home.port, head, home.host)
    assert answered.status == 413


async def test_the_peer_port_forwards_nothing(two: Replicas) -> None:
    """Also with a good proof, and an id or a state that names another replica."""
    async with listening_at(two.addresses[0]) as asked:
        home = two.home(await open_session(two.clients[0]))
        proof = proofs(Replica(two.addresses[0], PEER_PORT, 5)).header_for(home, ANONYMOUS)
        elsewhere = two.ids().new(b"")
        headers = {**ACCEPT, "mcp-session-id": elsewhere, "mcpbridge-peer": proof.decode()}
        url = f"http://{home.host}:{home.port}"
        client = two.clients[0]
        for verb in ("POST", "GET", "DELETE"):
            body = rpc(1, "ping") if verb == "POST" else None
            answer = await client.request(verb, f"{url}/mcp", json=body, headers=headers)
            assert answer.status_code == 404, verb
        sent = await client.post(
            f"{url}/messages?session_id={elsewhere}", json=rpc(1, "ping"), headers=headers
        )
        assert sent.status_code == 404
        assert asked == []


async def test_the_header_of_replicas_means_nothing_at_the_port_for_clients(two: Replicas) -> None:
    """It neither makes another client of one, nor goes on to another replica."""
    session = await open_session(two.clients[0])
    home = two.home(session)
    principal = Principal(key_of("somebody"), "somebody")
    proof = proofs(Replica(two.addresses[0], PEER_PORT, 5)).header_for(home, principal)
    headers = {**session, "mcpbridge-peer": proof.decode()}
    for client in two.clients:
        assert (await client.post("/mcp", json=rpc(1, "ping"), headers=headers)).status_code == 200


async def test_unusable_settings_are_refused(tmp_path: Path) -> None:
    """One line names the setting and what to set, and shows no key."""
    (tmp_path / "servers.json").write_text('{"mcpServers": {"a": {"command": "true"}}}')
    short = tmp_path / "short"
    short.write_text("short-key")
    with_key = {"MCPBRIDGE_STATE_KEY": KEY}
    peers = ("--peers", "replicas.default.svc")
    servers = ("--config", str(tmp_path / "servers.json"))

    async def refused(words: tuple[str, ...], env: dict[str, str], says: str) -> None:
        command = () if "--config" in words else ("--", sys.executable, "-c", "")
        given = {"POD_IP": "127.0.0.1", **env}
        async with started("--port", "0", *words, *command, env=given) as running:
            assert await running.ended() == 2
        (line,) = running.start_errors
        assert re.search(says, line), line
        assert "short-key" not in line
        assert KEY not in line

    await asyncio.gather(
        refused(peers, {}, "^--peers.*set MCPBRIDGE_STATE_KEY or MCPBRIDGE_STATE_KEY_FILE"),
        refused(peers, {"MCPBRIDGE_STATE_KEY": "short-key"}, "MCPBRIDGE_STATE_KEY.*at least 32"),
        refused(peers, {"MCPBRIDGE_STATE_KEY_FILE": str(short)}, "_FILE.*at least 32"),
        refused(peers, {"MCPBRIDGE_STATE_KEY_FILE": str(tmp_path / "none")}, "_FILE.*No such file"),
        refused((), {**with_key, "MCPBRIDGE_STATE_KEY_FILE": str(short)}, "set only one"),
        refused(("--peers", "a b"), with_key, "--peers.*NAME:PORT"),
        refused(
            ("--peers", "a:70000"), with_key, r"--peers.*invalid port 70000 \(expected 1-65535"
        ),
        refused((*peers, "--admin-port", "8001"), with_key, "--peers.*8001 is the port"),
        refused(peers, {**with_key, "POD_IP": "pod"}, "^POD_IP: 'pod' is not an IP address"),
        refused(peers, {**with_key, "POD_IP": "0.0.0.0"}, "^POD_IP.*not the address of a host"),
        refused((*peers, *servers), with_key, "--peers.*several servers"),
        refused(("--store", "redis://a"), with_key, "^--store.*; give --peers as well"),
        refused(
            (*peers, "--store", "a:1"), with_key, r"^--store.*: expected redis://HOST\[:PORT\]"
        ),
        refused(
            peers, {**with_key, "MCPBRIDGE_STORE": f"http://u:{KEY}@a"}, "STORE.*: expected red"
        ),
        refused(
            (*peers, "--store", f"redis://u:{KEY}@a:0"), with_key, r"--store.*invalid port 0 \(exp"
        ),
        refused((*peers, "--on-owner-lost", "stay"), with_key, "--on-owner-lost.*restart, end"),
        refused(("--hold-sessions", "5s"), with_key, "^--hold-sessions.*; give --peers as well"),
        refused(
            (*peers, "--hold-sessions", "10m", "--grace", "60s"),
            with_key,
            "^--hold-sessions.*10m leaves no time.*within --grace .*; give less than 45s, or",
        ),
    )
