"""`mcpbridge sidecar` between clients and a bridge: what passes, what is counted, how it ends."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    messages,
    open_session,
    rpc,
    started,
)

pytestmark = pytest.mark.slow

OF_THE_DASHBOARD = {
    "mcp_requests": {"status", "method"},
    "mcp_request_duration_seconds": set(),
    "mcp_request_size_bytes": set(),
    "mcp_response_size_bytes": set(),
    "mcp_active_connections": set(),
    "mcp_tool_calls": {"tool_name"},
    "mcp_request_errors": {"method", "error_code"},
    "mcp_sse_connections": set(),
    "mcp_sse_connections_active": set(),
    "mcp_sse_connection_duration_seconds": set(),
    "mcp_sse_events": {"event_type"},
    "mcp_proxy_info": {"version", "target"},
}
"""What the operator's dashboard reads, without the suffixes of the types, and the labels."""


@asynccontextmanager
async def sidecar(target: str, *words: str) -> AsyncIterator[tuple[RunningBridge, str, str]]:
    """A sidecar before a target: the process, its URL and the URL of its metrics."""
    async with started(
        "sidecar",
        f"--target-addr={target}",
        "--listen-addr=127.0.0.1:0",
        "--metrics-addr=127.0.0.1:0",
        "--log-level=info",
        *words,
        "--",
    ) as running:
        (record,) = await running.logged("sidecar.started")
        yield running, str(record["listen"]), f"http://{record['metrics']}"


async def scraped(metrics: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; checks the names and labels of the dashboard."""
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{metrics}/metrics")
    families = {f.name: f for f in text_string_to_metric_families(response.text)}
    for name, labels in OF_THE_DASHBOARD.items():
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == labels, sample
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }


async def test_what_passes_is_counted_under_the_names_of_the_dashboard() -> None:
    """Calls, errors, tools and streams; and SIGTERM ends an open stream properly, exit 0."""
    async with bridge() as running, sidecar(f"127.0.0.1:{running.port}") as (own, url, metrics):
        async with httpx.AsyncClient(base_url=f"http://{url}", timeout=20) as client:
            session = await open_session(client)
            listing = await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
            assert {"echo"} <= {tool["name"] for tool in listing.json()["result"]["tools"]}
            for name in ("echo", "made-up"):
                call = rpc(2, "tools/call", {"name": name, "arguments": {"text": "a", "n": 1}})
                answer = await client.post("/mcp", json=call, headers=session)
                assert answer.status_code == 200
                assert "date" in answer.headers
            failed = await client.post("/mcp", json=rpc(3, "made/up"), headers=session)
            assert failed.json()["error"]["code"] == -32601

            async with client.stream("GET", "/mcp", headers=session) as stream:
                assert stream.headers["content-type"] == "text/event-stream"
                async with httpx.AsyncClient() as prober:
                    ready = await prober.get(f"{metrics}/readyz")
                    assert (ready.status_code, ready.json()["missing"]) == (200, {})
                counted = await scraped(metrics)
                own.signal(signal.SIGTERM)
                async for _ in stream.aiter_raw():
                    pass  # ends without an error: the body has its proper end
        assert await own.ended() == 0

    def value(name: str, **labels: str) -> float:
        return counted[name, frozenset(labels.items())]

    assert value("mcp_requests_total", status="200", method="initialize") == 1
    assert value("mcp_requests_total", status="202", method="other") == 1
    assert value("mcp_requests_total", status="200", method="tools/call") == 2
    assert value("mcp_tool_calls_total", tool_name="echo") == 1
    assert value("mcp_tool_calls_total", tool_name="other") == 1
    assert value("mcp_request_errors_total", method="other", error_code="-32601") == 1
    assert value("mcp_request_duration_seconds_count") == 6
    assert value("mcp_sse_connections_total") == 1
    assert value("mcp_sse_connections_active") == 1
    assert value("mcp_active_connections") == 1
    (info,) = (dict(labels) for name, labels in counted if name == "mcp_proxy_info")
    assert info["target"] == f"http://127.0.0.1:{running.port}"


async def test_events_of_an_answer_pass_one_by_one() -> None:
    """What the server says before its answer reaches the client before the answer is there."""
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"\r\nhost: 127.0.0.1:" in head
        assert b"\r\nx-forwarded-host: " in head
        assert b"secret-hop" not in head
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        event = b'event: message\r\ndata: {"jsonrpc":"2.0","method":"first"}\r\n\r\n'
        writer.write(answer + event)
        await writer.drain()
        await release.wait()
        error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}
        writer.write(b"event: message\r\ndata: " + json.dumps(error).encode() + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, sidecar(f"127.0.0.1:{port}") as (own, url, metrics):
        headers = {**ACCEPT, "connection": "x-hop", "x-hop": "secret-hop"}
        request = rpc(1, "tools/call", {"name": "echo"})
        async with (
            asyncio.timeout(20),
            httpx.AsyncClient(timeout=20) as client,
            client.stream("POST", f"http://{url}/mcp", json=request, headers=headers) as stream,
        ):
            pieces = stream.aiter_text()
            first = ""
            while not first.endswith("\r\n\r\n"):
                first += await anext(pieces)
            assert messages(first) == [{"jsonrpc": "2.0", "method": "first"}]
            release.set()
            rest = "".join([piece async for piece in pieces])
        assert messages(rest)[0]["error"]["code"] == -32602
        counted = await scraped(metrics)
        assert await own.terminate() == 0
    assert counted["mcp_sse_events_total", frozenset({("event_type", "message")})] == 2
    errors = frozenset({("method", "tools/call"), ("error_code", "-32602")})
    assert counted["mcp_request_errors_total", errors] == 1
    assert counted["mcp_sse_connections_total", frozenset()] == 0


async def test_a_target_that_is_down_is_told_as_503_and_unready(tmp_path: Path) -> None:
    """Over TLS as well; a flag of another day is logged, and breaks nothing."""
    certificate, key = _certificate(tmp_path)
    # Bound and not listening: connections are refused, and no other program can take the port.
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    flags = (
        "--tls-enabled=true",
        f"--tls-cert-file={certificate}",
        f"--tls-key-file={key}",
        "--tls-min-version=1.3",
        "--health-check-interval=10s",
        "--from-the-future=1",
    )
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with sidecar(f"127.0.0.1:{port}", *flags) as (own, url, metrics):
        async with httpx.AsyncClient(verify=trusting, timeout=20) as client:
            answer = await client.post(f"https://{url}/mcp", json=rpc(1, "ping"), headers=ACCEPT)
            assert answer.status_code == 503
            assert answer.json()["error"]["message"] == "the MCP server is not reachable"
            assert (await client.get(f"{metrics}/healthz")).status_code == 200
            ready = await client.get(f"{metrics}/readyz")
            assert (ready.status_code, list(ready.json()["missing"])) == (503, ["target"])
        assert [record["flag"] for record in own.events("sidecar.unknown_flag")] == [
            "--from-the-future=1"
        ]
        counted = await scraped(metrics)
        assert await own.terminate() == 0
    nobody.close()
    asked = frozenset({("status", "503"), ("method", "ping")})
    assert counted["mcp_requests_total", asked] == 1


async def test_a_target_that_breaks_off_is_told_as_502() -> None:
    """Before the head of an answer; the request is not sent a second time."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, sidecar(f"127.0.0.1:{port}") as (own, url, _):
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.post(f"http://{url}/mcp", json=rpc(1, "ping"), headers=ACCEPT)
        assert answer.status_code == 502
        assert await own.terminate() == 0
    assert connections == 1


@asynccontextmanager
async def recording_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers 200 to whole requests, and the bytes of each request it was sent."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(lines.get(b"content-length", b"0")))
        requests.append(head + body)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def said(url: str, *segments: bytes) -> bytes:
    """What the sidecar answers to these bytes, until it closes the connection."""
    host, port = url.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for segment in segments:
        writer.write(segment)
        await writer.drain()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


async def test_requests_with_two_readings_are_refused_and_passed_to_no_server() -> None:
    """`*` as the target, CONNECT, two Host headers: 400, and the connection closes."""
    async with recording_server() as (port, requests), sidecar(f"127.0.0.1:{port}") as (_, url, _m):
        for head in (
            b"GET * HTTP/1.1\r\nhost: a\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
            b"GET /mcp HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        ):
            assert (await said(url, head)).startswith(b"HTTP/1.1 400 "), head
    assert requests == []


async def test_an_offer_to_upgrade_is_ignored_and_the_body_passed_whole() -> None:
    """RFC 9110, 7.8: the sidecar takes no other protocol, so the request is an ordinary one."""
    head = (
        b"POST /mcp HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n"
        b"content-length: 7\r\n\r\n"
    )
    async with recording_server() as (port, requests), sidecar(f"127.0.0.1:{port}") as (_, url, _m):
        answer = await said(url, head, b'{"a":1}')
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    (request,) = requests
    assert request.endswith(b'\r\n\r\n{"a":1}')
    assert b"upgrade" not in request.lower()


async def test_a_head_that_does_not_come_whole_is_cut() -> None:
    """Else a thousand connections with half a head would hold every descriptor."""
    async with sidecar("127.0.0.1:1", "--header-timeout=100ms") as (_, url, _m):
        answer = await said(url, b"GET /mcp HTTP/1.1\r\nhost: ")
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        whole = await said(url, b"GET /mcp HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert whole.startswith(b"HTTP/1.1 503 ")


async def test_only_the_sidecar_says_who_the_client_is() -> None:
    """X-Forwarded-* and Forwarded of the client are dropped; Host passes: the server judges it."""
    head = (
        b"GET /mcp HTTP/1.1\r\nhost: tools.example\r\nconnection: close\r\n"
        b"x-forwarded-for: 10.9.9.9\r\nx-forwarded-host: evil\r\nx-forwarded-proto: https\r\n"
        b"x-forwarded-port: 1\r\nforwarded: for=10.9.9.9\r\nx-real-ip: 10.9.9.9\r\n\r\n"
    )
    async with recording_server() as (port, requests), sidecar(f"127.0.0.1:{port}") as (_, url, _m):
        assert (await said(url, head)).startswith(b"HTTP/1.1 200 OK\r\n")
    (request,) = requests
    lines = sorted(request.lower().split(b"\r\n")[1:-2])
    assert [line for line in lines if line.startswith((b"host", b"forwarded", b"x-"))] == [
        b"host: tools.example",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-host: tools.example",
        b"x-forwarded-proto: http",
    ]


async def test_a_port_that_is_taken_ends_the_start() -> None:
    """Exit status 1, and the log says why."""
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken, started("sidecar", f"--listen-addr=127.0.0.1:{port}", "--") as own:
        assert await own.ended() == 1
        await own.logged("sidecar.failed")


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sidecar")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.crt", folder / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
