"""The MCP path of Streamable HTTP: what a POST is, and which transport serves it.

`StreamableHttp.handle` is the only place that decides it. It is called by `StreamableHttp.post` for
an ASGI server, and by `http.server.fast_path` for a connection that has the whole POST and knows
its head.

A body with the `_meta` of 2026-07-28 is served by the rules of that revision, whatever its header
names; the header decides only if the body has none. The decision depends on the request and the
settings alone, since clients remember which era was accepted.

Source: MCP 2026-07-28, Transports, Backward Compatibility.
"""

from __future__ import annotations

from collections.abc import Awaitable

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.children.server_eras import EraSettings
from mcpbridge.channels.off_loop import LONG_BYTES
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import BodyLimits, id_of, judge_body, judge_head, judge_long_body
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse, refusal_of, refusing
from mcpbridge.http.transports.legacy import LegacyTransport
from mcpbridge.http.transports.modern import ModernTransport
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable
from mcpbridge.rules.mcp.admission import Refusal, echoing, refuse
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.modern_checks import SUPPORTED, is_modern, not_served, unsupported
from mcpbridge.rules.mcp.request_meta import claimed_version
from mcpbridge.wire.messages import Message, Request


class StreamableHttp:
    """The MCP path of one bridge, for both eras."""

    def __init__(
        self,
        legacy: LegacyTransport,
        modern: ModernTransport,
        eras: EraSettings,
        limits: BodyLimits,
        access: AccessControl | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._legacy = legacy
        self._modern = modern
        # Read once: each call asks.
        self._serves_modern, self._serves_legacy = eras.serves_modern, eras.serves_legacy
        self._limits = limits
        self._access = access or AccessControl()
        self._budget = budget if budget is not None else Budget()

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse:
        """Decide what a POST is, and begin to serve it, without waiting.

        Args:
            head: The head, with its source checked and its principal known.
            body: The whole body, within the limit and short enough to be read in this thread.

        Returns:
            The response, or a started call that brings it.
        """
        return self._handle(head, judge_body(head, body, self._limits.max_depth))

    def _handle(
        self, head: RequestHead, content: Message | list[Message] | Refusal
    ) -> StartedCall | HttpResponse:
        # Most bodies are requests. A failing isinstance of a struct takes five times as long as a
        # succeeding one, so the usual class is tested first, here and below.
        if not isinstance(content, Request) and isinstance(content, Refusal):
            return refusing(content)
        handled: StartedCall | HttpResponse | Refusal | None = None
        if not self._access.admits_all:
            handled = self._access.admits(head.principal, content)
        try:
            handled = handled or self._serve(head, content)
        except Unavailable as error:
            handled = refusal_of(error, None)
        if not isinstance(handled, StartedCall) and isinstance(handled, Refusal):
            return refusing(echoing(handled, id_of(content)))
        return handled

    async def post(self, http_request: HttpRequest) -> None:
        """Handle a POST and send its answer, for any ASGI server."""
        body = await read_body(http_request, self._limits.max_bytes)
        handled: StartedCall | HttpResponse
        if isinstance(body, Refusal):
            handled = refusing(body)
        else:
            head, depth = http_request.head, self._limits.max_depth
            if len(body) < LONG_BYTES:
                content = judge_body(head, body, depth)
            else:
                # It waits for the thread that reads bodies, and is charged to its call after that.
                with self._budget.holding(len(body)):
                    content = await judge_long_body(head, body, depth)
            # Else it would be kept until the answer has been sent.
            del body
            handled = self._handle(head, content)
        if isinstance(handled, StartedCall) and handled.exchange is not None:
            http_request.remember_head()
        await handled.finish(http_request)

    def get(self, http_request: HttpRequest) -> Awaitable[None]:
        """Open or resume a stream of a session: see `LegacyTransport.get`.

        No coroutine, of which an idle stream would keep the frame.
        """
        if self._only_posts(http_request.head):
            return self._refuse_method(http_request)
        return self._legacy.get(http_request)

    async def delete(self, http_request: HttpRequest) -> None:
        """End a session: see `LegacyTransport.delete`."""
        if self._only_posts(http_request.head):
            await self._refuse_method(http_request)
        else:
            await self._legacy.delete(http_request)

    def _serve(
        self, head: RequestHead, content: Message | list[Message]
    ) -> StartedCall | HttpResponse | Refusal:
        """Let the transport of a body's era serve it."""
        if isinstance(content, list):
            return self._serve_batch(head, content)
        modern = is_modern(content, claimed_version(content), head.names.revision)
        if modern and not self._serves_modern:
            return not_served()
        if modern:
            return self._modern.handle(head, content)
        if not self._serves_legacy:
            return self._without_handshake(content)
        return self._legacy.handle(head, content)

    def _serve_batch(
        self, head: RequestHead, messages: list[Message]
    ) -> StartedCall | HttpResponse | Refusal:
        claims = any(claimed_version(message) is not None for message in messages)
        if claims or head.verdict(judge_head).names_modern:
            return refuse(400, INVALID_REQUEST, "batches are not allowed in 2026-07-28")
        return self._legacy.handle(head, messages)

    def _without_handshake(self, content: Message) -> Refusal:
        if isinstance(content, Request) and content.method == INITIALIZE:
            dates = ", ".join(SUPPORTED)
            return refuse(400, INVALID_REQUEST, f"initialize is not served: only {dates} is")
        return unsupported(None)

    def _only_posts(self, head: RequestHead) -> bool:
        if not self._serves_legacy:
            return True
        names_modern = head.verdict(judge_head).names_modern
        return self._serves_modern and (names_modern or head.get(b"mcp-method") is not None)

    async def _refuse_method(self, http_request: HttpRequest) -> None:
        refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow="POST")
        await refusing(refusal).finish(http_request)
