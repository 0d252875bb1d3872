"""Which child serves a session: the shared one, a spare, or a new one for the session alone.

The pool starts and counts children and knows nothing of sessions; the holder of a lease uses its
mux until it releases the lease. One place of the cap is reserved for the shared child, so that
children of single sessions never displace the one that serves all.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge.bridge.budget import Holder
from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.bridge.children.lease import Lease, StartTurn, Wanted
from mcpbridge.bridge.children.listeners import Interceptor
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.channel import Channel
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.errors import ServerUnreachable, SpawnError
from mcpbridge.process.child import Child, MakeChild
from mcpbridge.rules.access.principals import share_name
from mcpbridge.rules.access.shares import ranked
from mcpbridge.rules.faults import (
    PoolExhausted,
    Unavailable,
    child_exited,
    spawn_failed,
    unreachable,
)
from mcpbridge.rules.mcp.methods import ROOTS_LIST
from mcpbridge.rules.mcp.server_requests import roots_result
from mcpbridge.rules.supervision.crashes import CrashCharges
from mcpbridge.rules.supervision.isolation import Isolation, spares_text
from mcpbridge.rules.supervision.memory_budget import MOST, UNMEASURED
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import CURRENT

log = logging.getLogger("mcpbridge.bridge")

_STATUS_WAIT_S = 0.05
"""How long to wait for a dead child's exit status before its calls fail without it: they should
fail within 100 ms, even if the child has closed its stdout and lives on."""


_STARTS_AT_ONCE = 2 * (os.cpu_count() or 1)
"""Children of single sessions that may start at the same time: a server's imports take seconds of
processor time, and many starts at once would make each of them exceed its time limit."""


class ChildPoolSettings(SettingsSection, frozen=True):
    """Settings of how children are given to sessions."""

    isolation: Isolation = setting(
        Isolation.AUTO,
        "--isolation",
        "Which sessions get their own server process: `auto`: those of clients that offer sampling,"
        " elicitation or roots; `shared`: none; `session`: all.",
        group="Isolation",
        choices=tuple(choice.value for choice in Isolation),
        parse=Isolation,
    )
    spares: str = setting(
        "auto",
        "--spares",
        "Processes kept ready, not yet initialised, for sessions that get their own: a number, or"
        " `auto`: one if the server takes more than 1 s to start and a client that gets its own"
        " process has come; none on a terminal.",
        group="Isolation",
        metavar="auto|N",
        parse=spares_text,
    )
    max_children: int | None = setting(
        None,
        "--max-children",
        "Server processes at once, the shared one and spares included; one place is reserved for"
        " the shared one. If not given, as many as fit into the memory of the container or machine,"
        " going by the memory that a process was seen to use: 2 to 64.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )
    most_children: int = MOST
    """Most children that the limit on open files allows, if the cap follows the memory."""
    roots: tuple[str, ...] = ()
    """URIs that the bridge answers a shared server's `roots/list` with; empty: it is declined."""
    start_timeout_s: float = setting(
        60.0,
        "--start-timeout",
        "How long a server may take to start and answer initialize.",
        group="Supervision",
        unit=Unit.SECONDS,
        minimum=0.1,
    )


async def _live(child: Child, *, task_status: TaskStatus[None]) -> None:
    # The context is that of the call that caused the start: the child's logs are not part of it.
    CURRENT.set(None)
    await child.run(task_status=task_status)


Order = Callable[[Lease], int | None]
"""Returns when the holder of a child gives way to the client that needs a place, 0 first; None:
never. See `rules.access.shares.ranked`."""
Evict = Callable[[Order], Collection[Lease]]
"""Takes children from their holders and returns them for the pool to end; empty if it has none."""

ServesOthers = Callable[[bytes], bool]
"""Returns whether another client than the one with this `Principal.share_key` is served."""


def _always() -> bool:
    """Return True: the place is wanted whatever happens."""
    return True


def _serves_none(caller: bytes) -> bool:
    """Return False: it is not known who is served."""
    return False


_FALLBACK_LOG_EVERY_S = 1.0
"""At most one log record in this time: a burst must not fill the log; the metric counts all."""
_PATIENCE_S = 0.5
"""How long the first process of a principal waits for a place: a process that works on a call is
idle after it. Longer than `--json-window` its client could not be refused by an HTTP status."""
_EVICT_GRACE_S = 1.0
"""Seconds for each step of stopping a child whose place another client waits for."""
_PLACE_WAIT_S = 5.0
"""Seconds that a client waits for a place if `--queue-timeout` is not given: after that the shared
child serves it, which is better than a longer wait."""


class _Waiter(msgspec.Struct, frozen=True):
    """A client that waits for a place."""

    place: asyncio.Future[_Place | None]
    wanted: Wanted
    caller: bytes


class _Place:
    """A right to start one process; `_taken` counts it until the process runs."""

    def __init__(self, caller: bytes = b"", ending: Lease | None = None) -> None:
        self.caller = caller
        """The client that it is for."""
        self.ending = ending
        """The child that held the place; the next process starts when it has ended. None: free."""


class ChildObserver(Protocol):
    """An observer of the children of a pool."""

    def child_started(self, lease: Lease) -> None:
        """Take note that a child runs; its handshake has not begun."""

    def request_limit_reached(self) -> None:
        """Take note that a child has had as many requests as the pool's limit says."""


InterceptorsOf = Callable[[Channel], Sequence[Interceptor]]
"""Returns what is applied to each request on the channel of one child, in this order."""


def _no_interceptors(channel: Channel) -> Sequence[Interceptor]:
    """Return no interceptor."""
    return ()


class ChildPool:
    """A pool that starts, counts and ends children; alive within `running`."""

    def __init__(
        self,
        make_child: MakeChild,
        settings: ChildPoolSettings,
        limits: PipeLimits,
        meters: Meters,
        loads: LoadLimits | None = None,
        interceptors: InterceptorsOf = _no_interceptors,
        observers: Sequence[ChildObserver] = (),
        request_limit: int = 0,
        crashes: CrashCharges | None = None,
    ) -> None:
        """Make a pool; it starts children within `running`.

        Args:
            make_child: Makes a child with the bridge's own command and environment.
            settings: How many children, which sessions get one, and how long a start may take.
            limits: The limits of the children's pipes.
            meters: Count starts and ends.
            loads: How many calls one child may have in flight.
            interceptors: Returns what is applied to each request on the channel of a child.
            observers: Called for each child.
            request_limit: Number of requests to a child after which observers are called; 0: never.
            crashes: Charges the end of a shared child to a client; None: no client is charged.
        """
        self._make_child = make_child
        self._settings = settings
        self._limits = limits
        self._loads = loads
        self._answers = {ROOTS_LIST: roots_result(settings.roots)} if settings.roots else {}
        within_s = (loads or LoadLimits()).queue_timeout_s
        self._queue_timeout_s = _PLACE_WAIT_S if within_s is None else within_s
        self._interceptors = interceptors
        self._observers = observers
        self._request_limit = request_limit
        self._max_children = settings.max_children or min(UNMEASURED, settings.most_children)
        self.was_ready = anyio.Event()
        """Set once a shared child has had its handshake."""
        self.own_wanted = anyio.Event()
        """Set once a client has come that gets its own child."""
        self._meters = meters
        self._leases: set[Lease] = set()
        self._spares: list[Lease] = []
        self._spares_wanted = 0
        self._keeps_spares = True
        self._spares_due = anyio.Event()
        self._closing = anyio.Event()
        self._starts = anyio.Semaphore(_STARTS_AT_ONCE)
        self._places: set[_Place] = set()
        self._released: set[Lease] = set()
        """Children that are ending because their holders have released them."""
        self._evicted: set[Lease] = set()
        """Children that are ending and whose places have been given away."""
        self._fallback_logged_at = float("-inf")
        self._waiters: list[_Waiter] = []
        self._passes_over = False
        """Whether a client that waited is about to be told that it gets no place."""
        self._holders: dict[Lease, bytes] = {}
        """The client that each counted child was started for, or that uses it now."""
        self._tasks: TaskGroup
        self._evictors: list[tuple[Evict, bool]] = []
        self._crashes = crashes
        self._serves_others: ServesOthers = _serves_none

    @property
    def leases(self) -> Collection[Lease]:
        """All running children, spares included."""
        return list(self._leases)

    @property
    def holders(self) -> list[Holder]:
        """The running children that do not read, with the bytes that wait for them.

        What they wrote counts in the ledger too, but passes and is bounded for each.
        """
        return [
            Holder("child", lease.mux.channel.held, lease.cut)
            for lease in self._leases
            if lease.mux.channel.held and not lease.mux.lost
        ]

    @property
    def children(self) -> int:
        """Number of running children, spares included."""
        return len(self._leases)

    @property
    def children_in_use(self) -> int:
        """Number of running children without the spares, which make room when a place is needed."""
        return len(self._leases) - len(self._spares)

    @property
    def max_children(self) -> int:
        """Most children that may run at once."""
        return self._max_children

    @property
    def free_places(self) -> int:
        """Number of processes that may start beside those that run, the shared one left out."""
        return max(0, self._max_children - 1 - self._taken())

    def resize(self, max_children: int) -> None:
        """Set how many children may run at once; those over a lower limit are not ended."""
        self._max_children = max_children
        self._serve_waiters()

    def became_ready(self, start_s: float) -> None:
        """Record that a shared child has had its handshake, `start_s` seconds after its start."""
        self.was_ready.set()
        self._spares_due.set()
        self._meters.observe("child_start_seconds", start_s)

    def starts_again(self) -> None:
        """Record that a shared child will be started in place of one that ended."""
        self._meters.tally("child_restarts", ())

    @asynccontextmanager
    async def running(
        self,
        evictors: Sequence[Evict] = (),
        serves_others: ServesOthers | None = None,
        last_evictors: Sequence[Evict] = (),
    ) -> AsyncIterator[None]:
        """Start children on demand until the block ends; then stop those that are left.

        Args:
            evictors: Asked in this order for a child to end when all places are taken.
            serves_others: Returns whether another client than this one is served; None: none is.
            last_evictors: Asked when those have found none, for children that are not idle: of
                clients that will still have as many as the one that needs the place.
        """
        self._evictors = [(self._spare_to_evict, False)]
        self._evictors += [(evict, False) for evict in evictors]
        self._evictors += [(evict, True) for evict in last_evictors]
        self._serves_others = serves_others or _serves_none
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._keep_spares)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def charged(self, lease: Lease) -> bool:
        """Charge the end of a shared child to a client; return whether that is its whole effect.

        It is if a call of that client was in flight and other clients are served.
        """
        report = lease.child.report
        if self._crashes is None or (report is not None and report.asked):
            return False
        callers = lease.mux.callers_at_end()
        # The bridge's own requests have the empty key, beside which every client is another one.
        if not any(self._serves_others(each) for each in set(callers) - {b""}):
            return False
        charge = self._crashes.charge(callers, asyncio.get_running_loop().time())
        if charge is None:
            return False
        extra = {"pid": lease.child.pid, "crashes": charge.crashes, "pause_s": charge.pause_s}
        log.warning("child.crash_charged", extra={**extra, "client": share_name(charge.caller)})
        self._meters.tally("crashes_charged", ())
        return self._serves_others(charge.caller)

    async def shared(self) -> Lease:
        """Return a fresh child that many sessions will use; it takes no counted place.

        Raises:
            Unavailable: It could not be started.
        """
        return await self._start(self._make_child, shared=True)

    async def further(self, make_child: MakeChild | None, caller: bytes = b"") -> Lease:
        """Return a fresh child that the sessions of one principal share; it takes a place.

        If all places are taken it waits for one, at most half a second.

        Args:
            make_child: Makes the child; None: it is like all others.
            caller: The principal, by its `Principal.share_key`.

        Raises:
            Unavailable: All places are taken, or it could not be started.
        """
        place = await self._take_place(caller, _always, _PATIENCE_S)
        return await self._start_in_place(place, make_child or self._make_child, shared=True)

    async def own(
        self,
        make_child: MakeChild | None = None,
        *,
        wanted: Wanted | None = None,
        caller: bytes = b"",
    ) -> Lease:
        """Return a fresh child for one session alone: a spare, or a new one.

        A new one waits for its turn if many start at once; the time limit of its start runs from
        then on. Its holder calls `Lease.start_over` when the start is over.

        Args:
            make_child: Makes the child, so that no spare is used; None: it is like all others.
            wanted: If all places are taken and no child can be evicted, wait for a place while this
                returns True, at most `--queue-timeout` (5 s if not given); None: do not wait.
            caller: The client, by its `Principal.share_key`.

        Raises:
            PoolExhausted: All places are taken.
            Unavailable: It could not be started.
        """
        self.own_wanted.set()
        while self._spares and make_child is None:
            spare = self._spares.pop(0)
            self._spares_due.set()
            # It may have ended since it was started; the next look at the spares replaces it.
            if not spare.mux.shut:
                self._holders[spare] = caller
                return spare
        place = await self._take_place(caller, wanted, self._queue_timeout_s)
        return await self._start_in_place(place, make_child or self._make_child, shared=False)

    async def successor(self, make_child: MakeChild | None = None, *, caller: bytes = b"") -> Lease:
        """Return a fresh child for a session that has one, which it will replace.

        It waits for no place, or the session would be without a child: it has that of the old one
        as soon as that has finished its calls. Like `own`, it waits for its turn.

        Args:
            make_child: Makes the child; None: it is like all others.
            caller: The client, by its `Principal.share_key`.

        Raises:
            Unavailable: It could not be started.
        """
        return await self._start_in_turn(make_child or self._make_child, caller)

    def pass_on(self, lease: Lease, caller: bytes) -> None:
        """Count a child that was started for one client as that of another, which uses it now."""
        if lease in self._holders:
            self._holders[lease] = caller

    def idle(self) -> None:
        """Look for a place for the clients that wait: a child serves no client at present."""
        self._serve_waiters()

    def fell_back(self) -> None:
        """Count and log that the shared child serves a client that should have its own."""
        self._meters.tally("shared_fallbacks", ())
        now = asyncio.get_running_loop().time()
        if now - self._fallback_logged_at >= _FALLBACK_LOG_EVERY_S:
            self._fallback_logged_at = now
            extra = {"max_children": self._max_children, "served_by": "shared process"}
            log.warning("child_pool.exhausted", extra=extra)

    async def _take_place(self, caller: bytes, wanted: Wanted | None, within_s: float) -> _Place:
        place = self._free_place(caller) if self._comes_first(caller) else None
        if place is None and wanted is not None:
            place = await self._wait_for_place(caller, wanted, within_s)
        if place is None:
            raise PoolExhausted(self._max_children)
        return place

    def _held(self) -> collections.Counter[bytes]:
        """Return how many places each client has."""
        held = collections.Counter(place.caller for place in self._places)
        for lease, caller in self._holders.items():
            held[caller] += lease not in self._evicted
        return held

    def _comes_first(self, caller: bytes) -> bool:
        """Return whether a client comes before those that wait: it has fewer places than each."""
        if not self._waiters:
            return True
        held = self._held()
        return all(held[waiter.caller] > held[caller] for waiter in self._waiters)

    def _free_place(self, caller: bytes) -> _Place | None:
        """Return a place, if need be that of a child that is ended for it; None if all are taken.

        Does not wait, so that no other client can take the place between the two steps.
        """
        most = self._max_children - 1
        place = _Place(caller)
        while self._taken() >= max(most, 1):
            victim = self._evict(caller)
            if victim is None:
                return None
            # A cap that follows the memory may have sunk below the number of children: several are
            # evicted then, and one place is won.
            place = _Place(caller, victim)
            self._evicted.add(victim)
        if most < 1:
            return None
        self._places.add(place)
        return place

    def _evict(self, caller: bytes) -> Lease | None:
        for lease in self._released - self._evicted:
            # It ends in any case: its place is free as soon as it has ended.
            if lease.counted and not lease.child.exited.is_set():
                lease.child.stop(_EVICT_GRACE_S)
                return lease
        for evict, strict in self._evictors:
            order = self._order(caller, strict=strict)
            while found := evict(order):
                # What a holder gives up may have ended already, which frees no place: ask on.
                victims = [lease for lease in found if not lease.child.exited.is_set()]
                for lease in victims:
                    log.info("child.evicted_idle", extra={"pid": lease.child.pid})
                    self._meters.tally("gave_way", "child")
                    lease.child.stop(_EVICT_GRACE_S)
                if victims:
                    return victims[0]
        return None

    def _order(self, caller: bytes, *, strict: bool) -> Order:
        """Return the order for one client; `strict`: it will not have more than who gives way."""
        held = self._held()
        held[caller] += strict
        ranks = {each: rank for rank, each in enumerate(ranked(held, caller))}
        if strict:
            # What a client uses does not give way to itself.
            ranks.pop(caller, None)

        def order(lease: Lease) -> int | None:
            return ranks.get(self._holders.get(lease, b""))

        return order

    def _spare_to_evict(self, order: Order) -> Collection[Lease]:
        return [self._spares.pop()] if self._spares else ()

    def _taken(self) -> int:
        runs = sum(lease.counted for lease in self._leases if lease not in self._evicted)
        return runs + len(self._places)

    async def _wait_for_place(
        self, caller: bytes, wanted: Wanted, within_s: float
    ) -> _Place | None:
        future: asyncio.Future[_Place | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(future, wanted, caller)
        self._waiters.append(waiter)
        self._watch_children()
        try:
            with anyio.move_on_after(within_s):
                await future
        except BaseException:
            place = future.result() if future.done() and not future.cancelled() else None
            if place is not None:
                # The client left in the same turn of the event loop in which it got its place.
                self._give_up(place)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        # The time limit and the place may come in one turn of the event loop: then the place
        # counts, or it would be lost.
        return future.result() if future.done() and not future.cancelled() else None

    def _serve_waiters(self) -> None:
        # The others' `wanted` may depend on what the client that was skipped does now: ask them
        # when it has run, however many children send something until then.
        while not self._passes_over and (waiter := self._next_waiter()) is not None:
            if not waiter.wanted():
                self._waiters.remove(waiter)
                waiter.place.set_result(None)
                self._passes_over = True
                asyncio.get_running_loop().call_soon(self._passed_over)
                return
            place = self._free_place(waiter.caller)
            if place is None:
                self._watch_children()
                return
            self._waiters.remove(waiter)
            waiter.place.set_result(place)

    def _passed_over(self) -> None:
        self._passes_over = False
        self._serve_waiters()

    def _next_waiter(self) -> _Waiter | None:
        """Return the client that has fewest places of those that wait, the first of several."""
        # Those whose client has left, or whose time is over, have not been taken out yet.
        self._waiters = [each for each in self._waiters if not each.place.done()]
        if len(self._waiters) < 2:
            return self._waiters[0] if self._waiters else None
        held = self._held()
        return min(self._waiters, key=lambda each: held[each.caller])

    def _watch_children(self) -> None:
        """Look for a place again when a child has sent something: it may be idle then."""
        for lease in self._leases:
            if lease.counted:
                lease.mux.on_next_change(self._serve_waiters)

    def _give_up(self, place: _Place) -> None:
        self._places.discard(place)
        if place.ending is not None:
            # If the child still runs it counts again, until it has ended.
            self._evicted.discard(place.ending)
        self._serve_waiters()

    async def _start_in_place(self, place: _Place, make_child: MakeChild, *, shared: bool) -> Lease:
        try:
            if place.ending is not None:
                await place.ending.child.exited.wait()
                self._leases.discard(place.ending)
                self._holders.pop(place.ending, None)
            if shared:
                return await self._start(make_child, shared=True, counted=True, caller=place.caller)
            return await self._start_in_turn(make_child, place.caller)
        finally:
            # Not before, so that a process counts from its place to its end without a gap.
            self._give_up(place)

    async def _start_in_turn(self, make_child: MakeChild, caller: bytes) -> Lease:
        await self._starts.acquire()
        # The turn ends with the handshake, by `Lease.start_over`; below only if there will be none,
        # also when the client leaves.
        turn = StartTurn(self._starts)
        try:
            return await self._start(make_child, shared=False, turn=turn, caller=caller)
        except BaseException:
            turn.end()
            raise

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """End a child that is not used any more; `grace_s` seconds for each step of stopping."""
        if lease in self._leases:
            self._released.add(lease)
        lease.child.stop(grace_s)

    async def end(self, lease: Lease, grace_s: float) -> None:
        """End a child and wait until its place is free; the steps of stopping bound the wait."""
        lease.child.stop(grace_s)
        await lease.child.exited.wait()
        self._leases.discard(lease)
        self._holders.pop(lease, None)

    def retire(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """Let a child finish its calls, then end it; another one serves in its place already.

        Args:
            lease: The child, which gets no further call.
            within_s: Seconds that its calls have; None: only their own timeouts bound them.
            settle: Awaited after its last call: applies the changes of that call to the successor.
        """
        lease.mux.stop_accepting()
        self._tasks.start_soon(self._finish, lease, within_s, settle)

    async def _finish(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        with anyio.move_on_after(within_s):
            # Calls that wait for this pipe to be writable were here first and are woken first; only
            # then is the child idle for good.
            await lease.mux.channel.writable()
            await lease.mux.wait_idle()
            await settle()
        lease.child.stop()

    def refresh(self, lease: Lease) -> bool:
        """End a spare child and start another; return whether the child is a spare."""
        if lease not in self._spares:
            return False
        self._spares.remove(lease)
        self.release(lease)
        self._spares_due.set()
        return True

    def keep_spares(self, wanted: int) -> None:
        """Set how many spare children are kept ready from now on."""
        self._spares_wanted = wanted
        self._spares_due.set()

    def drop_spares(self) -> None:
        """End all spare children; others are kept ready when a shared child is again."""
        spares, self._spares = self._spares, []
        for spare in spares:
            self.release(spare)

    @contextmanager
    def without_spares(self) -> Iterator[None]:
        """End all spare children and keep none until the block ends; then they start again."""
        self._keeps_spares = False
        spares, self._spares = self._spares, []
        for spare in spares:
            self.release(spare)
        try:
            yield
        finally:
            self._keeps_spares = True
            self._spares_due.set()

    async def stop_all(self, grace_s: float) -> None:
        """End every child at once and wait until all are gone; no child is started any more."""
        # Before the children are stopped: a child that starts at this moment is in no table yet,
        # and `_start` ends it when it sees this.
        self._closing.set()
        for lease in self._leases:
            lease.child.stop(grace_s)
        # A copy, since each child leaves the table as it ends.
        for lease in list(self._leases):
            await lease.child.exited.wait()

    def kill_all(self) -> None:
        """Kill every child without waiting."""
        for lease in self._leases:
            lease.child.kill()

    async def _start(
        self,
        make_child: MakeChild,
        *,
        shared: bool,
        counted: bool = False,
        turn: StartTurn | None = None,
        caller: bytes = b"",
    ) -> Lease:
        if self._closing.is_set():
            raise Unavailable(child_exited(None, "no"))
        child = make_child()
        try:
            await self._tasks.start(_live, child)
        except SpawnError as error:
            if isinstance(error, ServerUnreachable) and error.known:
                log.debug("child.spawn_failed", extra={"problem": str(error)})
            else:
                log.error("child.spawn_failed", extra={"problem": str(error)})
            self._meters.tally("child_start_failures", ())
            fault = spawn_failed()
            if isinstance(error, ServerUnreachable):
                fault = unreachable(error.setting)
            raise Unavailable(fault, str(error)) from error
        mux = Mux(
            child.channel,
            self._meters,
            shared=shared,
            max_message_bytes=self._limits.max_message_bytes,
            max_json_depth=self._limits.max_json_depth,
            loads=self._loads,
            interceptors=self._interceptors(child.channel),
            secrets=child.secrets,
            request_limit=self._request_limit,
            on_request_limit=self._request_limit_reached,
            answers=self._answers,
        )
        lease = Lease(child, mux, counted=counted or not shared, turn=turn)
        self._leases.add(lease)
        if lease.counted:
            self._holders[lease] = caller
        self._meters.tally("child_starts", "shared" if shared else "own")
        for each in self._observers:
            each.child_started(lease)
        self._tasks.start_soon(self._attend, lease)
        if self._closing.is_set():
            child.stop(0)
        return lease

    def _request_limit_reached(self) -> None:
        for each in self._observers:
            each.request_limit_reached()

    async def _attend(self, lease: Lease) -> None:
        # The task inherits the trace of the call that started the child, and outlives that call.
        CURRENT.set(None)
        try:
            try:
                await lease.mux.run()
            except Exception:
                # A bug in the bridge that a message of this child met: only this child ends for it.
                log.exception("child.failed", extra={"pid": lease.child.pid})
                lease.child.kill()
            # stdout ends a moment before the process does. With its exit status the calls' errors
            # can say why.
            with anyio.move_on_after(_STATUS_WAIT_S):
                await lease.child.gone.wait()
            # Before the rest of its process group has ended, which may take seconds: clients do not
            # wait.
            lease.mux.fail_all(child_exited(lease.child.how, "maybe"))
            await lease.child.exited.wait()
        finally:
            # If it ended before its handshake, its turn to start goes to the next one.
            lease.start_over()
            for leases in (self._leases, self._released, self._evicted):
                leases.discard(lease)
            self._holders.pop(lease, None)
            self._serve_waiters()
            report = lease.child.report
            if report is not None:
                asked = "yes" if report.asked else "no"
                self._meters.tally("child_exits", (str(report.how), asked))

    async def _keep_spares(self) -> None:
        while True:
            await self._spares_due.wait()
            # Made before the look: what becomes due during the starts below is seen by the next
            # one.
            self._spares_due = anyio.Event()
            self._spares = [spare for spare in self._spares if not spare.mux.lost]
            while len(self._spares) < self._spares_wanted and self._has_room_for_spare():
                # Counts while the process starts, so that a client's start in between cannot exceed
                # the limit.
                place = _Place()
                self._places.add(place)
                try:
                    spare = await self._start(self._make_child, shared=False)
                except Unavailable:
                    break
                finally:
                    self._give_up(place)
                if self._keeps_spares:
                    self._spares.append(spare)
                else:
                    self.release(spare)

    def _has_room_for_spare(self) -> bool:
        room = self._keeps_spares and self._taken() < self._max_children - 1
        return room and not self._waiters and not self._closing.is_set()
