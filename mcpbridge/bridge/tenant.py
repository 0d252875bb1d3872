"""What belongs to one principal: its children, its sessions, and its calls without a session.

Nothing of it is ever used for another principal: a server that shares state between its callers
would show one what the other did. Where nobody is asked who they are, all live in the same
quarters.

The first quarters are there from the start, so that readiness means something, and become those of
whoever comes first; their shared child has a place kept for it. Others are made at first use. When
nobody has used them for long, or their places are needed, their children end and they are
forgotten; the principal finds new ones when it comes again.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator

import anyio

from mcpbridge.bridge.calls.context import Means
from mcpbridge.bridge.calls.replay import StreamLimits
from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.bridge.children.child_pool import Placement, PlacementSettings
from mcpbridge.bridge.children.lease import Lease, Supply
from mcpbridge.bridge.children.server_eras import Eras, EraSettings
from mcpbridge.bridge.children.shared_state import Sharer, catch_up, repeat
from mcpbridge.bridge.children.tenant_pool import Allotment
from mcpbridge.bridge.children.warm_pool import Pool
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_start import Opener
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.modern.emulation import ParkSettings, Stateless
from mcpbridge.bridge.modern.passthrough import Native
from mcpbridge.bridge.modern.request_state import Seal
from mcpbridge.bridge.modern.service import Modern
from mcpbridge.bridge.recycler import Renewal
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.process.child import AnyChild
from mcpbridge.rules.access.principals import ANONYMOUS, Hidden, Principal
from mcpbridge.rules.faults import Fault, Unavailable, draining, session_closed
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import OnChildExit

log = logging.getLogger("mcpbridge.bridge")

IDLE_S = 300.0
"""How long children wait for a principal that has gone, as those for single calls do."""
SETTLED_S = 1.0
"""Quarters used within this time are not ended to make room: their next call is on its way."""


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


class Quarters:
    """The part of the bridge that one principal uses; owned by the bridge."""

    def __init__(
        self,
        eras: Eras,
        supply: Supply,
        means: Means,
        settings: BridgeSettings,
        seal: Seal,
        close: Callable[[Session], None],
        resting: Callable[[], Session | None],
    ) -> None:
        """Make them; nothing is started before `run`.

        Args:
            eras: Keeps the shared children.
            supply: Starts children.
            means: What all conversations work with.
            settings: What the parts go by.
            seal: Closes what parked calls give their clients to keep.
            close: Ends a session whose opening fails.
            resting: The session whose child can best be done without; see `Opener`.
        """
        self.eras = eras
        self.seal = seal
        self.sessions: dict[Session, None] = {}
        """Those that can be named."""
        self.last_used = means.clock()
        self._left = anyio.Event()
        self._means = dataclasses.replace(means, sharers=self._sharers)
        self._outside = Session(None, None, self._means)
        self._pool = Pool(supply, settings.placement.start_timeout_s)
        emulated = Stateless(
            self._means,
            eras.handshake,
            self._pool,
            settings.placement.isolation,
            settings.parking,
            seal,
        )
        native = Native(self._means, eras)
        most = settings.sessions.max_listens
        self.modern = Modern(self._means, eras, emulated, native, most, settings.eras)
        """What serves clients of 2026-07-28."""
        self.opener = Opener(eras, supply, settings.placement, means.spawn, close, resting)
        self.renewal: Renewal
        """Lets worn children go; set by the bridge."""
        eras.handshake.prepare = self._give_to_next_child
        eras.handshake.settle = self._settle_with_next_child

    @property
    def means(self) -> Means:
        """What the conversations here work with."""
        return self._means

    @property
    def in_use(self) -> bool:
        """There is a session, or a call or a listen without one."""
        return bool(self.sessions or self._outside.in_flight) or self.modern.busy

    @property
    def all_sessions(self) -> Iterator[Session]:
        """Sessions, and what stands in for one where requests name none."""
        yield self._outside
        yield from list(self.sessions)

    def idle_s(self, now: float) -> float:
        """How long nobody has used them; 0 while somebody does."""
        if self.in_use:
            self.last_used = now
        return now - self.last_used

    async def run(self) -> None:
        """Keep their shared children running until they are left."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.opener.attach, self._outside)
            tasks.start_soon(self.eras.run)
            await self._left.wait()
            tasks.cancel_scope.cancel()

    async def outside(self) -> Session:
        """What stands in for a session where a request names none: the shared child serves it.

        Raises:
            Unavailable: The bridge is about to end.
        """
        if not self._means.drain.accepts_sessions:
            raise Unavailable(draining())
        await self.opener.attach(self._outside)
        return self._outside

    def end_idle_streams(self) -> None:
        """Let clients that only listen connect elsewhere; no child is started again."""
        self.eras.retire()
        self.modern.end_listens()

    def cut_off(self, fault: Fault) -> None:
        """Answer every call without a session; its sessions are the bridge's to end."""
        self.eras.retire()
        self._outside.close(fault)
        self.modern.cut_off()

    def rest_pool(self) -> None:
        """End the children that wait for another call of a client of 2026-07-28."""
        self._pool.expire(math.inf)

    def leave(self, fault: Fault) -> None:
        """Nobody uses them any more; whoever gave them their children ends these."""
        self.cut_off(fault)
        self._left.set()

    def _sharers(self) -> Iterator[Sharer]:
        yield self._outside
        yield from self.modern.listens
        for session in list(self.sessions):
            if session.lease is not None and session.lease.mux.shared:
                yield session

    def _holders(self) -> list[Sharer]:
        return [sharer for sharer in self._sharers() if sharer.lease is not None]

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


Dress = Callable[[Hidden], AnyChild]
"""A child that has not been started, with these variables in its environment besides."""


class Lodgings:
    """The quarters of all principals, by their keys; owned by the bridge."""

    def __init__(
        self,
        placement: Placement,
        first: Quarters | None,
        make: Callable[[Eras, Supply], Quarters],
        eras: Eras,
        dress: Dress | None,
        spawn: Spawn,
    ) -> None:
        """Make them.

        Args:
            placement: Has the children of all.
            first: Quarters that are nobody's yet, where some run already.
            make: Makes further ones.
            eras: Those of the first, by whose example others are made.
            dress: Makes children with further variables.
            spawn: Runs work in the bridge's own time.
        """
        self._placement = placement
        self._unclaimed = first
        self._make = make
        self._eras = eras
        self._dress = dress
        self._spawn = spawn
        self._by_key: dict[bytes, Quarters] = {}
        self._allotments: dict[Quarters, Allotment] = {}
        placement.make_room = self._make_room

    def __iter__(self) -> Iterator[Quarters]:
        if self._unclaimed is not None:
            yield self._unclaimed
        yield from list(self._by_key.values())

    def find(self, principal: Principal) -> Quarters | None:
        """The quarters of a principal, where it has some."""
        return self._by_key.get(principal.key)

    def give(self, principal: Principal) -> Quarters:
        """Quarters for a principal that has none: those that are nobody's yet, or new ones."""
        if self._unclaimed is not None and not principal.env.pairs:
            found, self._unclaimed = self._unclaimed, None
        else:
            found = self._further(principal)
        self._by_key[principal.key] = found
        found.modern.private = principal.key != ANONYMOUS.key
        found.seal.owner = principal.key
        return found

    def sweep(self, now: float) -> list[Quarters]:
        """Leave those that nobody has used for long.

        Returns:
            Those whose child has kept failing; to be left when their sessions have ended.
        """
        failed = []
        for quarters in list(self._allotments):
            if quarters.eras.gave_up.is_set():
                failed.append(quarters)
            elif quarters.idle_s(now) > IDLE_S:
                self.leave(quarters)
        return failed

    def leave(self, quarters: Quarters) -> None:
        """End quarters that are not the first; their principal finds new ones."""
        self._spawn(self._forgotten(quarters).close)

    def _further(self, principal: Principal) -> Quarters:
        make_child = None
        if principal.env.pairs:
            assert self._dress is not None
            make_child = functools.partial(self._dress, principal.env)
        allotment = Allotment(self._placement, make_child, principal.env)
        # What program it is, one of them may have found out.
        known = (each.eras for each in self if each.eras.verdict is not None)
        quarters = self._make(next(known, self._eras).another(allotment), allotment)
        self._allotments[quarters] = allotment
        self._spawn(quarters.run)
        log.info("principal.arrived", extra={"principal": principal.name})
        return quarters

    def _forgotten(self, quarters: Quarters) -> Allotment:
        self._by_key = {key: each for key, each in self._by_key.items() if each is not quarters}
        quarters.leave(session_closed())
        return self._allotments.pop(quarters)

    async def _make_room(self) -> bool:
        """End children of a principal that has none of them in use; see `Placement.make_room`."""
        now = anyio.current_time()
        idle = [(quarters.idle_s(now), quarters) for quarters in self._allotments]
        idle_s, longest = max(idle, key=lambda each: each[0], default=(0.0, None))
        if longest is None or idle_s < SETTLED_S:
            return False
        log.info("principal.rested", extra={"idle_s": round(idle_s, 1)})
        await self._forgotten(longest).close()
        return True
