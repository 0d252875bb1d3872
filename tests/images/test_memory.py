"""Memory: of the bridge alone in 64 MiB, and of the bridge and its servers in 256 MiB."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.images.conftest import SERVERS
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
from tests.support.bridge_process import messages

LIMIT_KIB = 64 * 1024
SESSIONS = 50
BODY_BYTES = 1_000_000
AT_ONCE = 4
CALLS = 200
SOCKET = "unix:/run/mcp/mcp.sock"
DEMO = ("--", "/opt/mcpbridge/bin/python", "-m", "mcpbridge.demo")
POD = ("--memory=256m", "--memory-swap=256m", "--read-only", "--publish=127.0.0.1::8000")
LARGE = ("--", "/opt/mcpbridge/bin/python", "/srv/large.py")
CLIENTS = 10


@pytest.mark.slow
@pytest.mark.parametrize("image", ["slim", "tree"])
def test_large_bodies_of_many_sessions_fit(
    engine: Engine, images: dict[str, str], image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """50 sessions, each with an open stream; 200 calls of 1 MB each way, 4 of them in flight.

    The server is in its own container, so the 64 MiB are the bridge's alone.
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


@pytest.mark.slow
def test_ten_clients_that_can_be_asked_fit_into_a_container_of_256_mib(
    engine: Engine, images: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten processes of the server would not fit, so that some clients share one.

    All have an open stream, and three calls of each are answered while all ten are there. It is
    ready all the time, and the kernel kills nothing.
    """
    options = (*POD, f"--volume={SERVERS}:/srv:ro")
    with container(engine, images["slim"], *LARGE, options=options) as run:
        run.ready()
        together = Barrier(CLIENTS, timeout=READY_S)
        with ThreadPoolExecutor(CLIENTS) as pool:
            asks = [pool.submit(_asks_thrice, run.url, n, together) for n in range(CLIENTS)]
            ready = [httpx.get(f"{run.url}/readyz").status_code]
            most_processes = 0
            while wait(asks, timeout=0.1).not_done:
                ready.append(run.get("/readyz").status_code)
                most_processes = max(most_processes, len(run.processes()))
            assert [ask.result() for ask in asks] == [True] * CLIENTS
        assert set(ready) == {200}
        metrics = run.get("/metrics").text
        fits = _metric(metrics, "children_max")
        peak_mib = int(_of_cgroup(run, "memory.peak", "memory.max_usage_in_bytes")) / 2**20
        with capsys.disabled():
            print(
                f"\n{CLIENTS} clients in 256 MiB: {fits} server processes fit, at most"
                f" {most_processes - 1} ran, {_metric(metrics, 'shared_fallbacks_total')} clients"
                f" shared one; peak of the container {peak_mib:.1f} MiB; ready at each of"
                f" {len(ready)} looks"
            )
        assert 2 <= fits < CLIENTS
        assert most_processes <= fits + 1
        kills = _of_cgroup(run, "memory.events", "memory.oom_control")
        assert re.findall(r"^oom_kill (\d+)$", kills, re.MULTILINE) == ["0"]
        assert run.stop() == Ended(0, out_of_memory=False)


def _asks_thrice(url: str, number: int, together: Barrier) -> bool:
    """Whether a client that declares roots gets its own answers; it stays until all have them."""
    with (
        httpx.Client(base_url=url, timeout=READY_S) as client,
        _session(client, {"roots": {}}) as session,
    ):
        rights = [_is_echoed(client, session, CLIENTS * call + number) for call in range(3)]
        together.wait()
    return all(rights)


def _metric(metrics: str, name: str) -> int:
    (value,) = re.findall(rf"^mcpbridge_{name} (\S+)$", metrics, re.MULTILINE)
    return int(float(value))


def _of_cgroup(run: Container, name: str, old_name: str) -> str:
    """A file of the container's cgroup, by its name in version 2 and in version 1."""
    both = f"cat /sys/fs/cgroup/{name} 2>/dev/null || cat /sys/fs/cgroup/memory/{old_name}"
    status, out, err = run.exec("sh", "-c", both)
    assert status == 0, err
    return out


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
def _session(client: httpx.Client, capabilities: dict[str, Any] | None = None) -> Iterator[str]:
    """Open a session and its own stream; its id."""
    answer = client.post(
        "/mcp",
        json=rpc(
            "initialize",
            protocolVersion="2025-06-18",
            capabilities=capabilities or {},
            clientInfo={"name": "test", "version": "1"},
        ),
        headers=ACCEPT,
    )
    session_id = answer.headers["mcp-session-id"]
    own = {"mcp-session-id": session_id}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert client.post("/mcp", json=ready, headers=ACCEPT | own).status_code == 202
    # Its own connection, so that the pool's few are free for the calls.
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
    # A slow answer is an event stream if the client has abilities.
    answer = messages(client.post("/mcp", content=body, headers=headers).text)[-1]
    said = answer["result"]["content"][0]["text"]
    return bool(answer["id"] == number and said == text)
