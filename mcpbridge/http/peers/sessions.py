"""The legacy revisions for sessions that may leave this replica, on both of its ports.

A request for a session that is offered to another replica is held until that has answered. Then it
is handled as if it had come at that moment: here, or where the session is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse, refusal_of, refusing
from mcpbridge.http.transports.legacy import AnswerSettings, LegacyTransport
from mcpbridge.replicas.homes import Homes
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.homes.states import Arrival
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.wire.messages import Message, Request

Content = Message | list[Message]
Handled = StartedCall | HttpResponse | Refusal


class ReplicaLegacy(LegacyTransport):
    """The legacy revisions over Streamable HTTP, for the sessions of one replica."""

    def __init__(
        self, bridge: Bridge, keepalive: KeepAlive, settings: AnswerSettings, homes: Homes
    ) -> None:
        super().__init__(bridge, keepalive, settings)
        self._here = bridge
        self._homes = homes

    def handle(self, head: RequestHead, content: Content) -> Handled:
        """Take a message or batch, as the base does, or hold it while its session is leaving."""
        begins = isinstance(content, Request) and content.method == INITIALIZE
        if begins or not self._leaves(head):
            return super().handle(head, content)

        async def held(http_request: HttpRequest) -> None:
            # If the session stays, the cutoff must not come before this is handled.
            self._here.drain.call_started()
            try:
                if await self._answered(http_request):
                    await self._finish_handled(self.handle, content, http_request)
            finally:
                self._here.drain.call_finished()

        return StartedCall(held)

    def get(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """Open or resume a stream, as the base does, once it is known where the session is.

        No coroutine, of which an idle stream would keep the frame.
        """
        if self._leaves(http_request.head):
            return self._held(http_request, self.get)
        return super().get(http_request)

    def delete(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """End a session, as the base does, once it is known where it is."""
        if self._leaves(http_request.head):
            return self._held(http_request, self.delete)
        return super().delete(http_request)

    async def _held(
        self,
        http_request: HttpRequest,
        then: Callable[[HttpRequest], Coroutine[Any, Any, None]],
    ) -> None:
        if await self._answered(http_request):
            await then(http_request)

    def _end(self, session: Session) -> None:
        super()._end(session)
        self._homes.notices.deleted(session.id)

    def _leaves(self, head: RequestHead) -> bool:
        """Return whether the session that a request names is offered to another replica."""
        session_id = head.names.session_id
        if session_id is None or self._homes.leaving.arrival(session_id) is not Arrival.HOLD:
            return False
        # Another client must not learn of it by the time that the refusal takes.
        return self._here.session(session_id, head.principal) is not None

    async def _answered(self, http_request: HttpRequest) -> bool:
        """Wait until it is known where a session is; refuse the request if that takes too long."""
        session_id = http_request.head.names.session_id
        assert session_id is not None
        try:
            await self._homes.leaving.until_answered(session_id)
        except Unavailable as error:
            await refusing(refusal_of(error, None)).finish(http_request)
            return False
        return True

    async def _finish_handled(
        self,
        handle: Callable[[RequestHead, Content], Handled],
        content: Content,
        http_request: HttpRequest,
    ) -> None:
        """Handle a message or batch that had to wait, and answer it."""
        handled: Handled
        try:
            handled = handle(http_request.head, content)
        except Unavailable as error:
            handled = refusal_of(error, None)
        if isinstance(handled, Refusal):
            handled = refusing(handled)
        await handled.finish(http_request)
