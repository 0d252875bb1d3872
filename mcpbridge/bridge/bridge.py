"""One named server and everybody who uses it: the facade that the faces talk to.

A face admits a request and hands it over; from then on the bridge owns it, whatever becomes of
the connection, and everything about it comes back through its exchange.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import anyio
from anyio.abc import TaskGroup

from mcpbridge.bridge.commons import Sharer
from mcpbridge.bridge.contained import contained
from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.eras import Eras, EraSettings
from mcpbridge.bridge.exchange import Exchange
from mcpbridge.bridge.gate import Gate
from mcpbridge.bridge.ledger import Ledger
from mcpbridge.bridge.means import Means
from mcpbridge.bridge.modern import Modern
from mcpbridge.bridge.mux import Tenant
from mcpbridge.bridge.native import Native
from mcpbridge.bridge.opener import Opener
from mcpbridge.bridge.placement import Lease, Placement, PlacementSettings
from mcpbridge.bridge.places import LoadLimits
from mcpbridge.bridge.pool import Pool
from mcpbridge.bridge.renewal import Renewal
from mcpbridge.bridge.repeat import catch_up, repeat
from mcpbridge.bridge.seal import Seal
from mcpbridge.bridge.session import Session
from mcpbridge.bridge.sessions import CallLimits, Sessions, SessionSettings, new_session_id
from mcpbridge.bridge.stateless import ParkSettings, Stateless
from mcpbridge.bridge.stream import Stream
from mcpbridge.bridge.streams import StreamLimits
from mcpbridge.bridge.watch import Watch
from mcpbridge.errors import Unavailable
from mcpbridge.rules.admission import Opening
from mcpbridge.rules.correlate import Questions
from mcpbridge.rules.faults import (
    Fault,
    bridge_failed,
    capacity,
    draining,
    shutdown,
)
from mcpbridge.rules.isolation import Isolation, spares_wanted
from mcpbridge.rules.lifecycle import SessionState
from mcpbridge.rules.methods import INITIALIZE
from mcpbridge.rules.recycling import RecyclePolicy
from mcpbridge.rules.restart import OnChildExit
from mcpbridge.telemetry.meters import Meters

log = logging.getLogger("mcpbridge.bridge")

_CUTOFF_GRACE_S = 2.0
"""The rungs of a child's stop ladder when the process ends: shorter, the deadline is fixed."""


@dataclasses.dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What a bridge and its parts go by."""

    placement: PlacementSettings
    sessions: SessionSettings
    calls: CallLimits
    parking: ParkSettings
    eras: EraSettings
    on_child_exit: OnChildExit
    recycling: RecyclePolicy
    loads: LoadLimits = LoadLimits()
    streams: StreamLimits = StreamLimits()


class Bridge:
    """Sessions, exchanges and children of one server; alive within `running`."""

    def __init__(
        self,
        placement: Placement,
        eras: Eras,
        settings: BridgeSettings,
        gate: Gate,
        meters: Meters,
        ledger: Ledger,
        seal: Seal,
    ) -> None:
        self.gate = gate
        self.drain = Drain()
        self.sessions = Sessions(settings.sessions, gate)
        self.session_settings = settings.sessions
        self.era_settings = settings.eras
        self.eras = eras
        self.meters = meters
        self._ledger = ledger
        self._placement = placement
        self._settings = settings.placement
        self._parking = settings.parking
        self._call_limits = settings.calls
        self._load_limits = settings.loads
        self._stream_limits = settings.streams
        self._on_child_exit = settings.on_child_exit
        self._recycling = settings.recycling
        self._seal = seal
        self._question_numbers = itertools.count(1)
        self._one_streams: set[Stream] = set()
        self._tasks: TaskGroup
        self._means: Means
        self._opener: Opener
        self._outside: Session
        self.modern: Modern
        """What serves clients of 2026-07-28; there while the bridge runs."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve until the block ends."""
        async with self._placement.running(), anyio.create_task_group() as tasks:
            self._tasks = tasks
            spawn = contained(tasks.start_soon, self._failed)
            self._means = Means(
                self._stream_limits.window,
                self.meters,
                self._ledger,
                self.drain,
                lambda: Questions(self._question_numbers),
                spawn,
                asyncio.get_running_loop().time,
                self._sharers,
                self._child_lost,
                self._call_limits.question_timeout_s,
                self._load_limits.max_calls,
                self._stream_limits.max_streams,
            )
            self.modern = self._make_modern()
            self._outside = Session(None, None, self._means)
            self._opener = Opener(
                self.eras,
                self._placement,
                self._settings,
                spawn,
                functools.partial(self.close, why="failed"),
                self.sessions.resting,
            )
            tasks.start_soon(self._opener.attach, self._outside)
            self.eras.handshake.prepare = self._give_to_next_child
            self.eras.handshake.settle = self._settle_with_next_child
            renewal = Renewal(self.eras, self._placement, self._opener, self.sessions, spawn)
            tasks.start_soon(Watch(self._placement, self._recycling, renewal.replace).run)
            tasks.start_soon(self.eras.run)
            tasks.start_soon(self._reap)
            tasks.start_soon(self._size_spares)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def _make_modern(self) -> Modern:
        pool = Pool(self._placement, self._settings.start_timeout_s)
        emulated = Stateless(
            self._means,
            self.eras.handshake,
            pool,
            self._settings.isolation,
            self._parking,
            self._seal,
        )
        return Modern(
            self._means,
            self.eras,
            emulated,
            Native(self._means, self.eras),
            self.session_settings.max_sessions,
            self.era_settings,
        )

    def open(
        self, opening: Opening, *, streams: bool, one_stream: Stream | None = None
    ) -> tuple[Session, Exchange]:
        """Open a session; its exchange gets the answer to `initialize`.

        Args:
            opening: The client's `initialize`.
            streams: The client reads event streams.
            one_stream: The stream for all the session says, in the transport of 2024-11-05.

        Raises:
            Unavailable: No session is opened now; says why.
        """
        if not self.drain.accepts_sessions:
            raise Unavailable(draining())
        if self.sessions.full:
            raise self._no_room()
        session = Session(
            new_session_id(), opening.introduction, self._means, one_stream=one_stream
        )
        self.sessions.add(session)
        self._ledger.session_began(one_streamed=one_stream is not None)
        exchange = session.exchange(opening.request, streams=streams)
        self._opener.open(session, exchange)
        return session, exchange

    @contextmanager
    def one_stream(self) -> Iterator[Stream]:
        """A stream for a client of the transport of 2024-11-05, which has one for everything.

        Raises:
            Unavailable: No client is taken now; says why.
        """
        if not self.drain.accepts_sessions:
            raise Unavailable(draining())
        if len(self._one_streams) >= self.session_settings.max_sessions:
            raise self._no_room()
        stream = Stream(self._means.window, self.meters)
        self._one_streams.add(stream)
        try:
            yield stream
        finally:
            self._one_streams.discard(stream)

    def over_streams(self, session: Session) -> Fault | None:
        """What to tell a client that would open one event stream too many; None lets it."""
        return self._means.over_streams(session.streams.open)

    def _no_room(self) -> Unavailable:
        limit = capacity("--max-sessions", self.session_settings.max_sessions)
        return Unavailable(self._ledger.refused(limit))

    async def outside(self) -> Session:
        """What stands in for a session where a request names none: the shared child serves it.

        Raises:
            Unavailable: The bridge is about to end.
        """
        if not self.drain.accepts_sessions:
            raise Unavailable(draining())
        await self._opener.attach(self._outside)
        return self._outside

    def close(self, session: Session, fault: Fault | None = None, *, why: str = "deleted") -> None:
        """End a session, and the child it had for itself; `why` is a word for the meters."""
        if session.state is not SessionState.CLOSED:
            self._ledger.session_ended(why, self._means.clock() - session.opened_at)
        self.sessions.remove(session)
        lease = session.close(fault)
        if lease is not None and not lease.mux.shared:
            self._placement.release(lease)

    def _failed(self, session: Session) -> None:
        """A bug of ours has met this session: nothing is known of its state any more."""
        if session.id is not None:
            self.close(session, bridge_failed(), why="failed")

    def end_idle_streams(self) -> None:
        """Let clients that only listen connect elsewhere; calls in flight keep their streams.

        A child that ends from now on is not started again.
        """
        self.eras.retire()
        needed = {s.standalone for s in self.sessions if s.one_streamed and s.in_flight}
        listening = {session.standalone for session in self.sessions} | self._one_streams
        for stream in listening - needed:
            stream.dismiss()
        self.modern.end_listens()

    async def cut_off(self) -> None:
        """Answer every call that is left, end every stream, stop every child."""
        self._close_all()
        await self._placement.stop_all(_CUTOFF_GRACE_S)

    def kill_children(self) -> None:
        """A further signal has come: nobody waits for children any more."""
        # First, so that calls in flight are told of the shutdown and not of a child that died.
        self._close_all()
        self._placement.kill_all()

    def _close_all(self) -> None:
        self.eras.retire()
        for session in self.sessions:
            self.close(session, shutdown(), why="shutdown")
        self._outside.close(shutdown())
        self.modern.cut_off()
        for stream in self._one_streams:
            stream.close()

    def _child_lost(self, session: Tenant) -> None:
        keeps = self._on_child_exit is OnChildExit.RESTART
        if not keeps and isinstance(session, Session) and session.id is not None:
            self.close(session, why="child_exited")

    def _sharers(self) -> Iterator[Sharer]:
        yield self._outside
        yield from self.modern.listens
        for session in self.sessions:
            if session.lease is not None and session.lease.mux.shared:
                yield session

    async def _give_to_next_child(self, lease: Lease) -> None:
        """Give the sessions of a shared child that ended to the next one, as they were."""
        if lease.profile is not None:
            await repeat(lease, lease.profile, self._holders())
        # Only now: a call must not reach the child before what it rests on.
        for sharer in self._holders():
            sharer.take(lease)

    async def _settle_with_next_child(self, before: Lease, lease: Lease) -> None:
        """A shared child has answered its last call, and another one serves already."""
        for sharer in self._holders():
            if sharer.lease is before:
                sharer.take(lease)
        await catch_up(lease, self._holders())

    def _holders(self) -> list[Sharer]:
        return [sharer for sharer in self._sharers() if sharer.lease is not None]

    async def _reap(self) -> None:
        while True:
            await anyio.sleep(self.sessions.sweep_every_s)
            now = anyio.current_time()
            for session in self.sessions.expired(now):
                log.info("session.expired", extra={"used": session.used})
                self.close(session, why="expired")
            for session in (self._outside, *self.sessions):
                self._end_overdue(session, now)
            self.modern.sweep(now, self._call_limits.overdue)

    def _end_overdue(self, session: Session, now: float) -> None:
        for exchange in list(session.in_flight.values()):
            fault = self._call_limits.overdue(exchange, now)
            if fault is not None and exchange.request.method != INITIALIZE:
                log.warning("call.overdue", extra={"method": exchange.request.method})
                session.abandon(exchange, fault)

    async def _size_spares(self) -> None:
        if self._settings.isolation is Isolation.SHARED:
            return
        with suppress(Unavailable):
            await self.eras.handshake.lease()
        self._placement.keep_spares(
            spares_wanted(self._settings.spares, self.eras.handshake.start_s)
        )
