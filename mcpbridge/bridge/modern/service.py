"""Clients of 2026-07-28, whatever the child speaks: what their face talks to.

Source: MCP 2026-07-28, Discovery; Subscriptions; Tools, Header Parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.children.shared_state import Subscriber, unsubscribe
from mcpbridge.bridge.modern.emulation import EmulatedCalls, Overdue
from mcpbridge.bridge.modern.passthrough import Passthrough
from mcpbridge.bridge.modern.subscriptions import Subscription
from mcpbridge.bridge.modern.tool_catalog import ToolCatalog
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INVALID_PARAMS, Unavailable, capacity, draining
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.rules.mcp.era_probe import ServerEras
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.methods import DISCOVER, LISTEN, SUBSCRIBE
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

_SUBSCRIBE_S = 10.0


class ModernService:
    """Calls, listens and discovery for clients without sessions; owned by the bridge."""

    def __init__(
        self,
        context: CallContext,
        eras: EraSupervisors,
        emulated: EmulatedCalls,
        native: Passthrough,
        max_listens: int,
        settings: EraSettings,
    ) -> None:
        """Make it.

        Args:
            context: What sessions work with, too.
            eras: Keeps the shared children.
            emulated: Serves calls by a legacy child.
            native: Serves calls by a child of their era.
            max_listens: How many listens may be open at once.
            settings: Which eras are served.
        """
        self._context = context
        self._eras = eras
        self._emulated = emulated
        self._native = native
        self._max_listens = max_listens
        self._settings = settings
        self._catalog = ToolCatalog()
        self._listens: dict[Subscription, None] = {}
        self._private = False
        """Clients are told apart: what one of them gets is for no other's cache."""

    def claim(self, *, private: bool) -> None:
        """Say whose clients these are: what a private one gets is for no shared cache."""
        self._private = private

    @property
    def listens(self) -> Iterable[Subscription]:
        """Those that are open."""
        return list(self._listens)

    @property
    def busy(self) -> bool:
        """A call is open or parked, or somebody listens."""
        return bool(self._listens or self._native.in_flight) or self._emulated.busy

    async def served(self) -> bool:
        """Whether clients of this era are served at all; the same for as long as the bridge lives.

        `--modern native` serves them only where the child is of their era.
        """
        return self._settings.modern != "native" or (await self._eras.known()).modern

    async def check(self, request: Request, routing: RoutingHeaders) -> Refusal | None:
        """The rungs of the ladder that need to know the child.

        Raises:
            Unavailable: There is no child at present, or the process is about to end.
        """
        if not self._context.drain.accepts_sessions:
            raise Unavailable(draining())
        if request.method in (DISCOVER, LISTEN):
            return None
        lease = await self._lease()
        refusal = _check(request, routing, lease, {})
        if refusal is None and request.method == TOOLS_CALL:
            known = await self._catalog.annotations(lease, self._context.clock())
            refusal = _check(request, routing, lease, known)
        return refusal

    def begin(
        self, request: Request, envelope: RequestMeta, routing: RoutingHeaders, *, streams: bool
    ) -> Exchange | None:
        """`served`, `check` and `call` in one, where nothing must be waited for.

        Returns:
            None where something must, or where the request is refused: nothing was done.
        """
        verdict = self._eras.verdict
        if verdict is None or request.method in (DISCOVER, LISTEN):
            return None
        native = self._serves_natively(verdict)
        lease = (self._eras.modern if native else self._eras.legacy).usable
        served = self._settings.modern != "native" or verdict.modern
        if lease is None or not served or not self._context.drain.accepts_sessions:
            return None
        known: Annotations | None = {}
        if request.method == TOOLS_CALL:
            known = self._catalog.known(lease, self._context.clock())
        if known is None or _check(request, routing, lease, known) is not None:
            return None
        return self._call(native, request, envelope, streams)

    async def discover(self) -> bytes:
        """The result of `server/discover`; raises what `check` raises."""
        began = self._context.clock()
        profile = _profile_of(await self._lease())
        self._context.call_log.answered(DISCOVER, self._context.clock() - began)
        served = reversed(SERVED) if self._settings.serves_legacy else ()
        return discovered(profile, tuple(revision.date for revision in served))

    async def call(self, request: Request, envelope: RequestMeta, *, streams: bool) -> Exchange:
        """Serve a request that has passed the ladder."""
        return self._call(await self._is_native(), request, envelope, streams)

    def _call(
        self, native: bool, request: Request, envelope: RequestMeta, streams: bool
    ) -> Exchange:
        backend = self._native if native else self._emulated
        last = (privately,) if self._private and request.method in CACHEABLE else ()
        return backend.call(request, envelope, streams=streams, translations=last)

    def cancel(self, exchange: Exchange) -> None:
        """Its client closed the connection."""
        if exchange in self._native.in_flight:
            self._native.cancel(exchange)
        else:
            self._emulated.cancel(exchange)

    @asynccontextmanager
    async def listening(
        self, request: Request, envelope: RequestMeta
    ) -> AsyncIterator[Stream | Refusal]:
        """The stream of a listen until the block ends; it begins with the acknowledgement.

        Raises:
            Unavailable: There is no child, or there are too many listens.
        """
        native = sum(exchange.lasting for exchange in self._native.in_flight)
        if len(self._listens) + native >= self._max_listens:
            fault = capacity("--max-sessions", self._max_listens)
            raise Unavailable(self._context.call_log.refused(fault))
        if await self._is_native():
            # Without a child there would be a stream that ends before its acknowledgement.
            await self._eras.modern_lease()
            exchange = self._native.call(request, envelope, streams=True)
            try:
                yield exchange.streamed()
            finally:
                self._native.cancel(exchange)
            return
        lease = await self._eras.legacy.lease()
        stream = Stream(self._context.window, self._context.meters)
        try:
            listen = Subscription(request, stream)
        except WireError as error:
            yield refuse(400, INVALID_PARAMS, str(error), request_id=request.id)
            return
        await self._grant(listen, lease)
        self._listens[listen] = None
        listen.take(lease)
        try:
            yield listen.stream
        finally:
            del self._listens[listen]
            listen.leave()
            self._release(listen)

    def sweep(self, now: float, overdue: Overdue) -> None:
        """End what has waited too long."""
        self._emulated.sweep(now, overdue)
        self._native.sweep(now, overdue)

    def end_listens(self) -> None:
        """The process is about to end: every listen gets its result."""
        for listen in self.listens:
            listen.end()
        self._native.end_listens()

    def cut_off(self) -> None:
        """Every call that is left gets its error."""
        self.end_listens()
        self._emulated.cut_off()
        self._native.cut_off()

    async def _is_native(self) -> bool:
        return self._serves_natively(await self._eras.known())

    def _serves_natively(self, verdict: ServerEras) -> bool:
        return verdict.modern and not (verdict.legacy and self._settings.prefer_legacy)

    async def _lease(self) -> Lease:
        if await self._is_native():
            return await self._eras.modern_lease()
        return await self._eras.legacy.lease()

    async def _grant(self, listen: Subscription, lease: Lease) -> None:
        profile = _profile_of(lease)
        if member(profile.result, "capabilities", "resources", "subscribe") == b"true":
            for uri in listen.wanted_uris:
                if await self._subscribed(uri, lease):
                    listen.subscriptions.add(uri)
        listen.acknowledge(set(profile.changing_lists))

    async def _subscribed(self, uri: str, lease: Lease) -> bool:
        if any(uri in other.subscriptions for other in self._context.subscribers()):
            return True
        with anyio.move_on_after(_SUBSCRIBE_S):
            reply = await lease.mux.ask(SUBSCRIBE, b'{"uri":%b}' % quoted(uri))
            return isinstance(reply, Result)
        return False

    def _release(self, listen: Subscription) -> None:
        others: Callable[[], Iterable[Subscriber]] = self._context.subscribers
        unwanted = {
            uri
            for uri in listen.subscriptions
            if not any(uri in other.wanted for other in others())
        }
        if unwanted and listen.lease is not None and not listen.lease.mux.shut:
            self._context.spawn(unsubscribe, listen.lease.mux, unwanted)


def _check(
    request: Request, routing: RoutingHeaders, lease: Lease, known: Annotations
) -> Refusal | None:
    """Whether the child has this method, and the headers repeat what its tools say they do."""
    profile = _profile_of(lease)
    refusal = check_method(request.method, profile.capabilities, profile.revision)
    if refusal is None and known and request.params is not None:
        name = text_of(member(request.params, "name")) or ""
        if name in known:
            refusal = check_tool_params(request.params, routing, known[name])
    return refusal


def _profile_of(lease: Lease) -> ServerProfile:
    assert lease.profile is not None
    return lease.profile
