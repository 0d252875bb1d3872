"""A tenant: one principal's children, its sessions, and its calls without a session.

No part of it is ever used for another principal: a server that shares state between its callers
would show one what another did. If clients do not authenticate, all are one principal.

The first tenant exists from the start, so that readiness covers a child, and is given to the first
principal that sends a request; a place is reserved for its shared child. Others are made at first
use. A tenant that has not been used for long, or whose places are needed, is removed with its
children; its principal gets a new one with its next request.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator

import anyio
import msgspec

from mcpbridge.bridge.budget import Holder
from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import StreamLimits
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings, Order
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.children.shared_state import Subscriber, catch_up, restore
from mcpbridge.bridge.children.tenant_pool import TenantPool
from mcpbridge.bridge.children.warm_pool import WarmPool
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import SessionStarter
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.bridge.modern.emulation import EmulatedCalls, ParkSettings
from mcpbridge.bridge.modern.parking import Parking
from mcpbridge.bridge.modern.passthrough import Passthrough
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.bridge.modern.service import ModernService
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.process.child import Child, MakeChild
from mcpbridge.rules.access.principals import ANONYMOUS, Principal, Secrets
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import Fault, Unavailable, draining, session_closed
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import OnChildExit

log = logging.getLogger("mcpbridge.bridge")

IDLE_S = 300.0
"""Seconds after which an unused tenant is removed; as long as the warm pool keeps a child."""
SETTLED_S = 1.0
"""Seconds without use before a tenant may be removed to make room: a call may be on its way."""


class BridgeSettings(msgspec.Struct, frozen=True):
    """The settings of a bridge and its parts."""

    child_pool: ChildPoolSettings
    sessions: SessionSettings
    calls: CallLimits
    parking: ParkSettings
    eras: EraSettings
    on_child_exit: OnChildExit
    recycling: RecyclePolicy
    loads: LoadLimits = LoadLimits()
    streams: StreamLimits = StreamLimits()
    keeps_listens: bool = False
    """Whether listens stay open on a server of 2026-07-28 that does not know them, as reloads give
    the bridge something to tell."""


class Tenant:
    """A tenant of the bridge; owned by its `TenantRegistry`."""

    def __init__(
        self,
        eras: EraSupervisors,
        child_source: ChildSource,
        context: CallContext,
        settings: BridgeSettings,
        state_codec: RequestStateCodec,
        parking: Parking,
        close: Callable[[Session], None],
    ) -> None:
        """Make a tenant without an owner; nothing is started before `run`.

        Args:
            eras: Keeps the shared children.
            child_source: Starts the tenant's other children.
            context: What sessions and calls of all tenants share.
            settings: The settings of the parts.
            state_codec: Encrypts the `requestState` of parked calls.
            parking: Has the places of parked calls.
            close: Ends a session whose opening fails.
        """
        self.eras = eras
        self.state_codec = state_codec
        self.sessions: dict[Session, None] = {}
        """The open sessions, in order of their start."""
        self.last_used = context.clock()
        self._left = anyio.Event()
        account = Account(context.account)
        self._context = msgspec.structs.replace(
            context, subscribers=self._subscribers, account=account
        )
        self._sessionless = SessionlessCalls(self._context)
        self.warm_pool = WarmPool(child_source, settings.child_pool.start_timeout_s, context.spawn)
        emulated = EmulatedCalls(
            self._context,
            eras.legacy,
            child_source,
            self.warm_pool,
            settings.child_pool.isolation,
            settings.parking,
            state_codec,
            parking,
            answers_roots=bool(settings.child_pool.roots),
        )
        native = Passthrough(self._context, eras, keeps_listens=settings.keeps_listens)
        most = settings.sessions.max_listens
        self.modern = ModernService(self._context, eras, emulated, native, most, settings.eras)
        """Serves clients of 2026-07-28."""
        self.session_starter = SessionStarter(
            eras, child_source, settings.child_pool, context.spawn, close, self._subscribers
        )

    @property
    def context(self) -> CallContext:
        """What sessions and calls of this tenant share."""
        return self._context

    @property
    def holders(self) -> list[Holder]:
        """What has bytes in the ledger without a session: calls and subscriptions."""
        calls = self._sessionless.in_flight
        found = [Holder("call", each.held, each.cut) for each in calls if each.held]
        return [*found, *self.modern.holders]

    @property
    def in_use(self) -> bool:
        """Whether a session, a call or a listen is open."""
        return bool(self.sessions or self._sessionless.in_flight) or self.modern.busy

    @property
    def conversations(self) -> Iterator[Session | SessionlessCalls]:
        """The calls of legacy clients without a session, then each session."""
        yield self._sessionless
        yield from list(self.sessions)

    @property
    def in_flight(self) -> Iterator[Exchange]:
        """Calls of legacy clients that have no answer yet."""
        for conversation in self.conversations:
            yield from conversation.in_flight

    def hang_up(self, stream: Stream) -> None:
        """End the calls without a session whose answers would go to this stream."""
        for call in list(self._sessionless.in_flight):
            if call.stream is stream:
                call.abandon(session_closed())

    def awaits(self, stream: Stream) -> bool:
        """Return whether the answer of a call without a session will go to this stream."""
        return any(call.stream is stream for call in self._sessionless.in_flight)

    def claim(self, principal: Principal) -> None:
        """Give the tenant to this principal."""
        self.modern.claim(private=principal.key != ANONYMOUS.key)
        self.state_codec.claim(principal.key)

    def touch(self, now: float) -> None:
        """Count the tenant as used at `now`."""
        self.last_used = now

    def idle_s(self, now: float) -> float:
        """Return for how many seconds the tenant has not been used; 0 if it is in use."""
        if self.in_use:
            self.last_used = now
        return now - self.last_used

    async def run(self) -> None:
        """Keep the shared children running until `leave`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.session_starter.prepare_sessionless, self._sessionless)
            hooks = (self._give_to_next_child, self._settle_with_next_child)
            tasks.start_soon(self.eras.run, *hooks, self._announce_to_listens)
            # The supervisors never return: the tenant's end cancels them.
            await self._left.wait()
            tasks.cancel_scope.cancel()

    def sessionless_nowait(self) -> SessionlessCalls | None:
        """Return what `sessionless` returns; None if it would have to wait.

        Raises:
            Unavailable: The bridge is about to end.
        """
        if not self._context.drain.accepts_sessions:
            raise Unavailable(draining())
        return None if self._sessionless.link.state is SessionState.OPENING else self._sessionless

    async def sessionless(self) -> SessionlessCalls:
        """Return the calls of legacy clients without a session, once their child is chosen.

        Raises:
            Unavailable: The bridge is about to end.
        """
        if self.sessionless_nowait() is None:
            await self.session_starter.open_sessionless(self._sessionless)
        return self._sessionless

    def end_idle_streams(self) -> None:
        """End listens, so that their clients connect elsewhere; no child is started again."""
        self.eras.retire()
        self.modern.end_listens()

    def cut_off(self, fault: Fault) -> None:
        """End every call without a session with the fault; the bridge ends the sessions."""
        self.eras.retire()
        self._sessionless.close(fault)
        self.modern.cut_off()

    def leave(self, fault: Fault) -> None:
        """End the tenant's calls and `run`; the caller ends its children."""
        self.cut_off(fault)
        self._left.set()

    def _subscribers(self) -> Iterator[Subscriber]:
        yield self._sessionless.listener
        yield from self.modern.listens
        for session in list(self.sessions):
            if session.listener.shares:
                yield session.listener

    def _holders(self) -> list[Subscriber]:
        # Those without a child get the next one when they need it.
        return [subscriber for subscriber in self._subscribers() if subscriber.lease is not None]

    async def _give_to_next_child(self, lease: Lease) -> None:
        """Move the sessions of a shared child that ended to the next one, with their state."""
        if lease.profile is not None:
            await restore(lease, lease.profile, self._holders())
        # Only after `restore`: a call must not reach the child before the state that it relies on.
        for subscriber in self._holders():
            subscriber.take(lease)

    async def _announce_to_listens(self, lease: Lease) -> None:
        """Tell clients of a child of 2026-07-28 that another takes over, before it serves.

        Clients whose listens the child before has are told now, as those end with it; sessions
        with such a listen are told when the next child has theirs.
        """
        if lease.profile is None:
            return
        self.modern.announce_lists(lease.profile)
        for conversation in self.conversations:
            if conversation.link.adapter is not None:
                conversation.link.adapter.announce_lists(lease.profile)

    async def _settle_with_next_child(self, before: Lease, lease: Lease) -> None:
        """Move subscribers of a replaced child, after its last call, to the one that serves."""
        # Some have the next child already: they took it with a call that began after the
        # replacement.
        for subscriber in self._holders():
            if subscriber.lease is before:
                subscriber.take(lease)
        await catch_up(lease, self._holders())


MakeChildWithEnv = Callable[[Secrets], Child]
"""Returns a child, not yet started, with these variables added to its environment."""


class ChildMakers(msgspec.Struct, frozen=True):
    """What makes the children of one server."""

    plain: MakeChild
    with_env: MakeChildWithEnv | None
    """Makes the children of clients with own variables; None if no client has any."""


class TenantRegistry:
    """A table of the tenants by the keys of their principals; owned by the bridge."""

    def __init__(
        self,
        child_pool: ChildPool,
        first: Tenant | None,
        make: Callable[[EraSupervisors, ChildSource], Tenant],
        eras: EraSupervisors,
        make_child_with_env: MakeChildWithEnv | None,
        spawn: Spawn,
    ) -> None:
        """Make a registry.

        Args:
            child_pool: Has the children of all tenants.
            first: The first tenant, without an owner; None: all are made at first use.
            make: Makes a further tenant.
            eras: Supervisors from which those of further tenants are made.
            make_child_with_env: Makes children with added variables; None: clients bring none.
            spawn: Starts a task of the bridge, which outlives the request.
        """
        self._child_pool = child_pool
        self._unclaimed = first
        self._make = make
        self._eras = eras
        self._make_child_with_env = make_child_with_env
        self._spawn = spawn
        self._by_key: dict[bytes, Tenant] = {}
        self._tenant_pools: dict[Tenant, TenantPool] = {}
        self._accounts: dict[Tenant, bytes] = {}
        """The quota keys of the tenants that were made for header values."""

    def __iter__(self) -> Iterator[Tenant]:
        if self._unclaimed is not None:
            yield self._unclaimed
        yield from list(self._by_key.values())

    def find(self, principal: Principal) -> Tenant | None:
        """Return the tenant of a principal; None if it has none."""
        return self._by_key.get(principal.key)

    def admit(self, principal: Principal, most: int, now: float) -> bool:
        """Return whether a principal without a tenant may have one; may remove one of its account.

        A client chooses the values of its headers: without a limit it could have a tenant, and
        processes, for each value that it invents.

        Args:
            principal: The principal that sent a request.
            most: Most tenants for header values that one account may have.
            now: The event loop's time, in seconds.
        """
        if not principal.env.pairs:
            return True
        own = [each for each, account in self._accounts.items() if account == principal.quota_key]
        if len(own) < most:
            return True
        longest = max(own, key=lambda each: each.idle_s(now))
        if longest.idle_s(now) < SETTLED_S:
            return False
        self.leave(longest)
        return True

    def give(self, principal: Principal) -> Tenant:
        """Return a tenant for a principal that has none: the one without an owner, or a new one."""
        if self._unclaimed is not None and not principal.env.pairs:
            found, self._unclaimed = self._unclaimed, None
        else:
            found = self._further(principal)
        self._by_key[principal.key] = found
        if principal.env.pairs:
            self._accounts[found] = principal.quota_key
        found.claim(principal)
        return found

    def sweep(self, now: float) -> list[Tenant]:
        """Remove tenants that have not been used for `IDLE_S`.

        Returns:
            Tenants whose child has kept failing; for the caller to close their sessions and remove.
        """
        failed = []
        for tenant in list(self._tenant_pools):
            if tenant.eras.gave_up.is_set():
                failed.append(tenant)
            elif tenant.idle_s(now) > IDLE_S:
                self.leave(tenant)
        return failed

    def leave(self, tenant: Tenant) -> None:
        """Remove a tenant that is not the first; its principal gets a new one."""
        self._spawn(self._forgotten(tenant).close)

    def _further(self, principal: Principal) -> Tenant:
        make_child = None
        # A server that is reached by HTTP has no environment to put the values in.
        if principal.env.pairs and self._make_child_with_env is not None:
            make_child = functools.partial(self._make_child_with_env, principal.env)
        tenant_pool = TenantPool(self._child_pool, make_child, principal.share_key)
        # All tenants run the same program: if one knows its eras, so does the next.
        known = (each.eras for each in self if each.eras.verdict is not None)
        tenant = self._make(next(known, self._eras).another(tenant_pool), tenant_pool)
        self._tenant_pools[tenant] = tenant_pool
        self._spawn(tenant.run)
        log.info("tenant.created", extra={"principal": principal.name})
        return tenant

    def _forgotten(self, tenant: Tenant) -> TenantPool:
        self._by_key = {key: each for key, each in self._by_key.items() if each is not tenant}
        tenant.leave(session_closed())
        self._accounts.pop(tenant, None)
        return self._tenant_pools.pop(tenant)

    def evict_idle(self, order: Order) -> Collection[Lease]:
        """Remove the tenant that has not been used for longest; return its children.

        Args:
            order: Says whose child gives way.
        """
        now = anyio.current_time()
        idle = [
            (tenant.idle_s(now), tenant)
            for tenant, tenant_pool in self._tenant_pools.items()
            if any(order(lease) is not None for lease in tenant_pool.leases)
        ]
        idle_s, longest = max(idle, key=lambda each: each[0], default=(0.0, None))
        # A request that has just found its tenant counts as use only when its call begins.
        if longest is None or idle_s < SETTLED_S:
            return ()
        log.info("tenant.evicted_idle", extra={"idle_s": round(idle_s, 1)})
        return self._forgotten(longest).leases
