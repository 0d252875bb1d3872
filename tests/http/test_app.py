"""The way from a path to its face, and what happens when a face fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from starlette.types import Receive, Scope, Send

from mcpbridge.http.app import HttpApp
from mcpbridge.http.origin_check import ClientGone
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import send_empty
from mcpbridge.http.transports.sse import SseTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.rules.access.hosts import HostRules
from tests.bridge.playbook import bounded
from tests.http.fakes import Wire, scope
from tests.support.proofs import proves


class Face:
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


class Admin:
    """What is behind every other path."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        self.paths.append(scope["path"])
        await send_empty(send, 200)


def endpoint_of(
    face: Face, admin: Admin, mcp_paths: Sequence[str] = ("/", "/mcp"), root_path: str = ""
) -> HttpApp:
    """An endpoint with one face for all."""
    return HttpApp(
        cast(StreamableHttp, face),
        cast(SseTransport, face),
        admin,
        HostRules(loopback=True),
        mcp_paths=mcp_paths,
        root_path=root_path,
    )


@bounded
async def test_the_mcp_path_and_the_root_are_served_with_and_without_a_slash() -> None:
    """Without redirects; everything else is the admin's."""
    face, admin = Face(), Admin()
    endpoint = endpoint_of(face, admin)
    for path in ("/", "/mcp", "/mcp/", "/health", "/mcpx", "/MCP"):
        wire = Wire()
        await endpoint(scope("POST", path), wire.receive, wire.send)
        assert wire.status == 200
    assert face.served == ["POST /", "POST /mcp", "POST /mcp/"]
    assert admin.paths == ["/health", "/mcpx", "/MCP"]


@proves("fault 119")
@bounded
async def test_a_bug_in_a_face_is_one_500_without_detail_and_one_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client learns nothing of it, the log everything."""
    wire = Wire()
    endpoint = endpoint_of(Face(ZeroDivisionError("secret")), Admin())
    await endpoint(scope(), wire.receive, wire.send)
    assert wire.status == 500
    assert b"secret" not in wire.chunks[0]
    assert b'"code":-32603' in wire.chunks[0]
    (record,) = caplog.records
    assert (record.message, record.exc_info is not None) == ("request.failed", True)


@proves("fault 52")
@bounded
async def test_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """There is nobody to answer and nothing to log above debug."""
    wire = Wire()
    caplog.set_level("INFO")
    await endpoint_of(Face(ClientGone()), Admin())(scope(), wire.receive, wire.send)
    assert (wire.sent, caplog.records) == ([], [])


@bounded
async def test_what_is_no_http_is_left_alone() -> None:
    """A lifespan or a web socket gets no answer of ours."""
    face, admin, wire = Face(), Admin(), Wire()
    for kind in ("lifespan", "websocket"):
        await endpoint_of(face, admin)({"type": kind}, wire.receive, wire.send)
    assert (face.served, admin.paths, wire.sent) == ([], [], [])
