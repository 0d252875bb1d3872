"""Static bearer tokens, from outside."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    initialize,
    messages,
    open_session,
    rpc,
    started,
)
from tests.support.modern_client import headers_of, meta
from tests.support.proofs import proves
from tests.support.token_file import ALICE, BOB, CAROL, bearing, environ, token_file, told

pytestmark = pytest.mark.slow
COMMAND = child("environ")
CHALLENGE = 'Bearer realm="mcpbridge"'


def modern(method: str, **params: object) -> dict[str, object]:
    """A request of 2026-07-28."""
    return rpc(1, method, {**params, "_meta": meta()})


async def refused(client: httpx.AsyncClient) -> list[httpx.Response]:
    """The answers to everything that MCP can be asked for, in every transport and era."""
    listing = modern("tools/list")
    posts = [initialize(), rpc(1, "tools/list"), [rpc(1, "ping")]]
    return [
        *[await client.post("/mcp", json=body, headers=ACCEPT) for body in posts],
        await client.post("/", json=initialize(), headers=ACCEPT),
        await client.post("/mcp", json=listing, headers=headers_of(listing)),
        await client.post("/mcp", content=b"\xff", headers=ACCEPT),
        await client.get("/mcp", headers={**ACCEPT, "mcp-session-id": "0" * 64}),
        await client.delete("/mcp", headers={"mcp-session-id": "0" * 64}),
        await client.get("/sse", headers={"accept": "text/event-stream"}),
        await client.post("/messages?session_id=1", json=rpc(1, "ping"), headers=ACCEPT),
        await client.get("/metrics"),
    ]


@proves("C95", "O15")
async def test_nothing_is_served_without_a_token(tmp_path: Path) -> None:
    """401, a challenge, no session id and no digits of a status in the text."""
    async with bridge("--auth-token-file", str(token_file(tmp_path)), "--", *COMMAND) as running:
        wrong = (None, CAROL, ALICE[:-1], ALICE + "x", "a b", "é" * 20)
        for token in wrong:
            value = f"Bearer {token}".encode("latin-1")
            headers = {} if token is None else {"authorization": value}
            async with running.client(headers=headers) as client:
                for answer in await refused(client):
                    assert answer.status_code == 401, (token, answer.request.url, answer.text)
                    assert answer.headers["www-authenticate"].startswith(CHALLENGE)
                    assert "mcp-session-id" not in answer.headers
                    assert answer.json()["error"]["code"] == -32600
                    assert not any(text in answer.text for text in ("401", "403", ALICE[:8]))
                for path in ("/health", "/livez", "/readyz", "/startupz", "/healthz"):
                    assert (await client.get(path)).status_code == 200
        for pairs in ([("authorization", f"Bearer {ALICE}")] * 2, [("authorization", ALICE)]):
            async with running.client() as client:
                twice = await client.post("/mcp", json=initialize(), headers=pairs)
                assert twice.status_code == 401
        assert running.processes() == {running.events("child.ready")[0]["pid"]}


async def test_a_good_token_opens_everything(tmp_path: Path) -> None:
    """Both transports and both eras, the fast path included."""
    file = token_file(tmp_path)
    async with (
        bridge("--auth-token-file", str(file), "--", *COMMAND) as running,
        bearing(running, ALICE) as alice,
    ):
        session = await open_session(alice)
        pids = set()
        for number in range(5):
            answer = await alice.post("/mcp", json=environ(number), headers=session)
            pids.add(told(answer)["pid"])
        assert len(pids) == 1
        call = modern("tools/call", name="environ", arguments={})
        for _ in range(3):
            answer = await alice.post("/mcp", json=call, headers=headers_of(call))
            assert answer.status_code == 200, answer.text
        assert (await alice.get("/metrics")).status_code == 200
        assert (await alice.post("/mcp", json=environ(), headers=ACCEPT)).status_code == 200
        accept = {"accept": "text/event-stream"}
        async with alice.stream("GET", "/sse", headers=accept) as stream:
            lines = stream.aiter_lines()
            path = [await anext(lines) for _ in range(2)][1].removeprefix("data: ")
            assert (await alice.post(path, json=initialize(7))).status_code == 202
            data = ""
            while '"id":7' not in data:
                data = await anext(lines)
        assert (await alice.delete("/mcp", headers=session)).status_code == 200


async def test_a_client_that_looks_for_a_login_is_told_that_there_is_none(tmp_path: Path) -> None:
    """In the form of OAuth's errors, which such clients read there; otherwise as any other path."""
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/register", {"json": {"redirect_uris": ["http://127.0.0.1/back"]}}),
        ("POST", "/token", {"data": {"grant_type": "authorization_code", "code": "x"}}),
        ("GET", "/authorize?response_type=code&client_id=x", {}),
    ]
    file = str(token_file(tmp_path))
    async with (
        bridge("--auth-token-file", file, "--", *COMMAND) as running,
        running.client() as client,
    ):
        for method, path, body in asked:
            answer = await client.request(method, path, **body)
            assert (answer.status_code, set(answer.json())) == (
                404,
                {"error", "error_description"},
            )
            assert answer.json()["error"] == "invalid_request"
            assert "bearer token" in answer.json()["error_description"]
            assert answer.headers["content-type"] == "application/json"
        assert (await client.post("/other", json={})).json()["error"]["code"]
    async with bridge("--", *COMMAND) as open_to_all, open_to_all.client() as client:
        assert (await client.post("/register", json={})).json()["error"]["code"]


@proves("fault 60")
async def test_a_token_on_the_same_connection_is_judged_each_time(tmp_path: Path) -> None:
    """What one request may, the next one on its connection need not."""
    async with (
        bridge("--auth-token-file", str(token_file(tmp_path)), "--", *COMMAND) as running,
        running.client(limits=httpx.Limits(max_connections=1)) as client,
    ):
        async with bearing(running, ALICE) as alice:
            session = await open_session(alice)
        for token, status in ((ALICE, 200), (ALICE, 200), (BOB, 404), (CAROL, 401), (ALICE, 200)):
            head = {**session, "authorization": f"Bearer {token}"}
            answer = await client.post("/mcp", json=environ(), headers=head)
            assert answer.status_code == status, token


async def test_a_withdrawn_token_ends_streams_and_is_refused(tmp_path: Path) -> None:
    """The file is read again; a client that is still in it notices nothing."""
    file = token_file(tmp_path)
    async with (
        bridge("--auth-token-file", str(file), "--", *COMMAND) as running,
        bearing(running, ALICE) as alice,
        bearing(running, BOB) as bob,
    ):
        ours, theirs = await open_session(alice), await open_session(bob)
        assert (await bob.post("/mcp", json=environ(), headers=theirs)).status_code == 200
        assert (await bob.post("/mcp", json=environ(), headers=theirs)).status_code == 200
        stream = {"accept": "text/event-stream"}
        async with (
            alice.stream("GET", "/mcp", headers={**ours, **stream}) as kept,
            bob.stream("GET", "/mcp", headers={**theirs, **stream}) as ended,
            bob.stream("GET", "/sse", headers=stream) as legacy,
        ):
            assert (kept.status_code, ended.status_code, legacy.status_code) == (200, 200, 200)
            (fresh := tmp_path / "fresh").write_text(f"alice: {ALICE}\ncarol: {CAROL}\n")
            os.replace(fresh, file)
            async with asyncio.timeout(10):
                async for _ in ended.aiter_lines():
                    pass
                async for _ in legacy.aiter_lines():
                    pass
            gone = await bob.post("/mcp", json=environ(), headers=theirs)
            assert (gone.status_code, gone.headers.get("mcp-session-id")) == (401, None)
            assert (await alice.post("/mcp", json=environ(), headers=ours)).status_code == 200
            lines = asyncio.ensure_future(anext(kept.aiter_bytes()))
            await asyncio.wait([lines], timeout=0)
            assert not lines.done() or not lines.exception()
            lines.cancel()
        async with bearing(running, CAROL) as carol:
            await open_session(carol)
        (fresh := tmp_path / "fresh").write_text("")
        os.replace(fresh, file)
        running.signal(signal.SIGHUP)
        (record,) = await running.logged("auth.file_read_failed")
        assert "no token" in record["problem"]
        assert (await alice.post("/mcp", json=environ(), headers=ours)).status_code == 200


@proves("fault 84")
async def test_the_rate_of_one_client_is_its_own(tmp_path: Path) -> None:
    """Beyond it 429 with the flag and a time to come back; others notice nothing."""
    words = ("--auth-token-file", str(token_file(tmp_path)), "--rate-limit", "1/m:8")
    async with (
        bridge(*words, "--max-sessions-per-principal", "2", "--", *COMMAND) as running,
        bearing(running, ALICE) as alice,
        bearing(running, BOB) as bob,
    ):
        ours, theirs = await open_session(alice), await open_session(bob)
        answers = [await alice.post("/mcp", json=environ(n), headers=ours) for n in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
        assert answers[-1].json()["id"] == 7
        error = answers[-1].json()["error"]
        assert "--rate-limit 1/m:8" in error["message"]
        assert error["data"]["mcpbridge"]["retryable"]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert (await alice.get("/mcp", headers=ours)).status_code == 429
        assert (await alice.delete("/mcp", headers=ours)).status_code == 200
        assert (await bob.post("/mcp", json=environ(), headers=theirs)).status_code == 200
        await open_session(bob)
        full = await bob.post("/mcp", json=initialize(9), headers=ACCEPT)
        assert full.status_code == 429
        assert "--max-sessions-per-principal 2" in full.json()["error"]["message"]
        assert full.json()["id"] == 9
        assert "mcp-session-id" not in full.headers


async def test_an_empty_secret_does_not_start(tmp_path: Path) -> None:
    """Exit status 2, and the thing is named; never a door that is open by mistake."""
    empty = tmp_path / "empty"
    empty.touch()
    secret = "with blanks in the middle"
    cases: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        (("--auth-token-file", str(empty)), {}, "no token"),
        ((), {"MCPBRIDGE_AUTH_TOKEN": secret}, "MCPBRIDGE_AUTH_TOKEN"),
    ]
    for words, env, named in cases:
        async with started("--port", "0", *words, env=env) as running:
            assert await running.ended() == 2
        text = "\n".join(running.start_errors)
        assert named in text
        assert secret not in text


async def says_open(running: RunningBridge) -> bool:
    """Whether it warned that all clients may call."""
    await running.logged("child.ready")
    return bool(running.events("serve.open"))


async def test_an_open_door_is_told_of() -> None:
    """On an address that others reach, pods included; a token in the environment closes it."""
    wide = ("--host", "0.0.0.0", "--", *COMMAND)
    async with bridge(*wide) as running:
        assert await says_open(running)
        (record,) = await running.logged("serve.open")
        assert "--auth-token-file" in record["problem"]
    async with bridge(*wide, env={"MCPBRIDGE_AUTH_TOKEN": ALICE}) as running:
        assert not await says_open(running)
        async with running.client() as client, bearing(running, ALICE) as alice:
            assert (await client.post("/mcp", json=initialize())).status_code == 401
            answer = await alice.post("/mcp", json=initialize(), headers=ACCEPT)
            assert messages(answer.text)[0]["id"] == 0
