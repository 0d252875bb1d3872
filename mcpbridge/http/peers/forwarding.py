"""The transports of a replica: they serve what is theirs, and forward what another one has.

A session that is here is found as without replicas; only an unknown id is opened.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.errors import WireError
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import BodyLimits, judge_head
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.peers.fence import FencedLegacy
from mcpbridge.http.peers.questions import taken_part
from mcpbridge.http.peers.relay import Forwarded, Relay, forwarded
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse, refusing
from mcpbridge.http.transports.legacy import AnswerSettings
from mcpbridge.http.transports.modern import ModernTransport
from mcpbridge.http.transports.sse import ProxySettings, SseTransport
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.placement import FULL, Placement
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.rules.mcp.input_required import request_state
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.wire.messages import Message, Request

_REQUEST_STATE = b"requestState"


class ForwardingLegacy(FencedLegacy):
    """The legacy revisions over Streamable HTTP, for the sessions of all replicas."""

    def __init__(
        self,
        bridge: Bridge,
        keepalive: KeepAlive,
        settings: AnswerSettings,
        relay: Relay,
        homes: Homes,
        placement: Placement,
    ) -> None:
        super().__init__(bridge, keepalive, settings, homes)
        self._relay = relay
        self._placement = placement

    def handle_checked(
        self, head: RequestHead, content: Message | list[Message]
    ) -> StartedCall | HttpResponse | Refusal:
        """Take a message or batch, as the base does, or begin to forward it."""
        if isinstance(content, Request) and content.method == INITIALIZE:
            if taken_part(self._here) >= FULL:
                return StartedCall(functools.partial(self._place, content))
            return super().handle_checked(head, content)
        home = self._home_of(head)
        if isinstance(home, Replica):
            return StartedCall(functools.partial(self._post, home, content))
        return super().handle_checked(head, content) if home is None else home

    def get_checked(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """Open or resume a stream, here or at the replica that has the session."""
        return self._forwarded(http_request, super().get_checked)

    def delete_checked(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """End a session, here or at the replica that has it."""
        return self._forwarded(http_request, super().delete_checked)

    def _forwarded(
        self,
        http_request: HttpRequest,
        here: Callable[[HttpRequest], Coroutine[Any, Any, None]],
    ) -> Coroutine[Any, Any, None]:
        """Return what serves a request without a body: here, at another replica, or a refusal."""
        home = self._home_of(http_request.head)
        if isinstance(home, Replica):
            return self._relay.serve(home, Forwarded(), http_request, here)
        return here(http_request) if home is None else refusing(home).finish(http_request)

    async def _post(
        self, home: Replica, content: Message | list[Message], http_request: HttpRequest
    ) -> None:
        http_request.remember_head()
        here = functools.partial(self._finish_handled, super().handle_checked, content)
        await self._relay.serve(home, forwarded(content), http_request, here)

    async def _place(self, request: Request, http_request: HttpRequest) -> None:
        """Open a session at a replica that has room; here if none is known to have any."""
        here = functools.partial(self._finish_handled, super().handle_checked, request)
        home = await self._placement.emptier()
        self._here.meters.tally("placements", "elsewhere" if home is not None else "here")
        if home is None:
            await here(http_request)
        else:
            await self._relay.place(home, forwarded(request), http_request, here)

    def _home_of(self, head: RequestHead) -> Replica | Refusal | None:
        """Return where the session is that a request names; None if the base is to serve it."""
        session_id = head.names.session_id
        if session_id is None or self._here.session(session_id, head.principal) is not None:
            return None
        if head.verdict(judge_head).legacy_refusal is not None:
            return None
        return self._relay.home_of(session_id, head.principal)


class ForwardingModern(ModernTransport):
    """Revision 2026-07-28, for the parked calls of all replicas."""

    def __init__(
        self,
        bridge: Bridge,
        keepalive: KeepAlive,
        json_window_s: float,
        relay: Relay,
        codec: RequestStateCodec,
        own: Replica,
    ) -> None:
        super().__init__(bridge, keepalive, json_window_s)
        self._relay = relay
        self._codec = codec
        self._own = own

    def handle(self, head: RequestHead, message: Message) -> StartedCall | HttpResponse | Refusal:
        """Take a message, as the base does, or begin to forward the retry of a parked call."""
        if isinstance(message, Request) and message.params and _REQUEST_STATE in message.params:
            home = self._home_of(message, head.principal)
            if home is not None:
                return StartedCall(functools.partial(self._post, home, message))
        return super().handle(head, message)

    def _home_of(self, request: Request, principal: Principal) -> Replica | None:
        try:
            text = request_state(request.params)
        except WireError:
            return None
        if text is None:
            return None
        state = self._codec.another(principal.key).decode(text, time.time())
        if state is None or not state.home:
            return None
        home = replica_named(state.home)
        return home if home != self._own else None

    async def _post(self, home: Replica, request: Request, http_request: HttpRequest) -> None:
        await self._relay.forward(home, forwarded(request, parked=True), http_request)


class ForwardingSse(SseTransport):
    """HTTP+SSE, for the streams of all replicas."""

    def __init__(
        self,
        bridge: Bridge,
        keepalive: KeepAlive,
        settings: ProxySettings,
        limits: BodyLimits,
        below: str,
        access: AccessControl,
        new_key: Callable[[Principal], str],
        relay: Relay,
    ) -> None:
        super().__init__(bridge, keepalive, settings, limits, below, access, new_key)
        self._max_bytes = limits.max_bytes
        self._relay = relay

    async def take(self, http_request: HttpRequest) -> None:
        """Take a message that another replica forwards: for a stream that is here, or none."""
        await super().post(http_request)

    async def post(self, http_request: HttpRequest) -> None:
        """Take a message for a stream that is here, or forward it to the replica that has it."""
        query = parse_qs(http_request.scope["query_string"].decode("latin-1"))
        keys = query.get("session_id", [])
        home: Replica | Refusal | None = None
        if len(keys) == 1 and not self.holds(keys[0]):
            home = self._relay.home_of(keys[0], http_request.head.principal)
        if home is None:
            await self.take(http_request)
            return
        body = await read_body(http_request, self._max_bytes)
        if isinstance(body, Refusal) or isinstance(home, Refusal):
            refusal = body if isinstance(body, Refusal) else home
            assert isinstance(refusal, Refusal)
            await refusing(refusal).finish(http_request)
        else:
            await self._relay.forward(home, Forwarded(body), http_request)
