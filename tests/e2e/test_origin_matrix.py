"""Every route, from every kind of page: who is served, who may read, and what a browser is told.

The table is the rule written down once more, in other words than the program's; each of its rows is
asked of a running bridge over every route and method.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support import bridge_process
from tests.support.bridge_process import ACCEPT, RunningBridge, bridge, initialize, rpc
from tests.support.proofs import proves

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LISTED = "https://app.example.org"
LISTED_PORT = "http://tools.example.org:8080"
EXPOSED = {"mcp-session-id", "retry-after", "www-authenticate"}


class Page(NamedTuple):
    """What a page is to a bridge on loopback that lists two origins."""

    origin: str | None
    served: bool
    reads: bool
    """The browser lets it read the answer."""


PAGES = [
    Page(None, served=True, reads=False),
    Page(LISTED, served=True, reads=True),
    Page(LISTED_PORT, served=True, reads=True),
    Page("http://localhost:5173", served=True, reads=False),
    Page("http://127.0.0.1", served=True, reads=False),
    Page("https://evil.example", served=False, reads=False),
    Page("null", served=False, reads=False),
    Page("http://app.example.org", served=False, reads=False),
    Page("https://app.example.org:8443", served=False, reads=False),
    Page("https://app.example.org.evil.example", served=False, reads=False),
    Page("https://sub.app.example.org", served=False, reads=False),
    Page("http://tools.example.org", served=False, reads=False),
    Page("http://localhost.evil.example", served=False, reads=False),
    Page("*", served=False, reads=False),
]

HOSTS: dict[str, bool] = {
    "localhost": True,
    "127.0.0.1:{port}": True,
    "[::1]:1": True,
    "evil.example": False,
    "evil.example:{port}": False,
    "localhost.evil.example": False,
    "app.example.org": False,
    "10.0.0.1": False,
}

MCP = ("POST", "GET", "DELETE")
PROBE = ("GET", "HEAD")
ROUTES: dict[str, tuple[str, ...]] = {
    "/mcp": MCP,
    "/mcp/": MCP,
    "/": MCP,
    "/sse": ("GET",),
    "/messages": ("POST",),
    "/livez": PROBE,
    "/readyz": PROBE,
    "/startupz": PROBE,
    "/health": PROBE,
    "/healthz": PROBE,
    "/metrics": PROBE,
    "/.well-known/oauth-protected-resource": PROBE,
    "/.well-known/oauth-protected-resource/mcp": PROBE,
    "/nonesuch": PROBE,
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[RunningBridge]:
    """A bridge on loopback that lists two origins."""
    words = ("--allow-origin", LISTED, "--allow-origin", LISTED_PORT)
    async with bridge(*words) as run:
        yield run


def cors(headers: httpx.Headers) -> dict[str, str]:
    """The headers by which a browser is told anything."""
    return {name: v for name, v in headers.items() if name.startswith("access-control-")}


class Asker:
    """One connection, again after a stream; with httpx the matrix would take a minute."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=bridge_process.END_S
        )

    def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, httpx.Headers]:
        """Status and headers."""
        self._connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
        kind = {"content-type": "application/json", "content-length": "2"} if body else {}
        for pair in {**ACCEPT, **kind, **headers}.items():
            self._connection.putheader(*pair)
        self._connection.endheaders(body)
        got = self._connection.getresponse()
        if got.headers.get_content_type() == "text/event-stream":
            got.close()
            self._connection.close()
        else:
            got.read()
        return got.status, httpx.Headers(got.getheaders())

    def close(self) -> None:
        """It is not needed any more."""
        self._connection.close()


def pairs() -> Iterator[tuple[Page, str, bool]]:
    """Every page with a good Host and a bad one, every Host with a page of each kind."""
    for (number, page), (host, at_home) in itertools.product(enumerate(PAGES), HOSTS.items()):
        if host in ("localhost", "evil.example") or number in (0, 1, 5):
            yield page, host, at_home


def look_at_every_route(asker: Asker, port: int) -> int:
    """Ask everything there is to ask; how much that was."""
    seen = 0
    asked = itertools.product(PAGES, HOSTS.items(), ROUTES, METHODS)
    for page, (host, at_home), path, method in asked:
        headers = {"host": host.format(port=port)}
        if page.origin is not None:
            headers["origin"] = page.origin
        status, got = asker.ask(method, path, headers)
        case = (page, host, path, method, status)
        assert (status == 421) is not at_home, case
        assert (status == 403) is (at_home and not page.served), case
        if at_home and page.served:
            assert (status == 405) is (method not in ROUTES[path]) or status == 404, case
        told = cors(got)
        if page.reads:
            assert told.pop("access-control-allow-origin") == page.origin, case
            exposed = told.pop("access-control-expose-headers").lower().split(", ")
            assert set(exposed) == EXPOSED, case
            assert got["vary"] == "Origin", case
        assert told == {}, case
        seen += 1
    return seen


@proves("fault 89", "fault 90")
async def test_every_route_serves_and_tells_each_page_what_it_may(served: RunningBridge) -> None:
    """Origin x Host x method x path: 421 before 403 before anything else."""
    with closing(Asker(served.port)) as asker:
        seen = await asyncio.to_thread(look_at_every_route, asker, served.port)
    assert seen == len(PAGES) * len(HOSTS) * len(ROUTES) * len(METHODS)


@proves("fault 91")
async def test_a_preflight_is_answered_for_listed_origins_alone(served: RunningBridge) -> None:
    """By each route with its own methods; from any other page it is an ordinary OPTIONS."""
    wanted = (
        "authorization, content-type, mcp-param-region, mcp-param-a.b, cookie, x-evil, mcp-param"
    )
    async with served.client() as client:
        for (page, host, at_home), path in itertools.product(pairs(), ROUTES):
            headers = {
                "host": host.format(port=served.port),
                "access-control-request-method": "POST",
                "access-control-request-headers": wanted,
                "access-control-request-private-network": "true",
            }
            if page.origin is not None:
                headers["origin"] = page.origin
            got = await client.options(path, headers=headers)
            case = (page, host, path, got.status_code)
            if not at_home:
                assert got.status_code == 421, case
            elif not page.served:
                assert got.status_code == 403, case
            if not (page.reads and at_home):
                extra = {"access-control-allow-origin", "access-control-expose-headers"}
                assert set(cors(got.headers)) <= (extra if page.reads else set()), case
                continue
            assert (got.status_code, got.content) == (204, b""), case
            assert got.headers["access-control-allow-origin"] == page.origin
            assert got.headers["access-control-allow-methods"] == ", ".join(ROUTES[path])
            assert got.headers["access-control-allow-private-network"] == "true"
            assert int(got.headers["access-control-max-age"]) > 0
            assert "access-control-allow-credentials" not in got.headers
            allowed = got.headers["access-control-allow-headers"].lower().split(", ")
            assert {"authorization", "content-type", "accept", "last-event-id"} <= set(allowed)
            named = {
                "session-id",
                "protocol-version",
                "method",
                "name",
                "param-region",
                "param-a.b",
            }
            assert {f"mcp-{name}" for name in named} <= set(allowed)
            assert not {"cookie", "x-evil", "mcp-param", "*"} & set(allowed)


async def test_answers_of_every_kind_can_be_read_where_the_page_may(served: RunningBridge) -> None:
    """The second call on a connection, a stream, errors; and none by a page of this machine."""
    for origin in (LISTED, "http://localhost:5173"):
        readable = origin == LISTED
        async with served.client(headers={"origin": origin}) as client:
            opened = await client.post("/mcp", json=initialize(1), headers=ACCEPT)
            session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
            got = [opened]
            call = {"name": "add", "arguments": {"a": 1, "b": 1}}
            for number in range(5):
                request = rpc(number, "tools/call", call)
                got.append(await client.post("/mcp", json=request, headers=session))
                assert got[-1].json()["id"] == number
            slow: dict[str, Any] = {"name": "countdown", "arguments": {"seconds": 0.2}}
            slow["_meta"] = {"progressToken": 1}
            request = rpc("s", "tools/call", slow)
            got.append(await client.post("/mcp", json=request, headers=session))
            assert got[-1].headers["content-type"].startswith("text/event-stream")
            async with client.stream("GET", "/mcp", headers=session) as stream:
                got.append(stream)
            for content in (b"{", b"[]", b"nonsense"):
                kind = {**session, "content-type": "application/json"}
                got.append(await client.post("/mcp", content=content, headers=kind))
                assert got[-1].status_code == 400
            gone = {**session, "mcp-session-id": "0" * 64}
            got.append(await client.post("/mcp", json=rpc(9, "ping"), headers=gone))
            assert got[-1].status_code == 404
            got.append(await client.delete("/mcp", headers=session))
            for each in got:
                assert each.headers.get("access-control-allow-origin") == (
                    origin if readable else None
                ), each


async def test_what_another_site_would_embed_is_refused(served: RunningBridge) -> None:
    """A browser leaves Origin out where nothing will be read, but says where it comes from."""
    wanted = [
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "same-site", "sec-fetch-dest": "image"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-dest": "empty"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty", "origin": LISTED}, 200),
    ]
    with closing(Asker(served.port)) as asker:
        for headers, status in wanted:
            for path in ("/livez", "/metrics", "/sse"):
                given = {"host": "localhost", **headers}
                got, _ = await asyncio.to_thread(asker.ask, "GET", path, given)
                assert got == status, (headers, path)


@proves("fault 91")
async def test_without_listed_origins_nobody_is_told_anything() -> None:
    """CORS is off; and `*` lets all pages read, but for those that Host keeps out."""
    preflight = {"access-control-request-method": "POST", "origin": "http://localhost:5173"}
    async with bridge() as run, run.client() as client:
        for path in ROUTES:
            got = await client.options(path, headers=preflight)
            there = path != "/nonesuch" and not path.startswith("/.well-known/")
            assert (got.status_code, cors(got.headers)) == (405 if there else 404, {})
    async with bridge("--allow-origin", "*", "--admin-port", "0") as run, run.client() as client:
        for origin in ("https://evil.example", "null"):
            got = await client.options("/mcp", headers={**preflight, "origin": origin})
            assert got.status_code == 204
            assert got.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in got.headers
            away = {"origin": origin, "host": "evil.example"}
            assert (await client.get("/livez", headers=away)).status_code == 421
        (record,) = await run.logged("serve.started")
        async with httpx.AsyncClient(base_url=f"http://{record['admin']}") as admin:
            got = await admin.get("/metrics", headers={"origin": "https://evil.example"})
            assert (got.status_code, got.headers["access-control-allow-origin"]) == (200, "*")


async def test_a_page_can_read_that_there_is_no_room() -> None:
    """The connection that is one too many is refused like any other request."""
    words = ("--allow-origin", LISTED, "--max-connections", "1")
    async with bridge(*words) as run, run.client() as first, run.client() as second:
        session = await bridge_process.open_session(first)
        async with first.stream("GET", "/mcp", headers=session):
            call = rpc(1, "ping")
            got = await second.post("/mcp", json=call, headers={**ACCEPT, "origin": LISTED})
    assert (got.status_code, got.headers["access-control-allow-origin"]) == (503, LISTED)
