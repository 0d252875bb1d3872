"""Where all processes are taken, one that no call uses makes room for the client that asks."""

from __future__ import annotations

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    initialize,
    open_session,
    rpc,
)
from tests.support.proofs import proves

ASKED: dict[str, object] = {"elicitation": {}}
ECHO = {"name": "echo", "arguments": {"text": "x"}}


def evicted(running: RunningBridge) -> list[int]:
    """The processes that were ended for another client, in order."""
    return [record["pid"] for record in running.events("child.evicted_idle")]


def started(running: RunningBridge) -> list[int]:
    """All processes that were started, in order."""
    return [record["pid"] for record in running.events("child.started")]


async def echoes(client: httpx.AsyncClient, headers: dict[str, str], number: int = 1) -> None:
    """Call a tool in a session and read its answer."""
    answer = await client.post("/mcp", json=rpc(number, "tools/call", ECHO), headers=headers)
    assert answer.json()["result"]["content"] == [{"type": "text", "text": "x"}]


@proves("O9")
@pytest.mark.slow
async def test_who_asks_gets_the_process_of_a_session_that_calls_nothing() -> None:
    """At once, and a session that lent its process gets another with its next call."""
    async with bridge("--max-children", "2") as running, running.client() as client:
        sessions = [await open_session(client, capabilities=ASKED) for _ in range(3)]
        for number, headers in enumerate(sessions):
            await echoes(client, headers, number)
        # The shared one and one more: each session in turn has had it.
        shared, *own = started(running)
        assert evicted(running) == own[:-1]
        assert running.processes() == {shared, own[-1]}


@pytest.mark.slow
async def test_the_longest_idle_goes_first_and_who_listens_last() -> None:
    """A client with a stream open would miss what its server says."""
    async with bridge("--max-children", "4") as running, running.client() as client:
        listening = await open_session(client, capabilities=ASKED)
        first = await open_session(client, capabilities=ASKED)
        await open_session(client, capabilities=ASKED)
        _, of_listening, of_first, of_second = started(running)
        await echoes(client, first)
        async with client.stream("GET", "/mcp", headers=listening) as stream:
            assert stream.status_code == 200
            await open_session(client, capabilities=ASKED)
            await open_session(client, capabilities=ASKED)
            assert evicted(running) == [of_second, of_first]
        await echoes(client, listening)
        assert of_listening in running.processes()


@pytest.mark.slow
async def test_a_session_keeps_its_child_where_that_was_asked_for() -> None:
    """With a process for each session, the cap refuses and takes none away."""
    words = ("--isolation", "session", "--max-children", "2")
    async with bridge(*words) as running, running.client() as client:
        headers = await open_session(client)
        for number in range(20):
            refused = await client.post("/mcp", json=initialize(number), headers=ACCEPT)
            assert refused.status_code == 503
            assert "--max-children 2" in refused.text
        await echoes(client, headers)
        assert not evicted(running)
