"""One MCP client's way to a remote server, over one session after the other.

A remote that restarts forgets its sessions. The client does not notice: the next request, or the
end of the standalone stream, begins a new session with the client's own handshake, repeats log
level and subscriptions, and announces that the lists may have changed. While the remote cannot be
reached each request is answered with an error.

A request is sent a second time only if the first one cannot have been executed, or if it is not a
`tools/call`: the others are meant to be asked again. A `subscriptions/listen` is not repeated
either; its client listens again and learns by that that it may have missed something.

The ids of the client pass unchanged, since messages of 2026-07-28 name them. Requests of the server
get ids of our own: after a restart the server may use its ids again while the client still answers
an old one.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge.errors import WireError
from mcpbridge.reverse.client_calls import Deliver
from mcpbridge.reverse.client_state import ClientState
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.remote_http import RemoteHttp
from mcpbridge.reverse.session.request_headers import speaks_modern
from mcpbridge.reverse.session.sse_session import SseSession
from mcpbridge.reverse.session.streamable_session import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    RemoteSession,
    StreamableSession,
)
from mcpbridge.rules.faults import INVALID_REQUEST, UNREACHABLE, Unavailable, error_object
from mcpbridge.rules.mcp.correlator import cancel_for, cancelled_id, number_of, renamed_cancel
from mcpbridge.rules.mcp.methods import CANCELLED, INITIALIZE, INITIALIZED, LISTEN
from mcpbridge.rules.mcp.modern_checks import Path, annotations_in
from mcpbridge.wire.messages import Failure, Message, Notification, Reply, Request, Result

log = logging.getLogger("mcpbridge.reverse")

_NEVER_REPEATED = ("tools/call", LISTEN, INITIALIZE)
_OLDER_TRANSPORT = (400, 404, 405, 406, 415, 501)
"""Statuses with which a server of HTTP+SSE answers a POST to the address of its stream."""
_RESTORE_S = 10.0
_MOST_ASKED = 256


class RemoteClient:
    """The sessions of one client with one remote server; works within `run`."""

    def __init__(self, http: RemoteHttp, deliver: Deliver, request_timeout_s: float) -> None:
        """Make it.

        Args:
            http: The connections to the server.
            deliver: Gives the client a request or notification of the server.
            request_timeout_s: Seconds that a request may take; a `subscriptions/listen` has no end.
        """
        self._http = http
        self._deliver = deliver
        self._request_timeout_s = request_timeout_s
        self._state = ClientState()
        self._tool_headers: dict[str, Mapping[Path, str]] = {}
        self._bare = StreamableSession(http, self._emit, self._tool_headers)
        self._session: RemoteSession = self._bare
        self._suspect: RemoteSession | None = None
        self._watches: dict[RemoteSession, anyio.CancelScope] = {}
        self._opening = anyio.Lock()
        self._asked: dict[int, tuple[RemoteSession, bytes]] = {}
        self._numbers = itertools.count(1)
        self._tasks: TaskGroup

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled; then end the session at the server."""
        async with self._http.open():
            try:
                async with anyio.create_task_group() as self._tasks:
                    task_status.started()
                    await anyio.sleep_forever()
            finally:
                await self._session.close()

    async def answer(self, request: Request) -> Reply:
        """Return the answer to a request of the client: the server's, or an error of our own."""
        limit_s = float("inf") if request.method == LISTEN else self._request_timeout_s
        with anyio.move_on_after(limit_s):
            try:
                self._state.check(request)
                reply = await self._answered(request)
                self._note(request, reply)
                return reply
            except Unavailable as failed:
                log.warning("connect.call_failed", extra=_facts(request, failed))
                return Failure(request.id, failed.fault.error())
        overdue = faults.overdue(limit_s, "--request-timeout")
        log.warning("connect.call_failed", extra=_facts(request, overdue))
        return Failure(request.id, overdue.fault.error())

    async def attempt(self, request: Request) -> Reply:
        """Return the server's answer to a request of our own; raise Unavailable if none comes."""
        return await self._answered(request)

    async def _answered(self, request: Request) -> Reply:
        if request.method == INITIALIZE:
            return await self._introduced(request)
        modern = speaks_modern(request)
        session: RemoteSession = self._bare if modern else await self._current()
        try:
            return await session.call(request)
        except faults.SessionLost:
            log.info("connect.session_lost", extra={"url": self._http.remote.name})
            is_lost = True
        except Unavailable as failed:
            if failed.fault.reason == UNREACHABLE:
                self._suspect = session
            if failed.fault.reason != faults.BROKEN or request.method in _NEVER_REPEATED:
                raise
            # A session with an id is asked again: the server says if it has lost it.
            is_lost = isinstance(session, SseSession) or not session.shows_loss
        if is_lost and not modern:
            session = await self._renewed(session)
        return await self._second_attempt(session, request)

    async def _second_attempt(self, session: RemoteSession, request: Request) -> Reply:
        try:
            return await session.call(request)
        except faults.SessionLost:
            # Such a session did not execute the request.
            return await (await self._renewed(session)).call(request)

    async def _current(self) -> RemoteSession:
        """Return the session to use now, once a session that is being begun has begun."""
        if self._opening.locked():
            async with self._opening:
                pass
        if self._suspect is self._session and not self._session.shows_loss:
            # Such a server cannot say that it has forgotten the handshake.
            return await self._renewed(self._session)
        return self._session

    async def _introduced(self, request: Request) -> Reply:
        """Begin the first session, or the one that the client itself begins again."""
        async with self._opening:
            session, reply = await self._opened(request)
            if isinstance(reply, Result):
                self._tasks.start_soon(self._session.close)
                self._replace(session)
            else:
                self._dismiss(session)
            return reply

    async def _opened(self, request: Request) -> tuple[RemoteSession, Reply]:
        """Make a session by an `initialize`, over whichever transport the server has.

        Source: MCP 2025-03-26, Transports, Backwards Compatibility.
        """
        session = StreamableSession(self._http, self._emit, self._tool_headers)
        older = SseSession(self._http, self._emit)
        if self._http.remote.sse:
            await self._tasks.start(self._watch, older)
            return older, await older.call(request)
        try:
            return session, await session.call(request)
        except faults.RemoteRefused as refused:
            if refused.status not in _OLDER_TRANSPORT:
                raise
            try:
                await self._tasks.start(self._watch, older)
            except Unavailable:
                if refused.failure is not None:
                    return session, refused.failure
                raise refused from None
        log.info("connect.older_transport", extra={"url": self._http.remote.name})
        return older, await older.call(request)

    def _replace(self, session: RemoteSession) -> None:
        before, self._session, self._suspect = self._session, session, None
        if session is not before:
            self._dismiss(before)

    def _dismiss(self, session: RemoteSession) -> None:
        scope = self._watches.get(session)
        if scope is not None:
            scope.cancel()
        for number in [n for n, (asked_in, _) in self._asked.items() if asked_in is session]:
            del self._asked[number]
            self._tasks.start_soon(self._deliver, cancel_for(number, "the session has ended"))

    async def _renewed(self, lost: RemoteSession) -> RemoteSession:
        """Return the session after a lost one, begun with the client's own handshake."""
        async with self._opening:
            if self._session is not lost or not self._state.introduced:
                return self._session
            # Shielded: the client may cancel the request that began this, and others wait for it.
            with anyio.move_on_after(_RESTORE_S, shield=True):
                session, reply = await self._opened(self._state.handshake())
                if not isinstance(reply, Result):
                    self._dismiss(session)
                    raise faults.malformed(self._http.remote.name, "it refuses the handshake")
                await self._restore(session, reply)
                return session
            raise faults.overdue(_RESTORE_S, "for a new session")

    async def _restore(self, session: RemoteSession, reply: Result) -> None:
        await session.send(Notification(INITIALIZED))
        for request in self._state.repeated():
            repeated = await session.call(request)
            if isinstance(repeated, Failure):
                log.warning("connect.not_repeated", extra={"method": request.method})
        self._state.note_offer(reply)
        self._replace(session)
        log.info("connect.session_restored", extra={"url": self._http.remote.name})
        self._listen(session)
        for notification in self._state.changes():
            await self._deliver(notification)

    def _listen(self, session: RemoteSession) -> None:
        if session not in self._watches:
            self._tasks.start_soon(self._watch_started, session)

    async def _watch_started(self, session: RemoteSession) -> None:
        await self._watch(session, task_status=anyio.TASK_STATUS_IGNORED)

    async def _watch(self, session: RemoteSession, *, task_status: TaskStatus[None]) -> None:
        """Read a session's stream; when the session is lost, begin the next one."""
        try:
            with anyio.CancelScope() as self._watches[session]:
                await session.run(task_status=task_status)
        except faults.SessionLost:
            pass
        else:
            return
        finally:
            self._watches.pop(session, None)
        wait_s = FIRST_WAIT_S
        # Outside the scope, which the new session cancels.
        while self._session is session:
            try:
                await self._renewed(session)
            except Unavailable as failed:
                log.debug("connect.not_restored", extra={"problem": str(failed)})
                await anyio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def send(self, message: Notification | Reply) -> None:
        """Pass on a notification or an answer of the client; one that cannot be sent is logged."""
        modern = speaks_modern(message)
        session: RemoteSession = self._bare
        sent: Message = message
        if isinstance(message, Reply):
            asked = self._asked.pop(number_of(message.id) or 0, None)
            if asked is None:
                log.debug("connect.dropped", extra={"what": "an answer to no request"})
                return
            session, server_id = asked
            sent = _renamed(message, server_id)
        try:
            if isinstance(message, Notification) and not modern:
                session = await self._current()
            await session.send(sent)
        except Unavailable as failed:
            log.warning("connect.not_sent", extra={"problem": str(failed)})
        if isinstance(message, Notification) and message.method == INITIALIZED:
            self._listen(session)

    async def _emit(self, session: RemoteSession, message: Message) -> None:
        """Give the client a message of the server, under an id of our own."""
        if isinstance(message, Request):
            if len(self._asked) >= _MOST_ASKED:
                text = f"the client has {_MOST_ASKED} requests of the server to answer"
                failure = Failure(message.id, error_object(INVALID_REQUEST, text))
                with suppress(Unavailable):
                    await session.send(failure)
                return
            number = next(self._numbers)
            self._asked[number] = session, message.id
            message = Request(b"%d" % number, message.method, message.params, message.extra)
        elif isinstance(message, Notification) and message.method == CANCELLED:
            cancelled = self._withdrawn(session, message)
            if cancelled is None:
                return
            message = cancelled
        await self._deliver(message)

    def _withdrawn(self, session: RemoteSession, message: Notification) -> Notification | None:
        try:
            server_id = cancelled_id(message)
            for number, asked in self._asked.items():
                if asked == (session, server_id):
                    del self._asked[number]
                    return renamed_cancel(message, b"%d" % number)
        except (WireError, KeyError):
            return None
        return None

    def _note(self, request: Request, reply: Reply) -> None:
        self._state.note(request, reply)
        if request.method == "tools/list" and isinstance(reply, Result):
            # A page more, so what other pages said stays.
            self._tool_headers.update(annotations_in(reply.result))


def _renamed(reply: Reply, request_id: bytes) -> Reply:
    if isinstance(reply, Result):
        return Result(request_id, reply.result, reply.extra)
    return Failure(request_id, reply.error, reply.extra)


def _facts(request: Request, failed: Unavailable) -> dict[str, object]:
    fault = failed.fault
    return {
        "method": request.method[:64],
        "reason": fault.reason,
        "executed": fault.executed,
        "problem": fault.message,
    }
