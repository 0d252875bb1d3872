"""Sessions that open at a replica that is full, or about to end."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_handover import offering
from tests.support.bridge_process import asked_until, child, open_session, rpc
from tests.support.namespaces import NEEDS_NAMESPACES
from tests.support.questioner_bridge import ASKED
from tests.support.replicas import replicas

pytestmark = [pytest.mark.slow, NEEDS_NAMESPACES]


async def until_known(client: httpx.AsyncClient) -> None:
    """Wait until a replica knows its one peer."""

    async def known() -> bool:
        return "mcpbridge_peers 1.0" in (await client.get("/metrics")).text

    await asked_until(known, "the peer is known")


async def test_a_full_replica_is_ready_and_loses_no_session(tmp_path: Path) -> None:
    """New sessions open where there is room; once there is none, an idle one gives way."""
    words = ("--max-sessions", "2")
    async with replicas(2, *words, hosts=tmp_path / "hosts") as running:
        client, _ = running.clients
        await until_known(client)
        opened = [await open_session(client) for _ in range(4)]
        here, there = running.addresses[1], running.addresses[2]
        assert [running.home(each).host for each in opened] == [here, here, there, there]
        assert (await client.get("/readyz")).status_code == 200
        assert (
            'mcpbridge_placements_total{where="elsewhere"} 2.0'
            in (await client.get("/metrics")).text
        )
        for headers in opened:
            answer = await client.post("/mcp", json=rpc(1, "ping"), headers=headers)
            assert answer.status_code == 200, answer.text
        fifth = await open_session(client)
        assert running.home(fifth).host == here
        answer = await client.post("/mcp", json=rpc(1, "ping"), headers=opened[0])
        assert answer.status_code == 404


async def test_a_replica_that_ends_opens_sessions_elsewhere(tmp_path: Path) -> None:
    """It would refuse them; this one waits for a session that it holds."""
    words = ("--hold-sessions", "5m", "--grace", "10m")
    folder = tmp_path / "record"
    folder.mkdir()
    command = child("questioner", str(folder))
    async with replicas(2, *words, command=command, hosts=tmp_path / "hosts") as running:
        ending, _ = running.clients
        await until_known(ending)
        held = await open_session(ending, "2025-11-25", ASKED)
        answer = await ending.post("/mcp", json=rpc(1, "ping"), headers=held)
        assert answer.status_code == 200, answer.text
        running.running[0].signal(signal.SIGTERM)
        await running.running[0].logged("handover.held")
        await running.running[0].logged("drain.phase_changed", lambda e: e["phase"] == "draining")
        headers = await open_session(ending)
        assert running.home(headers).host == running.addresses[2]
        assert (await ending.delete("/mcp", headers=held)).status_code == 200
        assert await running.running[0].ended() == 0


async def test_a_session_opens_here_if_the_chosen_replica_is_gone(tmp_path: Path) -> None:
    """It said that it has room, and nothing listens there by the time that it is asked."""
    async with offering(tmp_path, "--max-sessions", "1") as (running, peer, _):
        (client,) = running.clients
        gone = f"{running.addresses[0]}:1/0000000b"
        peer.told = {"answer": "has_not", "home": gone, "fill": 0.1}
        await until_known(client)
        opened = [await open_session(client) for _ in range(2)]
        assert {running.home(each).host for each in opened} == {running.addresses[1]}
        assert (
            'mcpbridge_forwards_total{outcome="refused"} 1.0' in (await client.get("/metrics")).text
        )
        peer.answer.set_result({"answer": "has_not"})
        running.running[0].signal(signal.SIGTERM)
        assert await running.running[0].ended() == 0
