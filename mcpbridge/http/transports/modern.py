"""The revision 2026-07-28: one POST for each request, no session, no other method.

Closing the connection is the cancellation, whatever has been sent by then.

Source: MCP 2026-07-28, Transports, Streamable HTTP.
"""

from __future__ import annotations

import functools

import anyio

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.modern.service import Modern
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.request import Begun, Head, Incoming
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
    Routing,
    check_message,
    climb,
    not_served,
)
from mcpbridge.rules.mcp.request_meta import Envelope
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


class StatelessFace:
    """Serves one bridge to clients of 2026-07-28."""

    def __init__(self, bridge: Bridge, keepalive: KeepAlive, json_window_s: float) -> None:
        self._bridge = bridge
        self._keepalive = keepalive
        self._json_window_s = json_window_s

    async def post(self, incoming: Incoming, message: Message) -> None:
        """Serve one message whose head and form have passed."""
        refusal = check_message(message)
        if refusal is not None:
            await self._refuse(incoming, refusal)
        elif not isinstance(message, Request):
            # There is none that a client could send; it has no effect.
            await send_empty(incoming.send, 202, farewell(self._bridge.drain))
        else:
            try:
                await self._request(incoming, message)
            except Unavailable as error:
                await self._refuse(incoming, refusal_of(error, message.id))

    def begin(self, head: Head, request: Request) -> Begun | None:
        """Begin a call without a response, where nothing must be waited for; see `http.direct`."""
        if head.routing is None:
            # The same for all requests under this head.
            head.routing = routing_of(head)
        envelope = climb(request, head.routing)
        if isinstance(envelope, Refusal):
            return None
        quarters = self._bridge.find_quarters(head.principal)
        if quarters is None:
            return None
        modern = quarters.modern
        streams = _streams(head)
        exchange = modern.begin(request, envelope, head.routing, streams=streams)
        if exchange is None:
            return None
        return Begun(
            exchange,
            lambda incoming: self._finish(incoming, modern, exchange),
            lambda: modern.cancel(exchange),
        )

    async def _request(self, incoming: Incoming, request: Request) -> None:
        modern = self._bridge.quarters_of(incoming.principal).modern
        if not await modern.served():
            await self._refuse(incoming, echoing(not_served(), request.id))
            return
        routing = routing_of(incoming)
        envelope = climb(request, routing)
        refusal = envelope if isinstance(envelope, Refusal) else None
        if refusal is None:
            refusal = await modern.check(request, routing)
        if isinstance(envelope, Refusal) or refusal is not None:
            assert refusal is not None
            await self._refuse(incoming, echoing(refusal, request.id))
        elif request.method == DISCOVER:
            result = await modern.discover()
            reply = encode(Result(request.id, result))
            await send_json(incoming.send, 200, reply, farewell(self._bridge.drain))
        elif request.method == LISTEN:
            await self._listen(incoming, modern, request, envelope)
        else:
            incoming.called()
            exchange = await modern.call(request, envelope, streams=_streams(incoming))
            await self._finish(incoming, modern, exchange)

    async def _finish(self, incoming: Incoming, modern: Modern, exchange: Exchange) -> None:
        await exchange.first(_WATCH_AFTER_S)
        if exchange.reply is not None and exchange.stream is None:
            await self._respond(incoming, exchange)
            return
        try:
            with anyio.CancelScope() as scope:
                incoming.departure.watch(functools.partial(_abandon, exchange, scope))
                await exchange.first(self._json_window_s)
                await self._respond(incoming, exchange)
        finally:
            incoming.departure.ignore()
            if exchange.reply is None:
                modern.cancel(exchange)

    async def _respond(self, incoming: Incoming, exchange: Exchange) -> None:
        headers = farewell(self._bridge.drain)
        if exchange.fault is not None and exchange.refused:
            refusal = refusal_of(Unavailable(exchange.fault), exchange.request.id)
            await self._refuse(incoming, refusal)
        elif exchange.reply is not None and exchange.stream is None and incoming.accepts.json:
            body = encode(exchange.reply)
            await send_json(incoming.send, _status_of(exchange.reply), body, headers)
        else:
            principal = incoming.principal if exchange.streams else None
            watching = self._keepalive.watching
            with exchange.streamed().attach() as reader, watching(reader, principal):
                if exchange.streams:
                    response = EventStream(reader, headers)
                    await response.send_all(incoming.send)
                else:
                    await send_late_json(incoming.send, reader, headers)

    async def _listen(
        self, incoming: Incoming, modern: Modern, request: Request, envelope: Envelope
    ) -> None:
        if not incoming.accepts.stream:
            await self._refuse(
                incoming, refuse(406, INVALID_REQUEST, "Accept must allow text/event-stream")
            )
            return
        async with modern.listening(request, envelope) as stream:
            if isinstance(stream, Refusal):
                await self._refuse(incoming, stream)
                return
            watching = self._keepalive.watching
            with stream.attach() as reader, watching(reader, incoming.principal):
                response = EventStream(reader, farewell(self._bridge.drain))
                await response.serve(incoming)

    async def _refuse(self, incoming: Incoming, refusal: Refusal) -> None:
        await send_refusal(incoming.send, refusal, farewell(self._bridge.drain))


def _abandon(exchange: Exchange, serving: anyio.CancelScope) -> None:
    """Its client has left, which is how a call is cancelled in this era."""
    if exchange.reply is None:
        serving.cancel()


def _streams(head: Head) -> bool:
    return head.accepts.names_stream or not head.accepts.json


def routing_of(head: Head) -> Routing:
    """The routing headers of a request."""
    raw = head.raw
    names = [name for name, _ in raw if name in _ROUTING or name.startswith(_PARAM_PREFIX)]
    return Routing(
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
