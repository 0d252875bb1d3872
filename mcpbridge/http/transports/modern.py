"""Revision 2026-07-28 over Streamable HTTP: one POST for each request, without sessions.

A client cancels a call by closing its connection, even if part of the response was sent.

Source: MCP 2026-07-28, Transports, Streamable HTTP.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import anyio

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.modern.service import ModernService, Route
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import (
    EventStream,
    HttpResponse,
    refusal_of,
    refusing,
    send_late_json,
    send_replies,
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
    check_request,
    not_served,
)
from mcpbridge.rules.mcp.request_meta import RequestMeta, progress_token
from mcpbridge.rules.mcp.to_modern import code_of
from mcpbridge.wire.messages import Failure, Message, Reply, Request, Result, encode

_STATUS = {
    METHOD_NOT_FOUND: 404,
    MISSING_CAPABILITY: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
}
"""HTTP status by error code; every other error of a call is sent with 200."""
_WATCH_AFTER_S = 0.02
"""Seconds before a call's connection is watched for its end: most calls are answered sooner."""
_PARAM_PREFIX = b"mcp-param-"
_ROUTING = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")

Later = Callable[[Request, RequestHead], Awaitable[StartedCall | HttpResponse | Refusal]]
"""Waits for a child, then serves a request; may raise Unavailable."""


class ModernTransport:
    """A transport for clients of 2026-07-28, over Streamable HTTP."""

    def __init__(self, bridge: Bridge, keepalive: KeepAlive, json_window_s: float) -> None:
        self._bridge = bridge
        self._keepalive = keepalive
        self._json_window_s = json_window_s

    def handle(self, head: RequestHead, message: Message) -> StartedCall | HttpResponse | Refusal:
        """Take one message whose head and form have passed the rules, and begin to serve a request.

        Returns:
            The response, or the call that brings it; a refusal if a rule is broken.

        Raises:
            Unavailable: No child or tenant can be had at present.
        """
        if not isinstance(message, Request):
            # 2026-07-28 defines no notification that a client sends over HTTP: no effect.
            accepted = HttpResponse(202)
            return check_message(message) or accepted
        modern = self._bridge.tenant_of(head.principal).modern
        # Only `--modern native` has to wait: the first process has not said yet what it speaks.
        served = modern.served
        if served is None:
            return self._later(message, functools.partial(self._handle_when_known, modern))
        if not served:
            return not_served()
        meta = check_request(message, head.routing(routing_of))
        if not isinstance(meta, RequestMeta):
            return meta
        if message.method == LISTEN:
            return self._begin_listen(head, modern, message, meta)
        route = modern.resolve_nowait(message)
        if route is None:
            return self._later(message, functools.partial(self._serve_when_resolved, modern, meta))
        return self._serve(head, modern, message, meta, route)

    def _serve(
        self,
        head: RequestHead,
        modern: ModernService,
        request: Request,
        meta: RequestMeta,
        route: Route,
    ) -> StartedCall | HttpResponse | Refusal:
        """Serve a request whose route is known."""
        refusal = modern.check(request, head.routing(routing_of), route)
        if refusal is not None:
            return refusal
        if request.method == DISCOVER:
            reply = encode(Result(request.id, modern.discover(route)))
            return HttpResponse(200, reply)
        exchange = modern.call(request, meta, route, streams=head.streams, caller=head.caller)
        cancel = functools.partial(route.backend.cancel, exchange)
        finish = functools.partial(self._finish, exchange, meta, cancel)
        return StartedCall(finish, exchange, cancel)

    def _later(self, request: Request, serve: Later) -> StartedCall:
        return StartedCall(functools.partial(self._finish_later, request, serve))

    async def _finish_later(
        self, request: Request, serve: Later, http_request: HttpRequest
    ) -> None:
        """Answer a request that has to wait for the server's eras or a child first."""
        try:
            handled = await serve(request, http_request.head)
        except Unavailable as error:
            handled = refusal_of(error, None)
        if isinstance(handled, Refusal):
            handled = refusing(echoing(handled, request.id))
        await handled.finish(http_request)

    async def _handle_when_known(
        self, modern: ModernService, request: Request, head: RequestHead
    ) -> StartedCall | HttpResponse | Refusal:
        await modern.known()
        return self.handle(head, request)

    async def _serve_when_resolved(
        self, modern: ModernService, meta: RequestMeta, request: Request, head: RequestHead
    ) -> StartedCall | HttpResponse | Refusal:
        route = await modern.resolve(request)
        return self._serve(head, modern, request, meta, route)

    async def _finish(
        self,
        exchange: Exchange,
        meta: RequestMeta,
        cancel: Callable[[], None],
        http_request: HttpRequest,
    ) -> None:
        await exchange.first(_WATCH_AFTER_S)
        # Most calls end here: for them no scope is made and no connection is watched.
        if exchange.reply is not None and exchange.stream is None:
            await self._respond(http_request, exchange)
            return
        try:
            with anyio.CancelScope() as scope:
                http_request.disconnect.watch(functools.partial(_abandon, exchange, scope))
                await exchange.first(self._json_window_s)
                if self._stays_json(http_request.head, exchange, meta):
                    await exchange.first(self._keepalive.every_s)
                    if exchange.stream is None:
                        exchange.only_answer()
                await self._respond(http_request, exchange)
        finally:
            # 2026-07-28 has no other cancellation: a client that closes its connection cancels the
            # call.
            http_request.disconnect.ignore()
            if exchange.reply is None:
                cancel()

    def _stays_json(self, head: RequestHead, exchange: Exchange, meta: RequestMeta) -> bool:
        """Return whether a slow answer stays JSON: see `LegacyTransport`."""
        if exchange.reply is not None or exchange.stream is not None or not head.accepts.json:
            return False
        if not self._json_window_s or meta.abilities or meta.log_level is not None:
            return False
        return progress_token(exchange.request.params) is None

    async def _respond(self, http_request: HttpRequest, exchange: Exchange) -> None:
        accepts = http_request.head.accepts
        if exchange.fault is not None and exchange.refused:
            refusal = refusal_of(Unavailable(exchange.fault), exchange.request.id)
            await self._refuse(http_request, refusal)
        elif exchange.reply is not None and exchange.stream is None and accepts.json:
            reply = exchange.reply
            await send_replies(http_request, _status_of(reply), [reply])
        else:
            principal = http_request.head.principal if exchange.streams else None
            watching = self._keepalive.watching
            with exchange.streamed().attach() as reader, watching(reader, principal):
                if exchange.streams:
                    response = EventStream(reader)
                    await response.send_all(http_request.send)
                else:
                    await send_late_json(http_request.send, reader)

    def _begin_listen(
        self, head: RequestHead, modern: ModernService, request: Request, meta: RequestMeta
    ) -> StartedCall | Refusal:
        if not head.accepts.stream:
            return refuse(406, INVALID_REQUEST, "Accept must allow text/event-stream")
        return StartedCall(functools.partial(self._listen, modern, request, meta))

    async def _listen(
        self,
        modern: ModernService,
        request: Request,
        meta: RequestMeta,
        http_request: HttpRequest,
    ) -> None:
        try:
            with anyio.CancelScope() as opening:
                # What the child grants takes time, in which the client may leave.
                http_request.disconnect.watch(opening.cancel)
                async with modern.listening(request, meta, http_request.head.caller) as stream:
                    if isinstance(stream, Refusal):
                        await self._refuse(http_request, stream)
                        return
                    watching = self._keepalive.watching
                    with stream.attach() as reader, watching(reader, http_request.head.principal):
                        response = EventStream(reader)
                        # It only listens: it may end for the connection of a new client.
                        http_request.disconnect.may_end(lambda: True)
                        await response.serve(http_request)
        except Unavailable as error:
            await self._refuse(http_request, refusal_of(error, request.id))
        finally:
            http_request.disconnect.may_end(None)
            http_request.disconnect.ignore()

    async def _refuse(self, http_request: HttpRequest, refusal: Refusal) -> None:
        await refusing(refusal).finish(http_request)


def _abandon(exchange: Exchange, serving: anyio.CancelScope) -> None:
    """Stop serving a call whose client has left, unless it is answered: that cancels the call."""
    if exchange.reply is None:
        serving.cancel()


def routing_of(head: RequestHead) -> RoutingHeaders:
    """Read the routing headers of a request."""
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
