"""A bridge on a unix socket: its file is the lock on the door."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import bridge_process
from tests.support.bridge_process import RunningBridge, messages, open_session, ran, rpc, started
from tests.support.certificates import Authority

pytestmark = pytest.mark.slow


@asynccontextmanager
async def at(
    listen: str, *words: str, env: dict[str, str] | None = None
) -> AsyncIterator[RunningBridge]:
    """A bridge that is ready; it has to end well."""
    async with started("--listen", listen, *words, env=env) as run:
        await run.logged("serve.started")
        await run.logged("child.ready")
        yield run
        assert await run.terminate() == 0


def client_of(path: str, base_url: str = "http://localhost") -> httpx.AsyncClient:
    """A client that comes by this file."""
    transport = httpx.AsyncHTTPTransport(uds=path)
    return httpx.AsyncClient(transport=transport, base_url=base_url, timeout=bridge_process.END_S)


async def test_a_unix_socket_serves_like_a_port_and_is_gone_with_its_bridge(
    tmp_path: Path,
) -> None:
    """Permissions as asked for; sessions, streams, health; a dead bridge's file is replaced."""
    path = tmp_path / "mcp.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with at(f"unix:{path},mode=0660", "--admin-port", "0") as run:
        (record,) = await run.logged("serve.started")
        assert (record["url"], record["address"]) == (f"unix:{path}", f"unix:{path},mode=0660")
        assert record["admin"].startswith("127.0.0.1:")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with client_of(str(path)) as client:
            session = await open_session(client)
            for number in range(20):
                call = rpc(
                    number, "tools/call", {"name": "add", "arguments": {"a": number, "b": 1}}
                )
                answer = await client.post("/mcp", json=call, headers=session)
                assert answer.json()["result"]["structuredContent"] == {"sum": number + 1}
            params = {
                "name": "countdown",
                "arguments": {"seconds": 0.2},
                "_meta": {"progressToken": 1},
            }
            answer = await client.post("/mcp", json=rpc("s", "tools/call", params), headers=session)
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert messages(answer.text)[-1]["id"] == "s"
            # A proxy may leave any name in Host, but not one that another page can have.
            for host, status in (
                ("localhost", 200),
                ("mcp", 200),
                ("127.0.0.1", 200),
                ("evil.example", 421),
            ):
                got = await client.get("/livez", headers={"host": host})
                assert got.status_code == status, host
            for origin in ("http://localhost:5173", "https://evil.example", "null"):
                got = await client.get("/livez", headers={"origin": origin})
                assert got.status_code == 403, origin

        status, text = await ran("health", f"http+unix:{path}")
        assert (status, json.loads(text)["status"]) == (0, "ok")
        assert (await ran("health", env={"MCPBRIDGE_LISTEN": f"unix:{path}"}))[0] == 0
        assert await ran("health", f"unix:{path}") == (0, f"unix:{path} listens\n")

        # Who lives there stays there.
        status, text = await ran("--listen", f"unix:{path}", "--", *bridge_process.DEMO)
        assert (status, f"cannot listen on unix:{path}" in text) == (1, True)
        assert path.exists()
    assert not path.exists()
    status, text = await ran("health", f"http+unix:{path}")
    assert (status, text.startswith(f"no answer from http+unix:{path}: ")) == (1, True)


async def test_a_killed_bridge_leaves_a_file_that_the_next_one_takes(tmp_path: Path) -> None:
    """Only its owner may connect if no permissions are given; TLS goes there too."""
    path = tmp_path / "mcp.sock"
    async with started("--listen", f"unix:{path}") as run:
        await run.logged("child.ready")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        run.signal(signal.SIGKILL)
        await run.ended()
        assert path.exists()
    authority = Authority(tmp_path)
    pair = authority.pair("bridge")
    env = {"MCPBRIDGE_LISTEN": f"unix:{path}", "MCPBRIDGE_TLS_CERT": str(pair.cert)}
    async with started("--tls-key", str(pair.key), env=env) as run:
        await run.logged("child.ready")
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=authority.client())
        async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as client:
            assert (await client.get("/health")).status_code == 200
        assert await run.terminate() == 0
    assert not path.exists()


async def test_a_socket_without_a_file(tmp_path: Path) -> None:
    """A name in the network namespace, where Linux has such."""
    name = f"@mcpbridge-test-{tmp_path.name}-{os.getpid()}"
    async with at(f"unix:{name}") as run:
        (record,) = await run.logged("serve.started")
        assert record["url"] == f"unix:{name}"
        assert (await ran("health", f"http+unix:{name}"))[0] == 0


async def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    """A file of another program is not removed, and a wrong address is reported at the start."""
    (file := tmp_path / "file").write_text("precious")
    status, text = await ran("--listen", f"unix:{file}", "--", *bridge_process.DEMO)
    assert (status, f"cannot listen on unix:{file}" in text) == (1, True)
    status, text = await ran(
        "--listen", f"unix:{tmp_path}/s", "--port", "1", "--", *bridge_process.DEMO
    )
    assert (status, "--port is given as well" in text) == (2, True)
    assert file.read_text() == "precious"
