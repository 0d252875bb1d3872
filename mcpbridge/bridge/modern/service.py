"""Requests of clients of 2026-07-28: which child serves one, by passthrough or emulation.

Source: MCP 2026-07-28, Discovery; Subscriptions; Tools, Header Parameters.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from mcpbridge.bridge.budget import Holder
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.children.shared_state import unsubscribe
from mcpbridge.bridge.modern.emulation import EmulatedCalls, Overdue
from mcpbridge.bridge.modern.passthrough import Passthrough
from mcpbridge.bridge.modern.subscriptions import Subscription
from mcpbridge.bridge.modern.tool_catalog import ToolCatalog
from mcpbridge.errors import WireError
from mcpbridge.rules.access.shares import Account, ranked
from mcpbridge.rules.faults import INVALID_PARAMS, Unavailable, capacity, draining, out_of_memory
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.rules.mcp.era_probe import ServerEras
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.methods import DISCOVER, SUBSCRIBE
from mcpbridge.rules.mcp.modern_checks import (
    Annotations,
    RoutingHeaders,
    check_method,
    check_tool_params,
)
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.rules.mcp.revisions import SERVED
from mcpbridge.rules.mcp.to_modern import CACHEABLE, discovered, privately
from mcpbridge.rules.outcome import TOOLS_CALL
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Request, Result, quoted, text_of

_GRANT_S = 10.0
"""How long the acknowledgement of a listen waits for what the child grants."""
_GRANTS_AT_ONCE = 32
"""Subscriptions of one listen that the child is asked for before it has answered."""


class Route(msgspec.Struct, frozen=True):
    """A child and the way to serve one request; found once, to check the request and to call."""

    backend: Passthrough | EmulatedCalls
    lease: Lease
    profile: ServerProfile
    """What the child said in its handshake."""
    annotations: Annotations
    """The arguments that headers must repeat; complete if the request calls a tool."""
    asked_at: float
    """The event loop's time when the route was asked for, in seconds."""


class ModernService:
    """The service of one tenant for clients of 2026-07-28: calls, listens and discovery."""

    def __init__(
        self,
        context: CallContext,
        eras: EraSupervisors,
        emulated: EmulatedCalls,
        native: Passthrough,
        max_listens: int,
        settings: EraSettings,
    ) -> None:
        """Make a service without open calls.

        Args:
            context: What sessions and calls of the tenant share.
            eras: Keeps the shared children.
            emulated: Serves calls by a legacy child.
            native: Serves calls by a child of 2026-07-28.
            max_listens: Most listens that may be open at once.
            settings: Which eras are served, and by which process.
        """
        self._context = context
        self._eras = eras
        self._emulated = emulated
        self._native = native
        self._max_listens = max_listens
        self._settings = settings
        self._catalog = ToolCatalog()
        self._listening = 0
        """Listens that were admitted, those that wait for a child or its grants included."""
        self._ends: dict[Callable[[], None], bytes] = {}
        """What ends each open listen, and its client; the oldest first."""
        self._listens: dict[Subscription, None] = {}
        self._private = False
        """Whether results are marked as private to one principal, for caches."""

    def claim(self, *, private: bool) -> None:
        """Set whether results are private: shared caches must not keep them then."""
        self._private = private

    @property
    def listens(self) -> Iterable[Subscription]:
        """The open listens on legacy children."""
        return list(self._listens)

    @property
    def in_flight(self) -> Iterable[Exchange]:
        """The open calls and the listens on children of 2026-07-28."""
        yield from self._emulated.in_flight
        yield from self._native.in_flight

    @property
    def holders(self) -> list[Holder]:
        """Calls, parked calls and subscriptions that have bytes in the ledger."""
        listens = [Holder("subscription", each.held, each.cut) for each in self._listens]
        return [*listens, *self._emulated.holders, *self._native.holders]

    def shed(self) -> int:
        """Let finished parked calls go: see `EmulatedCalls.shed`."""
        return self._emulated.shed()

    @property
    def busy(self) -> bool:
        """Whether a call is open or parked, or a listen is open."""
        return bool(self._listening or self._native.in_flight) or self._emulated.busy

    @property
    def served(self) -> bool | None:
        """Whether clients of this era are served; once known, it does not change.

        `--modern native` serves them only if the server speaks 2026-07-28; None until it is known.
        """
        if self._settings.modern != "native":
            return True
        verdict = self._eras.verdict
        return None if verdict is None else verdict.modern

    async def known(self) -> None:
        """Wait until `served` is not None."""
        await self._eras.known()

    def resolve_nowait(self, request: Request) -> Route | None:
        """Return what `resolve` returns; None if it would have to wait.

        Raises:
            Unavailable: The process is about to end.
        """
        self._check_draining()
        verdict, asked_at = self._eras.verdict, self._context.clock()
        if verdict is None:
            return None
        native = self._serves_natively(verdict)
        lease = (self._eras.modern if native else self._eras.legacy).usable
        if lease is None:
            return None
        known = self._catalog.known(lease, asked_at)
        if known is None and _may_be_annotated(request, lease):
            return None
        return self._route(native, lease, known or {}, asked_at)

    async def resolve(self, request: Request) -> Route:
        """Find the child that serves a request, and the facts about it that `check` needs.

        Raises:
            Unavailable: No child can be had at present, or the process is about to end.
        """
        self._check_draining()
        asked_at = self._context.clock()
        native = self._serves_natively(await self._eras.known())
        lease = await (self._eras.modern_lease() if native else self._eras.legacy_lease())
        known: Annotations = {}
        if _may_be_annotated(request, lease):
            known = await self._catalog.annotations(lease, self._context.clock())
        return self._route(native, lease, known, asked_at)

    def check(self, request: Request, routing: RoutingHeaders, route: Route) -> Refusal | None:
        """Check a request against the child's methods and its tools' headers; None: it passes."""
        profile = route.profile
        refusal = check_method(request.method, profile.capabilities, profile.revision)
        tool = request.method == TOOLS_CALL and route.annotations
        if refusal is None and tool and request.params is not None:
            name = text_of(member(request.params, "name")) or ""
            if name in route.annotations:
                return check_tool_params(request.params, routing, route.annotations[name])
        return refusal

    def discover(self, route: Route) -> bytes:
        """Record the request and return the result of `server/discover`."""
        self._context.call_log.answered(DISCOVER, self._context.clock() - route.asked_at)
        served = reversed(SERVED) if self._settings.serves_legacy else ()
        return discovered(route.profile, tuple(revision.date for revision in served))

    def call(
        self,
        request: Request,
        envelope: RequestMeta,
        route: Route,
        *,
        streams: bool,
        caller: bytes = b"",
    ) -> Exchange:
        """Send a request that has passed all checks; return its exchange."""
        last = (privately,) if self._private and request.method in CACHEABLE else ()
        return route.backend.call(
            request, envelope, route.lease, streams=streams, translations=last, caller=caller
        )

    @asynccontextmanager
    async def listening(
        self, request: Request, envelope: RequestMeta, caller: bytes = b""
    ) -> AsyncIterator[Stream | Refusal]:
        """Open a listen until the block ends; its stream begins with the acknowledgement.

        Args:
            request: The client's request.
            envelope: Its `_meta`.
            caller: The client, by its `Principal.share_key`.

        Raises:
            Unavailable: No child can be had at present, too many listens are open, or the process
                is about to end.
        """
        self._check_draining()
        if self._listening >= self._max_listens and not self._make_room(caller):
            fault = capacity("--max-sessions", self._max_listens)
            raise Unavailable(self._context.call_log.refused(fault))
        if self._context.budget.full:
            fault = out_of_memory(self._context.budget.limit)
            raise Unavailable(self._context.call_log.refused(fault))
        # Before anything is waited for: others that come while the child grants count it too.
        self._listening += 1
        try:
            async with self._opened(request, envelope, caller) as stream:
                yield stream
        finally:
            self._listening -= 1

    def _make_room(self, newcomer: bytes) -> bool:
        """End the oldest listen of the client with most of them; return whether one ended."""
        for holder in ranked(collections.Counter(self._ends.values()), newcomer):
            if holder == newcomer:
                break
            end = next(end for end, caller in self._ends.items() if caller == holder)
            # Now, not when its task ends: the next newcomer would choose it once more.
            del self._ends[end]
            self._context.meters.tally("gave_way", "listen")
            end()
            return True
        return False

    @asynccontextmanager
    async def _opened(
        self, request: Request, envelope: RequestMeta, caller: bytes
    ) -> AsyncIterator[Stream | Refusal]:
        account = Account(self._context.account)
        stream = Stream(self._context.window, self._context.meters, charge=account.charge)
        try:
            listen = Subscription(request, stream, self._context.max_subscriptions, account)
        except WireError as error:
            yield refuse(400, INVALID_PARAMS, str(error), request_id=request.id)
            return
        # First, since a stream without a child would end before its acknowledgement.
        route = await self.resolve(request)
        if route.backend is self._native:
            exchange = self._native.call(request, envelope, route.lease, streams=True)
            fault = capacity("--max-sessions", self._max_listens)
            end = functools.partial(self._native.cancel, exchange, fault)
            self._ends[end] = caller
            try:
                yield exchange.streamed()
            finally:
                self._ends.pop(end, None)
                self._native.cancel(exchange)
            return
        # Others see what it asks for from now on, so that none of them takes it back.
        self._listens[listen] = None
        self._ends[listen.end] = caller
        try:
            await self._grant(listen, route.lease)
            # After the acknowledgement, which must be the first message on the stream.
            listen.take(route.lease)
            yield listen.stream
        finally:
            del self._listens[listen]
            self._ends.pop(listen.end, None)
            listen.leave()
            self._release(listen, route.lease)

    def announce_lists(self, profile: ServerProfile) -> None:
        """Tell listens on a child of 2026-07-28 that its lists may differ: another takes over."""
        self._native.announce_lists(profile)

    def sweep(self, now: float, overdue: Overdue) -> None:
        """End calls that have taken or waited too long; `now` is the event loop's time."""
        self._emulated.sweep(now, overdue)
        self._native.sweep(now, overdue)

    def end_listens(self) -> None:
        """End every listen with its result: the process is about to end."""
        for listen in self.listens:
            listen.end()
        self._native.end_listens()

    def cut_off(self) -> None:
        """End every listen, and every open call with an error."""
        self.end_listens()
        self._emulated.cut_off()
        self._native.cut_off()

    def _check_draining(self) -> None:
        if not self._context.drain.accepts_sessions:
            raise Unavailable(draining())

    def _serves_natively(self, verdict: ServerEras) -> bool:
        return verdict.modern and not (verdict.legacy and self._settings.prefer_legacy)

    def _route(
        self, native: bool, lease: Lease, annotations: Annotations, asked_at: float
    ) -> Route:
        backend = self._native if native else self._emulated
        return Route(backend, lease, _profile_of(lease), annotations, asked_at)

    async def _grant(self, listen: Subscription, lease: Lease) -> None:
        profile = _profile_of(lease)
        if member(profile.result, "capabilities", "resources", "subscribe") == b"true":
            uris = listen.wanted_uris
            with anyio.move_on_after(_GRANT_S):
                for start in range(0, len(uris), _GRANTS_AT_ONCE):
                    # The client has left, or the process ends: ask the child for no more.
                    if listen.stream.log.closed:
                        break
                    await self._grant_some(listen, lease, uris[start : start + _GRANTS_AT_ONCE])
        listen.acknowledge(set(profile.changing_lists))

    async def _grant_some(self, listen: Subscription, lease: Lease, uris: list[str]) -> None:
        """Grant what others have subscribed to, and ask the child for the rest at once.

        Raises:
            Unavailable: The child ended before it answered.
        """
        others, lost = list(self._context.subscribers()), list[Unavailable]()

        async def subscribe(uri: str) -> None:
            try:
                reply = await lease.mux.ask(SUBSCRIBE, b'{"uri":%b}' % quoted(uri))
            except Unavailable as error:
                lost.append(error)
            else:
                listen.settle(uri, granted=isinstance(reply, Result))

        async with anyio.create_task_group() as tasks:
            for uri in uris:
                # The child is subscribed for another client already.
                if any(uri in other.subscriptions for other in others):
                    listen.settle(uri, granted=True)
                else:
                    listen.ask(uri)
                    tasks.start_soon(subscribe, uri)
        if lost:
            raise lost[0]
        await checkpoint()

    def _release(self, listen: Subscription, first: Lease) -> None:
        mux = (listen.lease or first).mux
        if listen.asked_for and not mux.shut:
            others = self._context.subscribers
            # A task of the bridge: the client has left, and its own task ends now.
            self._context.spawn(unsubscribe, mux, sorted(listen.asked_for), others)


def _may_be_annotated(request: Request, lease: Lease) -> bool:
    """Return whether headers may have to repeat arguments, which the list of tools says."""
    return request.method == TOOLS_CALL and "tools" in _profile_of(lease).capabilities


def _profile_of(lease: Lease) -> ServerProfile:
    assert lease.profile is not None
    return lease.profile
