"""Secrets are found nowhere but where they belong."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    initialize,
    open_session,
    rpc,
)
from tests.support.modern_client import headers_of, meta
from tests.support.otlp_collector import collecting
from tests.support.proofs import proves
from tests.support.token_file import environ, told

pytestmark = pytest.mark.slow

IN_FILE, IN_VARIABLE = "c4n4ry-file-0a1b2c3d4e5f", "c4n4ry-variable-0a1b2c3d4e"
WRONG, VALUE, SEALING = (
    "c4n4ry-wrong-0a1b2c3d4e5f",
    "c4n4ry value-0a1b2c3d",
    "c4n4ry-seal-" + "k" * 32,
)
MARK = "c4n4ry"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


async def failing_requests(
    client: httpx.AsyncClient, session: dict[str, str]
) -> list[httpx.Response]:
    """What comes of many requests that fail, each in its own way."""
    listing = rpc(1, "tools/list", {"_meta": meta()})
    bodies = [b"", b"{", b"[]", b'{"jsonrpc":"2.0"}', b"\xff", b"[" * 100, b'{"a":1,"a":2}']
    bodies += [json.dumps(rpc(n, name)).encode() for n, name in enumerate(("x", "initialize"))]
    bodies += [json.dumps(rpc(1, "tools/call", {"name": "none", "_meta": 7})).encode()]
    heads = [
        session,
        {**session, "mcp-session-id": "f" * 64},
        {**session, "mcp-protocol-version": "1999-01-01"},
        {**session, "accept": "text/plain"},
        {**session, "content-type": "text/plain"},
        {**session, "host": "evil.example"},
        {**session, "origin": "https://evil.example"},
        {**session, "authorization": f"Bearer {WRONG}"},
        {**session, "authorization": f"Basic {WRONG}"},
        {**session, "x-api-key": VALUE * 100},
        headers_of(listing, mcp_method="tools/call"),
    ]
    heads = [{"content-type": "application/json", **head} for head in heads]
    answers = [
        await client.post(path, content=body, headers=head)
        for path in ("/mcp", "/messages?session_id=0")
        for head in heads
        for body in bodies
    ]
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        for path in ("/mcp", "/nothing", "/metrics", "/messages", "/livez"):
            head = {"last-event-id": "x", "mcp-session-id": "f" * 64}
            answers.append(await client.request(method, path, headers=head))
    return answers


def proc(pid: int, what: str) -> bytes:
    """A file of a process."""
    return (Path("/proc") / str(pid) / what).read_bytes()


async def dumped(running: RunningBridge) -> None:
    """Have it tell its whole state."""
    running.signal(signal.SIGUSR1)
    await running.logged("serve.state")


@proves("C97")
async def test_secrets_are_found_nowhere(tmp_path: Path) -> None:
    """Of tokens, of values for a child and of the bridge's own environment: not in logs at their
    fullest, metrics, errors, traces, the state, argv, nor in a child that they are not for.
    """
    (file := tmp_path / "tokens").write_text(f"alice: {IN_FILE}\n")
    words = (
        *("--auth-token-file", str(file), "--header-env", "X-Api-Key=API_KEY?"),
        *("--log-level", "debug", "--log-calls", "--rate-limit", "100000/s"),
    )
    secrets = {"MCPBRIDGE_AUTH_TOKEN": IN_VARIABLE, "MCPBRIDGE_STATE_KEY": SEALING, **QUICK}
    with collecting() as collector:
        env = {**secrets, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        async with bridge(*words, "--", *child("environ"), env=env, ready=False) as running:
            pids = {}
            seen: list[httpx.Response] = []
            for token, headers in ((IN_FILE, {"x-api-key": VALUE}), (IN_VARIABLE, {})):
                head = {"authorization": f"Bearer {token}", **headers}
                async with running.client(headers=head) as client:
                    session = await open_session(client)
                    answer = told(await client.post("/mcp", json=environ(), headers=session))
                    pids[answer["pid"]] = bool(headers)
                    seen += await failing_requests(client, session)
                    seen.append(await client.get("/metrics"))
            async with running.client() as nobody:
                seen.append(await nobody.post("/mcp", json=initialize(), headers=ACCEPT))
            await dumped(running)

            assert {200, 400, 401, 403, 404, 405, 406, 415, 421} <= {a.status_code for a in seen}
            for answer in seen:
                heads = str(answer.headers.raw).lower()
                assert MARK not in answer.text.lower() + heads, (answer.request.url, answer.text)
            assert pids.keys() == running.processes()
            assert sorted(pids.values()) == [False, True]
            for pid, is_for in pids.items():
                own = b"API_KEY=" + VALUE.encode()
                variables = proc(pid, "environ").split(b"\0")
                assert (own in variables) == is_for
                others = [each for each in variables if MARK.encode() in each and each != own]
                assert others == []
                assert MARK.encode() not in proc(pid, "cmdline")
            assert MARK.encode() not in proc(running.pid, "cmdline")
        # Everything that was logged, to the last record of the end; the children wrote their value
        # on stderr and as noise on stdout.
        assert await running.logged("child.stderr")
        assert await running.logged("child.stdout_noise")
        assert MARK not in json.dumps(running.log)
        assert MARK not in str(running.noise)
        assert collector.spans
        assert MARK not in str(collector.spans) + str(collector.resource)
