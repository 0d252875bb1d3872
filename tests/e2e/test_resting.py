"""Where all processes are taken, one that nobody has used for long makes room."""

from __future__ import annotations

import pytest

from tests.support.bridge_process import bridge, initialize, open_session, rpc
from tests.support.proofs import proves

ASKED: dict[str, object] = {"elicitation": {}}
ECHO = {"name": "echo", "arguments": {"text": "x"}}


@proves("O9")
@pytest.mark.slow
async def test_a_session_that_rests_lends_its_child_and_gets_another() -> None:
    """Clients that never delete their sessions do not lock out the next one."""
    words = ("--max-children", "2", "--child-rest-after", "100ms")
    async with bridge(*words) as running, running.client() as client:
        first = await open_session(client, capabilities=ASKED)
        called = await client.post("/mcp", json=rpc(1, "tools/call", ECHO), headers=first)
        assert called.status_code == 200
        for _ in range(200):
            # Until the first session has rested long enough there is no room.
            opened = await client.post("/mcp", json=initialize(0, capabilities=ASKED))
            if opened.status_code == 200:
                break
            assert "--max-children" in opened.text
        assert opened.status_code == 200
        await running.logged("child.evicted_idle")
        assert len(running.processes()) == 2
        # Its client notices nothing but the time that a start takes.
        again = None
        for _ in range(200):
            again = await client.post("/mcp", json=rpc(2, "tools/call", ECHO), headers=first)
            if "capacity" not in again.text:
                break
        assert again is not None
        assert again.json()["result"]["content"] == [{"type": "text", "text": "x"}]


@pytest.mark.slow
async def test_a_session_keeps_its_child_where_that_was_asked_for() -> None:
    """With a process for each session, the cap refuses and takes none away."""
    words = ("--isolation", "session", "--max-children", "2", "--child-rest-after", "100ms")
    async with bridge(*words) as running, running.client() as client:
        headers = await open_session(client)
        for number in range(20):
            refused = await client.post(
                "/mcp",
                json=rpc(
                    number,
                    "initialize",
                    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}},
                ),
            )
            assert refused.status_code == 503
        answer = await client.post("/mcp", json=rpc(3, "tools/call", ECHO), headers=headers)
        assert answer.status_code == 200
        assert not running.events("child.evicted_idle")
