"""Server processes are replaced by their requests, age or memory, and no client notices.

No call is lost, sessions and listens stay, and it counts as no failure.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_listen import ACK, TOOLS, listen, told
from tests.support import modern_client
from tests.support.bridge_process import eventually
from tests.support.failing_child import (
    LOOKS,
    ROOTS,
    FailingServer,
    failing_server,
    new_fifo,
    open_fifo,
)
from tests.support.modern_client import FORM, asking, form, retry_of
from tests.support.proofs import proves
from tests.support.questioner_bridge import Blocks, reading

pytestmark = pytest.mark.slow
YES = {"action": "accept", "content": {"name": "Ada"}}
CHANGED = "notifications/tools/list_changed"


def methods(heard: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """What a process was told, with the one parameter that matters."""
    found = []
    for message in heard:
        params = message.get("params", {})
        found.append((message["method"], params.get("level") or params.get("uri")))
    return found


async def message(listening: Blocks) -> Any:
    """The next message of a stream, without what only keeps the stream open."""
    while (block := await listening.next()) is not None:
        if block.fields.get("data"):
            return block.message
    raise AssertionError("the stream has ended")


@proves("fault 47")
async def test_another_process_takes_over_while_the_shared_one_finishes(tmp_path: Path) -> None:
    """Calls in flight are answered by the old one, new ones at once by the new one.

    The new one knows what the sessions asked of the old one, also what that grants at last; the
    clients hear that lists may have changed; the old one ends with its last answer.
    """
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(tmp_path, "--child-max-requests", "5", *LOOKS) as server:
        session = await server.open()
        old = await server.pid(session)
        await server.ask(session, "logging/setLevel", level="warning")
        await server.ask(session, "resources/subscribe", uri="a:early")
        async with reading(server.client, session) as listening:
            waiting = asyncio.create_task(server.ask(session, "x/wait", fifo=fifo))
            await server.until_heard(old, "x/wait")
            late = asyncio.create_task(server.ask(session, "resources/subscribe", uri="a:late"))
            await server.bridge.logged("child.ready", count=2)
            assert (await message(listening))["method"] == CHANGED
            new = await server.pid(session)
            assert new != old
            assert not waiting.done()
            assert not late.done()
            passed = open_fifo(fifo)
            assert await waiting == {"pid": old}
            assert await late == {}
            assert (await server.ended(old))["how"] == "exit code 0"
            await server.until_heard(new, "resources/subscribe", 2)
            assert methods(server.heard(new)) == [
                ("initialize", None),
                ("notifications/initialized", None),
                ("logging/setLevel", "warning"),
                ("resources/subscribe", "a:early"),
                ("x/pid", None),
                ("resources/subscribe", "a:late"),
            ]
            assert server.bridge.events("child.recycling")[0]["by"] == "requests"
            os.close(passed)
        assert server.bridge.events("child.restarting") == []
        assert server.bridge.events("child.exited") == []


@proves("fault 47")
async def test_a_process_of_one_session_is_replaced_between_its_calls(tmp_path: Path) -> None:
    """Never with a call in flight; then at the next call, or at once where its client listens.

    The session's own handshake is repeated.
    """
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(tmp_path, "--child-max-requests", "2", *LOOKS) as server:
        session = await server.open(ROOTS)
        first = await server.pid(session)
        waiting = asyncio.create_task(server.ask(session, "x/wait", fifo=fifo))
        await server.until_heard(first, "x/wait")
        await server.bridge.logged("child.recycling", lambda found: found["pid"] == first)
        beside = asyncio.create_task(server.client.post("/mcp", json=BESIDE, headers=session))
        for _ in range(10):
            await server.client.get("/livez")  # until the bridge has the other call too
        passed = open_fifo(fifo)
        assert await waiting == {"pid": first}
        assert (await beside).json()["result"] == {"pid": first}
        await server.ended(first)
        second = await server.pid(session)
        assert methods(server.heard(second))[:2] == methods(server.heard(first))[:2]
        assert server.heard(second)[0]["params"] == server.heard(first)[0]["params"]
        async with reading(server.client, session) as listening:
            assert await server.ask(session, "x/wait", fifo=fifo) == {"pid": second}
            assert (await message(listening))["method"] == CHANGED
            assert await server.pid(session) not in (first, second)
        os.close(passed)
        shared = server.bridge.events("child.ready")
        assert len(shared) == 1, "the shared process was not concerned"


BESIDE = {"jsonrpc": "2.0", "id": "beside", "method": "x/pid"}


@proves("fault 47")
async def test_calls_go_on_while_processes_grow_old(tmp_path: Path) -> None:
    """Shared and own, replaced many times under load: every call has its answer."""
    async with failing_server(tmp_path, "--child-max-age", "400ms", *LOOKS) as server:
        sessions = [await server.open(ROOTS if number % 2 else None) for number in range(4)]
        enough = asyncio.Event()
        calling = [asyncio.create_task(calls(server, session, enough)) for session in sessions]
        await server.bridge.logged("child.recycling", count=9)
        enough.set()
        counts = await asyncio.gather(*calling)
        assert all(counts)
        assert {record["by"] for record in server.bridge.events("child.recycling")} == {"age"}
        assert len(server.bridge.events("child.ready")) > 2
        assert server.bridge.events("child.restarting") == []


async def calls(server: FailingServer, session: dict[str, str], enough: asyncio.Event) -> int:
    """Call until it is enough; how many calls were answered."""
    count = 0
    while not enough.is_set():
        await server.pid(session)
        count += 1
    return count


@proves("fault 47")
async def test_a_process_that_holds_too_much_memory_is_replaced(tmp_path: Path) -> None:
    """And its place is taken by one that does not."""
    async with failing_server(tmp_path, "--child-max-rss", "128MiB", *LOOKS) as server:
        session = await server.open()
        before = await server.pid(session)
        await server.ask(session, "x/grow", bytes=160 << 20)
        (record,) = await server.bridge.logged("child.recycling")
        assert (record["pid"], record["by"]) == (before, "memory")
        await server.ended(before)
        assert await server.pid(session) != before
        assert len(await server.bridge.logged("child.recycling")) == 1


@proves("fault 47")
async def test_a_parked_call_outlasts_its_process(tmp_path: Path) -> None:
    """The process that asked gets the answer and no further call."""
    words = ("--child-era", "legacy", "--child-max-requests", "1", *LOOKS)
    async with modern_client.serving("legacy", tmp_path, *words) as served:
        params = asking([form()], mark="first")
        parked = await served.result("tools/call", params, FORM)
        (asker,) = [pid for pid, heard in served.processes().items() if "first" in str(heard)]
        await served.bridge.logged("child.recycling", lambda found: found["pid"] == asker)
        answered = await served.result("tools/call", retry_of(params, parked, i1=YES), FORM)
        assert answered["resultType"] == "complete"
        await served.bridge.logged("child.stopped", lambda found: found["pid"] == asker)
        await served.result("tools/call", asking([form()], mark="second"), FORM)
        assert [pid for pid, heard in served.processes().items() if "second" in str(heard)] != [
            asker
        ]


@proves("fault 47")
async def test_a_listen_goes_on_with_the_next_handshake_process(tmp_path: Path) -> None:
    """It hears what the new process says, and that lists may have changed."""
    words = ("--child-era", "legacy", "--child-max-requests", "3", *LOOKS)
    async with modern_client.serving("legacy", tmp_path, *words) as served:
        wanted = {**TOOLS, "resourceSubscriptions": ["a:b"]}
        async with served.stream(listen(served, wanted, 7)) as events:
            assert (await events.next())["method"] == ACK
            for _ in range(3):
                await served.do()
            assert told(await events.next()) == (CHANGED, None, 7)
            await served.bridge.logged("child.stopped")
            await served.do(news=[["resources/updated", {"uri": "a:b"}]])
            assert told(await events.next()) == ("notifications/resources/updated", "a:b", 7)


@proves("fault 47")
async def test_a_listen_ends_well_with_a_process_of_its_own_era(tmp_path: Path) -> None:
    """Its client is told that lists changed and opens another; the calls beside it are answered."""
    words = ("--child-era", "modern", "--child-max-requests", "20", *LOOKS)
    async with modern_client.serving("modern", tmp_path, *words) as served:
        async with served.stream(listen(served, TOOLS, 7)) as events:
            assert (await events.next())["method"] == ACK
            await asyncio.gather(*(served.do() for _ in range(19)))
            assert told(await events.next()) == (CHANGED, None, 7)
            last = await events.next()
            assert (last["id"], last["result"]["resultType"]) == (7, "complete")
        await served.bridge.logged("child.stopped")
        await eventually(lambda: len(served.bridge.processes()) == 1, "the old one is gone")
        await asyncio.gather(*(served.do() for _ in range(5)))
        assert served.bridge.events("child.restarting") == []
