"""What the bridge keeps and how soon it answers, whatever children and clients do.

Memory, descriptors, threads and processes are read from the system, not from the bridge.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.suites.figures import percentile
from tests.support.bridge_process import (
    RunningBridge,
    bridge,
    child,
    eventually,
    open_session,
    rpc,
)
from tests.support.proofs import proves
from tests.support.raw_http import post, streaming, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

OWN: dict[str, Any] = {"elicitation": {}}
SOON_S = 0.1
"""Processor time of the bridge's loop within which a probe is answered, nearly always."""
ROUNDS = 6
LINE_BYTES = 16 << 20
"""The default of --max-message-bytes."""


def peak_bytes(running: RunningBridge) -> int:
    """The most memory that the bridge's own process has ever had in use."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def held(running: RunningBridge) -> Counter[str]:
    """Its descriptors by kind, its threads, and the processes it started."""
    found: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{running.pid}/fd").iterdir():
        try:
            found[os.readlink(descriptor).partition(":")[0]] += 1
        except FileNotFoundError:
            continue
    found["threads"] = len(list(Path(f"/proc/{running.pid}/task").iterdir()))
    found["processes"] = len(running.processes())
    return found


def busy_s(running: RunningBridge) -> float:
    """How long the thread of the bridge's loop has had a processor, whatever else runs here."""
    return int(Path(f"/proc/{running.pid}/schedstat").read_text().split()[0]) / 1e9


@asynccontextmanager
async def probed(running: RunningBridge) -> AsyncIterator[list[float]]:
    """What the loop did while each probe waited, one after the other, while the block lasts.

    In seconds of processor time: it does not grow with the load of the machine.
    """
    took: list[float] = []
    over = False

    async def probe() -> None:
        async with running.client() as client:
            while not over:
                began = busy_s(running)
                answer = await client.get("/livez")
                assert answer.status_code == 200
                took.append(busy_s(running) - began)

    probing = asyncio.create_task(probe())
    try:
        yield took
    finally:
        # Not cancelled: what the block did may have been over before its first probe was.
        over = True
        await probing


@proves("fault 30", "fault 32", "fault 33")
async def test_a_misbehaving_child_delays_no_probe_and_costs_no_memory() -> None:
    """Lines of 60 MB, floods on both pipes, a held call: probes are answered at once."""
    words = ("--isolation", "shared", "--", *child("faulty"))
    async with bridge(*words) as running, running.client() as client:
        headers = await open_session(client)
        before = peak_bytes(running)

        async def ask(fault: str) -> Any:
            params = {"name": "fault", "arguments": {"fault": fault}}
            body = rpc(fault, "tools/call", params)
            # A stream of all that is said would keep this process busy, not the bridge.
            plain = {**headers, "accept": "application/json"}
            answer = await client.post("/mcp", json=body, headers=plain)
            return answer.json()

        async with probed(running) as took:
            for _ in range(2):
                said = await ask("long_line")
                assert said["error"]["data"]["mcpbridge"]["reason"] == "message_too_large"
                for fault in ("storm", "stderr", "flood"):
                    assert (await ask(fault))["result"] == {"good": True}
        # Of a line over the limit no more is kept than the limit; growing may copy it once.
        assert peak_bytes(running) - before < 2 * LINE_BYTES + (8 << 20)
        assert len(took) > 50
        assert percentile(took, 0.99) < SOON_S, sorted(took)[-5:]


def at_rest(running: RunningBridge) -> bool:
    """No client is connected and only the shared process is there."""
    local, listening, waited_for = f":{running.port:04X}", "0A", "06"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    states = {row[3] for row in rows if row[1].endswith(local)}
    return states <= {listening, waited_for} and len(running.processes()) == 1


async def whole_session(client: httpx.AsyncClient, capabilities: Any) -> None:
    """Opened, used and deleted."""
    headers = await open_session(client, capabilities=capabilities)
    answer = await client.post("/mcp", json=rpc(1, "x/pid"), headers=headers)
    assert answer.status_code == 200
    assert (await client.delete("/mcp", headers=headers)).status_code == 200


async def broken_streams(client: httpx.AsyncClient, capabilities: Any) -> None:
    """A call and a listener whose connections are cut; the session is deleted afterwards."""
    headers = await open_session(client, capabilities=capabilities)
    params = {"name": "hold", "arguments": {}, "_meta": {"progressToken": 1}}
    async with (
        streaming(client, headers) as _,
        streaming(client, headers, rpc(1, "tools/call", params)) as call,
    ):
        assert (await call.next())["method"] == "notifications/progress"
    released = rpc(2, "tools/call", {"name": "release"})
    assert (await client.post("/mcp", json=released, headers=headers)).status_code == 200
    assert (await client.delete("/mcp", headers=headers)).status_code == 200


async def dead_child(client: httpx.AsyncClient, _: Any) -> None:
    """A session's own process ends during a call; the next one serves."""
    headers = await open_session(client, capabilities=OWN)
    params = {"name": "fault", "arguments": {"fault": "leave"}}
    answer = await client.post("/mcp", json=rpc(1, "tools/call", params), headers=headers)
    assert "child_exited" in answer.text
    answer = await client.post("/mcp", json=rpc(2, "x/pid"), headers=headers)
    assert "result" in answer.json()
    assert (await client.delete("/mcp", headers=headers)).status_code == 200


async def cut_requests(port: int) -> None:
    """Connections that end in the head, in the body, and before the answer."""
    whole = post(json.dumps(rpc(1, "x/echo", {})).encode(), "Accept: */*")
    for size in (0, 1, 40, len(whole) - 5, len(whole)):
        async with wire(port) as connection:
            await connection.send(whole[:size])


@proves("fault 118")
async def test_nothing_is_left_of_what_is_over() -> None:
    """Descriptors and processes are afterwards no more than before; threads do not add up."""
    kinds: list[Callable[..., Coroutine[Any, Any, None]]]
    kinds = [whole_session, broken_streams, dead_child]
    async with bridge("--", *child("faulty")) as running:

        async def rounds(count: int) -> None:
            async with running.client() as client:
                for _ in range(count):
                    every = (kind(client, able) for kind in kinds for able in ({}, OWN))
                    await asyncio.gather(cut_requests(running.port), *every)

        await rounds(2)
        await eventually(lambda: at_rest(running), "no connection, and the shared process alone")
        start = held(running)
        threads = start.pop("threads")
        await rounds(ROUNDS)

        def nothing_more() -> bool:
            # Worker threads stay to be used again, and a busy machine needs more of them at once.
            now = held(running)
            return now.pop("threads") < threads + ROUNDS and now <= start

        await eventually(nothing_more, f"no more than {start}, and {threads} threads")
