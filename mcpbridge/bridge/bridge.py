"""One server and all of its clients: the facade that transports call.

A transport admits a request and passes it on; from then on the bridge owns it, even if the
connection breaks, and its answer and events come back through its exchange.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mcpbridge.bridge.budget import Budget, Holder
from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.shedding import CallShedder
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.calls.tool_filter import ToolFilter
from mcpbridge.bridge.children.child_pool import ChildPool, Order
from mcpbridge.bridge.children.health_check import HealthChecker
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.drain import Drain
from mcpbridge.bridge.evictors import evict_longest_idle
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_table import SessionTable, longest_idle, new_session_id
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.bridge.modern.parking import Parking
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.bridge.recycler import Recycler
from mcpbridge.bridge.relief import MemoryRelief, Shed
from mcpbridge.bridge.tasks import Spawn, contain
from mcpbridge.bridge.tenant import BridgeSettings, MakeChildWithEnv, Tenant, TenantRegistry
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.shares import Account, ranked, reserved
from mcpbridge.rules.faults import (
    Fault,
    Unavailable,
    bridge_failed,
    capacity,
    child_exited,
    cut_for_memory,
    draining,
    out_of_memory,
    over_quota,
    shutdown,
)
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.mcp.admission import Opening
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.server_requests import ServerRequestTable
from mcpbridge.rules.supervision.crashes import CrashCharges
from mcpbridge.rules.supervision.isolation import Isolation, spares_wanted
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.rules.supervision.restart import OnChildExit
from mcpbridge.telemetry.metrics import Meters

if TYPE_CHECKING:
    from mcpbridge.bridge.reloader import Reloader

log = logging.getLogger("mcpbridge.bridge")

_AT_ONCE = 100
"""Sessions that are checked in one turn of the loop, so that calls go on between the turns."""
_SERVED_S = 60.0
"""How long after its last request a client counts as served."""
_MOST_SEEN = 4096
"""Most clients whose last request is remembered."""
_INITIALIZES_S = 5.0
"""How long a client of the transport of 2024-11-05 may take to initialize, before it gives way."""


class _OneStream(msgspec.Struct, frozen=True):
    """The stream of a client of the transport of 2024-11-05."""

    principal: Principal
    opened_at: float


class Bridge:
    """A bridge between clients and one server; alive within `running`."""

    def __init__(
        self,
        child_pool: ChildPool,
        eras: EraSupervisors,
        settings: BridgeSettings,
        readiness: Readiness,
        meters: Meters,
        call_log: CallLog,
        state_codec: RequestStateCodec,
        health_checker: HealthChecker,
        tool_filter: ToolFilter | None = None,
        make_child_with_env: MakeChildWithEnv | None = None,
        budget: Budget | None = None,
        crashes: CrashCharges | None = None,
        new_id: Callable[[Opening, Principal], str] | None = None,
        session_changed: Callable[[str], None] | None = None,
    ) -> None:
        """Make a bridge; nothing is started before `running`.

        Args:
            child_pool: Starts children.
            eras: Keeps the shared children; supervisors for further principals are made from it.
            settings: The settings of the parts.
            readiness: Unblocked once clients can be served.
            meters: Count messages, sessions and children.
            call_log: Records calls and sessions.
            state_codec: Encrypts the `requestState` of parked calls.
            health_checker: Checks the children of the pool.
            tool_filter: Applies the policy on tools; None: clients may use all.
            make_child_with_env: Makes children with variables of clients; None: there are none.
            budget: Counts the bytes that are kept; None: any number may be.
            crashes: Says which clients are paused; None: none is.
            new_id: Makes the ids of sessions; None: they are random.
            session_changed: Called with the id of a session that another replica must know more
                of; None: there is none.
        """
        self.readiness = readiness
        self.drain = Drain()
        self.budget = budget if budget is not None else Budget()
        self._crashes = crashes if crashes is not None else CrashCharges()
        self._new_id = new_id or _random_id
        self._session_changed = session_changed
        self._seen: dict[bytes, float] = {}
        """When each client last sent a request without a session."""
        self.sessions = SessionTable(settings.sessions)
        self.session_settings = settings.sessions
        self.eras = eras
        self.meters = meters
        self._call_log = call_log
        self._child_pool = child_pool
        self._settings = settings
        self._state_codec = state_codec
        self._health_checker = health_checker
        self._tool_filter = tool_filter
        self._make_child_with_env = make_child_with_env
        self._server_request_numbers = itertools.count(1)
        gave_way = functools.partial(meters.tally, "gave_way", "parked_call")
        self._parking = Parking(settings.parking.max_parked, gave_way)
        self._one_streams: dict[Stream, _OneStream] = {}
        self._tasks: TaskGroup
        self._context: CallContext
        self._recycler: Recycler
        self._tenants: TenantRegistry

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve until the block ends."""
        # From the child that is missed least: no client waits for one that was left behind, an idle
        # tenant has no call, an idle session may have state in its child.
        evictors = [self._evict_left_behind, self._evict_tenant, self._evict_longest_idle]
        last = [self._parking.evict]
        pool = self._child_pool.running(evictors, self._serves_others, last)
        async with pool, anyio.create_task_group() as tasks:
            self._tasks = tasks
            spawn = contain(tasks.start_soon, Session, self._failed)
            self._context = self._make_context(spawn)
            self._recycler = Recycler(self._child_pool, spawn)
            first = None
            if self._make_child_with_env is None:
                first = self._tenant(self.eras, self._child_pool)
                tasks.start_soon(first.run)
                tasks.start_soon(self._size_spares)
            else:
                # A child needs variables that clients bring: the first request starts a child.
                self.readiness.unblock("child")
            self._tenants = TenantRegistry(
                self._child_pool, first, self._tenant, self.eras, self._make_child_with_env, spawn
            )
            tasks.start_soon(self._health_checker.run, self._replace)
            tasks.start_soon(self._reap)
            relief = MemoryRelief(self.budget, self.meters, self._sheddable, self._holders)
            tasks.start_soon(relief.run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def _open_calls(self) -> Iterator[Exchange]:
        for tenant in self._tenants:
            yield from tenant.in_flight
            yield from tenant.modern.in_flight

    def _make_context(self, spawn: Spawn) -> CallContext:
        settings, clock = self._settings, asyncio.get_running_loop().time
        gave_way = functools.partial(self.meters.tally, "gave_way", "call")
        shedder = CallShedder(self._open_calls, settings.loads.max_calls, clock, gave_way)
        return CallContext(
            settings.streams.window,
            self.meters,
            self._call_log,
            self.drain,
            lambda: ServerRequestTable(self._server_request_numbers),
            spawn,
            clock,
            tuple,
            self._child_lost,
            settings.calls.question_timeout_s,
            settings.loads.max_calls,
            settings.loads.max_calls - reserved(settings.loads.max_calls),
            settings.streams.max_streams,
            settings.sessions.max_subscriptions,
            settings.loads.queue_bytes,
            shed=shedder.shed,
            over_share=shedder.over_share,
            budget=self.budget,
            account=self.budget,
            crashes=self._crashes,
            tools=self._tool_filter,
            # Ids that are not random are those of replicas.
            names_calls=self._new_id is not _random_id,
            session_changed=self._session_changed,
        )

    def _tenant(self, eras: EraSupervisors, child_source: ChildSource) -> Tenant:
        close = functools.partial(self.close, why="failed")
        state_codec = self._state_codec.another()
        return Tenant(
            eras, child_source, self._context, self._settings, state_codec, self._parking, close
        )

    @functools.cached_property
    def reloader(self) -> Reloader:
        """The reloader of the server's processes, made when it is first asked for."""
        from mcpbridge.bridge.reloader import Reloader  # for developers alone

        return Reloader(
            self._child_pool,
            lambda: list(self._tenants),
            self._context.spawn,
            self._settings.calls.timeout_s,
        )

    def find_tenant(self, principal: Principal) -> Tenant | None:
        """Return the tenant of this principal; None if it has none."""
        return self._tenants.find(principal)

    def tenant_of(self, principal: Principal) -> Tenant:
        """Return the tenant of this principal; make it if it has none.

        Raises:
            Unavailable: It has none, and the bridge is about to end, or the client has as many
                sets of header values as `--max-header-values` allows.
        """
        found = self._tenants.find(principal)
        if found is None:
            most = self.session_settings.max_header_values
            if not self.drain.accepts_sessions:
                raise Unavailable(draining())
            if not self._tenants.admit(principal, most, self._context.clock()):
                raise Unavailable(self._call_log.refused(over_quota("--max-header-values", most)))
            found = self._tenants.give(principal)
        # Until the session or call counts as use, the tenant must not be removed to make room.
        now = self._context.clock()
        found.touch(now)
        self._seen[principal.share_key] = now
        # Half of them at once, so that the sort is paid once in thousands of requests.
        if len(self._seen) > _MOST_SEEN:
            newest = sorted(self._seen.items(), key=lambda each: each[1])[_MOST_SEEN // 2 :]
            self._seen = dict(newest)
        return found

    def _serves_others(self, caller: bytes) -> bool:
        """Return whether a client other than this one was served within the last minute."""
        since = self._context.clock() - _SERVED_S
        if any(at > since and key != caller for key, at in self._seen.items()):
            return True
        return any(
            session.owner.share_key != caller and (session.last_used > since or session.busy)
            for session in self.sessions
        )

    def session(self, session_id: str, principal: Principal) -> Session | None:
        """Return the session with this id; None if there is none or it is another principal's."""
        # Another client's session is answered like one that never existed: an id must not be
        # confirmed to a client that guesses.
        session = self.sessions.get(session_id)
        return session if session is not None and session.owner.key == principal.key else None

    def open(
        self,
        opening: Opening,
        principal: Principal,
        *,
        streams: bool,
        one_stream: Stream | None = None,
    ) -> tuple[Session, Exchange]:
        """Open a session; return it and the exchange that gets the answer to `initialize`.

        Args:
            opening: The client's `initialize`.
            principal: The owner of the session.
            streams: Whether the client reads event streams.
            one_stream: The stream for all messages, in the transport of 2024-11-05; else None.

        Raises:
            Unavailable: The bridge is about to end, or a limit on sessions is reached.
        """
        tenant = self._tenant_for_another(principal)
        session = Session(
            self._new_id(opening, principal),
            opening.client_profile,
            tenant.context,
            owner=principal,
            one_stream=one_stream,
        )
        self._add(session, tenant)
        exchange = session.in_flight.begin(opening.request, streams=streams)
        tenant.session_starter.open(session, exchange)
        return session, exchange

    async def revive(
        self,
        session_id: str,
        client_profile: ClientProfile,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        """Open a session that another replica had, under the id that its client has.

        Args:
            session_id: The id.
            client_profile: What the client said in `initialize`.
            principal: The owner of the session.
            record: What it asked for since then; None: that is not known, apart from that it has
                initialized, as nearly every client that comes back has.

        Raises:
            Unavailable: The bridge is about to end, a limit is reached, or no child can be had.
        """
        tenant = self._tenant_for_another(principal)
        session = Session(session_id, client_profile, tenant.context, owner=principal, revived=True)
        session.resume(record or SessionRecord(initialized=True))
        self._add(session, tenant)
        try:
            await tenant.session_starter.revive(session)
        # A cancellation too: its client may leave while the child starts.
        except BaseException:
            self.close(session, why="failed")
            raise

    def _tenant_for_another(self, principal: Principal) -> Tenant:
        """Return the tenant of a principal that may have another session.

        Raises:
            Unavailable: The bridge is about to end, or a limit on sessions is reached.
        """
        if not self.drain.accepts_sessions:
            raise Unavailable(draining())
        self._check_memory()
        # Before a session is evicted: a client over its own limit would end another's for nothing.
        if self.sessions.fills(principal):
            raise self._no_room_for_one()
        if self.sessions.full and not self._evict(self.sessions.evictable(principal)):
            raise self._no_room()
        return self.tenant_of(principal)

    def _add(self, session: Session, tenant: Tenant) -> None:
        """Put a session into all tables before it opens: its failure takes it out of them."""
        tenant.sessions[session] = None
        self.sessions.add(session)
        self._call_log.session_began(one_streamed=session.one_streamed)

    @contextmanager
    def one_stream(self, principal: Principal) -> Iterator[Stream]:
        """Open the one stream of a client of the transport of 2024-11-05, until the block ends.

        Raises:
            Unavailable: The bridge is about to end, or a limit on sessions is reached.
        """
        if not self.drain.accepts_sessions:
            raise Unavailable(draining())
        self._check_memory()
        if self._one_streams_full and not self._evict_one_stream(principal):
            # Each of them has a call in flight, or is a connection that is about to initialize.
            raise self._no_room()
        most = self.session_settings.max_per_principal
        if most is not None:
            keys = [each.principal.quota_key for each in self._one_streams.values()]
            if keys.count(principal.quota_key) >= most:
                raise self._no_room_for_one()
        tenant = self._tenants.find(principal)
        account = Account(tenant.context.account if tenant is not None else self.budget)
        stream = Stream(self._context.window, self.meters, charge=account.charge)
        self._one_streams[stream] = _OneStream(principal, self._context.clock())
        try:
            yield stream
        finally:
            del self._one_streams[stream]

    @property
    def _one_streams_full(self) -> bool:
        # A stream whose session was evicted stays in the table until its connection has read all.
        open_streams = sum(not stream.log.closed for stream in self._one_streams)
        return open_streams >= self.session_settings.max_sessions

    @property
    def fill(self) -> float:
        """The largest part in use of sessions, processes and kept memory; 1 is full.

        The first process does not count: it is shared, and serves any number of sessions.
        """
        pool, budget = self._child_pool, self.budget
        most = pool.max_children - 1
        return max(
            len(self.sessions) / self.session_settings.max_sessions,
            (pool.children_in_use - 1) / most if most else 0.0,
            budget.held / budget.limit if budget.limit else 0.0,
        )

    def over_streams(self, session: Session) -> Fault | None:
        """Return the fault if the session may not open another event stream; else None."""
        return self._context.over_streams(session.streams.open)

    def _evict_one_stream(self, newcomer: Principal) -> bool:
        """End a stream of the transport of 2024-11-05; return whether there was one to end.

        It is of the client with most of them: one that has not initialized for long, else that of
        the session that has been unused for longest.
        """
        held: dict[bytes, list[Stream]] = {}
        for stream, each in self._one_streams.items():
            if not stream.log.closed:
                held.setdefault(each.principal.share_key, []).append(stream)
        sessions = {each.streams.standalone: each for each in self.sessions if each.one_streamed}
        counts = {key: len(streams) for key, streams in held.items()}
        for key in ranked(counts, newcomer.share_key):
            without = (stream for stream in held[key] if stream not in sessions)
            oldest = next(without, None)
            if oldest is not None and self._is_left(oldest):
                self.meters.tally("gave_way", "session")
                oldest.close()
                return True
            own = [sessions[stream] for stream in held[key] if stream in sessions]
            if self._evict(longest_idle(own)):
                return True
        return False

    def _is_left(self, stream: Stream) -> bool:
        """Return whether a stream without a session is most likely not wanted any more."""
        each = self._one_streams[stream]
        old = self._context.clock() - each.opened_at >= _INITIALIZES_S
        return old and not self.awaits(stream, each.principal)

    def _evict(self, session: Session | None) -> bool:
        """End a session for another client; return whether there is one."""
        if session is None:
            return False
        self.meters.tally("gave_way", "session")
        extra = {"idle_s": round(session.idle_s, 1), "listening": session.listened}
        log.info("session.evicted", extra=extra)
        self.close(session, why="evicted")
        return True

    def _check_memory(self) -> None:
        if self.budget.full:
            raise Unavailable(self._call_log.refused(out_of_memory(self.budget.limit)))

    def _no_room(self) -> Unavailable:
        limit = capacity("--max-sessions", self.session_settings.max_sessions)
        return Unavailable(self._call_log.refused(limit))

    def _no_room_for_one(self) -> Unavailable:
        most = self.session_settings.max_per_principal or 0
        return Unavailable(self._call_log.refused(over_quota("--max-sessions-per-principal", most)))

    def close(self, session: Session, fault: Fault | None = None, *, why: str = "deleted") -> None:
        """End a session, and the child it has for itself; `why` is a label of the metrics."""
        if session.state is not SessionState.CLOSED:
            self._call_log.session_ended(why, self._context.clock() - session.opened_at)
        # First, so that no request finds the session while its calls fail.
        self.sessions.remove(session)
        if session.one_streamed:
            self.hang_up(session.streams.standalone, session.owner)
        tenant = self._tenants.find(session.owner)
        if tenant is not None:
            tenant.sessions.pop(session, None)
        lease = session.close(fault)
        if lease is not None and not lease.mux.shared:
            kept = tenant is not None and tenant.session_starter.leaves_behind(lease)
            # A child that is left behind starts for the next client, and at the end none will come.
            if not kept or self.drain.ending:
                self._child_pool.release(lease)

    def hang_up(self, stream: Stream, principal: Principal) -> None:
        """End the calls without a session whose answers would go to a stream that ends."""
        tenant = self._tenants.find(principal)
        if tenant is not None:
            tenant.hang_up(stream)

    def awaits(self, stream: Stream, principal: Principal) -> bool:
        """Return whether the answer of a call without a session will go to a stream."""
        tenant = self._tenants.find(principal)
        return tenant is not None and tenant.awaits(stream)

    def client_left(self, session: Session) -> None:
        """The client of a session has left before its `initialize` was answered."""
        tenant = self._tenants.find(session.owner)
        if tenant is not None:
            tenant.session_starter.client_left(session)

    def _failed(self, session: Session) -> None:
        """Close a session in whose task a bug was met: its state is unknown."""
        self.close(session, bridge_failed(), why="failed")

    def end_idle_streams(self) -> None:
        """End streams that only listen, so that their clients connect elsewhere.

        Calls in flight keep their streams. A child that ends from now on is not started again.
        """
        # A call's stream goes on: its answer must still reach the client.
        needed = {call.stream for tenant in self._tenants for call in tenant.in_flight}
        listening = {s.streams.standalone for s in self.sessions} | self._one_streams.keys()
        for tenant in self._tenants:
            tenant.end_idle_streams()
        for stream in listening - needed:
            stream.dismiss()

    @property
    def busy(self) -> bool:
        """Whether a call is in flight or parked, or a subscription is open."""
        return self.drain.in_flight > 0 or any(tenant.modern.busy for tenant in self._tenants)

    @property
    def activity(self) -> Collection[tuple[int | None, int]]:
        """The number of requests that clients have sent to each child, by its pid."""
        return {(lease.child.pid, lease.mux.requests) for lease in self._child_pool.leases}

    def rest(self) -> None:
        """End all children, since no client needs one now; sessions stay.

        The next call starts a child, which takes over with what the sessions had asked of the last
        one. May only be called if the bridge is not busy.
        """
        self._child_pool.drop_spares()
        for tenant in self._tenants:
            while (lease := tenant.session_starter.give_up_left_behind()) is not None:
                self._child_pool.release(lease)
            tenant.warm_pool.renew()
            tenant.eras.rest()
            for session in list(tenant.sessions):
                lease = session.lease
                if lease is not None and not lease.mux.shared and lease.profile is not None:
                    self._context.spawn(tenant.session_starter.renew, session)

    async def cut_off(self, step_s: float) -> None:
        """Answer every call that is left with an error, end every stream, stop every child.

        Args:
            step_s: Seconds for each step of stopping a child.
        """
        # Calls fail with the shutdown before their children end, or they would report a dead child.
        self._close_all()
        await self._child_pool.stop_all(step_s)

    def kill_children(self) -> None:
        """Kill all children, after a further signal, without waiting for them."""
        # First, so that calls in flight fail with the shutdown and not with a child's death.
        self._close_all()
        self._child_pool.kill_all()

    def _close_all(self) -> None:
        for session in self.sessions:
            self.close(session, shutdown(), why="shutdown")
        for tenant in self._tenants:
            tenant.cut_off(shutdown())
        for stream in self._one_streams:
            stream.close()

    def _child_lost(self, session_id: str) -> None:
        session = self.sessions.get(session_id)
        if session is not None and self._settings.on_child_exit is not OnChildExit.RESTART:
            self.close(session, why="child_exited")

    def _evict_left_behind(self, order: Order) -> Collection[Lease]:
        # No client waits for these: they are as good as free.
        for tenant in self._tenants:
            lease = tenant.session_starter.give_up_left_behind()
            if lease is not None:
                return (lease,)
        return ()

    def _evict_tenant(self, order: Order) -> Collection[Lease]:
        return self._tenants.evict_idle(order)

    def _evict_longest_idle(self, order: Order) -> Collection[Lease]:
        pools = [tenant.warm_pool for tenant in self._tenants]
        isolation = self._settings.child_pool.isolation
        return evict_longest_idle(pools, self.sessions, isolation, order)

    def _replace(self, lease: Lease) -> None:
        for tenant in self._tenants:
            self._recycler.replace(lease, tenant.eras, tenant.session_starter, tenant.sessions)

    async def _reap(self) -> None:
        while True:
            await anyio.sleep(self.sessions.sweep_every_s)
            # A method: variables of this loop would keep the last session and its streams.
            await self._sweep(anyio.current_time())

    async def _sweep(self, now: float) -> None:
        for number, session in enumerate(self.sessions, 1):
            if self.sessions.expired(session, now):
                log.info("session.expired", extra={"used": session.used})
                self.close(session, why="expired")
            if number % _AT_ONCE == 0:
                await checkpoint()
        for tenant in self._tenants:
            for number, conversation in enumerate(tenant.conversations, 1):
                self._end_overdue(conversation, now)
                if number % _AT_ONCE == 0:
                    await checkpoint()
            tenant.modern.sweep(now, self._settings.calls.overdue)
        self._leave_failed(now)

    def _sheddable(self) -> Iterator[Shed]:
        for session in self.sessions:
            yield session.streams.shed
        for tenant in self._tenants:
            yield tenant.modern.shed

    def _holders(self) -> Iterator[list[Holder]]:
        """Yield who has bytes in the ledger: connections, children, and each tenant's clients."""
        yield self.budget.holders
        yield self._child_pool.holders
        for tenant in self._tenants:
            sessions = [
                Holder("session", each.held, functools.partial(self._cut, each))
                for each in tenant.sessions
            ]
            yield [*sessions, *tenant.holders]
        known = {session.streams.standalone for session in self.sessions}
        # Connections of 2024-11-05 that have not initialized: they may call all the same.
        yield [Holder("session", s.log.held, s.cut) for s in self._one_streams if s not in known]

    def _cut(self, session: Session) -> None:
        self.close(session, cut_for_memory("session"), why="memory")
        session.streams.cut()

    def _leave_failed(self, now: float) -> None:
        """Remove tenants whose child keeps failing, by the variables that their client brought."""
        for tenant in self._tenants.sweep(now):
            # While the tenant is still in the table, in which `close` looks it up.
            for session in list(tenant.sessions):
                self.close(session, child_exited(None, "no"), why="failed")
            self._tenants.leave(tenant)

    def _end_overdue(self, conversation: Session | SessionlessCalls, now: float) -> None:
        for exchange in list(conversation.in_flight):
            fault = self._settings.calls.overdue(exchange, now)
            if fault is not None and exchange.request.method != INITIALIZE:
                log.warning("call.overdue", extra={"method": exchange.request.method})
                conversation.abandon(exchange, fault)

    async def _size_spares(self) -> None:
        settings = self._settings.child_pool
        if settings.isolation is Isolation.SHARED:
            return
        # A server whose clients share one child needs no spare; and its start time must be known.
        if settings.spares == "auto":
            await self._child_pool.own_wanted.wait()
            await self.eras.first_lease()
        self._child_pool.keep_spares(spares_wanted(settings.spares, self.eras.primary.start_s))


def _random_id(_: Opening, __: Principal) -> str:
    return new_session_id()
