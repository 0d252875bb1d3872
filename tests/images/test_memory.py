"""The bridge's memory, where 64 MiB is all there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.images.containers import (
    ACCEPT,
    CONFINED,
    READY_S,
    Container,
    Ended,
    Process,
    container,
    rpc,
    volume,
)
from tests.images.engine import Engine

LIMIT_KIB = 64 * 1024
SESSIONS = 50
BODY_BYTES = 1_000_000
AT_ONCE = 4
CALLS = 200
SOCKET = "unix:/run/mcp/mcp.sock"
DEMO = ("--", "/opt/mcpbridge/bin/python", "-m", "mcpbridge.demo")


@pytest.mark.slow
@pytest.mark.parametrize("image", ["slim", "tree"])
def test_large_bodies_of_many_sessions_fit(
    engine: Engine, images: dict[str, str], image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """50 sessions, each with an open stream; 200 calls of 1 MB each way, 4 of them in flight.

    The server is in a container of its own, so the 64 MiB are the bridge's alone.
    """
    with volume(engine) as shared:
        mounted = f"--volume={shared}:/run/mcp"
        listening = ("shim", f"--listen={SOCKET}", "--mode=0666", *DEMO)
        options = (mounted, "--publish=127.0.0.1::8000", "--no-healthcheck")
        with container(engine, images["slim"], *listening, options=options) as server:
            joined = (*CONFINED, mounted, f"--network=container:{server.name}")
            with container(engine, images[image], f"--connect={SOCKET}", options=joined) as run:
                run.serves_at(server)
                run.ready()
                idle_kib = _memory(run)
                _load(run)
                most_kib = _memory(run)
                with capsys.disabled():
                    print(
                        f"\nmemory of {image}: ready {idle_kib / 1024:.1f} MiB, at most"
                        f" {most_kib / 1024:.1f} MiB with {SESSIONS} sessions and {AT_ONCE}"
                        f" bodies of {BODY_BYTES} bytes in flight; limit {LIMIT_KIB / 1024:.0f} MiB"
                    )
                assert most_kib < LIMIT_KIB
                assert run.stop() == Ended(0, out_of_memory=False)


def _memory(run: Container) -> int:
    """The most it ever had, in KiB."""
    process = Process.of(run.pid)
    assert process is not None
    return process.most_resident_kib


def _load(run: Container) -> None:
    with ExitStack() as open_sessions, httpx.Client(base_url=run.url, timeout=READY_S) as client:
        sessions = [open_sessions.enter_context(_session(client)) for _ in range(SESSIONS)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rights = pool.map(lambda n: _is_echoed(client, sessions[n % SESSIONS], n), range(CALLS))
            assert sum(rights) == CALLS


@contextmanager
def _session(client: httpx.Client) -> Iterator[str]:
    """Open a session and its own stream; its id."""
    answer = client.post(
        "/mcp",
        json=rpc(
            "initialize",
            protocolVersion="2025-06-18",
            capabilities={},
            clientInfo={"name": "test", "version": "1"},
        ),
        headers=ACCEPT,
    )
    session_id = answer.headers["mcp-session-id"]
    own = {"mcp-session-id": session_id}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert client.post("/mcp", json=ready, headers=ACCEPT | own).status_code == 202
    # A connection of its own, so that the pool's few are free for the calls.
    with (
        httpx.Client(base_url=str(client.base_url), timeout=READY_S) as other,
        other.stream("GET", "/mcp", headers={"accept": "text/event-stream"} | own) as stream,
    ):
        assert stream.status_code == 200
        yield session_id


def _is_echoed(client: httpx.Client, session_id: str, number: int) -> bool:
    text = f"{number}:".ljust(BODY_BYTES, "x")
    body = json.dumps(rpc("tools/call", number, name="echo", arguments={"text": text}))
    headers = ACCEPT | {"mcp-session-id": session_id, "content-type": "application/json"}
    answer = client.post("/mcp", content=body, headers=headers).json()
    said = answer["result"]["content"][0]["text"]
    return bool(answer["id"] == number and said == text)
