"""`mcpbridge list` and `mcpbridge call`: their output and their exit statuses."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.bridge_process import DEMO, child, ran, started
from tests.support.fake_remote import Got, fake_remote, respond, result
from tests.support.proofs import proves
from tests.support.servers_file import entry, write_servers

pytestmark = pytest.mark.slow


async def test_the_tools_of_a_command_and_of_a_url_are_the_same() -> None:
    """One line for each, with its arguments; JSON on demand."""
    status, of_command = await ran("list", "--", *DEMO)
    assert status == 0
    lines = of_command.splitlines()
    assert "add a=… b=… - Add two numbers." in lines
    assert "countdown seconds=… [steps=…] - Report steps, lift off." in lines
    async with started("--port", "0") as running:
        (record,) = await running.logged("serve.started")
        await running.logged("child.ready")
        for url in (record["url"], str(record["url"]).replace("/mcp", "/sse")):
            assert await ran("list", url) == (0, of_command)
        status, printed = await ran("list", "--json", record["url"])
        tools = json.loads(printed)
        assert (status, len(tools)) == (0, len(lines))
        assert await ran("call", record["url"], "add", "a=1", "b=2") == (0, "3\n")
        assert await running.terminate() == 0


async def test_values_are_texts_or_json_as_the_schema_says() -> None:
    """A number for a tool that adds, the same digits as a text for one that echoes."""
    assert await ran("call", "add", "a=1.5", "b=2", "--", *DEMO) == (0, "3.5\n")
    assert await ran("call", "echo", "text=12", "--", *DEMO) == (0, "12\n")
    status, printed = await ran("call", "--json", "add", "a=1", "b=2", "--", *DEMO)
    assert status == 0
    assert json.loads(printed)["structuredContent"] == {"sum": 3}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("call", "fail", "message=no luck", "--", *DEMO), 1, "no luck"),
        (("call", "none_such", "--", *DEMO), 1, "the server answered with an error"),
        (("call", "add", "a", "--", *DEMO), 2, "'a' is not key=value"),
        (("call", "add", "a=1", "a=2", "--", *DEMO), 2, "'a' is given twice"),
        (("call", "http://127.0.0.1:1/mcp"), 2, "give the name of a tool"),
        (("list",), 2, "give a URL, or a command after --"),
        (("list", "http://x", "--", "true"), 2, "give a URL, or a command after --"),
        (("list", "--timeout", "soon", "--", *DEMO), 2, "--timeout"),
        (("list", "http://127.0.0.1:1/mcp"), 3, "cannot be reached"),
        (("list", "--", "/none/such"), 3, "cannot start '/none/such'"),
        (("list", "--", "true"), 3, "the server ended before it answered initialize"),
    ],
)
async def test_the_exit_status_says_what_failed(
    words: tuple[str, ...], status: int, said: str
) -> None:
    """1: the tool or the server; 2: the words; 3: the way to the server."""
    found, printed = await ran(*words)
    assert (found, said in printed) == (status, True), printed


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 No POST"])
async def test_an_address_without_mcp_is_told(status: str) -> None:
    """A server of files, or a wrong path: the error asks whether it is the right one."""

    async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
        respond(writer, status, b"<html>", "text/html")

    async with fake_remote(answer) as remote:
        found, printed = await ran("list", remote.url)
    assert found == 3
    assert f"answered {status}; is this the address of an MCP endpoint" in printed


async def test_a_server_of_the_file_is_named(tmp_path: Path) -> None:
    """The file of this folder, or another one; started or elsewhere, with what its entry says."""

    async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.headers.get("x-key") != "$literal":
            respond(writer, "403 Forbidden")
        elif got.rpc == "tools/list":
            result(writer, got, {"tools": [{"name": "far_away"}]})
        elif got.rpc == "initialize":
            value = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            result(writer, got, {**value, "serverInfo": {"name": "x", "version": "1"}})
        else:
            respond(writer, "202 Accepted" if got.body else "405 Method Not Allowed")

    async with fake_remote(answer) as remote:
        servers = {
            "near": entry(child("environ"), env={"PLACE": "near"}),
            "far": {"url": remote.url, "headers": {"X-Key": "$literal"}},
            "wrong": entry(DEMO, env={"TOKEN": "${NO_SUCH_VARIABLE}"}),
        }
        write_servers(tmp_path / ".mcp.json", servers)
        status, printed = await ran("call", "near", "environ", 'names=["PLACE"]', cwd=tmp_path)
        assert (status, json.loads(printed)["PLACE"]) == (0, "near")
        assert await ran("list", "far", cwd=tmp_path) == (0, "far_away\n")
        file = write_servers(tmp_path / "other.json", {"demo": entry(DEMO)})
        assert await ran("call", "demo", "add", "a=1", "b=2", "--config", str(file)) == (0, "3\n")
        for words, said in (
            (("list", "other"), "unknown server 'other' (servers: near, far, wrong)"),
            (("list", "wrong"), "the variable NO_SUCH_VARIABLE is not set"),
            (("list", "far", "--header", "A: b"), "--header and --token-file are for a URL"),
        ):
            status, printed = await ran(*words, cwd=tmp_path)
            assert (status, said in printed) == (2, True), printed
    (tmp_path / "empty").mkdir()
    status, printed = await ran("list", "far", cwd=tmp_path / "empty")
    assert (status, "this folder has none of .mcp.json" in printed) == (2, True), printed


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    """After `--timeout`, whose name the message has."""
    status, printed = await ran("list", "--timeout", "300ms", "--", "tail", "-f", "/dev/null")
    assert (status, "--timeout" in printed) == (3, True), printed


async def test_a_modern_server_is_spoken_to_in_its_era(tmp_path: Path) -> None:
    """One that knows no `initialize` gets the envelope of 2026-07-28; every page is read."""
    server = child("toolbox", "modern", str(tmp_path))
    status, printed = await ran("list", "--", *server)
    assert status == 0, printed
    names = [line.split()[0] for line in printed.splitlines()]
    assert names == ["read_it", "wipe_it", "read_odd", "wipe_all", "read_last"]
    assert await ran("call", "read_it", "--", *server) == (0, "did read_it\n")


@proves("fault 139")
async def test_what_a_server_says_cannot_change_the_terminal() -> None:
    """Escape sequences in names and descriptions are replaced."""

    async def answer(got: Got, writer: asyncio.StreamWriter) -> None:
        if got.rpc == "tools/list":
            result(writer, got, {"tools": [{"name": "a\x1b[2Jb", "description": "c\x07"}]})
        elif got.rpc == "initialize":
            value = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            result(writer, got, {**value, "serverInfo": {"name": "x", "version": "1"}})
        else:
            respond(writer, "202 Accepted" if got.body else "405 Method Not Allowed")

    async with fake_remote(answer) as remote:
        assert await ran("list", remote.url) == (0, "a\ufffd[2Jb - c\ufffd\n")


async def test_a_server_that_asks_while_it_is_stopped_is_no_error() -> None:
    """As servers do that learn late what their client can do."""
    script = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    began = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x"}}
    result = {"tools": []} if asked["method"] == "tools/list" else began
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
print('{"jsonrpc":"2.0","id":1,"method":"roots/list"}', flush=True)
"""
    assert await ran("list", "--", sys.executable, "-c", script) == (0, "")
