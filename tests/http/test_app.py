"""The way from a path to its route, and what happens when a route fails."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import cast

import pytest

from mcpbridge.bridge.readiness import Readiness
from mcpbridge.http.app import HttpApp, admin_routes, login_routes, mcp_routes
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.auth.authenticator import NoAuth
from mcpbridge.http.health import Probes
from mcpbridge.http.origin_check import ClientGone
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import send_empty
from mcpbridge.http.transports.sse import SseTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.rules.access.hosts import HostRules
from tests.bridge.playbook import bounded
from tests.http.fakes import Wire, scope
from tests.support.proofs import proves


class FakeTransport:
    """Answers 200 and remembers, or fails."""

    stream_path = "/sse"
    messages_path = "/messages"

    def __init__(self, failure: Exception | None = None) -> None:
        self.served: list[str] = []
        self._failure = failure

    async def post(self, http_request: HttpRequest) -> None:
        """A verb."""
        self.served.append(f"{http_request.head.method} {http_request.head.path}")
        if self._failure is not None:
            raise self._failure
        await send_empty(http_request.send, 200)

    get = delete = connect = post


DOCUMENT = "/.well-known/oauth-protected-resource/mcp"
PAGES = ("/livez", "/readyz", "/startupz", "/health", "/healthz", "/metrics", DOCUMENT)


class Documented(NoAuth):
    """Publishes where clients log in."""

    documents = MappingProxyType({DOCUMENT: b"{}"})


async def rendered(_: str | None) -> tuple[bytes, str]:
    """Metrics."""
    return b"", "text/plain"


def app_of(
    transport: FakeTransport, mcp_paths: Sequence[str] = ("/", "/mcp"), root_path: str = ""
) -> HttpApp:
    """An application with one transport for all of MCP."""
    streamable, sse = cast(StreamableHttp, transport), cast(SseTransport, transport)
    routes = mcp_routes(streamable, sse, mcp_paths, AccessControl())
    pages = admin_routes(Probes(Readiness()), rendered) + login_routes(AccessControl(Documented()))
    return HttpApp([*routes, *pages], HostRules(loopback=True), root_path=root_path)


async def answer(app: HttpApp, method: str, path: str, **more: str) -> Wire:
    """The answer to one request."""
    wire = Wire()
    await app({**scope(method, path), **more}, wire.receive, wire.send)
    return wire


@bounded
async def test_the_mcp_path_and_the_root_are_served_with_and_without_a_slash() -> None:
    """Without redirects; no other path is."""
    transport = FakeTransport()
    app = app_of(transport)
    paths = ("/", "/mcp", "/mcp/", "/health", "/mcpx", "/MCP")
    found = [(await answer(app, "POST", path)).status for path in paths]
    assert found == [200, 200, 200, 405, 404, 404]
    assert transport.served == ["POST /", "POST /mcp", "POST /mcp/"]


@pytest.mark.parametrize("path", PAGES)
@bounded
async def test_a_page_is_served_with_and_without_a_slash(path: str) -> None:
    """Behind TLS a redirect would lead to `http://`, and many probes follow none."""
    app = app_of(FakeTransport())
    statuses = [(await answer(app, "GET", each)).status for each in (path, f"{path}/")]
    assert statuses[0] == statuses[1] != 404
    for wrong in (f"{path}//", f"/x{path}", f"{path}x", f"{path}/x"):
        assert (await answer(app, "GET", wrong)).status == 404, wrong


@bounded
async def test_no_path_is_redirected() -> None:
    """Neither MCP's, nor what is not one at all."""
    app = app_of(FakeTransport())
    for path in ("/mcp//", "/x/", "/.well-known/oauth-protected-resource/mcp//"):
        assert (await answer(app, "GET", path)).status == 404


@pytest.mark.parametrize("mcp_path", ["/{x}", "/{x:y}"])
@bounded
async def test_an_mcp_path_is_text_and_no_pattern(mcp_path: str) -> None:
    """Whatever marks a router may give a meaning to."""
    app = app_of(FakeTransport(), [mcp_path])
    assert (await answer(app, "POST", mcp_path)).status == 200
    assert (await answer(app, "POST", "/other")).status == 404


@bounded
async def test_paths_begin_below_the_place_where_the_application_is_mounted() -> None:
    """By the root path of ASGI, or by the prefix that a proxy leaves in the path."""
    mounted, behind = app_of(FakeTransport()), app_of(FakeTransport(), root_path="/tools/")
    assert (await answer(mounted, "POST", "/tools/mcp", root_path="/tools")).status == 200
    assert (await answer(mounted, "POST", "/toolsmcp", root_path="/tools")).status == 404
    assert (await answer(mounted, "GET", "/tools/livez", root_path="/tools")).status == 200
    assert (await answer(behind, "POST", "/tools/mcp", root_path="")).status == 200
    assert (await answer(behind, "POST", "/mcp", root_path="")).status == 200


@bounded
async def test_a_path_with_another_method_says_which_it_has() -> None:
    """In the order of the table for MCP."""
    app = app_of(FakeTransport())
    assert (await answer(app, "PUT", "/mcp")).headers["allow"] == "POST, GET, DELETE"
    wire = await answer(app, "POST", "/livez")
    assert (wire.status, set(wire.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
    assert b'"method not allowed"' in wire.chunks[0].lower()


@proves("fault 119")
@bounded
async def test_a_bug_in_a_face_is_one_500_without_detail_and_one_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client learns nothing of it, the log everything."""
    wire = Wire()
    app = app_of(FakeTransport(ZeroDivisionError("secret")))
    await app(scope(), wire.receive, wire.send)
    assert wire.status == 500
    assert b"secret" not in wire.chunks[0]
    assert b'"code":-32603' in wire.chunks[0]
    (record,) = caplog.records
    assert (record.message, record.exc_info is not None) == ("request.failed", True)


@proves("fault 52")
@bounded
async def test_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """There is no client to answer and nothing to log above debug."""
    wire = Wire()
    caplog.set_level("INFO")
    await app_of(FakeTransport(ClientGone()))(scope(), wire.receive, wire.send)
    assert (wire.sent, caplog.records) == ([], [])


@bounded
async def test_a_web_socket_is_closed() -> None:
    """Nothing here speaks it."""
    transport, wire = FakeTransport(), Wire()
    connecting = {"type": "websocket", "path": "/mcp", "headers": []}
    await app_of(transport)(connecting, wire.receive, wire.send)
    assert [message["type"] for message in wire.sent] == ["websocket.close"]
    assert transport.served == []
