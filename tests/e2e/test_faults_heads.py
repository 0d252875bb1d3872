"""Heads and ids that an attacker made up to be read in two ways; each goes out as raw bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.support.bridge_process import RunningBridge, bridge, child, rpc
from tests.support.modern_client import headers_of, meta
from tests.support.proofs import proves
from tests.support.raw_http import RawResponse, exchanged, post, recorded, wire

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

LIST = json.dumps(rpc(1, "tools/list")).encode()
CANARY = "canary"


class Served(NamedTuple):
    """A bridge, and the folder in which its child records what it reads."""

    bridge: RunningBridge
    folder: Path

    async def sent(self, data: bytes) -> RawResponse:
        """Raw bytes on their own connection."""
        return await exchanged(self.bridge.port, data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge over a recorder; at the end, nothing of what was refused has left a trace."""
    folder = tmp_path_factory.mktemp("record")
    async with bridge("--", *child("recorder", str(folder))) as running:
        yield Served(running, folder)
        assert CANARY not in str(running.log)
        assert CANARY.encode() not in recorded(folder)


HOSTS = [
    "",
    "localhost/x",
    "localhost?x=1",
    "localhost#x",
    "localhost:80/evil.example",
    "evil.example/localhost",
    "evil.example?localhost",
    "evil.example#.localhost",
    r"localhost\@evil.example",
    "user@localhost",
    "local host",
    "localhost, evil.example",
    "localhost:99999",
    "[::1",
]


@proves("fault 89")
@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_is_none_names_no_endpoint(served: Served, host: str) -> None:
    """It is refused on every path, probes included, whatever it looks like."""
    for path in ("/mcp", "/", "/livez", "/sse"):
        heard = await served.sent(post(LIST, f"Host: {host}", path=path))
        assert heard.status in (400, 421), heard
        assert b"result" not in heard.body
        assert b"evil.example" not in heard.body
    assert (await served.sent(post(LIST, "Accept: */*"))).status == 200


NAMES = [
    (f"{CANARY}\0", None),
    (f"{CANARY}\ro", None),
    (f"{CANARY}\no", None),
    (f"{CANARY}\r\n folded: 1", None),
    (CANARY * 1500, 1),
    ("=?base64?!!canary!!?=", 1),
    ("=?base64?Y2FuYXJ5?=", 1),
    ("=?base64?AAo=?=", 1),
    ("=?base64?Y2FuYXJ5DQpldmlsOiAx?=", 1),
    ("canary\xff", 1),
    ("", 1),
]


@proves("fault 78", "C27")
@pytest.mark.parametrize(("name", "request_id"), NAMES, ids=[repr(name[:20]) for name, _ in NAMES])
async def test_a_name_header_that_is_none_goes_nowhere(
    served: Served, name: str, request_id: int | None
) -> None:
    """400, with -32020 where it was a header at all; in no log, in no error, not on the pipe."""
    message = rpc(1, "tools/call", {"name": "echo", "arguments": {}, "_meta": meta()})
    head = [f"{key}: {value}" for key, value in headers_of(message).items() if key != "mcp-name"]
    whole = post(json.dumps(message).encode(), *head)
    line = b"\r\nMcp-Name: " + name.encode("latin-1")
    heard = await served.sent(whole.replace(b"\r\n\r\n", line + b"\r\n\r\n", 1))
    assert heard.status == 400
    assert json.loads(heard.body)["id"] == request_id
    if request_id is not None:
        assert heard.error["code"] == -32020
    assert CANARY.encode() not in heard.body


IDS = [
    '"\\u2028\\u2029\\u0085"',
    '"\\"\\\\\\/"',
    '"\\r\\ndata: x\\r\\n\\r\\n"',
    '"\N{GRINNING FACE}"',
    '"' + "i" * 1022 + '"',
]


@proves("fault 73", "C03")
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("request_id", IDS)
async def test_an_id_of_any_text_comes_back(served: Served, request_id: str, accept: str) -> None:
    """As it was spelled, on one line; one that is too long is refused."""
    body = '{"jsonrpc":"2.0","id":%s,"method":"x/echo","params":{}}'
    heard = await served.sent(post((body % request_id).encode(), f"Accept: {accept}"))
    assert heard.status == 200
    answer = b'{"jsonrpc":"2.0","id":%b,"result":{}}' % request_id.encode()
    assert heard.body == answer or b"\ndata: " + answer + b"\n\n" in heard.body
    for size in (1023, 64 << 10):
        heard = await served.sent(post((body % f'"{"i" * size}"').encode(), f"Accept: {accept}"))
        assert (heard.status, heard.error["code"]) == (400, -32600)


@proves("fault 73", "C47")
async def test_separators_in_an_id_are_no_line_ends(served: Served) -> None:
    """Written as characters they come back as escapes, which mean the same."""
    body = '{"jsonrpc":"2.0","id":"\u2028\u2029\x85","method":"x/echo","params":{}}'.encode()
    heard = await served.sent(post(body, "Accept: text/event-stream"))
    assert b'{"jsonrpc":"2.0","id":"\\u2028\\u2029\\u0085","result":{}}' in heard.body


@proves("fault 91")
async def test_a_browser_that_asks_first_is_told_no(served: Served) -> None:
    """403 to a foreign page, and no header that would let any page read an answer."""
    asked = "Access-Control-Request-Method: POST"
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://localhost", 405)):
        for path in ("/mcp", "/", "/livez"):
            lines = (f"OPTIONS {path} HTTP/1.1", "Host: localhost", f"Origin: {origin}", asked)
            heard = await served.sent("\r\n".join([*lines, "", ""]).encode())
            assert heard.status == status, (origin, path, heard)
            assert not [name for name in heard.headers if name.startswith("access-control-")]


HEAD = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = f"Content-Length: {len(LIST)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
TWO_WAYS = {
    "both": (LENGTH + CHUNKED, b""),
    "chunked not last": ("Transfer-Encoding: chunked, gzip\r\n", b""),
    "no coding": ("Transfer-Encoding: xchunked\r\n", b""),
    "a blank before the colon": ("Transfer-Encoding : chunked\r\n", b""),
    "a folded line": (f"{LENGTH}X-A: b\r\n c\r\n", b""),
    "an extension of a chunk": (CHUNKED, b";\0=\n"),
    "a sign": (LENGTH.replace(": ", ": +"), b""),
    "another base": (f"Content-Length: 0x{len(LIST):x}\r\n", b""),
}


@proves("fault 87")
@pytest.mark.parametrize("form", TWO_WAYS)
async def test_a_length_that_can_be_read_in_two_ways_is_refused(served: Served, form: str) -> None:
    """A proxy could see another request where this ends: 400, and the connection is closed."""
    lines, extension = TWO_WAYS[form]
    body = b"%x%b\r\n%b\r\n0\r\n\r\n" % (len(LIST), extension, LIST)
    async with wire(served.bridge.port) as connection:
        # What would be the next request, to a reader that reads the first one otherwise.
        whole = f"{HEAD}{lines}\r\n".encode() + body + post(LIST, "Accept: */*")
        await connection.send(whole)
        assert (await connection.response()).status == 400
        assert await connection.rest() == b""


@proves("fault 94")
async def test_older_versions_are_served_once(served: Served) -> None:
    """HTTP/1.0 gets its answer and the end of the connection, as JSON or as a stream."""
    for accept in ("application/json", "text/event-stream"):
        whole = post(LIST, f"Accept: {accept}").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        async with wire(served.bridge.port) as connection:
            await connection.send(whole)
            heard = await connection.rest()
            assert heard.startswith(b"HTTP/1.1 200 "), heard
            assert b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}' in heard
