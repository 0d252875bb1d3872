"""The transport of sessions that may have got another home while this replica could not know it.

While there is no reason to check, a request costs one comparison more than without replicas.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.peers.sessions import ReplicaLegacy
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse, refusal_of, refusing
from mcpbridge.http.transports.legacy import AnswerSettings
from mcpbridge.replicas.homes import Homes
from mcpbridge.rules.faults import Fault, Unavailable
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.wire.messages import Message, Request


class FencedLegacy(ReplicaLegacy):
    """The legacy revisions over Streamable HTTP, for sessions that other replicas may adopt."""

    def __init__(
        self, bridge: Bridge, keepalive: KeepAlive, settings: AnswerSettings, homes: Homes
    ) -> None:
        super().__init__(bridge, keepalive, settings, homes)
        self._has_store = homes.checks.has_store

    def handle(
        self, head: RequestHead, content: Message | list[Message]
    ) -> StartedCall | HttpResponse | Refusal:
        """Take a message or batch, as the base does; check its session first if that is due."""
        session_id = self._to_check(head)
        opens = isinstance(content, Request) and content.method == INITIALIZE
        if session_id is None or opens:
            return self.handle_checked(head, content)
        serve = functools.partial(self._finish_handled, self.handle_checked, content)
        return StartedCall(functools.partial(self._check_then, session_id, serve))

    def handle_checked(
        self, head: RequestHead, content: Message | list[Message]
    ) -> StartedCall | HttpResponse | Refusal:
        """Take a message or batch of a session that was checked, or need not be."""
        return super().handle(head, content)

    def get(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """Open or resume a stream, as the base does; check its session first if that is due.

        No coroutine, of which an idle stream would keep the frame; so are the next ones.
        """
        return self._checked(http_request, self.get_checked)

    def get_checked(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """Open or resume a stream of a session that was checked, or need not be."""
        return super().get(http_request)

    def delete(self, http_request: HttpRequest) -> Coroutine[Any, Any, None]:
        """End a session, as the base does, so that no replica revives it."""
        return self._checked(http_request, self.delete_checked)

    async def delete_checked(self, http_request: HttpRequest) -> None:
        """End a session that was checked, or need not be."""
        session = self._required_session(http_request.head)
        if isinstance(session, Session):
            # First: the client may take its answer for the end, whatever becomes of this replica.
            await self._homes.checks.bury(session.id)
        await super().delete(http_request)

    def _to_check(self, head: RequestHead) -> str | None:
        """Return the session that a request names if it must be checked first."""
        session_id = head.names.session_id if self._has_store else None
        if session_id is None or not self._homes.checks.must_check(session_id):
            return None
        return session_id if self._here.session(session_id, head.principal) is not None else None

    def _checked(
        self,
        http_request: HttpRequest,
        then: Callable[[HttpRequest], Coroutine[Any, Any, None]],
    ) -> Coroutine[Any, Any, None]:
        """Return what serves a request without a body, after a check of its session if due."""
        session_id = self._to_check(http_request.head)
        if session_id is None:
            return then(http_request)
        return self._check_then(session_id, then, http_request)

    async def _check_then(
        self,
        session_id: str,
        then: Callable[[HttpRequest], Coroutine[Any, Any, None]],
        http_request: HttpRequest,
    ) -> None:
        fault = await self._homes.checks.check(session_id, http_request.head.principal)
        if fault is not None:
            await _unavailable(fault).finish(http_request)
        else:
            await then(http_request)


def _unavailable(fault: Fault) -> HttpResponse:
    return refusing(refusal_of(Unavailable(fault), None))
