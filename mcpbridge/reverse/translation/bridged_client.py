"""A client whose messages are translated for a server of the other era, by a bridge.

The bridge is that of `mcpbridge serve` with one client: a legacy client is served as over the one
stream of 2024-11-05, a client of 2026-07-28 as over HTTP, each request with its own stream.
"""

from __future__ import annotations

import asyncio
import functools
import logging

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.stream import Reader
from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.health_check import HealthChecker
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.modern.emulation import ParkSettings
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.bridge.tenant import BridgeSettings
from mcpbridge.channels.off_loop import read_off_loop
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.reverse.child.remote_child import RemoteChild, RemotePlace
from mcpbridge.reverse.client_calls import Deliver
from mcpbridge.reverse.session.remote_http import Remote
from mcpbridge.reverse.session.request_headers import routing_headers, speaks_modern
from mcpbridge.reverse.session.tokens import Tokens
from mcpbridge.rules.access.principals import ANONYMOUS, NOTHING
from mcpbridge.rules.faults import Unavailable, session_closed
from mcpbridge.rules.mcp.admission import Opening, Refusal, admit_message, handshake_required
from mcpbridge.rules.mcp.era_probe import ChildEra
from mcpbridge.rules.mcp.methods import DISCOVER, KNOWN_REQUESTS, LISTEN
from mcpbridge.rules.mcp.modern_checks import Annotations, RoutingHeaders, check_request
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import OnChildExit, RestartPolicy
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    Result,
    Text,
    canonical_id,
    decode,
    whole,
)

log = logging.getLogger("mcpbridge.reverse")

_RETRY_S = 2.0
"""Longest wait between two attempts to reach the server."""
_START_S = 60.0
_PARAM = "mcp-param-"


def bridge_to(remote: Remote, tokens: Tokens | None, server: ChildEra, timeout_s: float) -> Bridge:
    """Return a bridge to a remote server.

    Args:
        remote: The server.
        tokens: Bearer tokens for it.
        server: The era that it speaks.
        timeout_s: Seconds that a call may take.
    """
    readiness, meters, budget = Readiness(), Meters(KNOWN_REQUESTS), Budget()
    health_checker, recycling = HealthChecker(RecyclePolicy()), RecyclePolicy()
    pool = ChildPoolSettings(spares="0")
    place = RemotePlace(remote, NOTHING, readiness, tokens)
    child_pool = ChildPool(
        functools.partial(RemoteChild, place, budget.children),
        pool,
        PipeLimits(max_message_bytes=remote.max_response_bytes),
        meters,
        observers=[health_checker],
    )
    eras = EraSupervisors(
        child_pool,
        readiness,
        RestartPolicy(give_up_after=0, max_delay_s=_RETRY_S),
        server,
        _START_S,
        finish_s=timeout_s,
    )
    settings = BridgeSettings(
        pool,
        SessionSettings(),
        CallLimits(timeout_s=timeout_s, idle_timeout_s=0),
        ParkSettings(),
        EraSettings(),
        OnChildExit.RESTART,
        recycling,
    )
    parts = (CallLog(meters), RequestStateCodec(None), health_checker)
    return Bridge(child_pool, eras, settings, readiness, meters, *parts, budget=budget)


class BridgedClient:
    """One client of a bridge, whichever its era; works within `run`."""

    def __init__(self, bridge: Bridge, deliver: Deliver) -> None:
        """Make it.

        Args:
            bridge: The bridge to the server; runs within `run`.
            deliver: Gives the client a request or notification of the server.
        """
        self._bridge = bridge
        self._deliver = deliver
        self._session: Session | None = None
        self._waiting: dict[bytes, asyncio.Future[Reply]] = {}
        """The requests of a legacy client, until their answers come on its stream."""
        self._tasks: TaskGroup

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled."""
        async with self._bridge.running(), anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    async def answer(self, request: Request) -> Reply:
        """Return the answer to a request: the server's, or an error of mcpbridge."""
        try:
            if speaks_modern(request):
                return await self._answer_modern(request)
            return await self._answer_legacy(request)
        except Unavailable as failed:
            return Failure(request.id, failed.fault.error())

    async def send(self, message: Notification | Reply) -> None:
        """Pass on a notification or an answer of the client."""
        session = self._session
        if session is None or speaks_modern(message):
            log.debug("connect.dropped", extra={"what": "a message of no session"})
        elif isinstance(message, Notification):
            session.tell(message)
        else:
            session.answer(message)

    async def _answer_legacy(self, request: Request) -> Reply:
        session = self._session
        revision = session.revision if session is not None else None
        admitted = admit_message(request, revision, require_session=False)
        if isinstance(admitted, Refusal):
            return Failure(request.id, admitted.error)
        if session is None and not isinstance(admitted, Opening):
            return Failure(request.id, handshake_required().error)
        key = canonical_id(request.id)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        try:
            if isinstance(admitted, Opening):
                await self._tasks.start(self._converse, admitted)
            else:
                assert session is not None
                session.call(request, streams=True)
            return await waiting
        finally:
            del self._waiting[key]

    async def _converse(self, opening: Opening, *, task_status: TaskStatus[None]) -> None:
        """Open a session; pass on what comes on its stream until that ends."""
        with self._bridge.one_stream(ANONYMOUS) as stream, stream.attach() as reader:
            session, _ = self._bridge.open(opening, ANONYMOUS, streams=True, one_stream=stream)
            self._session = session
            task_status.started()
            try:
                while (entries := await reader.read()) is not None:
                    for entry in entries:
                        await self._take(await read_off_loop(_read, entry.payload))
            finally:
                self._session = None
                self._bridge.close(session, why="disconnected")
                for waiting in self._waiting.values():
                    if not waiting.done():
                        waiting.set_exception(Unavailable(session_closed()))

    async def _take(self, message: Message) -> None:
        if not isinstance(message, Reply):
            await self._deliver(message)
            return
        waiting = self._waiting.get(canonical_id(message.id or b"null"))
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _answer_modern(self, request: Request) -> Reply:
        meta = check_request(request, _routing(request, {}))
        if isinstance(meta, Refusal):
            return Failure(request.id, meta.error)
        modern = self._bridge.tenant_of(ANONYMOUS).modern
        if request.method == LISTEN:
            async with modern.listening(request, meta) as stream:
                if isinstance(stream, Refusal):
                    return Failure(request.id, stream.error)
                with stream.attach() as reader:
                    return await self._last_of(reader)
        route = await modern.resolve(request)
        refusal = modern.check(request, _routing(request, route.annotations), route)
        if refusal is not None:
            return Failure(request.id, refusal.error)
        if request.method == DISCOVER:
            return Result(request.id, modern.discover(route))
        exchange = modern.call(request, meta, route, streams=True)
        try:
            with exchange.streamed().attach() as reader:
                return await self._last_of(reader)
        finally:
            if exchange.reply is None:
                # Its client has cancelled it, or the program ends.
                route.backend.cancel(exchange)

    async def _last_of(self, reader: Reader) -> Reply:
        """Return the answer on a request's stream; pass on what comes before it."""
        while (entries := await reader.read()) is not None:
            for entry in entries:
                message = await read_off_loop(_read, entry.payload)
                if isinstance(message, Reply):
                    return message
                await self._deliver(message)
        raise Unavailable(session_closed())


def _read(text: Text) -> Message:
    return decode(whole(text))


def _routing(request: Request, annotations: Annotations) -> RoutingHeaders:
    """Return the headers that a request would have over HTTP; on stdio there are none."""
    headers = routing_headers(request, annotations)
    return RoutingHeaders(
        version=headers.get("mcp-protocol-version"),
        method=headers.get("mcp-method"),
        name=headers.get("mcp-name"),
        params={
            name.removeprefix(_PARAM): value
            for name, value in headers.items()
            if name.startswith(_PARAM)
        },
        repeated=False,
    )
