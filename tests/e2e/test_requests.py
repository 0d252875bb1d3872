"""What clients send: every bad request refused as the protocol asks, every good one byte for byte.

One bridge over one recording child serves the module; what no client library would send goes out
as raw bytes.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    initialize,
    messages,
    open_session,
    rpc,
)
from tests.support.proofs import proves
from tests.support.raw_http import RawResponse, exchanged, post, wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 1 << 20
JSON_ACCEPT = f"Accept: {ACCEPT['accept']}"
PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS = -32700, -32600, -32602
SESSION_NOT_FOUND = -32001
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


class Served(NamedTuple):
    """The bridge of this module, and what its child has read."""

    bridge: RunningBridge
    folder: Path
    client: httpx.AsyncClient
    session: dict[str, str]
    """The headers of a session at 2025-06-18."""
    pid: int
    """The shared child's."""

    async def sent(self, data: bytes) -> RawResponse:
        """Raw bytes on their own connection."""
        return await exchanged(self.bridge.port, data)

    async def record(self) -> bytes:
        """What the child has read up to now: a request sent last is the last line of it."""
        answer = await self.client.post("/mcp", json=rpc("flush", "ping"))
        assert answer.json()["result"] == {}
        return (self.folder / str(self.pid)).read_bytes()

    @property
    def session_line(self) -> str:
        """The session as a header line."""
        return f"Mcp-Session-Id: {self.session['mcp-session-id']}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that serves a recorder; no answer waits long enough to become a stream."""
    folder = tmp_path_factory.mktemp("record")
    words = ("--max-request-bytes", str(LIMIT), "--json-window", "20s", "--")
    async with (
        bridge(*words, *child("recorder", str(folder))) as running,
        running.client() as client,
    ):
        session = await open_session(client)
        told = await client.post("/mcp", json=rpc("pid", "x/pid"), headers=session)
        yield Served(running, folder, client, session, told.json()["result"]["pid"])


def call(request_id: bytes, params: bytes = b"{}", method: str = "x/echo") -> bytes:
    """A request with its id and params as the test spells them."""
    return b'{"jsonrpc":"2.0","id":%b,"method":"%b","params":%b}' % (
        request_id,
        method.encode(),
        params,
    )


def assert_refused(heard: RawResponse, status: int, code: int, request_id: bytes = b"null") -> None:
    """An error as every client can read it: C70, C78, O15."""
    assert (heard.status, heard.headers["content-type"]) == (status, "application/json")
    assert "mcp-session-id" not in heard.headers
    assert heard.body.startswith(b'{"jsonrpc":"2.0","id":%b,"error":{' % request_id), heard.body
    assert heard.error["code"] == code
    assert isinstance(heard.error["message"], str)
    assert b"401" not in heard.body
    assert b"403" not in heard.body


DEEP = 100_000
NOT_MESSAGES = [
    (b"", PARSE_ERROR, b"null"),
    (b" \r\n", PARSE_ERROR, b"null"),
    (b"{", PARSE_ERROR, b"null"),
    (b"no JSON", PARSE_ERROR, b"null"),
    (call(b"1") + b"}", PARSE_ERROR, b"null"),
    (call(b"1", b'{"a":NaN}'), PARSE_ERROR, b"null"),
    (call(b"1", b'{"a":Infinity}'), PARSE_ERROR, b"null"),
    (call(b"1", b'{"a":"\xff"}'), PARSE_ERROR, b"null"),
    (call(b"1", b'{"a":"\xed\xa0\x80"}'), PARSE_ERROR, b"null"),
    (call(b"1", b'{"a":"\x00"}'), PARSE_ERROR, b"null"),
    (b"[", PARSE_ERROR, b"null"),
    (b"[]", INVALID_REQUEST, b"null"),
    (b"[" + call(b"1") + b"]", INVALID_REQUEST, b"null"),
    (b'"text"', INVALID_REQUEST, b"null"),
    (b"1", INVALID_REQUEST, b"null"),
    (b"null", INVALID_REQUEST, b"null"),
    (b"{}", INVALID_REQUEST, b"null"),
    (b'{"jsonrpc":"2.0"}', INVALID_REQUEST, b"null"),
    (b'{"jsonrpc":"2.0","id":5}', INVALID_REQUEST, b"5"),
    (b'{"id":5,"method":"x/echo"}', INVALID_REQUEST, b"5"),
    (b'{"jsonrpc":"1.0","id":"a","method":"x/echo"}', INVALID_REQUEST, b'"a"'),
    (b'{"jsonrpc":2.0,"id":5,"method":"x/echo"}', INVALID_REQUEST, b"5"),
    (b'{"jsonrpc":"2.0","id":5,"method":7}', INVALID_REQUEST, b"5"),
    (b'{"jsonrpc":"2.0","id":5,"method":"x/echo","params":"text"}', INVALID_REQUEST, b"5"),
    (b'{"jsonrpc":"2.0","id":5,"method":"x/echo","result":{}}', INVALID_REQUEST, b"5"),
    (b'{"jsonrpc":"2.0","method":"x/echo","method":"x/pid","id":5}', INVALID_REQUEST, b"null"),
    (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x/echo"}', INVALID_REQUEST, b"null"),
    (call(b"null"), INVALID_REQUEST, b"null"),
    (call(b"1.5"), INVALID_REQUEST, b"null"),
    (call(b"1.0"), INVALID_REQUEST, b"null"),
    (call(b"1e2"), INVALID_REQUEST, b"null"),
    (call(b"true"), INVALID_REQUEST, b"null"),
    (call(b"false"), INVALID_REQUEST, b"null"),
    (call(b"{}"), INVALID_REQUEST, b"null"),
    (call(b"[1]"), INVALID_REQUEST, b"null"),
    (call(b'"%b"' % (b"i" * 2000)), INVALID_REQUEST, b"null"),
    (b"[" * DEEP, INVALID_REQUEST, b"null"),
    (b"[" * DEEP + b"]" * DEEP, INVALID_REQUEST, b"null"),
    (call(b"5", b'{"a":' * DEEP + b"1" + b"}" * DEEP), INVALID_REQUEST, b"null"),
    (call(b"5", method="notifications/cancelled"), INVALID_REQUEST, b"5"),
]


@proves("faults 68-71", "fault 74", "fault 75", "C93")
@pytest.mark.parametrize(
    ("body", "code", "request_id"), NOT_MESSAGES, ids=[repr(row[0][:60]) for row in NOT_MESSAGES]
)
async def test_a_body_that_is_no_message_is_refused(
    served: Served, body: bytes, code: int, request_id: bytes
) -> None:
    """400 in a session and outside, the id echoed where it is one."""
    for headers in ((), (served.session_line,)):
        heard = await served.sent(post(body, JSON_ACCEPT, *headers))
        assert_refused(heard, 400, code, request_id)


async def test_nothing_of_a_refused_body_reaches_the_child(served: Served) -> None:
    """The child is asked for nothing by what was refused."""
    before = await served.record()
    for body, _, _ in NOT_MESSAGES:
        assert (await served.sent(post(body, served.session_line))).status == 400
    new = (await served.record()).removeprefix(before)
    assert [json.loads(line)["method"] for line in new.splitlines()] == ["ping"]


@proves("faults 65-67", "fault 79", "C04", "C60", "C78", "C94", "C24")
@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("Content-Type:", 415, INVALID_REQUEST),
        ("Content-Type: text/plain", 415, INVALID_REQUEST),
        ("Content-Type: application/x-www-form-urlencoded", 415, INVALID_REQUEST),
        ("Content-Type: application/jsonp", 415, INVALID_REQUEST),
        ("Content-Type: text/json", 415, INVALID_REQUEST),
        ("Content-Encoding: gzip", 415, INVALID_REQUEST),
        ("Content-Encoding: br", 415, INVALID_REQUEST),
        ("Content-Encoding: gzip, identity", 415, INVALID_REQUEST),
        ("Accept: text/html", 406, INVALID_REQUEST),
        ("Accept: application/xml, image/*", 406, INVALID_REQUEST),
        ("Accept: */*;q=0", 406, INVALID_REQUEST),
        ("Accept: application/json;q=0, text/event-stream;q=0.0", 406, INVALID_REQUEST),
        ("MCP-Protocol-Version: 1.0", 400, INVALID_REQUEST),
        ("MCP-Protocol-Version: 2099-01-01", 400, INVALID_REQUEST),
        ("MCP-Protocol-Version: 2025-06-18, 2025-06-18", 400, INVALID_REQUEST),
        ("MCP-Protocol-Version: x", 400, INVALID_REQUEST),
        ("MCP-Protocol-Version: 2026-07-28", 400, INVALID_PARAMS),
        ("Mcp-Session-Id: no one", 400, INVALID_REQUEST),
        ("Mcp-Session-Id: caf\u00e9", 400, INVALID_REQUEST),
        (f"Mcp-Session-Id: {'a' * 64}", 404, SESSION_NOT_FOUND),
    ],
)
async def test_a_head_that_cannot_be_served_is_refused_with_the_id(
    served: Served, header: str, status: int, code: int
) -> None:
    """The body was readable, so the error has its id.

    The header of 2026-07-28 is refused for what its revision wants in the body.
    """
    before = await served.record()
    for request_id in (b"7", b'"7"', b'""', b"12345678901234567890"):
        heard = await served.sent(post(call(request_id), header))
        assert_refused(heard, status, code, request_id)
    assert (await served.record()).removeprefix(before).count(b"\n") == 1
    if status in (406, 415):
        # Where there is no message in the body the head is still what is wrong.
        assert_refused(await served.sent(post(b"{", header)), status, INVALID_REQUEST)


@proves("C60")
async def test_an_unsupported_revision_is_refused_with_those_that_are_served(
    served: Served,
) -> None:
    """On POST, GET and DELETE alike; the session lives on."""
    wrong = {**served.session, "mcp-protocol-version": "1.0"}
    for verb, body in (("POST", rpc(1, "ping")), ("GET", None), ("DELETE", None)):
        answer = await served.client.request(verb, "/mcp", json=body, headers=wrong)
        assert answer.status_code == 400
        assert all(revision in answer.json()["error"]["message"] for revision in REVISIONS)
    answer = await served.client.post("/mcp", json=rpc(1, "ping"), headers=served.session)
    assert answer.json()["result"] == {}


@proves("C60", "O17")
@pytest.mark.parametrize("revision", [None, *REVISIONS])
async def test_any_served_revision_or_none_is_taken_in_the_header(
    served: Served, revision: str | None
) -> None:
    """The session knows which one was negotiated, so the header decides nothing."""
    headers = {key: served.session[key] for key in ("accept", "mcp-session-id")}
    if revision is not None:
        headers["mcp-protocol-version"] = revision
    for extra in (headers, {**headers, "content-type": "application/json; charset=utf-8"}):
        answer = await served.client.post("/mcp", json=rpc(1, "ping"), headers=extra)
        assert (answer.status_code, answer.json()["result"]) == (200, {})
    del headers["mcp-session-id"]
    answer = await served.client.post("/mcp", json=initialize(0), headers=headers)
    assert answer.status_code == 200


@proves("fault 67", "C94", "O4")
@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/*", "application/json"),
        ("Application/JSON ; q=0.5", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("application/json, text/event-stream;q=0", "application/json"),
        ("text/plain, */*;q=0.1", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("application/json;q=0, text/event-stream", "text/event-stream"),
        ("application/json;q=0, */*", "text/event-stream"),
    ],
)
async def test_a_quick_answer_comes_in_a_form_the_client_takes(
    served: Served, accept: str | None, form: str
) -> None:
    """JSON wherever it is acceptable; weights order nothing, but 0 refuses."""
    headers = () if accept is None else (f"Accept: {accept}" if accept else "Accept: ",)
    heard = await served.sent(post(call(b"3", b'{"a":1}'), *headers))
    assert (heard.status, heard.headers["content-type"]) == (200, form)
    expected = {"jsonrpc": "2.0", "id": 3, "result": {"a": 1}}
    assert messages(heard.body.decode()) == [expected]


PARAMS = [b"", b',"params":{}', b',"params":[]', b',"params":{"capabilities":{}}']
PARAMS += [b',"params":{"protocolVersion":1,"capabilities":{}}']
PARAMS += [b',"params":{"protocolVersion":"2025-06-18","capabilities":[]}']


@proves("C70", "C78")
@pytest.mark.parametrize("params", PARAMS)
async def test_an_initialize_that_introduces_nobody_is_refused(
    served: Served, params: bytes
) -> None:
    """400 with the id and no session."""
    body = b'{"jsonrpc":"2.0","id":"a","method":"initialize"%b}' % params
    assert_refused(await served.sent(post(body)), 400, INVALID_PARAMS, b'"a"')


@proves("C56")
async def test_a_second_handshake_never_reaches_the_child(served: Served) -> None:
    """With a session or without one it opens another on the same child; the first goes on."""
    for headers in (served.session, ACCEPT):
        again = await served.client.post("/mcp", json=initialize(4), headers=headers)
        assert again.json()["id"] == 4
        assert again.headers["mcp-session-id"] != served.session["mcp-session-id"]
    for method in ("notifications/initialized", "notifications/roots/list_changed"):
        told = {"jsonrpc": "2.0", "method": method}
        answer = await served.client.post("/mcp", json=told, headers=served.session)
        assert (answer.status_code, answer.content) == (202, b"")
    record = await served.record()
    # Its own handshake was the bridge's; what a client says about itself is not for a shared child.
    assert record.count(b'"initialize"') == record.count(b'"notifications/initialized"') == 1
    assert b"roots/list_changed" not in record


async def test_initialize_begins_a_new_session_whatever_session_it_names(served: Served) -> None:
    """Clients that begin again send the headers of the session before, which may be gone."""
    gone = await open_session(served.client)
    assert (await served.client.delete("/mcp", headers=gone)).status_code == 200
    begun = set()
    for session_id in (gone["mcp-session-id"], "unknown", "not visible", "\xff", ""):
        for date in ("2025-11-25", "2099-01-01", "nonsense", ""):
            lines = (f"Mcp-Session-Id: {session_id}", f"MCP-Protocol-Version: {date}", JSON_ACCEPT)
            heard = await served.sent(post(json.dumps(initialize(4)).encode(), *lines))
            assert heard.status == 200, (session_id, date, heard.body)
            assert json.loads(heard.body)["result"]["protocolVersion"] == "2025-06-18"
            begun.add(heard.headers["mcp-session-id"])
    assert len(begun) == 5 * 4


@pytest.mark.parametrize("blank", ["", " ", "\t "])
async def test_empty_session_and_version_headers_count_as_absent(
    served: Served, blank: str
) -> None:
    """Some clients send a header whose value they do not have."""
    lines = (f"Mcp-Session-Id: {blank}", f"MCP-Protocol-Version: {blank}", JSON_ACCEPT)
    heard = await served.sent(post(call(b"1", b'{"n":1}'), *lines))
    assert (heard.status, json.loads(heard.body)["result"]) == (200, {"n": 1})
    heard = await served.sent(post(call(b"2", b'{"n":2}'), served.session_line, *lines[1:]))
    assert (heard.status, json.loads(heard.body)["result"]) == (200, {"n": 2})


@pytest.mark.parametrize("order", [1, -1])
async def test_two_accept_lines_are_one_list(served: Served, order: int) -> None:
    """As one line would be: RFC 9110, 5.3."""
    both = ("Accept: application/json", "Accept: text/event-stream")[::order]
    heard = await served.sent(post(call(b"1"), served.session_line, *both))
    assert (heard.status, heard.headers["content-type"]) == (200, "application/json")
    request = "\r\n".join(("GET /mcp HTTP/1.1", "Host: localhost", served.session_line, *both))
    async with wire(served.bridge.port) as listening:
        await listening.send(f"{request}\r\n\r\n".encode())
        head = await listening.head()
    assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")


async def test_an_encoding_in_the_first_of_two_lines_is_refused(served: Served) -> None:
    """The body could unpack to any size, whichever line says so."""
    for lines in (("gzip", "identity"), ("identity", "gzip")):
        encodings = [f"Content-Encoding: {value}" for value in lines]
        heard = await served.sent(post(call(b"1"), *encodings))
        assert_refused(heard, 415, INVALID_REQUEST, b"1")


@proves("fault 95", "C02", "C16")
async def test_an_answer_outside_of_a_session_is_refused(served: Served) -> None:
    """Nothing was asked there; in a session it is taken and goes nowhere."""
    before = await served.record()
    body = b'{"jsonrpc":"2.0","id":1,"result":{}}'
    assert_refused(await served.sent(post(body)), 400, INVALID_REQUEST)
    heard = await served.sent(post(body, served.session_line))
    assert (heard.status, heard.body) == (202, b"")
    assert (await served.record()).removeprefix(before).count(b"\n") == 1


@proves("fault 63")
@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
async def test_a_body_announced_too_large_is_refused_before_it_is_sent(
    served: Served, expect: tuple[str, ...]
) -> None:
    """413 to the head alone, and no invitation to go on; then the connection ends."""
    async with wire(served.bridge.port) as connection:
        await connection.send(post(b"", f"Content-Length: {LIMIT + 1}", *expect))
        heard = await connection.response()
        assert_refused(heard, 413, INVALID_REQUEST)
        assert heard.headers["connection"] == "close"
        assert "--max-request-bytes" in heard.error["message"]
        assert await connection.rest() == b""


@proves("fault 64")
async def test_a_chunked_body_is_refused_as_soon_as_it_exceeds_the_limit(served: Served) -> None:
    """Its end is never sent, and the answer is there all the same."""
    async with wire(served.bridge.port) as connection:
        await connection.send(post(b"", "Content-Length:", "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b" " * (1 << 16) + b"\r\n"
        for _ in range(LIMIT >> 16):
            await connection.send(piece)
        await connection.send(b"1\r\n \r\n")
        heard = await connection.response()
    assert_refused(heard, 413, INVALID_REQUEST)


@proves("C93")
async def test_a_body_of_exactly_the_limit_is_served(served: Served) -> None:
    """One byte more is not; a client that asks first is told to go on."""
    padding = LIMIT - len(call(b"1", b'""'))
    body = call(b"1", b"{}" + b" " * (padding))
    assert len(body) == LIMIT
    assert (await served.sent(post(body))).status == 200
    assert (await served.sent(post(body + b" "))).status == 413
    async with wire(served.bridge.port) as connection:
        await connection.send(post(b"", f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert (await connection.head()).status == 100
        await connection.send(body)
        assert (await connection.response()).status == 200


@proves("C93")
async def test_a_chunked_body_is_served(served: Served) -> None:
    """However it is cut."""
    body = call(b"1", b'{"a":1}')
    pieces = [body[:1], body[1:40], body[40:], b""]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = post(b"", "Content-Length:", "Transfer-Encoding: chunked")
    heard = await served.sent(head + chunks)
    assert (heard.status, json.loads(heard.body)["result"]) == (200, {"a": 1})


@proves("fault 91", "fault 92")
@pytest.mark.parametrize(
    ("verb", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("POST", "/mcp/nowhere", 404, None),
        ("DELETE", "/sse/nowhere", 404, None),
        ("GET", "//mcp", 404, None),
        ("PUT", "/mcp", 405, {"GET", "POST", "DELETE"}),
        ("PATCH", "/", 405, {"GET", "POST", "DELETE"}),
        ("OPTIONS", "/mcp/", 405, {"GET", "POST", "DELETE"}),
        ("TRACE", "/mcp", 405, {"GET", "POST", "DELETE"}),
        ("POST", "/health", 405, {"GET", "HEAD"}),
        ("DELETE", "/readyz", 405, {"GET", "HEAD"}),
        ("OPTIONS", "/livez", 405, {"GET", "HEAD"}),
    ],
)
async def test_an_unknown_path_or_verb_is_told(
    served: Served, verb: str, path: str, status: int, allow: set[str] | None
) -> None:
    """404 for the path, 405 with Allow for the verb, both with a JSON-RPC body.

    A preflight is refused like any verb: no page of another origin is served
    """
    head = f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\n{served.session_line}\r\n\r\n"
    heard = await served.sent(head.encode())
    assert_refused(heard, status, INVALID_REQUEST)
    assert not any(name.startswith("access-control-") for name in heard.headers)
    if allow is not None:
        assert {name.strip() for name in heard.headers["allow"].split(",")} == allow


FOREIGN = [
    (403, ("Origin: http://evil.example",)),
    (403, ("Origin: null",)),
    (403, ("Origin: http://localhost.evil.example",)),
    (403, ("Origin: file://",)),
    (421, ("Host: evil.example",)),
    (421, ("Host: evil.example:8000",)),
    (421, ("Host: 127.0.0.1.evil.example",)),
    (421, ("Host: mcp.default.svc",)),
    (421, ("Host: 192.168.0.1",)),
    (421, ("Host: localhost/evil",)),
    (421, ("Host: localhost?/health",)),
    (421, ("Host: evil.example", "Origin: http://evil.example")),
]


@proves("fault 89", "fault 90", "C07", "C08")
@pytest.mark.parametrize(("status", "headers"), FOREIGN, ids=[str(row[1]) for row in FOREIGN])
async def test_a_foreign_origin_or_host_gets_nowhere(
    served: Served, status: int, headers: tuple[str, ...]
) -> None:
    """Every path and verb, before the body is read or the child hears."""
    before = await served.record()
    for path in ("/mcp", "/", "/health", "/livez", "/readyz", "/startupz", "/nowhere"):
        for verb in ("POST", "GET", "DELETE", "OPTIONS"):
            announced = "Content-Length: 100" if verb == "POST" else "Accept: text/event-stream"
            head = post(b"", announced, served.session_line, *headers, path=path)
            heard = await served.sent(head.replace(b"POST", verb.encode(), 1))
            assert_refused(heard, status, INVALID_REQUEST)
    assert (await served.record()).removeprefix(before).count(b"\n") == 1
    answer = await served.client.post("/mcp", json=rpc(1, "ping"), headers=served.session)
    assert answer.status_code == 200, "the session survived the DELETE"


@proves("C08")
@pytest.mark.parametrize(
    "headers",
    [
        ("Host: localhost:1",),
        ("Host: LOCALHOST",),
        ("Host: 127.0.0.1:65535",),
        ("Host: [::1]:8000",),
        ("Origin: http://localhost:5173",),
        ("Origin: http://127.0.0.1",),
        ("Origin: https://[::1]:8443",),
    ],
)
async def test_a_page_of_this_machine_is_served(served: Served, headers: tuple[str, ...]) -> None:
    """Loopback names with any port; programs send no Origin."""
    heard = await served.sent(post(call(b"1"), *headers))
    assert (heard.status, json.loads(heard.body)["result"]) == (200, {})


IDS = [b"0", b'""', b'"1"', b"1", b"-1", b"9007199254740992", b"12345678901234567890", b'"\\u00e9"']


@proves("fault 72", "C03", "O6")
@pytest.mark.parametrize("request_id", IDS)
async def test_an_id_comes_back_as_it_was_spelled(served: Served, request_id: bytes) -> None:
    """In a result and in the child's error, as JSON and as an event."""
    for accept in (JSON_ACCEPT, "Accept: text/event-stream"):
        for method, member in (("x/echo", b'"result":{}'), ("x/unknown", b'"error":{')):
            body = call(request_id, method=method)
            for session in ((), (served.session_line,)):
                heard = await served.sent(post(body, accept, *session))
                assert heard.status == 200
                assert b'{"jsonrpc":"2.0","id":%b,%b' % (request_id, member) in heard.body
                assert len(messages(heard.body.decode())) == 1


EXACT = [
    b"12345678901234567890",
    b"1.0",
    b"-0.0",
    b"1e-7",
    b"1E+400",
    b"0.1000000000000000055511151231257827",
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\xf0\x9f\x98\x80"',
    b'"\\r\\n"',
    b'"\\u2028\\u2029\\u0085"',
    b'"\\u0041\\/"',
    b'{"b":1,"a":2,"a":3}',
    b'{ "spaces" : [ 1 ,2 ] }',
    b'"' + b"9" * 70_000 + b'"',
    b"9" * 5000,
]


@proves("fault 24", "fault 26", "fault 74", "C79", "C80")
@pytest.mark.parametrize("value", EXACT, ids=[repr(value[:40]) for value in EXACT])
async def test_a_value_passes_both_ways_as_it_was_spelled(served: Served, value: bytes) -> None:
    """The child reads the bytes, the client reads the child's."""
    before = await served.record()
    params = b'{"name":"echo","arguments":{"value":%b}}' % value
    heard = await served.sent(post(call(b"1", params)))
    assert heard.body == b'{"jsonrpc":"2.0","id":1,"result":%b}' % params
    line, _flush = (await served.record()).removeprefix(before).splitlines()
    assert line.endswith(b',"method":"x/echo","params":%b}' % params)


@proves("C46", "C47")
async def test_a_message_is_one_line_on_the_pipe_whatever_it_holds(served: Served) -> None:
    """Line ends between tokens and separators in strings keep their meaning."""
    before = await served.record()
    value = {"a": "\u2028 \u2029 \u0085 é 😀", "b": [1]}
    text = json.dumps(value, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    heard = await served.sent(post(call(b"1", text.encode()).replace(b",", b"\r,\n")))
    assert json.loads(heard.body)["result"] == value
    new = (await served.record()).removeprefix(before)
    assert (new.count(b"\n"), new.count(b"\r")) == (2, 0)
    assert json.loads(new.split(b"\n")[0])["params"] == value
    assert "\u2028".encode() not in new


@proves("C79")
async def test_unknown_methods_notifications_and_members_pass(served: Served) -> None:
    """What the bridge does not know it does not touch, either way."""
    before = await served.record()
    extra = b',"x-envelope":{"deep":[1.0,{"a":null}]}'
    body = b'{"jsonrpc":"2.0","id":1,"method":"x/echo","params":{"_meta":{"k/v":1}}%b}' % extra
    heard = await served.sent(post(body, served.session_line))
    assert heard.body == b'{"jsonrpc":"2.0","id":1,"result":{"_meta":{"k/v":1}}%b}' % extra
    told = b'{"jsonrpc":"2.0","method":"notifications/x-custom","params":{"n":1.0}%b}' % extra
    heard = await served.sent(post(told, served.session_line))
    assert (heard.status, heard.headers["content-length"], heard.body) == (202, "0", b"")
    echo, notification, _flush = (await served.record()).removeprefix(before).splitlines()
    assert echo.endswith(extra + b"}")
    assert notification == told


@proves("fault 46", "C16")
async def test_ids_on_the_pipe_are_never_a_clients_own(served: Served) -> None:
    """With any ids of the clients, the child sees every number once."""
    calls = [served.sent(post(call(b"1", b"{}"))) for _ in range(20)]
    calls += [served.sent(post(call(b'"1"'), served.session_line))]
    assert {heard.status for heard in await asyncio.gather(*calls)} == {200}
    record = await served.record()
    numbers = re.findall(rb'^\{"jsonrpc":"2.0","id":([^,]+),"method":', record, re.MULTILINE)
    assert len(numbers) == len(set(numbers)) > 21
    assert all(number.isdigit() for number in numbers)


INITIALIZE = (
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2024-11-05",'
    '"capabilities":{},"clientInfo":{"name":"test","version":"1.0.0"}}}'
)
LIST = '{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}'


async def as_curl_does(port: int, *words: str) -> bytes:
    """The bytes of `curl WORDS` for the three forms that docs/clients.md prints."""
    url, body = words[-1] if len(words) == 1 else words[2], words[-1].encode()
    path = "/" + url.partition("//")[2].partition("/")[2]
    about = f"Host: localhost:{port}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
    if len(words) == 1:
        heard = await exchanged(port, f"GET {path} HTTP/1.1\r\n{about}\r\n".encode())
    else:
        about += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        heard = await exchanged(port, f"POST {path} HTTP/1.1\r\n{about}\r\n".encode() + body)
    assert heard.status == 200
    return heard.body


async def curl(port: int, *words: str) -> bytes:
    """What the real one prints."""
    program = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--fail", *words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    return output


@pytest.mark.slow
async def test_the_three_lines_of_the_readme_work_as_printed() -> None:
    """No Accept, path `/`, the last without a session; with the real curl too if there is one."""
    programs = [as_curl_does, *([curl] if shutil.which("curl") else [])]
    async with bridge() as running:
        url = f"http://localhost:{running.port}"
        about = ("-H", "Content-Type: application/json", "-d")
        for program in programs:
            assert json.loads(await program(running.port, f"{url}/health"))["status"] == "ok"
            opened = json.loads(await program(running.port, "-X", "POST", url, *about, INITIALIZE))
            assert opened["id"] == 1
            assert opened["result"]["protocolVersion"] == "2024-11-05"
            assert opened["result"]["serverInfo"]["name"] == "mcpbridge-demo"
            listed = json.loads(await program(running.port, "-X", "POST", url, *about, LIST))
            assert listed["id"] == 2
            assert "echo" in {tool["name"] for tool in listed["result"]["tools"]}


@proves("fault 86")
async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    """Each on the same connection, each with its own id."""
    bodies = [call(b"%d" % number) for number in range(5)]
    async with wire(served.bridge.port) as connection:
        await connection.send(b"".join(post(body) for body in bodies))
        heard = [await connection.response() for _ in bodies]
    assert [json.loads(answer.body)["id"] for answer in heard] == list(range(5))


BROKEN = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
]


@proves("fault 87", "fault 94")
@pytest.mark.parametrize("data", BROKEN, ids=[repr(data[:40]) for data in BROKEN])
async def test_what_is_no_http_is_refused_and_harms_nobody(served: Served, data: bytes) -> None:
    """400 or an end of the connection, no traceback, and the next one is served."""
    async with wire(served.bridge.port) as connection:
        await connection.send(data)
        refusal = await connection.rest()
    assert refusal == b"" or refusal.startswith(b"HTTP/1.1 400 ")
    assert (await served.sent(post(call(b"1")))).status == 200
