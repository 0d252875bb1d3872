"""The revision 2026-07-28: one POST for each request, no session, no other method.

Closing the connection is the cancellation, whatever has been sent by then.

Source: MCP 2026-07-28, Transports, Streamable HTTP.
"""

from __future__ import annotations

import functools

import anyio

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.modern.service import ModernService
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import (
    EventStream,
    farewell,
    refusal_of,
    send_empty,
    send_json,
    send_late_json,
    send_refusal,
)
from mcpbridge.rules.faults import INVALID_REQUEST, METHOD_NOT_FOUND, Unavailable
from mcpbridge.rules.mcp.admission import Refusal, echoing, refuse
from mcpbridge.rules.mcp.methods import DISCOVER, LISTEN
from mcpbridge.rules.mcp.modern_checks import (
    HEADER_MISMATCH,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    RoutingHeaders,
    check_message,
    climb,
    not_served,
)
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.rules.mcp.to_modern import code_of
from mcpbridge.wire.messages import Failure, Message, Reply, Request, Result, encode

_STATUS = {
    METHOD_NOT_FOUND: 404,
    MISSING_CAPABILITY: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
}
"""Errors of a call that have an HTTP status of their own; every other is 200."""
_WATCH_AFTER_S = 0.02
"""Most calls are answered sooner; then nothing need watch for the end of the connection."""
_PARAM_PREFIX = b"mcp-param-"
_ROUTING = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")


class ModernTransport:
    """Serves one bridge to clients of 2026-07-28."""

    def __init__(self, bridge: Bridge, keepalive: KeepAlive, json_window_s: float) -> None:
        self._bridge = bridge
        self._keepalive = keepalive
        self._json_window_s = json_window_s

    async def post(self, http_request: HttpRequest, message: Message) -> None:
        """Serve one message whose head and form have passed."""
        refusal = check_message(message)
        if refusal is not None:
            await self._refuse(http_request, refusal)
        elif not isinstance(message, Request):
            # There is none that a client could send; it has no effect.
            await send_empty(http_request.send, 202, farewell(self._bridge.drain))
        else:
            try:
                await self._request(http_request, message)
            except Unavailable as error:
                await self._refuse(http_request, refusal_of(error, message.id))

    def begin(self, head: RequestHead, request: Request) -> StartedCall | None:
        """Begin a call without a response, if it needs no waiting; see `http.server.fast_path`."""
        routing = head.routing(routing_of)
        envelope = climb(request, routing)
        if isinstance(envelope, Refusal):
            return None
        tenant = self._bridge.find_tenant(head.principal)
        if tenant is None:
            return None
        modern = tenant.modern
        streams = _streams(head)
        exchange = modern.begin(request, envelope, routing, streams=streams)
        if exchange is None:
            return None
        return StartedCall(
            exchange,
            head.principal,
            lambda http_request: self._finish(http_request, modern, exchange),
            lambda: modern.cancel(exchange),
        )

    async def _request(self, http_request: HttpRequest, request: Request) -> None:
        modern = self._bridge.tenant_of(http_request.principal).modern
        if not await modern.served():
            await self._refuse(http_request, echoing(not_served(), request.id))
            return
        routing = routing_of(http_request)
        envelope = climb(request, routing)
        refusal = envelope if isinstance(envelope, Refusal) else None
        if refusal is None:
            refusal = await modern.check(request, routing)
        if isinstance(envelope, Refusal) or refusal is not None:
            assert refusal is not None
            await self._refuse(http_request, echoing(refusal, request.id))
        elif request.method == DISCOVER:
            result = await modern.discover()
            reply = encode(Result(request.id, result))
            await send_json(http_request.send, 200, reply, farewell(self._bridge.drain))
        elif request.method == LISTEN:
            await self._listen(http_request, modern, request, envelope)
        else:
            http_request.called()
            exchange = await modern.call(request, envelope, streams=_streams(http_request))
            await self._finish(http_request, modern, exchange)

    async def _finish(
        self, http_request: HttpRequest, modern: ModernService, exchange: Exchange
    ) -> None:
        await exchange.first(_WATCH_AFTER_S)
        if exchange.reply is not None and exchange.stream is None:
            await self._respond(http_request, exchange)
            return
        try:
            with anyio.CancelScope() as scope:
                http_request.disconnect.watch(functools.partial(_abandon, exchange, scope))
                await exchange.first(self._json_window_s)
                await self._respond(http_request, exchange)
        finally:
            http_request.disconnect.ignore()
            if exchange.reply is None:
                modern.cancel(exchange)

    async def _respond(self, http_request: HttpRequest, exchange: Exchange) -> None:
        headers = farewell(self._bridge.drain)
        if exchange.fault is not None and exchange.refused:
            refusal = refusal_of(Unavailable(exchange.fault), exchange.request.id)
            await self._refuse(http_request, refusal)
        elif exchange.reply is not None and exchange.stream is None and http_request.accepts.json:
            body = encode(exchange.reply)
            await send_json(http_request.send, _status_of(exchange.reply), body, headers)
        else:
            principal = http_request.principal if exchange.streams else None
            watching = self._keepalive.watching
            with exchange.streamed().attach() as reader, watching(reader, principal):
                if exchange.streams:
                    response = EventStream(reader, headers)
                    await response.send_all(http_request.send)
                else:
                    await send_late_json(http_request.send, reader, headers)

    async def _listen(
        self,
        http_request: HttpRequest,
        modern: ModernService,
        request: Request,
        envelope: RequestMeta,
    ) -> None:
        if not http_request.accepts.stream:
            await self._refuse(
                http_request, refuse(406, INVALID_REQUEST, "Accept must allow text/event-stream")
            )
            return
        async with modern.listening(request, envelope) as stream:
            if isinstance(stream, Refusal):
                await self._refuse(http_request, stream)
                return
            watching = self._keepalive.watching
            with stream.attach() as reader, watching(reader, http_request.principal):
                response = EventStream(reader, farewell(self._bridge.drain))
                await response.serve(http_request)

    async def _refuse(self, http_request: HttpRequest, refusal: Refusal) -> None:
        await send_refusal(http_request.send, refusal, farewell(self._bridge.drain))


def _abandon(exchange: Exchange, serving: anyio.CancelScope) -> None:
    """Its client has left, which is how a call is cancelled in this era."""
    if exchange.reply is None:
        serving.cancel()


def _streams(head: RequestHead) -> bool:
    return head.accepts.names_stream or not head.accepts.json


def routing_of(head: RequestHead) -> RoutingHeaders:
    """The routing headers of a request."""
    raw = head.raw
    names = [name for name, _ in raw if name in _ROUTING or name.startswith(_PARAM_PREFIX)]
    return RoutingHeaders(
        version=head.names.revision,
        method=head.get(b"mcp-method"),
        name=head.get(b"mcp-name"),
        params={
            name.removeprefix(_PARAM_PREFIX).decode("latin-1"): value.decode("latin-1")
            for name, value in raw
            if name.startswith(_PARAM_PREFIX)
        },
        repeated=len(names) != len(set(names)),
    )


def _status_of(reply: Reply) -> int:
    if not isinstance(reply, Failure):
        return 200
    return _STATUS.get(code_of(reply.error) or 0, 200)
