"""Many server processes that start at the same moment, and those that never finish starting."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge.rules.supervision.isolation import AUTO_SPARE_AFTER_S
from tests.support.bridge_process import (
    bridge,
    child,
    eventually,
    initialize,
    messages,
    open_session,
    rpc,
)
from tests.support.failing_child import ROOTS, FailingServer, failing_server, new_fifo, open_fifo
from tests.support.proofs import proves

pytestmark = pytest.mark.slow
AT_ONCE = 2 * (os.cpu_count() or 1)
LATE = 3
WAITS = {"accept": "application/json"}
"""A client that reads no event streams."""


def started(starting: FailingServer) -> int:
    """How many processes have been started for single sessions."""
    return len(starting.bridge.events("child.started")) - 1


@proves("fault 4", "fault 48")
async def test_a_storm_of_starts_is_taken_in_turns(tmp_path: Path) -> None:
    """Twice as many processes as there are cores start at once; the others wait their turn.

    The time limit for a start begins with the turn: those whose turn comes after the limit of the
    first ones are served all the same.
    """
    fifo = new_fifo(tmp_path, "fifo")
    words = ("--isolation", "session", "--max-children", "200", "--start-timeout", "3s")
    async with failing_server(tmp_path, *words, manners=("gated", fifo), ready=False) as starting:
        passed = open_fifo(fifo)
        await starting.bridge.logged("child.ready")
        os.close(passed)
        sessions = await asyncio.gather(
            *(starting.open(capabilities=ROOTS) for _ in range(AT_ONCE + LATE))
        )
        await eventually(lambda: started(starting) == AT_ONCE, "the first ones have been started")
        calls = [
            asyncio.create_task(starting.client.post("/mcp", json=rpc(1, "x/pid"), headers=each))
            for each in sessions
        ]
        # The first answers: the fifo is not opened for those that were started.
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        passed = open_fifo(fifo)
        found = [messages(answer.text)[-1] for answer in await asyncio.gather(*calls)]
        os.close(passed)
        faults = [each["error"]["data"]["mcpbridge"] for each in found if "error" in each]
        assert faults
        assert {fault["reason"] for fault in faults} == {"start_timeout"}
        assert len(found) - len(faults) >= LATE
        assert started(starting) == AT_ONCE + LATE


AUTO = ("--child-era", "auto")
BARE = ("--spares", "0")


async def ready(starting: FailingServer, fifo: str) -> None:
    """Let the first process serve, and no later one."""
    passed = open_fifo(fifo)
    await starting.bridge.logged("child.ready")
    os.close(passed)


@proves("fault 4")
async def test_initialize_is_answered_while_the_session_s_own_process_starts(
    tmp_path: Path,
) -> None:
    """From what the first process said; the first call waits for the one that starts."""
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(tmp_path, *BARE, manners=("gated", fifo), ready=False) as starting:
        await ready(starting, fifo)
        session = await starting.open(capabilities=ROOTS)
        assert len(await starting.bridge.logged("child.ready")) == 1
        call = asyncio.create_task(starting.pid(session))
        passed = open_fifo(fifo)
        own = await call
        os.close(passed)
        _first, second = await starting.bridge.logged("child.started", count=2)
        assert own == second["pid"]
        heard = [line["method"] for line in starting.heard(own)]
        assert heard == ["initialize", "notifications/initialized", "x/pid"]
        # It says its process id for a version.
        (record,) = await starting.bridge.logged("session.profile_differs")
        assert record["members"] == "serverInfo"


async def test_a_session_s_own_process_starts_beside_the_first_one(tmp_path: Path) -> None:
    """It does not wait until it is known what the server speaks; there is no third process."""
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(
        tmp_path, *AUTO, *BARE, manners=("gated", fifo), ready=False
    ) as starting:
        opening = asyncio.create_task(starting.open(capabilities=ROOTS))
        await eventually(lambda: started(starting) == 1, "the own process has been started")
        assert starting.bridge.events("child.probed") == []
        passed = open_fifo(fifo)
        session = await opening
        os.close(passed)
        first, second = await starting.bridge.logged("child.started", count=2)
        assert await starting.pid(session) == second["pid"]
        assert starting.bridge.processes() == {first["pid"], second["pid"]}


async def test_a_process_whose_client_left_goes_to_the_next_one(tmp_path: Path) -> None:
    """A client without patience comes again: it waits for the process of its first attempt."""
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(
        tmp_path, *AUTO, *BARE, manners=("gated", fifo), ready=False
    ) as starting:
        body: Any = initialize(0, capabilities=ROOTS)
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                await starting.client.post("/mcp", json=body, headers=WAITS, timeout=0.5)
            # Behind the end of that connection: by the answer the bridge has seen it.
            assert (await starting.client.get("/livez")).status_code == 200
        assert started(starting) == 1
        opening = asyncio.create_task(starting.open(capabilities=ROOTS))
        # As long as the others: then it is with the bridge.
        await asyncio.wait([opening], timeout=0.5)
        passed = open_fifo(fifo)
        session = await opening
        os.close(passed)
        _first, second = await starting.bridge.logged("child.started", count=2)
        assert await starting.pid(session) == second["pid"]
        assert [line["method"] for line in starting.heard(second["pid"])].count("initialize") == 1


async def test_there_is_no_spare_before_a_client_that_gets_its_own_process(
    tmp_path: Path,
) -> None:
    """However long the server takes to start."""
    fifo = new_fifo(tmp_path, "fifo")
    async with failing_server(tmp_path, *AUTO, manners=("gated", fifo), ready=False) as starting:
        await starting.bridge.logged("child.started")
        # Slower than what is worth a spare process.
        await asyncio.sleep(AUTO_SPARE_AFTER_S + 0.1)  # the length of the start is the case
        passed = open_fifo(fifo)
        first = (await starting.bridge.logged("child.ready"))[-1]["pid"]
        await starting.pid(await starting.open())
        assert starting.bridge.processes() == {first}
        await starting.pid(await starting.open(capabilities=ROOTS))
        await eventually(lambda: started(starting) == 2, "one for the client, and a spare")
        os.close(passed)


LOG_ON_A_TERMINAL = """
import os, pty, sys

ours, terminal = pty.openpty()
copier = os.fork()
if copier == 0:
    if os.fork():
        os._exit(0)  # else it would be a process that the program has left behind
    os.close(terminal)
    while True:
        try:
            os.write(2, os.read(ours, 1 << 16))
        except OSError:
            os._exit(0)  # no process has the terminal open any more
os.waitpid(copier, 0)
os.close(ours)
os.dup2(terminal, 2)
os.close(terminal)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a program whose stderr is a terminal, and copies what appears there to its own stderr."""


@pytest.mark.parametrize(
    ("under", "count"),
    [((), 4), ((sys.executable, "-c", LOG_ON_A_TERMINAL), 3)],
    ids=["elsewhere", "terminal"],
)
async def test_there_is_no_spare_on_a_terminal(under: tuple[str, ...], count: int) -> None:
    """One user tries a server there; elsewhere a server that starts slowly has a spare process."""
    slow = child("unhealthy", "slow", str(AUTO_SPARE_AFTER_S + 0.2))
    async with bridge("--log-format", "json", "--", *slow, under=under) as running:
        async with running.client() as client:
            for number in range(2):
                session = await open_session(client, capabilities=ROOTS)
                # Its own process serves the call, whichever process answered `initialize`.
                listed = await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
                assert listed.status_code == 200, number
        await running.logged("child.started", count=count)
        assert await running.terminate() == 0
        assert len(running.events("child.started")) == count
