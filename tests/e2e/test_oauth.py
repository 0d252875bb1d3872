"""The bridge as a resource server of OAuth, with an authorization server's keys next to it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from mcpbridge.rules.access.jwt import LEEWAY_S
from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    eventually,
    initialize,
    messages,
    open_session,
    rpc,
    started,
)
from tests.support.broken_tokens import broken_tokens
from tests.support.proofs import proves
from tests.support.token_issuer import AUDIENCE, Issuer, KeyHost, hosted

pytestmark = pytest.mark.slow

DIRECT = {"NO_PROXY": "127.0.0.1"}
WELL_KNOWN = "/.well-known/oauth-protected-resource"


@pytest.fixture
def host() -> Iterator[KeyHost]:
    """An authorization server's metadata and keys."""
    with hosted(KeyHost(Issuer())) as running:
        yield running


@asynccontextmanager
async def guarded(host: KeyHost, *words: str) -> AsyncIterator[RunningBridge]:
    """A bridge that takes tokens of a host's issuer."""
    asked = ("--oauth-issuer", host.issuer.url, "--oauth-audience", AUDIENCE)
    async with bridge(*asked, *words, env=DIRECT) as running:
        yield running


def bearing(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"authorization": f"Bearer {token}"}


def assert_refused(answer: httpx.Response, status: int, error: str) -> None:
    """The challenge of the specification, and nothing that could be taken for a session."""
    assert answer.status_code == status, answer.text
    challenge = answer.headers["www-authenticate"]
    assert f'resource_metadata="http://127.0.0.1:8000{WELL_KNOWN}/mcp"' in challenge
    assert (f'error="{error}"' in challenge) if error else ("error" not in challenge)
    assert "mcp-session-id" not in answer.headers
    assert "error" in answer.json()
    assert not re.search(r"40[13]", answer.text)


@proves("C95", "C97", "fault 134")
async def test_every_broken_token_is_refused_and_every_good_one_taken(host: KeyHost) -> None:
    """N of N with 401 and a challenge, or told when to come back, none with 500."""
    corpus = broken_tokens(host.issuer)
    words = (
        "--oauth-algorithms",
        "RS256,PS256,ES256,ES384,ES512,EdDSA,Ed25519",
        "--log-level=debug",
    )
    async with guarded(host, *words) as running, running.client(headers=ACCEPT) as client:
        refused = 0
        for name, (token, _) in corpus.items():
            answer = await client.post("/mcp", json=initialize(), headers=bearing(token))
            if answer.status_code == 431:  # more than a request's head may hold
                assert len(token) > 16_000, name
            elif answer.status_code == 503:  # its key may be a new one, and was looked for enough
                assert re.search("kid|unnamed", name), name
                assert int(answer.headers["retry-after"]) >= 1
            else:
                assert_refused(answer, 401, "invalid_token")
            refused += 1
        assert refused == len(corpus) >= 40
        for algorithm in ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"):
            good = bearing(host.issuer.token(algorithm))
            answer = await client.post("/mcp", json=initialize(), headers=good)
            assert answer.status_code == 200, (algorithm, answer.text)
        told = json.dumps(running.log)
        assert not [
            name for name, (token, _) in corpus.items() if len(token) > 99 and token in told
        ]
        # Invented names of keys cost two fetches a minute, however many there are.
        assert host.asked["/keys"] <= 4
        assert set(host.asked) == {"/.well-known/oauth-authorization-server", "/keys"}


async def test_every_path_of_mcp_asks_and_every_other_tells_where_to_go(host: KeyHost) -> None:
    """Both transports, both eras and all methods ask; metadata and probes are for all."""
    async with guarded(host, "--oauth-scope", "mcp:use") as running, running.client() as client:
        modern = {**ACCEPT, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
        for method, path, headers in (
            ("POST", "/mcp", ACCEPT),
            ("POST", "/", ACCEPT),
            ("POST", "/mcp", modern),
            ("GET", "/mcp", {"accept": "text/event-stream"}),
            ("DELETE", "/mcp", {}),
            ("GET", "/sse", {"accept": "text/event-stream"}),
            ("POST", "/messages?session_id=x", ACCEPT),
        ):
            answer = await client.request(method, path, headers=headers, json=rpc(1, "tools/list"))
            assert_refused(answer, 401, "")
            assert 'scope="mcp:use"' in answer.headers["www-authenticate"], path
            # A token in the address is in every log on the way.
            query = f"{path}{'&' if '?' in path else '?'}access_token={host.issuer.token()}"
            answer = await client.request(method, query, headers=headers, json=rpc(1, "tools/list"))
            assert_refused(answer, 401, "")
        for path in (WELL_KNOWN, f"{WELL_KNOWN}/mcp", f"{WELL_KNOWN}/sse"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["resource"] == AUDIENCE
            assert answer.json()["authorization_servers"] == [host.issuer.url]
            assert answer.json()["scopes_supported"] == ["mcp:use"]
            assert (await client.head(path)).status_code == 200
            assert (await client.post(path)).status_code in (404, 405)
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get(f"{WELL_KNOWN}/nowhere")).status_code == 404


@proves("C95")
async def test_a_method_that_needs_more_is_refused_with_all_it_needs(host: KeyHost) -> None:
    """On the ordinary path and on the short one; the session goes on."""
    words = ("--oauth-scope", "mcp:use", "--oauth-method-scope", "tools/call=mcp:call")
    async with guarded(host, *words) as running, running.client() as client:
        client.headers.update(bearing(host.issuer.token(scope="mcp:use")))
        session = await open_session(client)
        call = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        for _ in range(3):
            answer = await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
            assert answer.status_code == 200
            answer = await client.post("/mcp", json=call, headers=session)
            assert_refused(answer, 403, "insufficient_scope")
            assert 'scope="mcp:use mcp:call"' in answer.headers["www-authenticate"]
        client.headers.update(bearing(host.issuer.token(scope="mcp:use mcp:call")))
        answer = await client.post("/mcp", json=call, headers=session)
        assert messages(answer.text)[-1]["result"]["content"][0]["text"] == "hi"


@proves("fault 81", "C96")
async def test_sessions_are_their_owners_whatever_token_they_hold(host: KeyHost) -> None:
    """A newer token of the same client serves; another's finds nothing."""
    async with guarded(host) as running, running.client() as client:
        mine = bearing(host.issuer.token())
        client.headers.update(mine)
        session = await open_session(client)
        for headers, status in (
            (bearing(host.issuer.token("RS256", jti="renewed")), 200),
            (bearing(host.issuer.token(sub="bob")), 404),
            (bearing(host.issuer.token(client_id="phone")), 404),
            (mine, 200),
        ):
            answer = await client.post(
                "/mcp", json=rpc(1, "tools/list"), headers={**session, **headers}
            )
            assert answer.status_code == status, answer.text


async def _until_over(response: httpx.Response) -> bytes:
    seen = bytearray()
    async for piece in response.aiter_raw():
        seen += piece
    return bytes(seen)


@proves("C95")
async def test_a_stream_ends_when_its_token_does(host: KeyHost) -> None:
    """Of either transport; then the same token is refused, and a new one goes on."""
    async with guarded(host) as running, running.client() as client:
        # Past its end by nearly all of the leeway: five seconds are left.
        ends = int(time.time() - LEEWAY_S) + 5
        short = bearing(host.issuer.token(exp=ends))
        long = bearing(host.issuer.token())
        session = await open_session_with(client, short)
        stream = {**session, "accept": "text/event-stream"}
        async with (
            client.stream("GET", "/mcp", headers={**stream, **short}) as newer,
            client.stream("GET", "/sse", headers={**stream, **short}) as older,
            asyncio.timeout(20),
        ):
            assert (newer.status_code, older.status_code) == (200, 200)
            await asyncio.gather(_until_over(newer), _until_over(older))
            assert time.time() >= ends + LEEWAY_S
        answer = await client.post("/mcp", json=rpc(1, "ping"), headers={**session, **short})
        assert_refused(answer, 401, "invalid_token")
        assert "expired" in answer.headers["www-authenticate"]
        async with client.stream("GET", "/mcp", headers={**stream, **long}) as response:
            assert response.status_code == 200
        answer = await client.post("/mcp", json=rpc(2, "ping"), headers={**session, **long})
        assert answer.status_code == 200


async def open_session_with(client: httpx.AsyncClient, token: dict[str, str]) -> dict[str, str]:
    """A session opened with a token; the headers that name it, without the token."""
    client.headers.update(token)
    try:
        return await open_session(client)
    finally:
        del client.headers["authorization"]


@proves("fault 133")
async def test_an_issuer_may_change_its_keys_while_streams_are_open(host: KeyHost) -> None:
    """Streams go on while their key is published, and end when it is withdrawn."""
    issuer = host.issuer
    async with guarded(host) as running, running.client() as client:
        old = bearing(issuer.token())
        session = await open_session_with(client, old)
        headers = {**session, "accept": "text/event-stream", **old}
        async with client.stream("GET", "/mcp", headers=headers) as response:
            over = asyncio.create_task(_until_over(response))
            for generation in ("second", "third"):
                issuer.renew(generation)
                new = bearing(issuer.token())
                for token in (new, old):
                    answer = await client.post(
                        "/mcp", json=rpc(1, "ping"), headers={**session, **token}
                    )
                    assert answer.status_code == 200, answer.text
            assert host.asked["/keys"] == 3
            assert not over.done()
            issuer.withdraw("first")
            issuer.renew("fourth")
            fresh = bearing(issuer.token())
            answer = await client.post("/mcp", json=rpc(1, "ping"), headers={**session, **fresh})
            assert answer.status_code == 200
            async with asyncio.timeout(20):
                await over
        answer = await client.post("/mcp", json=rpc(1, "ping"), headers={**session, **old})
        assert_refused(answer, 401, "invalid_token")
        assert (
            await client.post("/mcp", json=rpc(1, "ping"), headers={**session, **fresh})
        ).is_success


@proves("fault 116")
async def test_an_authorization_server_that_is_away_is_no_fault_of_the_token() -> None:
    """503 and a time to come back, never 401; known keys serve on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = KeyHost(Issuer(f"http://127.0.0.1:{port}", rsa=False))
    async with guarded(host) as running, running.client(headers=ACCEPT) as client:
        client.headers.update(bearing(host.issuer.token()))
        answer = await client.post("/mcp", json=initialize())
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert "www-authenticate" not in answer.headers
        (record, *_) = await running.logged("oauth.keys_unavailable")
        assert host.issuer.url in record["url"]
        with hosted(host, port):
            answer = await client.post("/mcp", json=initialize())
            assert answer.status_code == 200, answer.text
        # Gone again: what is known serves, what is not cannot be judged.
        answer = await client.post("/mcp", json=initialize())
        assert answer.status_code == 200
        host.issuer.renew("second")
        client.headers.update(bearing(host.issuer.token()))
        answer = await client.post("/mcp", json=initialize())
        assert answer.status_code == 503


@proves("C97")
async def test_nothing_of_a_token_reaches_the_server(host: KeyHost, tmp_path: Path) -> None:
    """Not its environment, not its command line, not a byte on its stdin, in either era."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    modern = {"mcp-protocol-version": "2026-07-28", "mcp-method": "x/echo"}
    async with (
        guarded(host, "--log-level=debug", "--", *child("recorder", str(tmp_path))) as running,
        running.client(headers=ACCEPT) as client,
    ):
        token = host.issuer.token()
        client.headers.update(bearing(token))
        session = await open_session(client)
        for number, (headers, params) in enumerate(
            ((session, {"a": "of a session"}), (modern, {"b": "of no session", "_meta": meta}))
        ):
            answer = await client.post("/mcp", json=rpc(number, "x/echo", params), headers=headers)
            assert answer.status_code == 200, answer.text
        children = [Path(f"/proc/{pid}") for pid in running.processes()]
        seen = [
            (child / file).read_bytes() for child in children for file in ("environ", "cmdline")
        ]
        heard = [file.read_bytes() for file in tmp_path.iterdir()]
        assert children
        assert b"of a session" in b"".join(heard)
        assert b"of no session" in b"".join(heard)
        log = json.dumps(running.log).encode()
        for secret in (token, *token.split("."), "alice"):
            assert not [text for text in (*seen, *heard) if secret.encode() in text]
        for secret in (token, *token.split(".")):
            assert secret.encode() not in log


async def test_static_tokens_and_oauth_stand_side_by_side(host: KeyHost, tmp_path: Path) -> None:
    """Each is taken; what is neither is sent to the authorization server."""
    file = tmp_path / "tokens"
    file.write_text("ops: correct-horse-battery-staple-0123456789\n")
    async with (
        guarded(host, "--auth-token-file", str(file)) as running,
        running.client(headers=ACCEPT) as client,
    ):
        for token in ("correct-horse-battery-staple-0123456789", host.issuer.token()):
            answer = await client.post("/mcp", json=initialize(), headers=bearing(token))
            assert answer.status_code == 200, answer.text
        for headers in ({}, bearing("correct-horse")):
            answer = await client.post("/mcp", json=initialize(), headers=headers)
            assert_refused(answer, 401, "invalid_token" if headers else "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--oauth-issuer", "https://i.example"), "--oauth-audience"),
        (("--oauth-audience", "https://x.example"), "without --oauth-issuer"),
        (
            ("--oauth-issuer", "i.example", "--oauth-audience", "https://x.example"),
            "is not an http",
        ),
        (("--oauth-issuer", "http://i.example", "--oauth-audience", "https://x.example"), "https"),
        (("--oauth-issuer", "https://i.example", "--oauth-audience", "api://x"), "first the URL"),
        (("--oauth-algorithms", "HS256"), "is not a list of"),
        (("--oauth-jwks-url", "http://i.example/keys"), "is not https"),
        (("--oauth-method-scope", "tool/call=x"), "does not begin with a method of MCP"),
        (("--oauth-scope", "a b"), "is not a scope"),
    ],
)
async def test_settings_that_cannot_be_are_refused_at_the_start(
    words: tuple[str, ...], said: str
) -> None:
    """Exit status 2, and a text that names the flag."""
    async with started("--port", "0", *words) as running:
        assert await running.ended() == 2
        await eventually(lambda: any(said in line for line in running.start_errors), said, 5)
