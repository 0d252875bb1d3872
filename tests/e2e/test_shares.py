"""What is scarce is divided between clients: the one that holds most gives way first.

Clients without authentication are told apart by their addresses; these tests use several of the
loopback network.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    DEMO,
    RunningBridge,
    asked_until,
    bridge,
    child,
    open_session,
    rpc,
    started,
)
from tests.support.modern_client import (
    FORM,
    Stateless,
    asking,
    form,
    headers_of,
    meta,
    retry_of,
    serving,
)
from tests.support.proofs import proves
from tests.support.raw_http import Wire, post, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

PING = json.dumps(rpc(1, "ping")).encode()
HALF_HEAD = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n"
HALF_BODY = post(PING)[:-1]
GREEDY, MODEST = "127.0.0.2", "127.0.0.3"
FEW = 8
"""As `--max-connections`."""


@asynccontextmanager
async def wires(running: RunningBridge, source: str, count: int) -> AsyncIterator[list[Wire]]:
    """Several connections from one address."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wire(running.port, source)) for _ in range(count)]


def client_at(running: RunningBridge, source: str, **headers: str) -> httpx.AsyncClient:
    """An HTTP client at this address."""
    return running.client(
        transport=httpx.AsyncHTTPTransport(local_address=source),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def is_served(running: RunningBridge, source: str) -> bool:
    """Whether a call on a new connection from this address is answered."""
    async with wire(running.port, source) as connection:
        await connection.send(post(PING))
        return (await connection.response()).status == 200


@proves("fault 125")
@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY], ids=["none", "head", "body"])
async def test_connections_that_ask_for_nothing_keep_no_other_client_out(sent: bytes) -> None:
    """One address has every connection, with half a request on each; another is served at once."""
    words = ("--max-connections", str(FEW), "--header-timeout", "10m", "--body-timeout", "60s")
    async with bridge(*words) as running, wires(running, GREEDY, FEW) as held:
        for connection in held:
            await connection.send(sent)
        async with wires(running, MODEST, FEW // 2) as modest:
            for connection in modest:
                await connection.send(post(PING))
                assert (await connection.response()).status == 200
        async with running.client() as client:
            text = (await client.get("/metrics")).text
            assert 'mcpbridge_gave_way_total{what="connection"}' in text


async def test_a_lighter_peer_keeps_its_connection() -> None:
    """Whatever the heavier one opens, an idle connection of another peer stays."""
    words = ("--max-connections", str(FEW), "--header-timeout", "10m")
    async with bridge(*words) as running, wire(running.port, MODEST) as kept:
        await kept.send(post(PING))
        assert (await kept.response()).status == 200
        async with wires(running, GREEDY, 2 * FEW) as held:
            for connection in held:
                await connection.send(HALF_HEAD)
            await kept.send(post(PING))
            assert (await kept.response()).status == 200


@proves("fault 125")
async def test_streams_that_only_listen_give_way_to_another_peer() -> None:
    """A client that listens on every connection keeps no other out; its own calls go on."""
    async with bridge("--max-connections", str(FEW)) as running, running.client() as client:
        session = await open_session(client)
        lines = [f"{name}: {value}" for name, value in session.items()]
        listen = "\r\n".join(["GET /mcp HTTP/1.1", "host: localhost", *lines, "", ""])
        await client.aclose()
        async with wires(running, GREEDY, FEW) as held:
            for connection in held:
                await connection.send(listen.encode())
                assert (await connection.head()).status == 200
            assert await is_served(running, MODEST)
            slow = rpc(2, "tools/call", {"name": "countdown", "arguments": {"seconds": 1}})
            async with wire(running.port, GREEDY) as calling:
                await calling.send(post(json.dumps(slow).encode()))
                assert (await calling.response()).status == 503, "its own streams go on"


async def test_one_peer_may_have_every_connection_while_no_other_wants_one() -> None:
    """A reverse proxy that is not trusted is one peer: its requests in arrival are not cut."""
    words = ("--max-connections", str(FEW), "--body-timeout", "60s")
    async with bridge(*words) as running, wires(running, GREEDY, FEW) as held:
        for connection in held:
            await connection.send(HALF_BODY)
        assert not await is_served(running, GREEDY)
        for connection in held:
            await connection.send(PING[-1:])
            assert (await connection.response()).status == 200


async def test_half_heads_of_the_same_peer_give_way_when_they_are_old() -> None:
    """Behind a proxy, or on one machine, such clients keep the others out for a second at most."""
    words = ("--max-connections", str(FEW), "--header-timeout", "10m")
    async with bridge(*words) as running, wires(running, GREEDY, FEW) as held:
        for connection in held:
            await connection.send(HALF_HEAD)
        assert not await is_served(running, GREEDY)
        await asked_until(lambda: is_served(running, GREEDY), "an old half head gives way")


async def test_a_trusted_proxy_is_many_clients() -> None:
    """Its requests in arrival give way to no peer that holds as many connections."""
    words = ("--max-connections", str(FEW), "--trusted-proxy", GREEDY, "--body-timeout", "60s")
    async with bridge(*words) as running, wires(running, GREEDY, FEW // 2) as proxied:
        for connection in proxied:
            await connection.send(HALF_BODY)
        async with wires(running, MODEST, FEW) as held:
            for connection in held:
                await connection.send(HALF_HEAD)
            for connection in proxied:
                await connection.send(PING[-1:])
                assert (await connection.response()).status == 200


async def is_open(client: httpx.AsyncClient, session: dict[str, str]) -> bool:
    """Whether a session still exists."""
    return (await client.post("/mcp", json=rpc(9, "ping"), headers=session)).status_code == 200


@proves("fault 126")
async def test_sessions_of_the_client_with_most_of_them_give_way() -> None:
    """However many one opens, another keeps its idle session and opens further ones."""
    async with (
        bridge("--max-sessions", "6") as running,
        client_at(running, MODEST) as modest,
        client_at(running, GREEDY) as greedy,
    ):
        kept = await open_session(modest)
        held = [await open_session(greedy) for _ in range(12)]
        assert await is_open(modest, kept)
        more = await open_session(modest)
        assert await is_open(modest, kept)
        assert await is_open(modest, more)
        assert [await is_open(greedy, each) for each in held] == [False] * 8 + [True] * 4


async def test_behind_a_trusted_proxy_clients_are_told_apart_by_the_address_it_names() -> None:
    """The same as at two addresses; what a client claims itself does not count."""
    async with (
        bridge("--max-sessions", "4", "--trusted-proxy", "127.0.0.1") as running,
        client_at(running, "127.0.0.1", x_forwarded_for="192.0.2.1") as modest,
        client_at(running, "127.0.0.1", x_forwarded_for="192.0.2.1, 192.0.2.2") as greedy,
        client_at(running, GREEDY, x_forwarded_for="192.0.2.1") as forger,
    ):
        kept = await open_session(modest)
        held = [await open_session(greedy) for _ in range(8)]
        assert await is_open(modest, kept)
        assert [await is_open(greedy, each) for each in held] == [False] * 5 + [True] * 3
        false = [await open_session(forger) for _ in range(8)]
        assert await is_open(modest, kept), "the forger holds as many as it can, by its own address"
        assert not await is_open(forger, false[0])


async def test_streams_of_http_sse_without_a_session_keep_no_other_client_out() -> None:
    """A client that connects and never initializes gives way after some seconds."""
    get = b"GET /sse HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"

    async def connects(source: str) -> bool:
        async with wire(running.port, source) as one:
            await one.send(get)
            return (await one.head()).status == 200

    async with bridge("--max-sessions", "4") as running, wires(running, GREEDY, 4) as held:
        for connection in held:
            await connection.send(get)
            assert (await connection.head()).status == 200
        await asked_until(lambda: connects(MODEST), "a stream that is not used gives way")


CRASH = rpc(7, "x/crash", {"code": 3})


def reason_of(answer: httpx.Response) -> str:
    """The reason in an error of the bridge."""
    reason: str = answer.json()["error"]["data"]["mcpbridge"]["reason"]
    return reason


@proves("fault 124")
async def test_a_client_that_crashes_the_server_ends_it_for_no_other() -> None:
    """It is paused, ever longer; another client is served all the time, and no bridge gives up."""
    async with (
        bridge("--give-up-after", "5", "--", *child("exiting")) as running,
        client_at(running, MODEST) as modest,
        client_at(running, GREEDY) as greedy,
    ):
        kept, crashing = await open_session(modest), await open_session(greedy)
        reasons: list[str] = []
        while reasons.count("child_exited") < 6:
            answer = await greedy.post("/mcp", json=CRASH, headers=crashing)
            reasons.append(reason_of(answer))
            echoed = await modest.post("/mcp", json=rpc(1, "x/echo", {"n": 1}), headers=kept)
            assert echoed.json()["result"] == {"n": 1}
        assert set(reasons) == {"child_exited", "paused"}
        charged = running.events("child.crash_charged")
        assert [each["client"] for each in charged] == [GREEDY] * len(charged)
        assert [each["pause_s"] for each in charged[:5]] == [0, 1, 2, 4, 8]
        refused = await greedy.post("/mcp", json=rpc(1, "x/echo"), headers=ACCEPT)
        assert (refused.status_code, reason_of(refused)) == (429, "paused")
        assert int(refused.headers["retry-after"]) >= 1
        assert not running.events("serve.gave_up")


async def test_without_other_clients_the_bridge_gives_up_as_ever() -> None:
    """So that the platform shows that the server keeps crashing; no other client is served."""
    # Not localhost, which has two addresses, and so two shares.
    words = ("--host", "127.0.0.1", "--port", "0", "--give-up-after", "3")
    async with started(*words, "--", *child("exiting")) as running:
        (record,) = await running.logged("serve.started")
        async with httpx.AsyncClient(timeout=30) as client:
            for _ in range(3):
                await client.post(str(record["url"]), json=CRASH, headers=ACCEPT)
            assert await running.ended() == 3
        assert not running.events("child.crash_charged")


@proves("fault 128")
@pytest.mark.parametrize("limit", [("--queue-length", "8"), ("--max-calls", "9")])
async def test_a_flood_of_calls_lets_another_client_have_its_turn(limit: tuple[str, str]) -> None:
    """Its call is answered after the one that runs, and no call that runs is ended for it."""
    words = ("--max-calls-per-child", "1", "--queue-timeout", "60s", *limit)
    slow = rpc(1, "tools/call", {"name": "countdown", "arguments": {"seconds": 0.5}})
    async with (
        bridge(*words) as running,
        client_at(running, MODEST) as modest,
        client_at(running, GREEDY) as greedy,
    ):
        answered: list[str] = []

        async def call(client: httpx.AsyncClient, name: str) -> str:
            answer = await client.post("/mcp", json=slow, headers={"accept": "application/json"})
            answered.append(name)
            return "result" if "result" in answer.json() else reason_of(answer)

        flood = [asyncio.create_task(call(greedy, "greedy")) for _ in range(9)]
        await asked_until(lambda: in_flight(running, 9), "all calls are in flight")
        assert await call(modest, "modest") == "result"
        assert answered.count("greedy") <= 4, "one was refused, and some had run already"
        outcomes = await asyncio.gather(*flood)
        assert sorted(outcomes) == ["capacity", *["result"] * 8]


@proves("fault 128")
async def test_running_calls_of_one_client_leave_places_for_another() -> None:
    """None of them can be ended for it; the client itself is told that the last are not for it."""
    words = ("--max-calls", "16", "--max-calls-per-child", "16")
    slow = rpc(1, "tools/call", {"name": "countdown", "arguments": {"seconds": 60}})
    async with (
        bridge(*words) as running,
        client_at(running, MODEST) as modest,
        client_at(running, GREEDY) as greedy,
    ):
        session = await open_session(greedy)
        calls = [{**slow, "id": number} for number in range(15)]
        posts = [greedy.post("/mcp", json=each, headers=session) for each in calls]
        flood = asyncio.gather(*posts)
        await asked_until(lambda: in_flight(running, 15), "all calls but one are in flight")
        refused = await greedy.post("/mcp", json=rpc(1, "ping"))
        assert (refused.status_code, reason_of(refused)) == (429, "capacity")
        assert "the last 1 of which are for clients" in refused.json()["error"]["message"]
        assert "result" in (await modest.post("/mcp", json=rpc(1, "ping"))).json()
        await greedy.delete("/mcp", headers=session)
        assert {reason_of(each) for each in await flood} == {"session_closed"}


async def in_flight(running: RunningBridge, count: int) -> bool:
    """Whether exactly that many calls are in flight."""
    async with running.client() as client:
        return f"mcpbridge_calls_in_flight {count}.0" in (await client.get("/metrics")).text


ASKED: dict[str, object] = {"roots": {}}


async def pid_of(client: httpx.AsyncClient, session: dict[str, str]) -> int:
    """The process that serves a session."""
    answer = await client.post("/mcp", json=rpc(1, "x/pid"), headers=session)
    pid: int = answer.json()["result"]
    return pid


@proves("fault 127")
async def test_processes_of_the_client_with_most_of_them_give_way() -> None:
    """However many sessions with their own process one opens, another keeps its own."""
    async with (
        bridge("--max-children", "4", "--", *child("exiting")) as running,
        client_at(running, MODEST) as modest,
        client_at(running, GREEDY) as greedy,
    ):
        kept = await open_session(modest, capabilities=ASKED)
        pid = await pid_of(modest, kept)
        for _ in range(6):
            await pid_of(greedy, await open_session(greedy, capabilities=ASKED))
        assert await pid_of(modest, kept) == pid
        more = await pid_of(modest, await open_session(modest, capabilities=ASKED))
        assert more != pid
        assert await pid_of(modest, kept) == pid
        assert len(running.events("child.evicted_idle")) == 5


@proves("fault 129")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_listens_of_the_client_with_most_of_them_give_way(tmp_path: Path, era: str) -> None:
    """The oldest ends with its result; another client's listen begins, and goes on."""
    params = {"_meta": meta(), "notifications": {"toolsListChanged": True}}
    listen = {**rpc("l", "subscriptions/listen", params)}
    lines = [f"{name}: {value}" for name, value in headers_of(listen).items()]
    sent = post(json.dumps(listen).encode(), *lines)
    kind = {"MCPBRIDGE_CHILD_ERA": era}
    command = child("modern", str(tmp_path)) if era == "modern" else DEMO
    async with (
        bridge("--max-sessions", "3", "--", *command, env=kind) as running,
        wires(running, GREEDY, 3) as held,
        wires(running, MODEST, 1) as (modest,),
    ):
        for connection in (*held, modest):
            await connection.send(sent)
            assert (await connection.head()).status == 200
            assert b"acknowledged" in await connection.chunk()
        assert b"complete" in await held[0].chunk()
        async with wire(running.port, GREEDY) as one_more:
            await one_more.send(sent)
            assert (await one_more.response()).status == 503


ONLY = ("--isolation", "session", "--queue-timeout", "100ms", "--child-era", "legacy")


@proves("fault 130")
@pytest.mark.parametrize("limit", [("--max-parked", "2"), ("--max-children", "3")])
async def test_parked_calls_of_the_client_with_most_of_them_give_way(
    tmp_path: Path, limit: tuple[str, str]
) -> None:
    """Its client never answers; another one is asked all the same, and its answer arrives."""
    async with (
        serving("legacy", tmp_path, *ONLY, *limit) as served,
        client_at(served.bridge, GREEDY) as greedy,
        client_at(served.bridge, MODEST) as modest,
    ):
        hog, other = (Stateless(served.bridge, tmp_path, each) for each in (greedy, modest))
        params = asking([form()])
        first, second = [await hog.result("tools/call", params, FORM) for _ in range(2)]
        refused = await hog.post("tools/call", params, FORM)
        assert (refused.status_code, reason_of(refused)) == (503, "capacity")
        parked = await other.result("tools/call", params, FORM)
        answers = {"i1": {"action": "accept", "content": {}}}
        late = await hog.post("tools/call", retry_of(params, first, **answers), FORM)
        assert (late.status_code, reason_of(late)) == (503, "capacity")
        assert limit[0] in late.json()["error"]["message"]
        for client, result in ((other, parked), (hog, second)):
            done = await client.result("tools/call", retry_of(params, result, **answers), FORM)
            assert done["resultType"] == "complete"
