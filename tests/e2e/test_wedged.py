"""Server processes that run and answer no client: found, killed, replaced; callers are told.

What is merely busy is left alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import modern_client
from tests.support.bridge_process import messages
from tests.support.failing_child import (
    LOOKS,
    ROOTS,
    FailingServer,
    failing_server,
    new_fifo,
    open_fifo,
)
from tests.support.proofs import proves

pytestmark = pytest.mark.slow
PINGS = ("--ping-interval", "300ms", "--ping-timeout", "200ms")
STALLED = {"reason": "child_stalled", "executed": "maybe", "retryable": False}
EXITED = {"reason": "child_exited", "executed": "maybe", "retryable": False}


async def stalled(server: FailingServer, pid: int, by: str) -> dict[str, Any]:
    """The record of a process that was given up."""
    (record,) = await server.bridge.logged("child.stalled", lambda found: found["pid"] == pid)
    assert record["by"] == by
    (end,) = await server.bridge.logged("child.stopped", lambda found: found["pid"] == pid)
    assert end["how"] == "signal 9"
    return record


@proves("fault 10")
async def test_a_stopped_process_is_killed_and_replaced(tmp_path: Path) -> None:
    """Shared or not, idle or with calls in flight, which get one error each.

    The sessions go on, and no other client is concerned.
    """
    async with failing_server(tmp_path, *PINGS) as server:
        sessions = [await server.open(), await server.open(ROOTS)]
        other = await server.open(ROOTS)
        bystander = await server.pid(other)
        idle = [await server.pid(session) for session in sessions]
        for pid in idle:
            await server.until_heard(pid, "ping")
            os.kill(pid, signal.SIGSTOP)
        for pid in idle:
            assert (await stalled(server, pid, "no_ping"))["calls"] == 0
        busy = [await server.pid(session) for session in sessions]
        for pid in busy:
            os.kill(pid, signal.SIGSTOP)
        faults = await asyncio.gather(*(server.fault(each, "x/pid") for each in sessions * 2))
        assert faults == [STALLED] * 4
        for pid in busy:
            assert (await stalled(server, pid, "no_ping"))["calls"] == 2
        last = [await server.pid(session) for session in sessions]
        assert len({*idle, *busy, *last, bystander}) == 7
        assert await server.pid(other) == bystander


@proves("fault 10")
async def test_a_process_that_answers_no_ping_any_more_is_replaced(tmp_path: Path) -> None:
    """Though nothing shows that it was stopped."""
    async with failing_server(tmp_path, *PINGS) as server:
        session = await server.open()
        pid = await server.pid(session)
        await server.until_heard(pid, "ping")
        assert await server.ask(session, "x/freeze") == {}
        await stalled(server, pid, "no_ping")
        assert await server.pid(session) != pid


async def test_a_busy_process_is_left_alone(tmp_path: Path) -> None:
    """It answers no ping while it works on a call, for longer than three pings would take."""
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(tmp_path, *PINGS) as server:
        session, other = await server.open(ROOTS), await server.open()
        pid, quick = await server.pid(session), await server.pid(other)
        await server.until_heard(pid, "ping")
        working = asyncio.create_task(server.ask(session, "x/wait", fifo=fifo))
        await server.until_heard(pid, "x/wait")
        pings = sum(line.get("method") == "ping" for line in server.heard(quick))
        # That many questions to a quiet process take longer than the busy one would have.
        await server.until_heard(quick, "ping", pings + 5)
        passed = open_fifo(fifo)
        assert await working == {"pid": pid}
        os.close(passed)
        assert server.bridge.events("child.stalled") == []


@proves("fault 10")
async def test_a_process_of_2026_07_28_is_asked_in_its_own_words(tmp_path: Path) -> None:
    """`server/discover` instead of `ping`; stopped, it is replaced, and its calls told."""
    async with modern_client.serving("modern", tmp_path, "--child-era", "modern", *PINGS) as served:
        await served.do()
        await served.until_heard("server/discover", 3)
        (pid,) = served.processes()
        os.kill(pid, signal.SIGSTOP)
        error = await served.error("tools/call", {"name": "do", "arguments": {}})
        assert error["data"]["mcpbridge"] == STALLED
        await served.do()
        assert len(served.processes()) == 2
        assert served.heard("ping") == []


@proves("fault 9")
async def test_a_process_in_which_call_after_call_hangs_is_replaced(tmp_path: Path) -> None:
    """After three in a row, where pings are answered; an answer between them counts."""
    words = ("--request-timeout", "2s", "--session-idle-timeout", "20s")
    async with failing_server(tmp_path, *words, *LOOKS) as server:
        session = await server.open()
        pid = await server.pid(session)
        for count in (2, 3):
            calls = [server.fault(session, "x/forget") for _ in range(count)]
            assert {fault["reason"] for fault in await asyncio.gather(*calls)} == {"timeout"}
            if count < 3:
                assert await server.pid(session) == pid
        assert (await stalled(server, pid, "timeouts"))["calls"] == 0
        heard = [line["method"] for line in server.heard(pid)]
        # The last three may not have been read when it was killed.
        assert 2 <= heard.count("notifications/cancelled") <= 5
        assert await server.pid(session) != pid


@proves("fault 9")
async def test_a_process_that_works_on_one_call_is_left_alone_by_those_behind_it(
    tmp_path: Path,
) -> None:
    """They run out of time, and the call that reports progress gets its answer."""
    until = tmp_path / "until"
    async with failing_server(tmp_path, "--request-idle-timeout", "500ms", *LOOKS) as server:
        session = await server.open()
        pid = await server.pid(session)
        params = {"until": str(until), "_meta": {"progressToken": "t"}}
        working = asyncio.create_task(server.ask(session, "x/progress", **params))
        await server.until_heard(pid, "x/progress")
        for _ in range(2):
            calls = [server.fault(session, "x/pid") for _ in range(3)]
            assert {fault["reason"] for fault in await asyncio.gather(*calls)} == {"timeout"}
        until.touch()
        assert await working == {"pid": pid}
        assert server.bridge.events("child.stalled") == []


@proves("fault 37")
async def test_a_process_that_reads_nothing_is_replaced(tmp_path: Path) -> None:
    """What it was given fails, what still waited is served by the next one."""
    async with failing_server(tmp_path, "--child-stall-timeout", "1s") as server:
        session, other = await server.open(ROOTS), await server.open()
        pid = await server.pid(session)
        assert await server.ask(session, "x/freeze") == {}
        text = "x" * 100_000
        calls = [server.client.post("/mcp", json=big(number, text), headers=session)
                 for number in range(20)]  # fmt: skip
        answers = asyncio.gather(*calls)
        bystander = await server.pid(other)
        found = [messages(response.text)[-1] for response in await answers]
        told = [each["error"]["data"]["mcpbridge"] for each in found if "error" in each]
        assert told == [STALLED] * len(told)
        assert len(told) > 10
        assert len(told) < 20
        assert {each["id"] for each in found} == set(range(20))
        await stalled(server, pid, "unread")
        assert await server.pid(session) != pid
        assert await server.pid(other) == bystander


def big(number: int, text: str) -> Any:
    """A call with a long parameter."""
    return {"jsonrpc": "2.0", "id": number, "method": "x/any", "params": {"text": text}}


@proves("fault 5", "fault 6", "fault 14")
@pytest.mark.parametrize("capabilities", [None, ROOTS], ids=["shared", "own"])
async def test_callers_are_told_at_once(tmp_path: Path, capabilities: Any) -> None:
    """A killed process's calls have their errors though another process holds its stdout open.

    How soon they have them is a figure of the chaos suite.
    """
    async with failing_server(tmp_path, "--give-up-after", "0") as server:
        session = await server.open(capabilities)
        pid = await server.pid(session)
        call = asyncio.create_task(server.fault(session, "x/forget"))
        await server.until_heard(pid, "x/forget")
        os.kill(pid, signal.SIGKILL)
        assert await call == {**EXITED, "exit": {"signal": 9}}
        pid = await server.pid(session)
        call = asyncio.create_task(server.fault(session, "x/forget"))
        await server.until_heard(pid, "x/forget")
        leaving = asyncio.create_task(server.fault(session, "x/leave"))
        assert await call == {**EXITED, "exit": {"code": 5}} == await leaving
