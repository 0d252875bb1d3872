"""The reference server, recorded with the Inspector, replayed to it, to FastMCP and raw clients.

What a client gets from a replay are the bytes that the server said, under other ids.
"""

from __future__ import annotations

import asyncio
import json
import sys
import xml.etree.ElementTree as ET
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mcpbridge.tape.recording import read_recording
from mcpbridge.tape.replay import exchanges_of
from mcpbridge.wire.messages import Result, decode
from tests.support.bridge_process import RunningBridge, bridge, open_session, ran, rpc
from tests.support.inspector import NODE_MODULES, inspected, node
from tests.support.modern_client import headers_of, meta
from tests.support.sdk_servers import PEERS, interpreter

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

SERVER = NODE_MODULES / "@modelcontextprotocol/server-everything/dist/index.js"
WITHIN_S = 60.0
VERIFIED_WITHIN_S = 240.0
FEATURES = "demo://resource/static/document/features.md"
HARD = "tea \u2028 \U0001f98a <&>"
CALLS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("echo", {"message": HARD}),
    ("get-sum", {"a": 2, "b": 0.5}),
    ("get-structured-content", {"location": "Chicago"}),
    ("get-tiny-image", {}),
    ("trigger-long-running-operation", {"duration": 0.2, "steps": 2}),
)
PROMPT: tuple[str, Mapping[str, str]] = ("args-prompt", {"city": "Paris"})
REQUESTS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("tools/list", {}),
    ("resources/list", {}),
    ("prompts/list", {}),
    *(("tools/call", {"name": name, "arguments": given}) for name, given in CALLS),
    ("prompts/get", {"name": PROMPT[0], "arguments": PROMPT[1]}),
    ("resources/read", {"uri": FEATURES}),
)
"""What is asked, by every client."""
PLAN = json.dumps({"calls": CALLS, "prompts": [PROMPT], "reads": [FEATURES]})


def everything() -> tuple[str, ...]:
    """The command of the reference server."""
    assert SERVER.exists(), "the reference server is missing: `make interop` installs it"
    return (node(), str(SERVER), "stdio")


def words_of(method: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """A request in the words of the Inspector."""
    words = ("--method", method)
    match method:
        case "tools/call":
            given = json.dumps(params["arguments"])
            return (*words, "--tool-name", params["name"], "--tool-args-json", given)
        case "prompts/get":
            texts = [f"{name}={value}" for name, value in params["arguments"].items()]
            return (*words, "--prompt-name", params["name"], "--prompt-args", *texts)
        case "resources/read":
            return (*words, "--uri", params["uri"])
    return words


async def by_inspector(running: RunningBridge, home: Path) -> list[Any]:
    """What the Inspector prints for each request; each one is a session."""
    target = ("--transport", "http", "--server-url", f"{running.url}/mcp")
    seen = [await inspected(target, words_of(*each), home) for each in REQUESTS]
    assert [each.status for each in seen] == [0] * len(REQUESTS), seen
    return [each.result for each in seen]


async def by_fastmcp(running: RunningBridge) -> Any:
    """What a client of FastMCP 4 sees."""
    words = (interpreter(2), str(PEERS / "client_fastmcp4.py"), f"{running.url}/mcp", PLAN)
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(WITHIN_S):
            out, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
    return json.loads(out)


@asynccontextmanager
async def recording(path: Path, *command: str) -> AsyncIterator[RunningBridge]:
    """A bridge over this command that records."""
    words = ("--no-watch", "--no-page", "--record", str(path))
    async with bridge(*words, "--", *command, program=["dev"]) as running:
        yield running


@asynccontextmanager
async def replaying(path: Path, again: Path) -> AsyncIterator[RunningBridge]:
    """A bridge over the replay of a recording, which records what the replay says."""
    async with recording(again, sys.executable, "-m", "mcpbridge", "replay", str(path)) as running:
        yield running


def answers_in(path: Path) -> dict[tuple[str, str], set[bytes]]:
    """The results in a recording as their bytes, by the method and the params of their requests."""
    found: dict[tuple[str, str], set[bytes]] = {}
    for each in exchanges_of(read_recording(path).frames):
        params = json.loads(each.request.params or b"{}")
        params.pop("_meta", None)
        if each.request.method == "initialize":
            params = {}  # names the client
        key = (each.request.method, json.dumps(params, sort_keys=True))
        results = {reply.result for reply in each.answer if isinstance(reply, Result)}
        found.setdefault(key, set()).update(results)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The recording of the reference server, and what the Inspector saw of it."""
    folder = tmp_path_factory.mktemp("recorded")
    path = folder / "everything.jsonl"
    async with recording(path, *everything()) as running:
        seen = await by_inspector(running, folder)
    return path, seen


Recorded = tuple[Path, list[Any]]


async def test_the_inspector_sees_the_same(recorded: Recorded, tmp_path: Path) -> None:
    """Each result that it prints; and the replay says nothing that the server has not said."""
    path, seen = recorded
    again = tmp_path / "again.jsonl"
    async with replaying(path, again) as running:
        assert await by_inspector(running, tmp_path) == seen
    assert_said_before(again, path)


async def test_fastmcp_sees_the_same(recorded: Recorded, tmp_path: Path) -> None:
    """Of the replay what it sees of the server, though the Inspector was recorded."""
    again = tmp_path / "again.jsonl"
    async with bridge("--", *everything()) as running:
        live = await by_fastmcp(running)
    async with replaying(recorded[0], again) as running:
        assert await by_fastmcp(running) == live
    assert_said_before(again, recorded[0])


async def by_raw_clients(running: RunningBridge) -> dict[str, list[bytes]]:
    """The bodies that a client of a legacy revision gets, and a modern one."""
    seen: dict[str, list[bytes]] = {"legacy": [], "modern": []}
    async with running.client() as client:
        session = await open_session(client)
        for number, (method, params) in enumerate(REQUESTS):
            asked = rpc(number, method, params)
            response = await client.post("/mcp", json=asked, headers=session)
            seen["legacy"].append(response.content)
            asked = rpc(number, method, {**params, "_meta": meta()})
            response = await client.post("/mcp", json=asked, headers=headers_of(asked))
            seen["modern"].append(response.content)
    return seen


async def test_raw_clients_get_the_same_bytes(recorded: Recorded, tmp_path: Path) -> None:
    """Of the replay as of the server: the server's own in the legacy revisions, translated ones
    in the modern one."""
    path, again = recorded[0], tmp_path / "again.jsonl"
    async with bridge("--", *everything()) as running:
        live = await by_raw_clients(running)
    async with replaying(path, again) as running:
        assert await by_raw_clients(running) == live
    assert_said_before(again, path)
    before = answers_in(path)
    for number, ((method, params), body) in enumerate(zip(REQUESTS, live["legacy"], strict=True)):
        reply = decode(body)
        assert isinstance(reply, Result)
        assert reply.id == b"%d" % number
        assert reply.result in before[method, json.dumps(params, sort_keys=True)]
    assert all(isinstance(decode(each), Result) for each in live["modern"])


async def test_the_server_is_verified(recorded: Recorded) -> None:
    """It has the answers that were recorded of it; what JUnit says of that is XML."""
    words = ("verify", str(recorded[0]), "--format", "junit", "--", *everything())
    # It starts the server once for each session of the Inspector.
    status, told = await ran(*words, within_s=VERIFIED_WITHIN_S)
    suites = ET.fromstring(told)
    assert (status, suites.get("failures")) == (0, "0"), told
    names = {str(case.get("name")).partition(" ")[2] for case in suites.iter("testcase")}
    assert {f"tools/call {name}" for name, _ in CALLS} <= names
    assert {"initialize", "tools/list", f"resources/read {FEATURES}"} <= names


def assert_said_before(again: Path, path: Path) -> None:
    """Every result in one recording is, byte by byte, in another one."""
    before, after = answers_in(path), answers_in(again)
    assert {("tools/list", "{}"), ("initialize", "{}")} <= after.keys() <= before.keys()
    assert {key for key, results in after.items() if not results <= before[key]} == set()
