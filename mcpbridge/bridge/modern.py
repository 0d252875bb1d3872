"""Clients of 2026-07-28 in front of a handshake child: what their face talks to.

Source: MCP 2026-07-28, Discovery; Subscriptions; Tools, Header Parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio

from mcpbridge.bridge.catalog import Catalog
from mcpbridge.bridge.commons import Sharer, unsubscribe
from mcpbridge.bridge.exchange import Exchange
from mcpbridge.bridge.listen import Listen
from mcpbridge.bridge.placement import Lease
from mcpbridge.bridge.session import Means
from mcpbridge.bridge.stateless import Overdue, Stateless
from mcpbridge.bridge.stream import Stream
from mcpbridge.bridge.supervisor import Supervisor
from mcpbridge.errors import Unavailable, WireError
from mcpbridge.rules.admission import Refusal, refuse
from mcpbridge.rules.envelope import Envelope
from mcpbridge.rules.faults import INVALID_PARAMS, capacity, draining
from mcpbridge.rules.methods import SUBSCRIBE
from mcpbridge.rules.modern import DISCOVER, LISTEN, Routing, check_method
from mcpbridge.rules.profile import Profile
from mcpbridge.rules.toolparams import check_tool_params
from mcpbridge.rules.translate.up import discovered
from mcpbridge.wire.members import member
from mcpbridge.wire.messages import Request, Result, quoted, text_of
from mcpbridge.wire.objects import opened

_SUBSCRIBE_S = 10.0


class Modern:
    """Calls, listens and discovery for clients without sessions; owned by the bridge."""

    def __init__(
        self,
        means: Means,
        supervisor: Supervisor,
        stateless: Stateless,
        max_listens: int,
        handshake_dates: tuple[str, ...],
    ) -> None:
        """Make it.

        Args:
            means: What sessions work with, too.
            supervisor: Keeps the shared child.
            stateless: Serves calls.
            max_listens: How many listens may be open at once.
            handshake_dates: Revisions with a handshake that are served beside.
        """
        self._means = means
        self._supervisor = supervisor
        self._stateless = stateless
        self._max_listens = max_listens
        self._handshake_dates = handshake_dates
        self._catalog = Catalog()
        self._listens: dict[Listen, None] = {}

    @property
    def listens(self) -> Iterable[Listen]:
        """Those that are open."""
        return list(self._listens)

    async def check(self, request: Request, routing: Routing) -> Refusal | None:
        """The rungs of the ladder that need to know the child.

        Raises:
            Unavailable: There is no child at present, or the process is about to end.
        """
        if not self._means.drain.accepts_sessions:
            raise Unavailable(draining())
        if request.method in (DISCOVER, LISTEN):
            return None
        lease = await self._supervisor.lease()
        profile = _profile_of(lease)
        offered = opened(member(profile.result, "capabilities") or b"{}")
        refusal = check_method(request.method, offered, profile.revision.date == "2024-11-05")
        if refusal is None and request.method == "tools/call" and request.params is not None:
            annotations = await self._catalog.annotations(lease)
            name = text_of(member(request.params, "name")) or ""
            if name in annotations:
                refusal = check_tool_params(request.params, routing, annotations[name])
        return refusal

    async def discover(self) -> bytes:
        """The result of `server/discover`; raises what `check` raises."""
        lease = await self._supervisor.lease()
        return discovered(_profile_of(lease), self._handshake_dates)

    def call(self, request: Request, envelope: Envelope, *, streams: bool) -> Exchange:
        """Serve a request that has passed the ladder."""
        return self._stateless.call(request, envelope, streams=streams)

    def cancel(self, exchange: Exchange) -> None:
        """Its client closed the connection."""
        self._stateless.cancel(exchange)

    @asynccontextmanager
    async def listening(self, request: Request) -> AsyncIterator[Listen | Refusal]:
        """An open listen until the block ends; its stream begins with the acknowledgement.

        Raises:
            Unavailable: There is no child, or there are too many listens.
        """
        lease = await self._supervisor.lease()
        if len(self._listens) >= self._max_listens:
            raise Unavailable(capacity("--max-sessions", self._max_listens))
        stream = Stream(self._means.window, self._means.meters)
        try:
            listen = Listen(request, stream)
        except WireError as error:
            yield refuse(400, INVALID_PARAMS, str(error), request_id=request.id)
            return
        await self._grant(listen, lease)
        self._listens[listen] = None
        listen.take(lease)
        try:
            yield listen
        finally:
            del self._listens[listen]
            listen.leave()
            self._release(listen)

    def sweep(self, now: float, overdue: Overdue) -> None:
        """End what has waited too long."""
        self._stateless.sweep(now, overdue)

    def end_listens(self) -> None:
        """The process is about to end: every listen gets its result."""
        for listen in self.listens:
            listen.end()

    def cut_off(self) -> None:
        """Every call that is left gets its error."""
        self.end_listens()
        self._stateless.cut_off()

    async def _grant(self, listen: Listen, lease: Lease) -> None:
        profile = _profile_of(lease)
        if member(profile.result, "capabilities", "resources", "subscribe") == b"true":
            for uri in listen.wanted_uris:
                if await self._subscribed(uri, lease):
                    listen.subscriptions.add(uri)
        listen.acknowledge(set(profile.changing_lists))

    async def _subscribed(self, uri: str, lease: Lease) -> bool:
        if any(uri in other.subscriptions for other in self._means.sharers()):
            return True
        with anyio.move_on_after(_SUBSCRIBE_S):
            reply = await lease.mux.ask(SUBSCRIBE, b'{"uri":%b}' % quoted(uri))
            return isinstance(reply, Result)
        return False

    def _release(self, listen: Listen) -> None:
        others: Callable[[], Iterable[Sharer]] = self._means.sharers
        unwanted = {
            uri
            for uri in listen.subscriptions
            if not any(uri in other.wanted for other in others())
        }
        if unwanted and listen.lease is not None and not listen.lease.mux.lost:
            self._means.spawn(unsubscribe, listen.lease.mux, unwanted)


def _profile_of(lease: Lease) -> Profile:
    assert lease.profile is not None
    return lease.profile
