"""Refused requests leave a trace: one record for each kind, and a count."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import ACCEPT, RunningBridge, bridge, open_session, rpc
from tests.support.proofs import proves
from tests.support.raw_http import post, wire

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

JSON = {"content-type": "application/json"}
TIMES = 50
KINDS: list[tuple[str, int, str, dict[str, str], bytes, dict[str, str]]] = [
    (
        "host",
        421,
        "/mcp",
        {"host": "box.local"},
        b"{}",
        {"host": "box.local", "try": "--allowed-host box.local"},
    ),
    (
        "origin",
        403,
        "/mcp",
        {"origin": "https://app.example.org"},
        b"{}",
        {"origin": "https://app.example.org", "try": "--allow-origin https://app.example.org"},
    ),
    ("cross_site", 403, "/mcp", {"sec-fetch-site": "cross-site"}, b"{}", {}),
    ("path", 404, "/api", {}, b"{}", {"path": "/api", "try": "--path /api"}),
    ("accept", 406, "/mcp", {"accept": "text/html"}, b"{}", {"accept": "text/html"}),
    ("content_type", 415, "/mcp", {"content-type": "text/x"}, b"{}", {"content_type": "text/x"}),
    ("content_encoding", 415, "/mcp", {"content-encoding": "gzip"}, b"{}", {}),
    ("message", 400, "/mcp", {}, b"{", {}),
    ("session", 404, "/mcp", {"mcp-session-id": "0123456789"}, b"", {"mcp_session_id": "01234567"}),
    (
        "revision",
        400,
        "/mcp",
        {"mcp-protocol-version": "1999-01-01"},
        b"",
        {"mcp_protocol_version": "1999-01-01"},
    ),
    (
        "body_size",
        413,
        "/mcp",
        {},
        b" " * 5000,
        {"content_length": "5000", "try": "--max-request-bytes 5000"},
    ),
]


def _of(reason: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a record is of this kind."""
    return lambda record: bool(record["reason"] == reason)


async def metric(running: RunningBridge, reason: str) -> float:
    """The count of one kind."""
    async with running.client() as client:
        text = (await client.get("/metrics")).text
    name = "mcpbridge_requests_refused_total"
    found = re.search(rf'^{name}\{{reason="{reason}"\}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


@proves("fault 135")
async def test_each_kind_of_refusal_is_logged_once_and_counted() -> None:
    """However often it happens, with what was refused and the setting that admits it."""
    call = json.dumps(rpc(1, "ping")).encode()
    async with bridge("--max-request-bytes", "4KiB") as running, running.client() as client:
        for reason, status, path, headers, body, _ in KINDS:
            given = {**ACCEPT, **JSON, **headers}
            for _ in range(TIMES):
                answer = await client.post(path, content=body or call, headers=given)
                assert answer.status_code == status, (reason, answer.text)
        for reason, status, _, _, _, fields in KINDS:
            await running.logged("request.refused", _of(reason))
            (record,) = filter(_of(reason), running.events("request.refused"))
            assert fields.items() <= record.items(), record
            assert (record["status"], record["client"]) == (status, "127.0.0.1")
            assert record["level"] == ("warning" if "try" in fields else "info")
            assert await metric(running, reason) == TIMES
        assert len(running.log) < 100


async def test_a_refused_host_is_named_to_its_client() -> None:
    """So that a client's log has it too."""
    async with bridge() as running, running.client() as client:
        answer = await client.post("/mcp", json=rpc(1, "ping"), headers={"host": "box.local:8000"})
    assert answer.status_code == 421
    problem = "Host 'box.local:8000' is not served here (--allowed-host)"
    assert answer.json()["error"]["message"] == problem


@proves("fault 135")
async def test_bytes_that_are_no_request_leave_one_record() -> None:
    """Of whatever connection they come on."""
    async with bridge() as running:
        for garbage in [b"nonsense\r\n\r\n"] * 20 + [
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"
        ] * 20:
            async with wire(running.port) as connection:
                await connection.send(garbage)
                assert (await connection.response()).status == 400
        (record,) = await running.logged("request.refused")
        assert (record["reason"], record["client"]) == ("framing", "127.0.0.1")
        assert await metric(running, "framing") == 40


@proves("fault 135")
async def test_a_refusal_under_a_known_head_leaves_a_record_too() -> None:
    """There the connection answers itself."""
    async with bridge() as running, running.client() as client:
        session = await open_session(client)
        lines = [f"{name}: {value}" for name, value in {**ACCEPT, **session}.items()]
        async with wire(running.port) as connection:
            for number in range(10):
                await connection.send(post(json.dumps(rpc(number, "ping")).encode(), *lines))
                assert (await connection.response()).status == 200
            for _ in range(10):
                await connection.send(post(b"{", *lines))
                assert (await connection.response()).status == 400
        (record,) = await running.logged("request.refused")
        assert (record["reason"], record["status"]) == ("message", 400)
        assert await metric(running, "message") == 10


async def test_a_token_that_is_refused_is_not_logged(tmp_path: Path) -> None:
    """The refusal is."""
    tokens = tmp_path / "tokens"
    tokens.write_text("someone:" + "s3cr3t" * 8 + "\n", "utf-8")
    tokens.chmod(0o600)
    async with bridge("--auth-token-file", str(tokens)) as running, running.client() as client:
        for _ in range(5):
            headers = {"authorization": "Bearer wrong-but-private"}
            answer = await client.post("/mcp", json=rpc(1, "ping"), headers=headers)
            assert answer.status_code == 401
        (record,) = await running.logged("request.refused")
        assert (record["reason"], record["status"]) == ("credentials", 401)
        assert "wrong-but-private" not in str(running.log)
