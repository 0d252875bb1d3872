"""What a test of logging in needs: an authorization server, a bridge for its tokens, clients."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support.bridge_process import RunningBridge, bridge
from tests.support.sdk_servers import PEERS, ROOT

LOGIN_S = 60.0
ASKED = [
    {"scope": "mcp:use", "code_challenge_method": "S256"},
    {"scope": "mcp:use mcp:call", "code_challenge_method": "S256"},
]
"""What every client asks for: first what all calls need, then what tools need in addition."""


@asynccontextmanager
async def authorization_server() -> AsyncIterator[str]:
    """A server made with Authlib, in its own environment; its issuer."""
    python = ROOT / ".venv-oauth" / "bin" / "python"
    assert python.exists(), ".venv-oauth is missing: `make interop` makes it"
    process = await asyncio.create_subprocess_exec(
        str(python), str(PEERS / "authorization_server.py"), stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    words = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(LOGIN_S):
            issuer = (await process.stdout.readline()).decode().strip()
        assert issuer.startswith("http://127.0.0.1:"), issuer
        yield issuer
    finally:
        process.kill()
        await process.wait()
        said = (await words).decode(errors="replace")
    assert '" 500 ' not in said, said


@asynccontextmanager
async def trusting(issuer: str, *words: str) -> AsyncIterator[RunningBridge]:
    """A bridge that takes the issuer's tokens, and for tools wants one scope more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked = (
        *("--port", str(port), "--oauth-issuer", issuer),
        *("--oauth-audience", f"http://127.0.0.1:{port}/mcp"),
        *("--oauth-scope", "mcp:use", "--oauth-method-scope", "tools/call=mcp:call"),
    )
    async with bridge(*asked, *words, env={"NO_PROXY": "127.0.0.1"}) as running:
        yield running


async def logged_in(argv: Sequence[str]) -> dict[str, Any]:
    """The report of a client program that logs in, lists the tools and calls one."""
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(LOGIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode(errors="replace")
    report: dict[str, Any] = json.loads(out)
    return report


def assert_logged_in(report: dict[str, Any], resource: str) -> None:
    """It went through both logins with what it had been told, and its call was answered."""
    assert report["asked"] == [{**each, "resource": resource} for each in ASKED]
    assert "echo" in report["tools"]
    assert report["text"] == "logged in"
