"""HTTPS as clients see it: who is let in, what is renewed, and what is not TLS at all."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from tests.support import bridge_process
from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    initialize,
    messages,
    open_session,
    ran,
    rpc,
)
from tests.support.certificates import Authority, Pair
from tests.support.proofs import proves
from tests.support.raw_http import Wire

pytestmark = pytest.mark.slow

WITHIN_S = 20.0


def with_tls(pair: Pair, *more: str) -> tuple[str, ...]:
    """The words of a bridge with these files."""
    return ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), *more)


@asynccontextmanager
async def connected(run: RunningBridge, context: ssl.SSLContext | None) -> AsyncIterator[Connected]:
    """One connection, by TLS or without."""
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port, ssl=context)
    try:
        yield Connected(reader, writer)
    finally:
        writer.transport.abort()


class Connected(Wire):
    """A connection whose certificate can be looked at."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.reader = reader
        self.tls: ssl.SSLObject = writer.get_extra_info("ssl_object")

    @property
    def shown(self) -> int:
        """The serial number of what the bridge has shown."""
        return x509.load_der_x509_certificate(self.tls.getpeercert(True) or b"").serial_number

    async def asked(self) -> int:
        """The status of a probe on this connection."""
        await self.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return (await self.response()).status


def serial_of(pair: Pair) -> int:
    """The serial number of a certificate."""
    return x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number


async def shown_at(run: RunningBridge, context: ssl.SSLContext) -> int:
    """What a new connection is shown."""
    async with connected(run, context) as connection:
        return connection.shown


async def let_in(run: RunningBridge, context: ssl.SSLContext) -> bool:
    """Whether a client with such a context is answered."""
    try:
        async with connected(run, context) as connection, asyncio.timeout(WITHIN_S):
            # With TLS 1.3 a client hears only after its part that it was not believed.
            return await connection.asked() == 200
    except (OSError, asyncio.IncompleteReadError):
        return False


async def test_everything_is_served_over_tls(tmp_path: Path) -> None:
    """Sessions, a call in one piece after the other, streams; 1.2 and 1.3, nothing older."""
    authority = Authority(tmp_path)
    trust = authority.client()
    async with bridge(*with_tls(authority.pair("bridge"))) as run:
        (record,) = await run.logged("serve.started")
        assert record["url"] == f"https://127.0.0.1:{run.port}/mcp"
        async with run.client(verify=trust) as client:
            session = await open_session(client)
            for number in range(50):
                call = rpc(
                    number, "tools/call", {"name": "add", "arguments": {"a": number, "b": 1}}
                )
                answer = await client.post("/mcp", json=call, headers=session)
                assert answer.json()["result"]["structuredContent"] == {"sum": number + 1}
            # A progress token makes a stream of the answer.
            params = {
                "name": "countdown",
                "arguments": {"seconds": 0.2},
                "_meta": {"progressToken": 1},
            }
            answer = await client.post("/mcp", json=rpc("s", "tools/call", params), headers=session)
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert messages(answer.text)[-1]["id"] == "s"
            assert (await client.delete("/mcp", headers=session)).status_code == 200
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            only = authority.client()
            only.minimum_version = only.maximum_version = version
            only.set_alpn_protocols(["h2", "http/1.1"])
            async with connected(run, only) as connection:
                assert connection.tls.selected_alpn_protocol() == "http/1.1"
                assert await connection.asked() == 200
        old = authority.client()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        # Whether the alert comes before the connection ends is up to the event loop.
        with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
            await shown_at(run, old)
        assert getattr(refused.value, "reason", None) != "NO_PROTOCOLS_AVAILABLE"


@proves("fault 61")
async def test_what_is_no_tls_and_tls_where_there_is_none_end_quietly(tmp_path: Path) -> None:
    """Only a refusal is logged, and nothing is left behind: the next client is served."""
    authority = Authority(tmp_path)
    trust = authority.client()
    async with bridge(*with_tls(authority.pair("bridge"), "--header-timeout", "1s")) as run:
        await run.logged("serve.ready")
        before = len(run.log)
        plain = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
        for data in (plain, b"\0" * 4096, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x16"):
            async with connected(run, None) as connection, asyncio.timeout(WITHIN_S):
                await connection.send(data)
                try:
                    heard = await connection.reader.read()
                except ConnectionError:
                    heard = b""
                assert not heard.startswith(b"HTTP")
        # Who never says anything is cut after --header-timeout, and not after a minute.
        async with connected(run, None) as connection, asyncio.timeout(WITHIN_S):
            assert await connection.reader.read() == b""
        # Over TLS no half of a connection can be closed alone.
        async with connected(run, trust) as connection, asyncio.timeout(WITHIN_S):
            await connection.send(b"GET / HTTP/1.1\r\nx: " + b"x" * 70_000)
            assert (await connection.response()).status == 431
            assert await connection.reader.read() == b""
        assert await let_in(run, trust)
        (refused,) = await run.logged("request.refused")
        assert refused["status"] == 431
        assert _of_connections(run, before) == [refused]
    async with bridge() as run:
        await run.logged("serve.ready")
        before = len(run.log)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(run, trust):
                """It gets no further than the handshake."""
        async with run.client() as client:
            assert (await client.get("/livez")).status_code == 200
        assert {record["level"] for record in _of_connections(run, before)} <= {"info", "warning"}


def _of_connections(run: RunningBridge, since: int) -> list[dict[str, Any]]:
    """The records since then, but for that of the memory, which is measured beside."""
    return [record for record in run.log[since:] if record["event"] != "child_pool.sized"]


async def test_a_new_certificate_serves_new_connections(tmp_path: Path) -> None:
    """Found by itself, or told by SIGHUP; a pair that does not fit keeps the old one serving."""
    authority = Authority(tmp_path)
    trust = authority.client()
    first, second, third = (authority.pair(name) for name in ("first", "second", "third"))
    now = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    now.replace_with(first)
    async with bridge(*with_tls(now)) as run, connected(run, trust) as standing:
        assert standing.shown == serial_of(first)

        # The half of a renewal: the certificate is there, its key not yet.
        Pair(now.cert, now.cert).replace_with(Pair(second.cert, second.cert))
        while not run.events("tls.reload_failed"):
            assert await shown_at(run, trust) == serial_of(first)
            await asyncio.sleep(0.1)  # it looks once a second, when a connection comes
        (kept,) = await run.logged("tls.reload_failed")
        assert "--tls-key" in kept["problem"]
        assert "is not the key of the certificate" in kept["problem"]
        now.replace_with(second)
        while not run.events("tls.reloaded"):
            assert await shown_at(run, trust) in (serial_of(first), serial_of(second))
            await asyncio.sleep(0.1)  # as above
        assert await shown_at(run, trust) == serial_of(second)

        # Told by a signal, it need not be asked for a second.
        now.replace_with(third)
        run.signal(signal.SIGHUP)
        await run.logged("tls.reloaded", count=2)
        assert await shown_at(run, trust) == serial_of(third)
        (heard,) = await run.logged("serve.signal")
        assert (heard["signal"], heard["ignored"]) == ("SIGHUP", False)

        now.key.unlink()
        run.signal(signal.SIGHUP)
        await run.logged("tls.reload_failed", lambda record: "cannot be read" in record["problem"])
        assert await shown_at(run, trust) == serial_of(third)
        assert await standing.asked() == 200
        assert standing.shown == serial_of(first)
        assert "BEGIN" not in json.dumps(run.log)


async def test_clients_must_show_a_certificate_where_they_are_asked(tmp_path: Path) -> None:
    """Of an authority of now: one that is taken away lets no client in, by no old ticket either."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    ours, theirs = authority.pair("ours"), other.pair("theirs")
    asked = tmp_path / "clients.pem"
    asked.write_bytes(authority.cert.read_bytes())
    words = with_tls(authority.pair("bridge"), "--tls-client-ca", str(asked))
    trusted, stranger = authority.client(ours), authority.client(theirs)
    async with bridge(*words, "--admin-port", "0") as run:
        assert not await let_in(run, authority.client())
        assert not await let_in(run, stranger)
        async with run.client(verify=trusted) as client:
            answer = await client.post("/mcp", json=initialize(1), headers=ACCEPT)
            assert answer.status_code == 200

        url = f"https://localhost:{run.port}"
        files = ("--ca", str(authority.cert), "--cert", str(ours.cert), "--key", str(ours.key))
        status, words_said = await ran("health", url, *files)
        assert (status, json.loads(words_said)["status"]) == (0, "ok")
        assert (await ran("health", url))[0] == 1
        # The probe of an image has no certificate: it asks the port that needs none.
        (record,) = await run.logged("serve.started")
        env = {
            "MCPBRIDGE_TLS_CLIENT_CA": str(asked),
            "MCPBRIDGE_ADMIN_PORT": record["admin"].rpartition(":")[2],
        }
        assert (await ran("health", env=env))[0] == 0

        async with connected(run, trusted) as connection:
            assert await connection.asked() == 200
            assert not connection.tls.session_reused
            ticket = connection.tls.session
        asked.write_bytes(other.cert.read_bytes())
        run.signal(signal.SIGHUP)
        await run.logged("tls.reloaded")
        assert ticket is None or not ticket.has_ticket
        assert not await let_in(run, trusted)
        assert await let_in(run, stranger)


async def test_health_believes_loopback_and_else_whom_it_is_told_to(tmp_path: Path) -> None:
    """Without --ca no client on loopback has to prove anything; with it each has."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.pair("bridge")
    async with bridge(*with_tls(pair)) as run:
        url = f"https://127.0.0.1:{run.port}"
        assert (await ran("health", url))[0] == 0
        assert (await ran("health", url, "--ca", str(authority.cert)))[0] == 0
        status, problem = await ran("health", url, "--ca", str(other.cert))
        assert (status, "CERTIFICATE_VERIFY_FAILED" in problem) == (1, True)
        status, problem = await ran("health", url, "--ca", str(tmp_path / "none"))
        assert (status, problem.startswith("--ca, --cert or --key cannot be used")) == (1, True)
        env = {"MCPBRIDGE_TLS_CERT": str(pair.cert), "MCPBRIDGE_PORT": str(run.port)}
        assert (await ran("health", env=env))[0] == 0
        with pytest.raises(httpx.ConnectError):
            async with run.client() as client:
                await client.get("/health")


async def test_a_file_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """Told with the flag, the file and where it was named, before anything listens."""
    pair = Authority(tmp_path).pair("bridge", password=b"secret")
    status, text = await ran("--port", "0", *with_tls(pair), "--", *bridge_process.DEMO)
    told = f"--tls-key (from the command line): {str(pair.key)!r} is encrypted"
    assert (status, told in text) == (2, True), text
