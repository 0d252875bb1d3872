"""Requests of 2026-07-28 served by legacy children.

Requests have no session: each carries all facts about its client. If the server may send
requests during a call and the client has a capability for them, the call gets a child for itself
and becomes a `ParkedCall`, which waits for its client's answers. All other requests go to the
shared child.

Source: MCP 2026-07-28, Base Protocol; Multi Round-Trip Requests.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Coroutine

import anyio

from mcpbridge.bridge.budget import Holder
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.supervisor import Ready, Supervisor
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.modern.parked_call import ParkedCall
from mcpbridge.bridge.modern.parking import Parking
from mcpbridge.bridge.modern.request_state import RequestState, RequestStateCodec
from mcpbridge.errors import ChannelClosed, WireError
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import (
    Fault,
    PoolExhausted,
    Unavailable,
    cancelled,
    child_exited,
    cut_for_memory,
    shutdown,
)
from mcpbridge.rules.mcp.input_required import (
    all_accepted,
    digest,
    input_required,
    input_responses,
    pages_to_visit,
    request_state,
)
from mcpbridge.rules.mcp.methods import SET_LEVEL, level_admits, more_verbose
from mcpbridge.rules.mcp.modern_checks import MAY_ASK, missing_capability
from mcpbridge.rules.mcp.request_meta import RequestMeta, stripped
from mcpbridge.rules.mcp.to_modern import URL_REQUIRED_BEFORE, code_of, completed, error_up
from mcpbridge.rules.supervision.isolation import Isolation, asked_abilities
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result, quoted, text_of

log = logging.getLogger("mcpbridge.bridge")

Work = Coroutine[None, None, None]
Translation = Callable[[Reply], Reply]
"""Returns the answer as the client gets it."""
Overdue = Callable[[Exchange, float], Fault | None]
"""Returns the fault of a call that has taken too long at a given time; None if it has not."""

_REPLAY_S = 60.0
"""Seconds that a finished parked call is kept for a retry that is sent a second time."""
_LEVEL_S = 5.0
_MOST_ENDED = 1024
"""Most calls whose end for another client, or for want of memory, is remembered for their retry."""


class ParkSettings(SettingsSection, frozen=True):
    """Settings of calls that wait for their client's answers."""

    parked_timeout_s: float = setting(
        600.0,
        "--parked-timeout",
        "How long a call of a 2026-07-28 client waits for the answer to a question of the server.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    max_parked: int = setting(
        64,
        "--max-parked",
        "Calls that may wait for their clients' answers at once, over all clients; if more come,"
        " the client with most of them gives way to one with fewer.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )


class CallScope:
    """A scope for the exchange of one call without a session; see `Scope`."""

    __slots__ = ("_caller", "_context", "_envelope", "_in_flight")

    outside = True
    client_name = ""
    """Each request names its client: see `Scope`."""

    def __init__(
        self,
        context: CallContext,
        envelope: RequestMeta,
        in_flight: set[Exchange],
        caller: bytes = b"",
    ) -> None:
        self._context = context
        self._caller = caller
        self._envelope = envelope
        self._in_flight = in_flight

    @property
    def account(self) -> Account:
        """The tenant's account: see `Scope`."""
        return self._context.account

    def exchange(
        self, request: Request, *, streams: bool, translations: tuple[Translation, ...]
    ) -> Exchange:
        """Make the exchange of this scope."""
        context, span = self._context, None
        if context.call_log.tracing is not None:
            request, span = context.call_log.began(request, self._envelope.version, None)
        now = context.clock()
        aside = context.spawn if translations else None
        return Exchange(request, self, now, streams, None, span, translations, self._caller, aside)

    def begin_stream(self, call_id: bytes) -> Stream:
        """Return a new stream; its events have no ids, since 2026-07-28 resumes no streams."""
        return Stream(
            self._context.window,
            self._context.meters,
            answers_due=1,
            charge=self.account.charge,
        )

    def ended(self, exchange: Exchange) -> None:
        """Remove the exchange and record it: see `Scope`."""
        self._in_flight.discard(exchange)
        self._context.call_log.ended(exchange, self._context.clock())
        self._context.drain.call_finished(lasting=exchange.lasting)

    def on_notification(self, notification: Notification) -> None:
        """Drop a notification: 2026-07-28 allows none after the answer."""

    def admits(self, notification: Notification) -> bool:
        """Return whether this request asked for log messages of this level."""
        level = text_of(member(notification.params or b"{}", "level"))
        return self._envelope.log_level is not None and level_admits(
            self._envelope.log_level, level
        )


class EmulatedCalls:
    """A backend that serves calls of one tenant's clients of 2026-07-28 by legacy children."""

    def __init__(
        self,
        context: CallContext,
        supervisor: Supervisor,
        child_pool: ChildSource,
        pool: WarmPool,
        isolation: Isolation,
        settings: ParkSettings,
        state_codec: RequestStateCodec,
        parking: Parking,
        *,
        answers_roots: bool = False,
    ) -> None:
        self._context = context
        self._parking = parking
        self._supervisor = supervisor
        self._child_pool = child_pool
        self._pool = pool
        self._isolation = isolation
        self._answers_roots = answers_roots
        self._settings = settings
        self._state_codec = state_codec
        self._parked_calls: dict[str, ParkedCall] = {}
        self._finished: dict[str, float] = {}
        self._ended: dict[str, Fault] = {}
        """Why parked calls were ended in favour of others, for their clients' retries."""
        self.in_flight: set[Exchange] = set()
        """The exchanges that are open."""

    @property
    def busy(self) -> bool:
        """Whether a call is open or parked."""
        return bool(self.in_flight) or len(self._parked_calls) > len(self._finished)

    def call(
        self,
        request: Request,
        envelope: RequestMeta,
        lease: Lease,
        *,
        streams: bool,
        translations: tuple[Translation, ...] = (),
        caller: bytes = b"",
    ) -> Exchange:
        """Send a request; return its exchange, whose answer is translated. Never raises."""
        scope = CallScope(self._context, envelope, self.in_flight, caller)
        first = functools.partial(self._translated, request, envelope)
        exchange = scope.exchange(request, streams=streams, translations=(first, *translations))
        fault = self._context.over_load(caller)
        # Before the exchange can fail: its end counts a call as finished.
        self._context.drain.call_started()
        self.in_flight.add(exchange)
        if fault is not None:
            exchange.fail(fault)
            return exchange
        try:
            self._context.check_tool(request)
            state = request_state(request.params)
            if state is not None:
                self._context.spawn(
                    self._guarded, exchange, self._resume(exchange, envelope, state)
                )
            elif self._may_ask(request, envelope):
                self._context.spawn(self._guarded, exchange, self._begin(exchange, envelope))
            else:
                self._serve_shared(exchange, envelope, lease)
        except WireError as error:
            exchange.invalid(str(error))
        return exchange

    @property
    def holders(self) -> list[Holder]:
        """The calls and parked calls that have bytes in the ledger."""
        parked = self._parked_calls.values()
        attempts = {each.attempt for each in parked}
        calls = [each for each in self.in_flight if each.held and each not in attempts]
        return [
            *(Holder("call", each.held, each.cut) for each in calls),
            *(Holder("parked_call", each.held, self._cutting(each)) for each in parked),
        ]

    def shed(self) -> int:
        """Let finished parked calls go, kept for a retry that is sent again; return the bytes."""
        freed = 0
        for key in list(self._finished):
            freed += self._parked_calls[key].let_go()
            del self._parked_calls[key], self._finished[key]
        return freed

    def _cutting(self, parked_call: ParkedCall) -> Callable[[], None]:
        return functools.partial(self._yield, parked_call, cut_for_memory("call"))

    def _yield(self, parked_call: ParkedCall, fault: Fault) -> None:
        """End a call in favour of others; its open attempt, or its retry, gets the fault."""
        attempt = parked_call.attempt
        self._drop(parked_call, fault.message)
        if attempt is not None:
            attempt.fail(fault)
            return
        self._ended[parked_call.key] = fault
        if len(self._ended) > _MOST_ENDED:
            # The oldest: its client has had the longest time to retry.
            del self._ended[next(iter(self._ended))]

    def cancel(self, exchange: Exchange) -> None:
        """Cancel a call whose client closed the connection, as 2026-07-28 has it."""
        self._end(exchange, cancelled())

    def sweep(self, now: float, overdue: Overdue) -> None:
        """End calls and parked calls that took too long, and children that were idle too long."""
        for exchange in list(self.in_flight):
            fault = overdue(exchange, now)
            if fault is not None:
                log.warning("call.overdue", extra={"method": exchange.request.method})
                self._end(exchange, fault)
        for key, parked_call in list(self._parked_calls.items()):
            parked_at = parked_call.parked_at
            if parked_at is not None and now - parked_at > self._settings.parked_timeout_s:
                log.info("call.parked_overdue", extra={"round": parked_call.round})
                self._drop(parked_call, "the client did not answer in time")
            elif parked_at is None and now - self._finished.get(key, now) > _REPLAY_S:
                parked_call.let_go()
                del self._parked_calls[key], self._finished[key]
        self._pool.expire(now)

    def cut_off(self) -> None:
        """End every parked and every open call: the process is about to end."""
        for parked_call in list(self._parked_calls.values()):
            self._drop(parked_call, "shutdown")
        for exchange in list(self.in_flight):
            exchange.fail(shutdown())

    def _end(self, exchange: Exchange, fault: Fault) -> None:
        if exchange.reply is not None:
            return
        for parked_call in list(self._parked_calls.values()):
            if parked_call.attempt is exchange:
                self._drop(parked_call, fault.message)
        exchange.abandon(fault)

    def _may_ask(self, request: Request, envelope: RequestMeta) -> bool:
        # Most clients have none: they are asked about first, as every call comes here.
        return (
            bool(envelope.abilities)
            and request.method in MAY_ASK
            and bool(asked_abilities(envelope.abilities, answers_roots=self._answers_roots))
            and self._isolation is not Isolation.SHARED
        )

    def _serve_shared(self, exchange: Exchange, envelope: RequestMeta, lease: Lease | None) -> None:
        request = exchange.request
        params = stripped(request.params)
        exchange.send_instead(Request(request.id, request.method, params, request.extra))
        mux = lease.mux if lease is not None else None
        at_once = mux is not None and not mux.shut and not mux.channel.congested
        if mux is not None and at_once and envelope.log_level is None:
            exchange.submit(mux)
        else:
            self._context.spawn(self._guarded, exchange, self._send_when_ready(exchange, envelope))

    async def _send_when_ready(self, exchange: Exchange, envelope: RequestMeta) -> None:
        lease = await self._supervisor.lease()
        await self._set_level(lease, envelope)
        # A child that does not read must not make the bridge collect calls without a bound.
        await lease.mux.channel.writable()
        exchange.submit(lease.mux)

    async def _begin(self, exchange: Exchange, envelope: RequestMeta) -> None:
        with self._parking.coming(exchange.caller):
            lease = await self._child_for(exchange, envelope)
        if lease is None:
            return
        sent = Request(b"0", exchange.request.method, stripped(exchange.request.params))
        parked_call = ParkedCall(
            lease,
            sent,
            envelope,
            self._hand_over,
            self._over,
            Account(self._context.account),
            self._context.budget,
            exchange.caller,
        )
        # In the turn in which `coming` ends, or another call could take the place in between.
        self._parking.enter(parked_call, functools.partial(self._yield, parked_call))
        self._parked_calls[parked_call.key] = parked_call
        try:
            parked_call.begin(exchange)
        except ChannelClosed:
            parked_call.fail(child_exited(None, "no"))
        except WireError:
            self._drop(parked_call, "it cannot be sent")
            raise
        await parked_call.gather(exchange)

    async def _child_for(self, exchange: Exchange, envelope: RequestMeta) -> Lease | None:
        """Return a child for a call alone; None if the call needs none any more."""
        try:
            lease = await self._pool.take(envelope, exchange.caller)
        except PoolExhausted:
            if self._isolation is not Isolation.AUTO:
                raise
            # Serving the call without server requests is better than refusing it.
            self._child_pool.fell_back()
            self._serve_shared(exchange, envelope, self._supervisor.usable)
            return None
        # Before the call, so that the child sends the log messages of the call at this level.
        await self._set_level(lease, envelope)
        if exchange.reply is not None:
            # The client has gone in between; the child has not got the call.
            self._pool.give_back(lease, self._context.clock())
            return None
        return lease

    async def _resume(self, exchange: Exchange, envelope: RequestMeta, text: str) -> None:
        request = exchange.request
        state = self._state_codec.decode(text, time.time())
        fits = (
            state is not None
            and state.method == request.method
            and state.digest == digest(request.method, request.params)
        )
        if state is None or not fits:
            exchange.invalid("invalid requestState for this request")
            return
        responses = input_responses(request.params)
        if not state.parked_call:
            await self._after_pages(exchange, envelope, responses, state)
            return
        parked_call = self._parked_calls.get(state.parked_call)
        if parked_call is None and state.parked_call in self._ended:
            exchange.refuse(self._ended[state.parked_call])
            return
        # The state is encrypted and bound to the principal, but a client may send an old one again.
        # After the end any round may ask for the answer again: the one before may have been lost on
        # the way.
        if parked_call is None or (parked_call.round != state.round and not parked_call.over):
            exchange.invalid("the call is not waiting for this answer any more")
            return
        for key in [key for key in parked_call.input_requests if key in responses]:
            parked_call.answer(key, responses[key])
        if parked_call.input_requests:
            self._ask_client(parked_call, exchange)
            return
        parked_call.next_round(exchange, envelope)
        await parked_call.gather(exchange)

    async def _after_pages(
        self,
        exchange: Exchange,
        envelope: RequestMeta,
        responses: dict[str, bytes],
        state: RequestState,
    ) -> None:
        if all_accepted(responses, state.count) and self._may_ask(exchange.request, envelope):
            await self._begin(exchange, envelope)
        elif all_accepted(responses, state.count):
            self._serve_shared(exchange, envelope, self._supervisor.usable)
        elif exchange.request.method == "tools/call":
            text = b'{"content":[{"type":"text","text":"declined by the user"}],"isError":true}'
            exchange.answered(Result(exchange.request.id, text))
        else:
            exchange.invalid("declined by the user")

    def _hand_over(self, parked_call: ParkedCall, attempt: Exchange) -> None:
        parked_call.park(self._context.clock())
        self._ask_client(parked_call, attempt)

    def _ask_client(self, parked_call: ParkedCall, attempt: Exchange) -> None:
        requests = {key: each.entry for key, each in parked_call.input_requests.items()}
        state = self._encoded_state(attempt.request, parked_call.key, parked_call.round)
        attempt.answered(Result(attempt.request.id, input_required(requests, state)))

    def _encoded_state(
        self, request: Request, parked_call: str, number: int, count: int = 0
    ) -> str:
        return self._state_codec.encode(
            RequestState(
                parked_call=parked_call,
                round=number,
                method=request.method,
                digest=digest(request.method, request.params),
                expires_at=time.time() + self._settings.parked_timeout_s,
                count=count,
            )
        )

    def _translated(self, request: Request, envelope: RequestMeta, reply: Reply) -> Reply:
        state = self._supervisor.state
        profile = state.lease.profile if isinstance(state, Ready) else None
        if isinstance(reply, Result):
            if profile is None:
                return reply
            return Result(reply.id, completed(reply.result, request.method, profile), reply.extra)
        if code_of(reply.error) != URL_REQUIRED_BEFORE:
            return Failure(reply.id, error_up(reply.error), reply.extra)
        pages = pages_to_visit(reply.error)
        if pages is None or request.method not in MAY_ASK:
            return Failure(reply.id, error_up(reply.error), reply.extra)
        if not envelope.url_elicitation:
            return Failure(reply.id, missing_capability({"elicitation": {"url": {}}}))
        encoded = self._encoded_state(request, "", 0, len(pages))
        return Result(request.id, input_required(pages, encoded))

    async def _set_level(self, lease: Lease, envelope: RequestMeta) -> None:
        level = more_verbose(lease.log_level, envelope.log_level)
        profile = lease.profile
        if level is None or level == lease.log_level or profile is None:
            return
        if member(profile.result, "capabilities", "logging") is None:
            return
        # Recorded before the wait: other calls would ask for the same level again.
        lease.set_log_level(level)
        with anyio.move_on_after(_LEVEL_S):
            await lease.mux.ask(SET_LEVEL, b'{"level":%b}' % quoted(level))

    def _over(self, parked_call: ParkedCall) -> None:
        if parked_call.key in self._parked_calls and parked_call.key not in self._finished:
            # The child is free, the answer is kept for a client that lost it and asks once more.
            self._parking.leave(parked_call)
            self._finished[parked_call.key] = self._context.clock()
            self._pool.give_back(parked_call.lease, self._context.clock())

    def _drop(self, parked_call: ParkedCall, reason: str) -> None:
        finished = parked_call.key in self._finished
        self._parking.leave(parked_call)
        self._parked_calls.pop(parked_call.key, None)
        self._finished.pop(parked_call.key, None)
        if not finished:
            parked_call.abandon(reason)
            # Requests and messages that it still sends must not reach another client's call.
            self._pool.discard(parked_call.lease)
        parked_call.let_go()

    async def _guarded(self, exchange: Exchange, work: Work) -> None:
        try:
            await work
        except Unavailable as error:
            exchange.refuse(error.fault)
        except WireError as error:
            exchange.invalid(str(error))
