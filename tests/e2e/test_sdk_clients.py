"""The bridge between official SDK clients and servers made with the Python SDKs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest

from tests.support.bridge_process import RunningBridge, bridge, child, eventually
from tests.support.sdk_clients import (
    Client,
    alive,
    descendants,
    python_clients,
    questioned,
    reported,
    running,
    toured,
)
from tests.support.sdk_servers import (
    Server,
    demo_server,
    fastmcp_server,
    gist,
    in_2026,
    mcp1_server,
    shown,
    steady,
)

pytestmark = [pytest.mark.sdk, pytest.mark.slow]

CLIENTS = ["mcp1", "mcp2-legacy", "mcp2-auto"]
SERVERS = [fastmcp_server, mcp1_server]
ISOLATIONS = ["auto", "shared", "session"]

# How often the test of a terminated bridge is run; its claim is about twenty.
REPEATS = int(os.environ.get("REPEATS", "2"))

CALLS = 40
# On a busy machine a child may start so slowly that a spare is kept from then on, which the count
# of children before and after must not depend on.
NO_SPARES = ("--spares", "0")
# Reaping waits for its time-out, then for a child that leaves at the end of its input.
REAPED_WITHIN_S = 30.0


def bridged(server: Server, *flags: str) -> AbstractAsyncContextManager[RunningBridge]:
    """A bridge in front of a server."""
    return bridge(*flags, "--", *server.argv)


def endpoint(between: RunningBridge) -> str:
    """Where clients are pointed at."""
    return f"{between.url}/mcp"


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    """Each Python client in turn."""
    return python_clients()[request.param]


@pytest.fixture(params=SERVERS, ids=["fastmcp", "mcp1"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each Python server in turn."""
    made: Callable[[], Server] = request.param
    return made()


async def test_a_large_answer_that_takes_long_reaches_every_client(client: Client) -> None:
    """Version 2 of the SDK refuses an event over 1 MiB; it reads JSON of any size."""
    plan = json.dumps({"questions": {"large": ["fetch", {"bytes": 2_000_000}]}})
    words = ("--json-window", "100ms", "--sse-keep-alive", "1s")
    async with bridge(*words, "--", *child("serial", "2.5")) as between:
        report = await reported(client, "questions", "--plan", plan, target=(endpoint(between),))
    (content,) = report["large"]["result"]["content"]
    assert content["text"] == "x" * 2_000_000


async def test_every_client_is_served_over_http_sse(client: Client) -> None:
    """Those that ask for the newest revision first too: they fall back to a handshake."""
    server = demo_server()
    plan = ("--transport", "sse", "--plan", json.dumps(server.plan))
    async with bridged(server) as between:
        seen = await reported(client, "tour", *plan, target=(f"{between.url}/sse",))
    assert shown(seen, server.shows) == dict(server.shows)


@pytest.mark.parametrize("made", [*SERVERS, demo_server])
async def test_a_client_sees_of_a_server_what_it_sees_without_the_bridge(
    client: Client, made: Callable[[], Server]
) -> None:
    """Tools, progress, errors, resources, templates, prompts and completions pass unchanged."""
    server = made()
    async with bridged(server) as between:
        through = await toured(client, server, endpoint(between))
    fast_path = await toured(client, server, None)
    if client.name == "mcp2-auto":
        # It takes the newest revision there is, and the bridge has a newer one than the server.
        assert shown(through, server.shows) == in_2026(dict(server.shows))
        assert shown(through, fast_path) == in_2026(shown(fast_path, fast_path))
    else:
        assert shown(through, server.shows) == dict(server.shows)
        assert steady(through, server) == steady(fast_path, server)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_four_clients_with_colliding_ids_get_their_own_answers(isolation: str) -> None:
    """160 of 160: every call carries its own text, and the SDKs all count from the start."""
    server = mcp1_server()
    known = python_clients()
    four = [known["mcp1"], known["mcp2-legacy"], known["mcp1"], known["mcp2-legacy"]]
    async with bridged(server, "--isolation", isolation) as between, AsyncExitStack() as stack:
        runs = []
        for number, client in enumerate(four):
            args = ("--marker", f"client{number}", "--calls", str(CALLS), "--gate", "--ask-pid")
            started = running(client, "echoes", *args, target=(endpoint(between),))
            runs.append(await stack.enter_async_context(started))
        for run in runs:
            await run.event("ready")
        for run in runs:
            await run.go()
        reports = [await run.report() for run in runs]
    assert [(report["right"], report["wrong"]) for report in reports] == [(CALLS, [])] * 4
    children = {gist(report["child"]) for report in reports}
    assert len(children) == (4 if isolation == "session" else 1)


@pytest.mark.parametrize("run_number", range(REPEATS))
@pytest.mark.parametrize("name", ["mcp1", "mcp2-legacy"])
async def test_a_call_in_flight_is_answered_when_the_bridge_is_terminated(
    name: str, run_number: int
) -> None:
    """SIGTERM early in a call of 3 s: the answer arrives, exit status 0, no process is left."""
    client = python_clients()[name]
    async with (
        bridged(mcp1_server()) as between,
        running(client, "slow-call", "--seconds", "3", target=(endpoint(between),)) as run,
    ):
        await run.event("progress")
        family = {between.pid, *descendants(between.pid)}
        assert len(family) > 1, "the bridge has no child to lose"
        status: list[int] = []
        async with anyio.create_task_group() as group:

            async def terminate() -> None:
                status.append(await between.terminate())

            group.start_soon(terminate)
            report = await run.report()
        assert gist(report) == ("said", "liftoff"), f"run {run_number}: {report}"
        assert report["progress"] == [0, 1, 2, 3, 4, 5]
        assert status == [0]
        # The bridge is reaped by this process, its children by it; none may be left to init.
        await eventually(lambda: not alive(family), "the bridge's family is gone", 1)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "vanishing", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


async def _drop(url: str, complete: bool) -> None:
    """Open a session, with or without the last step of the handshake, and never come back."""
    async with httpx.AsyncClient(headers=ACCEPT, timeout=60) as http:
        answer = await http.post(url, json=INITIALIZE)
        assert answer.status_code == 200, answer.text
        session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
        if complete:
            told = await http.post(url, json=INITIALIZED, headers=session)
            assert told.status_code == 202, told.text


async def _vanish(url: str, client: Client) -> None:
    """Let an SDK client open three sessions and die in them, their streams open."""
    # They declare what they could answer: under `auto` that gives each its own child.
    args = ("--sessions", "3", "--declare")
    async with running(client, "connect-and-vanish", *args, target=(url,)) as run:
        await run.report()


async def _forty_vanish(url: str) -> None:
    """34 plain clients, half of them before the handshake's end, and 6 sessions of the SDKs."""
    clients = python_clients()
    async with anyio.create_task_group() as group:
        for number in range(34):
            group.start_soon(_drop, url, number % 2 == 0)
        for name in ("mcp1", "mcp2-legacy"):
            group.start_soon(_vanish, url, clients[name])


@pytest.mark.parametrize("isolation", ["auto", "session"])
async def test_forty_clients_that_vanish_leave_the_children_that_were_there(
    isolation: str,
) -> None:
    """Unused sessions are reaped with their children; the shared child outlives them."""
    flags = ("--isolation", isolation, "--max-children", "64", "--unused-session-timeout", "1")
    async with bridged(demo_server(), *flags, *NO_SPARES) as between:
        before = descendants(between.pid)
        await _forty_vanish(endpoint(between))
        await eventually(
            lambda: len(descendants(between.pid)) == len(before),
            f"{len(before)} children as before",
            REAPED_WITHIN_S,
        )
        if isolation == "auto":
            assert descendants(between.pid) == before
        # A later client is served as if it were the first.
        answer = await reported(
            python_clients()["mcp1"], "echoes", "--calls", "1", target=(endpoint(between),)
        )
        assert answer["right"] == 1


@pytest.mark.parametrize("name", ["mcp1", "mcp2-legacy"])
async def test_clients_that_vanish_after_use_leave_no_children_of_their_own(name: str) -> None:
    """A session that was used is given its idle time, then its child goes too."""
    client = python_clients()[name]
    flags = ("--isolation", "session", "--session-idle-timeout", "2")
    async with bridged(demo_server(), *flags, *NO_SPARES) as between:
        before = len(descendants(between.pid))
        args = ("--sessions", "4", "--used", "--gate")
        async with running(client, "connect-and-vanish", *args, target=(endpoint(between),)) as run:
            await run.event("ready")
            during = len(descendants(between.pid))
            await run.go()
            await run.report()
        assert during >= 4
        await eventually(
            lambda: len(descendants(between.pid)) <= before,
            f"{before} children as before",
            REAPED_WITHIN_S,
        )


async def test_questions_of_a_server_reach_the_client_whose_call_it_is(
    client: Client, server: Server
) -> None:
    """Elicitation, sampling and roots are answered by a client that declared them."""
    async with bridged(server) as between:
        assert await questioned(client, server, endpoint(between)) == server.answers


async def test_a_log_message_reaches_the_session_of_its_child(
    client: Client, server: Server
) -> None:
    """With its own child, what a server logs can only be for its session.

    A client of 2026-07-28 gets log messages only where it asks for a level, and this one does not.
    """
    async with (
        bridged(server, "--isolation", "session") as between,
        running(client, "logs", "--marker", "logged-here", target=(endpoint(between),)) as run,
    ):
        report = await run.report()
    expected = [] if client.name == "mcp2-auto" else ["logged-here"]
    assert [_message(entry) for entry in report["logs"]] == expected


def _message(entry: dict[str, Any]) -> object:
    """The words of a log message; the FastMCP package wraps them."""
    told = entry["data"]
    return told["msg"] if isinstance(told, dict) else told
