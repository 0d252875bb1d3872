"""The bridge between SDKs of two languages: what the TypeScript SDK made is on one side or both."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.bridge_process import bridge
from tests.support.sdk_clients import Client, python_clients, questioned, reported, toured
from tests.support.sdk_servers import (
    ANSWERS,
    LISTS,
    MORE_TOOLS,
    PEER_PLAN,
    PEER_SHOWS,
    ROOT,
    TOOLS,
    Server,
    demo_server,
    failed,
    fastmcp_server,
    gist,
    in_2026,
    mcp1_server,
    refused,
    said,
    shown,
    steady,
)

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HERE = ROOT / "tests" / "interop"
EVERYTHING = HERE / "node_modules" / "@modelcontextprotocol" / "server-everything"
OLDEST_NODE = 20


def node() -> str:
    """The path of a Node that is new enough; its absence is a failure and not a skip."""
    found = shutil.which("node")
    assert found, "node is missing: these tests need Node >= 20"
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    major = int(version.stdout.removeprefix("v").partition(".")[0])
    assert major >= OLDEST_NODE, f"node is {version.stdout.strip()}: these tests need Node >= 20"
    assert EVERYTHING.exists(), "node_modules is missing: `make interop` makes it"
    return found


def typescript_server() -> Server:
    """The server made with the TypeScript SDK."""
    return Server(
        name="typescript",
        argv=(node(), str(HERE / "server.mjs")),
        plan=PEER_PLAN,
        shows={
            **PEER_SHOWS,
            "tools": [*TOOLS, *MORE_TOOLS],
            "add": said("5"),
            "unknown tool": failed("MCP error -32602: Tool nonesuch not found"),
            "unknown resource": refused(-32602),
            "unknown prompt": refused(-32602),
            "topics": ("completed", "bees", "beans"),
        },
        answers=ANSWERS,
    )


EVERYTHING_PLAN: Mapping[str, Any] = {
    "lists": LISTS,
    "calls": {
        "echo": ["echo", {"message": "tea\r\n\u2028 \U0001f98a"}],
        "sum": ["get-sum", {"a": 2, "b": 3}],
        "structure": ["get-structured-content", {"location": "Chicago"}],
        "too many": ["get-resource-links", {"count": 99}],
        "picture": ["get-tiny-image", {}],
        "unknown tool": ["nonesuch", {}],
    },
    "counted": {"long": ["trigger-long-running-operation", {"duration": 0.4, "steps": 4}]},
    "reads": {
        "document": "demo://resource/static/document/architecture.md",
        "dynamic": "demo://resource/dynamic/text/7",
        "unknown resource": "demo://resource/nonesuch",
    },
    "prompted": {
        "simple": ["simple-prompt", {}],
        "weather": ["args-prompt", {"city": "Oslo", "state": "no"}],
        "unknown prompt": ["nonesuch", {}],
    },
    "completions": {
        "departments": [
            {"type": "ref/prompt", "name": "completable-prompt"},
            {"name": "department", "value": "E"},
        ]
    },
}
WEATHER = '{"temperature":36,"conditions":"Light rain / drizzle","humidity":82}'


def everything_server() -> Server:
    """The reference server that has all there is in the protocol."""
    return Server(
        name="everything",
        argv=(node(), str(EVERYTHING / "dist" / "index.js"), "stdio"),
        plan=EVERYTHING_PLAN,
        shows={
            "ping": {},
            "resourceTemplates": [
                "demo://resource/dynamic/text/{resourceId}",
                "demo://resource/dynamic/blob/{resourceId}",
            ],
            "prompts": ["simple-prompt", "args-prompt", "completable-prompt", "resource-prompt"],
            "echo": said("Echo: tea\r\n\u2028 \U0001f98a"),
            "sum": said("The sum of 2 and 3 is 5."),
            "structure": said(WEATHER),
            "unknown tool": failed("MCP error -32602: Tool nonesuch not found"),
            "long": said("Long running operation completed. Duration: 0.4 seconds, Steps: 4."),
            "unknown resource": refused(-32602),
            "simple": ("prompted", "user", "This is a simple prompt without arguments."),
            "weather": ("prompted", "user", "What's weather in Oslo, no?"),
            "unknown prompt": refused(-32602),
            "departments": ("completed", "Engineering"),
        },
        # Its questions are tools that it lists for clients with the capability only.
        answers={},
        # One holds the time of day; of the other the last step may come with the answer and then
        # is heard by some clients only.
        wavering=frozenset({"dynamic", "long-progress"}),
    )


def typescript_client() -> Client:
    """The client made with the TypeScript SDK."""
    return Client("typescript", (node(), str(HERE / "client.mjs")))


def _client(name: str) -> Client:
    return typescript_client() if name == "typescript" else python_clients()[name]


PYTHON = ["mcp1", "mcp2-legacy", "mcp2-auto"]
NODE_SERVERS = [everything_server, typescript_server]
SERVERS = [*NODE_SERVERS, demo_server, mcp1_server, fastmcp_server]
PAIRS = [
    *((client, server) for client in PYTHON for server in NODE_SERVERS),
    *(("typescript", server) for server in SERVERS),
]
NAMES = [f"{client}-{server.__name__}" for client, server in PAIRS]


@pytest.mark.parametrize(("client_name", "made"), PAIRS, ids=NAMES)
async def test_a_client_sees_of_a_server_what_it_sees_without_the_bridge(
    client_name: str, made: Callable[[], Server]
) -> None:
    """Tools, progress, errors, resources, templates, prompts and completions pass unchanged."""
    client, server = _client(client_name), made()
    async with bridge("--", *server.argv) as between:
        through = await toured(client, server, f"{between.url}/mcp")
    if client.name == "mcp2-auto":
        # It takes the newest revision there is, and the bridge has a newer one than the server.
        assert shown(through, server.shows) == in_2026(dict(server.shows))
    else:
        assert shown(through, server.shows) == dict(server.shows)
        fast_path = await toured(client, server, None)
        assert steady(through, server) == steady(fast_path, server)


@pytest.mark.parametrize("client_name", [*PYTHON, "typescript"])
async def test_what_wavers_in_the_reference_server_arrives_too(client_name: str) -> None:
    """Progress in order and before the answer; a resource made at the time of reading."""
    server = everything_server()
    async with bridge("--", *server.argv) as between:
        seen = await toured(_client(client_name), server, f"{between.url}/mcp")
    assert seen["long-progress"][:3] == [[1, 4], [2, 4], [3, 4]]
    assert seen["long-progress"][3:] in ([], [[4, 4]])
    assert re.search("Resource 7: This is a plaintext resource created at", str(seen["dynamic"]))


@pytest.mark.parametrize("made", [typescript_server, demo_server, mcp1_server, fastmcp_server])
async def test_questions_of_a_server_reach_the_typescript_client(
    made: Callable[[], Server],
) -> None:
    """Elicitation, sampling and roots are answered by a client that declared them."""
    server = made()
    async with bridge("--", *server.argv) as between:
        seen = await questioned(typescript_client(), server, f"{between.url}/mcp")
    assert seen == server.answers


@pytest.mark.parametrize("client_name", PYTHON)
async def test_questions_of_a_typescript_server_reach_the_client(client_name: str) -> None:
    """Elicitation, sampling and roots are answered by a client that declared them."""
    server = typescript_server()
    async with bridge("--", *server.argv) as between:
        seen = await questioned(_client(client_name), server, f"{between.url}/mcp")
    assert seen == server.answers


@pytest.mark.parametrize("isolation", ["auto", "shared", "session"])
async def test_a_typescript_client_gets_all_its_echoes(isolation: str) -> None:
    """40 calls in flight at once to a Node server, each with its own text."""
    server = typescript_server()
    async with bridge("--isolation", isolation, "--", *server.argv) as between:
        url = f"{between.url}/mcp"
        report = await reported(typescript_client(), "echoes", "--ask-pid", target=(url,))
    assert (report["right"], report["wrong"]) == (40, [])
    assert re.fullmatch(r"\('said', '\d+'\)", str(gist(report["child"])))
