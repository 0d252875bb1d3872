"""Whose a session is: ids that no client can guess, and what happens to those who try."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import ACCEPT, bridge, initialize, open_session, rpc
from tests.support.proofs import proves
from tests.support.raw_http import exchanged, post

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

OWN: dict[str, Any] = {"elicitation": {}}
SESSION = "mcp-session-id"


def guesses(session_id: str) -> list[str]:
    """What an attacker would try who has seen other ids, or a part of this one."""
    last = "0" if session_id[-1] != "0" else "1"
    following = f"{(int(session_id, 16) + 1) % 16**64:064x}"
    return [
        session_id[:-1],
        session_id[:-1] + last,
        session_id + "0",
        following,
        session_id[::-1],
        f"{session_id},{session_id}",
        "0" * 64,
        "*",
        "null",
        "../" + session_id,
        "%s",
    ]


async def told(client: httpx.AsyncClient, verb: str, headers: dict[str, str]) -> httpx.Response:
    """The answer to a request of this verb."""
    body = rpc("guess", "tools/list") if verb == "POST" else None
    return await client.request(verb, "/mcp", json=body, headers=headers)


@proves("fault 79", "fault 81", "C01", "C04")
async def test_a_session_is_not_to_be_guessed() -> None:
    """256 bits, each once; every guess is 404 for every verb, and the session goes on."""
    async with bridge() as running, running.client() as client:
        opening = (open_session(client) for _ in range(40))
        ids = [headers[SESSION] for headers in await asyncio.gather(*opening)]
        assert len(set(ids)) == 40
        assert all(re.fullmatch("[0-9a-f]{64}", each) for each in ids)
        # No place in them is the same in all: they hold no counter, no time, no mark.
        assert all(len(set(place)) > 1 for place in zip(*ids, strict=True))
        for guess in guesses(ids[0]):
            for verb in ("POST", "GET", "DELETE"):
                answer = await told(client, verb, {**ACCEPT, SESSION: guess})
                assert answer.status_code == 404, (verb, guess)
                assert ids[0] not in answer.text
                assert SESSION not in answer.headers
        served = await told(client, "POST", {**ACCEPT, SESSION: ids[0]})
        assert "result" in served.json()
        log = "\n".join(str(record) for record in running.log)
        assert not [each for each in ids if each in log], "they are not in the log"


@proves("fault 81")
async def test_an_id_is_not_taken_from_anywhere_but_its_header() -> None:
    """Neither the address, nor a cookie, nor the body makes a request part of a session."""
    words = ("--require-session",)
    async with bridge(*words) as running, running.client() as client:
        mine = (await open_session(client, capabilities=OWN))[SESSION]
        smuggled = [
            post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', path=f"/mcp?{SESSION}={mine}"),
            post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', path=f"/mcp?sessionId={mine}"),
            post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', f"Cookie: {SESSION}={mine}"),
            post(
                b'{"jsonrpc":"2.0","id":1,"method":"tools/list","%s":"%s"}'
                % (SESSION.encode(), mine.encode())
            ),
        ]
        for request in smuggled:
            heard = await exchanged(running.port, request)
            assert (heard.status, heard.error["code"]) == (400, -32600)
        chosen = await client.post("/mcp", json=initialize(1), headers={SESSION: "a" * 64})
        # Fixing an id beforehand is not a way either: the bridge alone makes them.
        assert chosen.status_code == 200
        assert chosen.headers[SESSION] != "a" * 64


@proves("fault 80", "C05")
async def test_where_sessions_are_required_a_request_without_one_is_refused() -> None:
    """400 with the request's id for all but `initialize`; listening and ending need one anyway."""
    async with bridge("--require-session") as running, running.client() as client:
        for method in ("tools/list", "ping", "tools/call"):
            answer = await client.post("/mcp", json=rpc("bare", method, {}), headers=ACCEPT)
            assert (answer.status_code, answer.json()["id"]) == (400, "bare")
            assert "Mcp-Session-Id" in answer.json()["error"]["message"]
        assert (await client.get("/mcp", headers=ACCEPT)).status_code == 400
        assert (await client.delete("/mcp", headers=ACCEPT)).status_code == 400
        headers = await open_session(client)
        answer = await client.post("/mcp", json=rpc(1, "tools/list"), headers=headers)
        assert "result" in answer.json()
