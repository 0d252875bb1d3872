"""What belongs to one client is for no other: sessions, calls, children."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    bridge,
    child,
    eventually,
    initialize,
    open_session,
    rpc,
)
from tests.support.modern_client import FORM, asking, form, headers_of, meta
from tests.support.proofs import proves
from tests.support.token_file import ALICE, BOB, CAROL, bearing, environ, token_file, told

pytestmark = pytest.mark.slow
COMMAND = child("environ")
SAMPLING: dict[str, Any] = {"sampling": {}}


def call(**arguments: Any) -> dict[str, Any]:
    """The same of 2026-07-28."""
    params = {"name": "environ", "arguments": arguments, "_meta": meta()}
    return rpc(1, "tools/call", params)


async def pid_of(client: httpx.AsyncClient, session: dict[str, str] | None) -> int:
    """The child that serves a session, or a client of 2026-07-28."""
    message = environ() if session is not None else call()
    headers = session if session is not None else headers_of(message)
    pid: int = told(await client.post("/mcp", json=message, headers=headers))["pid"]
    return pid


@proves("C102")
@pytest.mark.parametrize("isolation", ["auto", "shared", "session"])
async def test_no_child_serves_two_principals(tmp_path: Path, isolation: str) -> None:
    """Whatever the era, with a session or without, after any other client."""
    file = token_file(tmp_path, f"alice: {ALICE}", f"bob: {BOB}", f"carol: {CAROL}")
    words = ("--auth-token-file", str(file), "--isolation", isolation)
    async with bridge(*words, "--", *COMMAND) as running:
        seen: list[set[int]] = []
        for token in (ALICE, BOB, CAROL):
            async with bearing(running, token) as client:
                sessions = [await open_session(client) for _ in range(2)]
                own = await open_session(client, capabilities=SAMPLING)
                pids = [await pid_of(client, each) for each in (*sessions, own)]
                modern = [await pid_of(client, None) for _ in range(3)]
                answer = await client.post("/mcp", json=environ(), headers=ACCEPT)
                seen.append({*pids, *modern, told(answer)["pid"]})
                assert len(set(modern)) == 1
                assert (pids[0] == pids[1]) == (isolation != "session")
                assert (pids[0] == pids[2]) == (isolation == "shared")
        assert not seen[0] & seen[1]
        assert not (seen[0] | seen[1]) & seen[2]
        assert running.events("child.ready")[0]["pid"] in seen[0]


@proves("C96")
async def test_what_is_somebody_elses_does_not_exist(tmp_path: Path) -> None:
    """404 for each verb, in both transports, and the owner notices nothing."""
    async with (
        bridge("--auth-token-file", str(token_file(tmp_path)), "--", *COMMAND) as running,
        bearing(running, ALICE) as alice,
        bearing(running, BOB) as bob,
    ):
        ours = await open_session(alice)
        stream = {"accept": "text/event-stream"}
        for body in (environ(), rpc(1, "ping"), [rpc(1, "ping")]):
            assert (await bob.post("/mcp", json=body, headers=ours)).status_code == 404
        # `initialize` begins a session of the client that sends it, whatever id stands in the head.
        begun = await bob.post("/mcp", json=initialize(), headers=ours)
        assert begun.status_code == 200
        assert begun.headers["mcp-session-id"] != ours["mcp-session-id"]
        assert (await bob.get("/mcp", headers={**ours, **stream})).status_code == 404
        assert (await bob.delete("/mcp", headers=ours)).status_code == 404
        never = {**ours, "mcp-session-id": "0" * 64}
        unknown = await bob.post("/mcp", json=environ(), headers=never)
        foreign = await bob.post("/mcp", json=environ(), headers=ours)
        assert (unknown.status_code, unknown.content) == (foreign.status_code, foreign.content)
        assert (await pid_of(alice, ours)) > 0

        async with alice.stream("GET", "/sse", headers=stream) as events:
            lines = events.aiter_lines()
            path = [await anext(lines) for _ in range(2)][1].removeprefix("data: ")
            assert (await bob.post(path, json=initialize())).status_code == 404
            assert (await alice.post(path, json=initialize())).status_code == 202


@proves("C89")
async def test_a_parked_call_is_its_own_clients(tmp_path: Path) -> None:
    """Who has got hold of the state that its owner keeps has nothing."""
    eras = child("eras", "legacy", str(tmp_path))
    async with (
        bridge("--auth-token-file", str(token_file(tmp_path)), "--", *eras) as running,
        bearing(running, ALICE) as alice,
        bearing(running, BOB) as bob,
    ):
        first = rpc(1, "tools/call", {**asking([form()]), "_meta": meta(FORM)})
        parked = await alice.post("/mcp", json=first, headers=headers_of(first))
        result = parked.json()["result"]
        assert result["resultType"] == "input_required"
        answers = {key: {"action": "accept", "content": {}} for key in result["inputRequests"]}
        more = {"inputResponses": answers, "requestState": result["requestState"]}
        retry = rpc(2, "tools/call", {**first["params"], **more})
        stolen = await bob.post("/mcp", json=retry, headers=headers_of(retry))
        assert stolen.json()["error"]["code"] == -32602
        good = await alice.post("/mcp", json=retry, headers=headers_of(retry))
        assert good.json()["result"]["resultType"] == "complete"


@proves("C102")
async def test_nothing_is_public_where_clients_are_told_apart(tmp_path: Path) -> None:
    """A cache between them must not show one what the other was answered."""
    modern = child("eras", "modern", str(tmp_path))
    era = {"MCPBRIDGE_CHILD_ERA": "modern"}
    listing = rpc(1, "tools/list", {"_meta": meta()})
    scopes = []
    for words in ((), ("--auth-token-file", str(token_file(tmp_path)))):
        async with (
            bridge(*words, "--", *modern, env=era) as running,
            bearing(running, ALICE) as alice,
        ):
            for _ in range(3):
                answer = await alice.post("/mcp", json=listing, headers=headers_of(listing))
                scopes.append(answer.json()["result"]["cacheScope"])
    assert scopes == ["public"] * 3 + ["private"] * 3


@proves("fault 34")
async def test_children_of_who_has_left_make_room(tmp_path: Path) -> None:
    """Where all places are taken those of a client that has nothing open end."""
    file = token_file(tmp_path, f"alice: {ALICE}", f"bob: {BOB}", f"carol: {CAROL}")
    words = ("--auth-token-file", str(file), "--max-children", "2")
    async with (
        bridge(*words, "--", *COMMAND) as running,
        bearing(running, ALICE) as alice,
        bearing(running, BOB) as bob,
        bearing(running, CAROL) as carol,
    ):
        ours = await open_session(alice)
        theirs = await open_session(bob)
        before = await pid_of(bob, theirs)
        full = await carol.post("/mcp", json=initialize(), headers=ACCEPT)
        assert full.status_code == 503
        assert "--max-children 2" in full.json()["error"]["message"]
        assert (await bob.delete("/mcp", headers=theirs)).status_code == 200
        async with asyncio.timeout(20):
            while (await carol.post("/mcp", json=initialize(), headers=ACCEPT)).status_code != 200:
                pass
        await eventually(lambda: before not in running.processes(), "Bob's child has ended")
        assert (await pid_of(alice, ours)) == running.events("child.ready")[0]["pid"]
        assert await running.logged("tenant.evicted_idle")
