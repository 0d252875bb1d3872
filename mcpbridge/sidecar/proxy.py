"""A reverse proxy that passes every byte unchanged and inspects it on the way.

Streams are passed unbuffered and without a time limit. Inspection happens beside the stream and
never delays it, and content that cannot be parsed is passed too.

Source: RFC 9110, 7.6.1: connection-specific fields are not passed on; RFC 7239 and the older
X-Forwarded fields for what a proxy says about the client.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
from starlette.types import Receive, Scope, Send

from mcpbridge.http.origin_check import ClientGone
from mcpbridge.http.request_metrics import CLIENT_LEFT
from mcpbridge.http.responses import send_refusal
from mcpbridge.rules.faults import INTERNAL_ERROR, error_object
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.sidecar.inspect import (
    MAX_KEPT,
    EventScan,
    InspectedMessage,
    asked,
    error_codes,
    results,
)
from mcpbridge.sidecar.metrics import Dashboard
from mcpbridge.sidecar.upstream import Upstream, UpstreamAnswer, UpstreamBroken, UpstreamUnreachable

log = logging.getLogger("mcpbridge.http")

_NOT_PASSED = frozenset((
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
))  # fmt: skip
_EVENT_STREAM = b"text/event-stream"
_LISTS_TOOLS = "tools/list"


class ReverseProxy:
    """The ASGI application in front of one server."""

    def __init__(self, upstream: Upstream, dashboard: Dashboard) -> None:
        self._upstream = upstream
        self._dashboard = dashboard
        self._in_hand: set[_ProxiedRequest] = set()
        self._idle = anyio.Event()
        self.draining = False
        """Whether the process is about to end, so that each response closes its connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request to the server, and the response back."""
        if scope["type"] != "http":
            return
        proxied = _ProxiedRequest(scope, receive, send, self._dashboard, closing=self.draining)
        self._in_hand.add(proxied)
        with self._dashboard.active.track_inprogress():
            try:
                await proxied.run(self._upstream)
            finally:
                self._in_hand.discard(proxied)
                proxied.told()
                if not self._in_hand:
                    self._idle.set()

    async def drain(self, within_s: float) -> None:
        """End listening streams and wait for other responses, at most `within_s` seconds."""
        self.draining = True
        for proxied in list(self._in_hand):
            proxied.close_after()
        with anyio.move_on_after(within_s):
            while self._in_hand:
                self._idle = anyio.Event()
                await self._idle.wait()
        self.end_all()

    def end_all(self) -> None:
        """End all responses that are being passed back."""
        for proxied in list(self._in_hand):
            proxied.end()


class _ProxiedRequest:
    """One request and its response in transit."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, dashboard: Dashboard, *, closing: bool
    ) -> None:
        self.closing = closing
        self.listens = False
        """Whether it is a stream opened by GET."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._dashboard = dashboard
        self._began = time.perf_counter()
        self._status = CLIENT_LEFT
        self._asked_bytes = bytearray()
        self._received = 0
        self._sent = 0
        self._inspected: list[InspectedMessage] = []
        self._whole = anyio.Event()
        self._scope_of_answer = anyio.CancelScope()

    async def run(self, upstream: Upstream) -> None:
        """Pass the request on; if one side leaves, end the exchange for the other."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_gone, tasks.cancel_scope)
            try:
                async with upstream.asked(
                    self._scope["method"], self._target(), self._headers(upstream), self._body()
                ) as answer:
                    await self._pass_back(answer)
            except ClientGone:
                log.debug("request.abandoned")
            except UpstreamUnreachable:
                await self._read_on()
                await self._refuse(503, "the MCP server is not reachable")
            except UpstreamBroken as error:
                log.warning(
                    "proxy.upstream_broken", extra={"problem": str(error), "begun": self._has_begun}
                )
                if not self._has_begun:
                    await self._refuse(502, "the MCP server closed the connection")
            tasks.cancel_scope.cancel()

    def close_after(self) -> None:
        """Close the connection after this response; end a listening stream at once."""
        self.closing = True
        if self.listens:
            self.end()

    def end(self) -> None:
        """End the response here; the client sees a regular end of the body."""
        self._scope_of_answer.cancel()

    def told(self) -> None:
        """Count the finished request."""
        methods = [self._dashboard.method(found.method) for found in self._inspected]
        seconds = time.perf_counter() - self._began
        self._dashboard.ended(self._status, methods, seconds, self._received, self._sent)
        if self.listens:
            self._dashboard.stream_ended(seconds)

    @property
    def _has_begun(self) -> bool:
        return self._status != CLIENT_LEFT

    def _target(self) -> bytes:
        path: bytes = self._scope.get("raw_path") or self._scope["path"].encode()
        query: bytes = self._scope["query_string"]
        return path + b"?" + query if query else path

    def _headers(self, upstream: Upstream) -> list[tuple[bytes, bytes]]:
        raw: list[tuple[bytes, bytes]] = self._scope["headers"]
        named = {
            token.strip().lower()
            for name, value in raw
            if name == b"connection"
            for token in value.split(b",")
        }
        passed = [
            (name, value)
            for name, value in raw
            if name not in _NOT_PASSED and name not in named and not _names_client(name)
        ]
        host = next((value for name, value in raw if name == b"host"), b"")
        client = self._scope.get("client")
        if client is not None:
            passed.append((b"x-forwarded-for", client[0].encode()))
        passed.append((b"x-forwarded-host", host))
        passed.append((b"x-forwarded-proto", self._scope["scheme"].encode()))
        return passed

    def _body(self) -> AsyncIterator[bytes] | None:
        names = {name for name, _ in self._scope["headers"]}
        if not names & {b"content-length", b"transfer-encoding"}:
            self._whole.set()
            return None
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            self._received += len(piece)
            if self._received <= MAX_KEPT:
                self._asked_bytes += piece
            if piece:
                yield piece
        self._look_at_request()
        self._whole.set()

    async def _read_on(self) -> None:
        """Read the unused body, to count it and so that the client is not reset while it sends."""
        if self._whole.is_set():
            return
        with suppress(ClientGone):
            async for _ in self._pieces():
                if self._received > MAX_KEPT:
                    return

    def _look_at_request(self) -> None:
        if self._received > MAX_KEPT:
            return
        self._inspected = asked(bytes(self._asked_bytes))
        self._asked_bytes.clear()
        for found in self._inspected:
            if found.method == "tools/call":
                self._dashboard.tool_called(bytes(found.params))

    async def _until_gone(self, scope: anyio.CancelScope) -> None:
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _pass_back(self, answer: UpstreamAnswer) -> None:
        content_type = next((v for n, v in answer.headers if n.lower() == b"content-type"), b"")
        streams = content_type.partition(b";")[0].strip().lower() == _EVENT_STREAM
        headers = [pair for pair in answer.headers if pair[0].lower() not in _NOT_PASSED]
        if self.closing:
            headers.append((b"connection", b"close"))
        self._status = answer.status
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        if streams and self._scope["method"] == "GET":
            self.listens = True
            self._dashboard.stream_began()
        reader = _EventReader(self) if streams else _JsonReader(self)
        with self._scope_of_answer:
            async for piece in answer.body:
                self._sent += len(piece)
                reader.feed(piece)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            reader.end()
        await self._send({"type": "http.response.body", "body": b""})

    def saw_errors(self, codes: list[int]) -> None:
        """Count the errors with these codes."""
        # In a batch only the ids would tell which request failed.
        method = self._inspected[0].method if self._inspected else ""
        self._dashboard.errors(self._dashboard.method(method), codes)

    def saw_events(self, types: list[str]) -> None:
        """Count the events of these types."""
        self._dashboard.events(types)

    def saw_answer(self, body: bytes) -> None:
        """Inspect a whole JSON response."""
        self.saw_errors(error_codes(body))
        if any(found.method == _LISTS_TOOLS for found in self._inspected):
            for result in results(body):
                self._dashboard.tools_listed(result)

    async def _refuse(self, status: int, text: str) -> None:
        self._status = status
        refusal = Refusal(status, error_object(INTERNAL_ERROR, text), None, retry_after_s=1)
        await send_refusal(self._send, refusal)


def _names_client(name: bytes) -> bool:
    """Return whether a header names the client, which only a proxy may set.

    A client's own value would precede the proxy's line and be trusted.
    """
    return name in (b"forwarded", b"x-real-ip") or name.startswith(b"x-forwarded-")


class _EventReader:
    """An inspector of a passing event stream."""

    def __init__(self, proxied: _ProxiedRequest) -> None:
        self._proxied = proxied
        self._scan = EventScan()

    def feed(self, piece: bytes) -> None:
        types, codes = self._scan.feed(piece)
        self._proxied.saw_events(types)
        if codes:
            self._proxied.saw_errors(codes)

    def end(self) -> None:
        """Do nothing: events end with a blank line, so the rest is not an event."""


class _JsonReader:
    """An inspector of a passing JSON body, when it is complete."""

    def __init__(self, proxied: _ProxiedRequest) -> None:
        self._proxied = proxied
        self._kept = bytearray()

    def feed(self, piece: bytes) -> None:
        if len(self._kept) <= MAX_KEPT:
            self._kept += piece

    def end(self) -> None:
        if len(self._kept) <= MAX_KEPT:
            self._proxied.saw_answer(bytes(self._kept))
