"""Bridges mounted in other programs: the examples of docs/embedding.md, under two ASGI servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from mcpbridge.asgi import bridge_app
from mcpbridge.errors import ConfigError
from tests.support.bridge_process import asked_until

DOCUMENT = Path(__file__).parents[2] / "docs" / "embedding.md"
STARLETTE, FASTAPI = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
SERVERS = {
    "uvicorn": ("uvicorn", "example:app", "--timeout-graceful-shutdown", "1", "--fd"),
    "hypercorn": (
        "hypercorn",
        "example:app",
        "--workers",
        "0",
        "--graceful-timeout",
        "1",
        "--bind",
    ),
}
WITHIN_S = 60.0
ACCEPT = {"accept": "application/json, text/event-stream"}
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
DEMO = [sys.executable, "-m", "mcpbridge.demo"]


class Program(NamedTuple):
    """A running program, and a client of it."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """POST one message."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, json=body, headers={**ACCEPT, **named})

    async def session(self, path: str) -> dict[str, str]:
        """Initialize; return the header of the session."""
        answer = await self.post(path, request("initialize", INITIALIZE))
        assert answer.status_code == 200, answer.text
        return {"mcp_session_id": answer.headers["mcp-session-id"]}

    async def until_in_flight(self, mount: str, count: int) -> None:
        """Wait until that many calls of a bridge are in flight."""

        async def are() -> bool:
            metrics = (await self.client.get(f"{mount}/metrics")).text
            found = re.search(r"^mcpbridge_calls_in_flight ([0-9.]+)", metrics, re.MULTILINE)
            assert found is not None
            return float(found[1]) == count

        await asked_until(are, f"{count} calls in flight")

    def children(self) -> list[int]:
        """The pids of server processes."""
        pid = self.process.pid
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        command = {int(each): Path(f"/proc/{each}/cmdline").read_bytes() for each in pids}
        return [each for each, words in command.items() if b"mcpbridge.demo" in words]


INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def request(method: str, params: object = None) -> dict[str, Any]:
    """A request with id 1."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}


def tool(tool_name: str, meta: object = None, **arguments: object) -> dict[str, Any]:
    """A call of a tool."""
    params: dict[str, Any] = {"name": tool_name, "arguments": arguments}
    return request("tools/call", params | ({"_meta": meta} if meta else {}))


@asynccontextmanager
async def running(folder: Path, example: str, server: str) -> AsyncIterator[Program]:
    """The example served; ended by SIGTERM, with status 0 and no process left."""
    (folder / "example.py").write_text(example)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        address = str(fd) if server == "uvicorn" else f"fd://{fd}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *SERVERS[server], address),
            pass_fds=[fd],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stderr=asyncio.subprocess.PIPE,
        )
    assert process.stderr is not None
    said = asyncio.create_task(process.stderr.read())
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_S) as client,
        ):
            program = Program(process, client)
            yield program
            children = program.children()
            assert len(children) >= 2
            process.send_signal(signal.SIGTERM)
            await process.wait()
            text = (await said).decode()
            # uvicorn logs the end of a stream that it cancels at its deadline as an error.
            errors = re.findall(r"^([\w.]+(?:Error|Gone)\b).*", text, re.MULTILINE)
            assert set(errors) <= {"asyncio.exceptions.CancelledError"}, text
            assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    finally:
        if process.returncode is None:
            process.kill()
            print((await said).decode())
            await process.wait()


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The events of a stream that have data: their types and data."""
    kind = "message"
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and value:
            yield kind, value


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("example", [STARLETTE, FASTAPI], ids=["starlette", "fastapi"])
async def test_an_example_of_the_documents_serves_two_bridges(
    tmp_path: Path, example: str, server: str
) -> None:
    """Both eras, streams, HTTP+SSE, a client that leaves; nothing of one bridge is in the other."""
    async with running(tmp_path, example, server) as program:
        tools, sums = await program.session("/tools/mcp"), await program.session("/sums/")
        answer = await program.post("/sums/mcp", tool("add", a=1, b=2), **sums)
        assert "3" in answer.json()["result"]["content"][0]["text"]
        # Neither knows the other's sessions, nor does a setting of one hold for the other.
        assert (await program.post("/sums/mcp", tool("add", a=1, b=2), **tools)).status_code == 404
        assert "error" in (await program.post("/sums/mcp", tool("echo", text="x"), **sums)).json()
        answer = await program.post("/tools/mcp", tool("echo", text="x"), **tools)
        assert answer.json()["result"]["content"][0]["text"] == "x"
        await _streams_with_progress(program, tools)
        await _leaves_a_modern_call(program)
        await _speaks_http_with_sse(program)
        # A stream that listens holds up nothing at the end: it is open when the program is told.
        headers = {"accept": "text/event-stream", "mcp-session-id": tools["mcp_session_id"]}
        listening = program.client.stream("GET", "/tools/mcp", headers=headers)
        assert (await listening.__aenter__()).status_code == 200


async def _streams_with_progress(program: Program, session: dict[str, str]) -> None:
    call = tool("countdown", {"progressToken": "p"}, seconds=0.2, steps=2)
    headers = {**ACCEPT, "mcp-session-id": session["mcp_session_id"]}
    async with program.client.stream("POST", "/tools/mcp", json=call, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = [json.loads(data) async for _, data in events(response)]
    assert [each.get("method", "answer") for each in found] == [
        *["notifications/progress"] * (len(found) - 1),
        "answer",
    ]
    assert len(found) > 1


async def _leaves_a_modern_call(program: Program) -> None:
    """Its disconnection is its cancellation, in a call that would last ten minutes."""
    headers = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call"}
    answer = await program.post(
        "/tools/mcp", tool("echo", META, text="new"), **headers, mcp_name="echo"
    )
    assert answer.json()["result"]["content"][0]["text"] == "new"
    long = program.post(
        "/tools/mcp", tool("countdown", META, seconds=600), **headers, mcp_name="countdown"
    )
    calling = asyncio.create_task(long)
    await program.until_in_flight("/tools", 1)
    await program.until_in_flight("/sums", 0)
    calling.cancel()
    await program.until_in_flight("/tools", 0)


async def _speaks_http_with_sse(program: Program) -> None:
    accept = {"accept": "text/event-stream"}
    async with program.client.stream("GET", "/tools/sse", headers=accept) as response:
        received = events(response)
        kind, endpoint = await anext(received)
        assert kind == "endpoint"
        assert endpoint.startswith("/tools/messages?session_id=")
        answer = await program.post(endpoint, request("initialize", INITIALIZE))
        assert answer.status_code == 202
        _, data = await anext(received)
        assert json.loads(data)["result"]["serverInfo"]["name"] == "mcpbridge-demo"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_sesions": 1}, "max_sesions: no such setting; did you mean max_sessions?"),
        (
            {"request_timeout": "soon"},
            "--request-timeout (from the command line): 'soon' is not a duration",
        ),
        ({"port": 80}, "--port (from the command line): the program's ASGI server decides it here"),
        (
            {"log_level": "debug"},
            "--log-level (from the command line): the program decides it here",
        ),
        ({"child_user": "x"}, "--child-user (from the command line): it would hold for the whole"),
        ({"max_sessions": {}}, "--max-sessions: a dict is neither text, number, boolean nor list"),
    ],
)
def test_a_wrong_setting_is_refused_when_the_application_is_made(
    settings: dict[str, object], problem: str
) -> None:
    """With what the command line says of it."""
    with pytest.raises(ConfigError) as raised:
        bridge_app(DEMO, **settings)
    assert str(raised.value).startswith(problem)


@pytest.mark.parametrize("command", [["mcpbridge-no-such-command"], [], "python server.py"])
def test_a_command_that_cannot_start_is_refused_when_the_application_is_made(
    command: list[str],
) -> None:
    """Not only when the first client comes."""
    with pytest.raises(ConfigError):
        bridge_app(command)


async def test_a_bridge_whose_lifespan_was_not_entered_says_so() -> None:
    """As 503, with what to do."""
    transport = httpx.ASGITransport(bridge_app(DEMO))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/mcp", json=request("ping"))
    assert answer.status_code == 503
    assert "lifespan_of" in answer.json()["error"]["message"]
