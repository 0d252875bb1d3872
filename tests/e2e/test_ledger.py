"""Everything that is kept counts towards `--max-memory` as long as it is kept, and no longer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import ACCEPT, RunningBridge, asked_until, bridge, initialize, rpc
from tests.support.modern_client import ALL, headers_of, meta
from tests.support.proofs import proves

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20
GREEDY = (sys.executable, "-S", str(Path(__file__).parents[1] / "children" / "greedy.py"))
LONG = ("--json-window", "60s", "--send-timeout", "600s")
FLAGS = ("--max-memory", "1GiB", *LONG, "--spares", "0", "--grace", "6s")
ASKED: dict[str, Any] = {"elicitation": {}}
SPARE = MIB // 2
"""Less than anything that is counted here."""


class Ledger:
    """A bridge, a client, and what the bridge says of the bytes that it keeps."""

    def __init__(self, running: RunningBridge, client: httpx.AsyncClient) -> None:
        self.bridge = running
        self.client = client

    async def held(self) -> dict[str, int]:
        """Bytes kept, by account."""
        text = (await self.client.get("/metrics")).text
        found = re.findall(r'mcpbridge_memory_kept_bytes\{account="(\w+)"\} (\S+)', text)
        return {name: int(float(value)) for name, value in found}

    async def holds(self, account: str, least: int) -> None:
        """That much is kept on an account, or will be soon."""

        async def kept() -> bool:
            return (await self.held())[account] >= least

        await asked_until(kept, f"{least} bytes are kept for {account}")

    async def empty(self) -> None:
        """Nothing is kept any more, or will be soon, but the state of an idle session."""

        async def let_go() -> bool:
            return all(value < SPARE for value in (await self.held()).values())

        await asked_until(let_go, "nothing is kept")

    async def session(
        self, capabilities: Any = None, revision: str = "2025-11-25", **info: str
    ) -> dict[str, str]:
        """Open a session; the headers that name it. `server` is the version of its server."""
        hello = initialize(0, revision, capabilities)
        hello["params"]["clientInfo"].update(info)
        response = await self.client.post("/mcp", json=hello, headers=ACCEPT)
        assert response.status_code == 200
        server = response.json()["result"]["serverInfo"]["version"]
        return {**ACCEPT, "mcp-session-id": response.headers["mcp-session-id"], "server": server}

    async def end(self, headers: dict[str, str]) -> None:
        """End a session."""
        assert (await self.client.delete("/mcp", headers=headers)).status_code == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ledger() -> AsyncIterator[Ledger]:
    """A bridge that has room for everything here."""
    async with bridge(*FLAGS, "--", *GREEDY) as running, running.client() as client:
        yield Ledger(running, client)
        await running.terminate()


def call(number: int, **arguments: Any) -> dict[str, Any]:
    """A call of the tool `greedy`."""
    params = {"name": "greedy", "arguments": arguments, "_meta": {"progressToken": number}}
    return rpc(number, "tools/call", params)


async def test_calls_in_flight_count_until_they_are_answered(ledger: Ledger) -> None:
    """By the size of their params; the end of the session ends them."""
    headers = await ledger.session()
    waiting = [
        asyncio.create_task(
            ledger.client.post("/mcp", json=call(n, hold=True, text="x" * MIB), headers=headers)
        )
        for n in range(1, 5)
    ]
    await ledger.holds("clients", 4 * MIB)
    await ledger.end(headers)
    await asyncio.gather(*waiting)
    await ledger.empty()


async def test_what_a_client_says_of_itself_counts_as_long_as_its_session(ledger: Ledger) -> None:
    """The bridge says it again to each process of the session."""
    headers = await ledger.session(title="x" * MIB)
    await ledger.holds("clients", MIB)
    await ledger.end(headers)
    await ledger.empty()


async def test_finished_streams_count_as_long_as_they_are_kept(ledger: Ledger) -> None:
    """They may be resumed for a while, but not longer than their session."""
    headers = await ledger.session()
    response = await ledger.client.post("/mcp", json=call(1, say=True, answer=MIB), headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    await ledger.holds("clients", MIB)
    await ledger.end(headers)
    await ledger.empty()


async def test_notifications_for_a_stopped_server_count(ledger: Ledger) -> None:
    """Those that wait for it in the bridge, and those in the queue to its pipe."""
    headers = await ledger.session(ASKED)
    os.kill(int(headers["server"]), signal.SIGSTOP)
    note = {"jsonrpc": "2.0", "method": "notifications/x", "params": {"text": "x" * MIB}}
    for _ in range(4):
        response = await ledger.client.post("/mcp", json=note, headers=headers)
        assert response.status_code == 202
    await ledger.holds("children", MIB)
    await ledger.holds("clients", 2 * MIB)
    os.kill(int(headers["server"]), signal.SIGCONT)
    await ledger.empty()
    await ledger.end(headers)


async def test_answers_that_a_client_does_not_read_count(ledger: Ledger) -> None:
    """What the system's buffers do not take waits on the account of the connection."""
    headers = await ledger.session()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", ledger.bridge.port))
        body = json.dumps(call(1, answer=12 * MIB)).encode()
        lines = [f"{name}: {value}" for name, value in headers.items()]
        lines += ["host: localhost", "content-type: application/json"]
        head = "\r\n".join(["POST /mcp HTTP/1.1", *lines, f"content-length: {len(body)}", "", ""])
        deaf.sendall(head.encode() + body)
        await ledger.holds("connections", 4 * MIB)
    await ledger.end(headers)
    await ledger.empty()


async def test_answers_of_a_batch_count_while_the_last_is_awaited(ledger: Ledger) -> None:
    """A client that reads no streams gets them together."""
    headers = await ledger.session(revision="2025-03-26")
    batch = [call(1, answer=4 * MIB), call(2, hold=True)]
    alone = {**headers, "accept": "application/json"}
    waiting = asyncio.create_task(ledger.client.post("/mcp", json=batch, headers=alone))
    await ledger.holds("connections", 4 * MIB)
    await ledger.end(headers)
    answers = (await waiting).json()
    assert ["result" in answer for answer in answers] == [True, False]
    await ledger.empty()


async def test_subscriptions_count_with_what_asked_for_them(ledger: Ledger) -> None:
    """As long as the client listens."""
    uris = [f"test://{number}/" + "x" * 2000 for number in range(1000)]
    wanted = {"notifications": {"resourceSubscriptions": uris}, "_meta": meta()}
    listen = rpc(1, "subscriptions/listen", wanted)
    async with ledger.client.stream(
        "POST", "/mcp", json=listen, headers=headers_of(listen)
    ) as response:
        assert response.status_code == 200
        await ledger.holds("clients", 4 * MIB)
    await ledger.empty()


async def test_questions_of_a_parked_call_count_until_it_ends(ledger: Ledger) -> None:
    """They are kept for as long as the client may answer them."""
    arguments = {"ask": 32, "size": MIB // 16, "hold": True}
    params = {"name": "greedy", "arguments": arguments, "_meta": meta(ALL)}
    asked = rpc(1, "tools/call", params)
    response = await ledger.client.post("/mcp", json=asked, headers=headers_of(asked))
    assert response.json()["result"]["resultType"] == "input_required"
    await ledger.holds("clients", 4 * MIB)


@asynccontextmanager
async def narrow(*more: str) -> AsyncIterator[Ledger]:
    """A bridge that has room for little."""
    flags = ("--max-memory", "8MiB", "--spares", "0", "--send-timeout", "600s", "--grace", "6s")
    async with bridge(*flags, *more, "--", *GREEDY) as running, running.client() as client:
        yield Ledger(running, client)
        await running.terminate()


async def test_a_server_that_asks_and_never_reads_is_replaced() -> None:
    """Its answers wait for it, more and more; the log says whose they are."""
    async with narrow("--child-stall-timeout", "600s") as ledger:
        headers = await ledger.session(ASKED)
        flood = call(1, flood=True)
        response = await ledger.client.post("/mcp", json=flood, headers=headers)
        reply = json.loads(response.text.rpartition("data: ")[2])
        assert reply["error"]["data"]["mcpbridge"]["reason"] == "memory"
        (cut,) = await ledger.bridge.logged("memory.client_cut")
        assert cut["account"] == "child"
        # The process of the others has nothing to do with it.
        other = await ledger.session()
        answered = await ledger.client.post("/mcp", json=call(2), headers=other)
        assert answered.json()["result"]


@proves("fault 83", "fault 123")
async def test_a_call_in_a_session_is_refused_while_memory_is_short() -> None:
    """The error names the cause and the setting; probes and what is in flight go on."""
    async with narrow() as ledger:
        headers = await ledger.session()
        body = call(1, hold=True, text="x" * (7 * MIB // 2))
        held = [
            asyncio.create_task(ledger.client.post("/mcp", json={**body, "id": n}, headers=headers))
            for n in (1, 2)
        ]
        other = await ledger.session()

        async def refused() -> bool:
            response = await ledger.client.post("/mcp", json=call(3), headers=other)
            error = response.json().get("error", {})
            return "--max-memory" in error.get("message", "")

        await asked_until(refused, "a call is refused")
        assert (await ledger.client.get("/livez")).status_code == 200

        async def served() -> bool:
            response = await ledger.client.post("/mcp", json=call(4), headers=other)
            return "result" in response.json()

        await asked_until(served, "the heaviest has given way")
        await asyncio.gather(*held)
