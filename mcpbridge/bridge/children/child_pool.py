"""Which child serves whom: the shared one, a spare, or one of the session's own.

The pool starts and counts children and knows nothing of sessions; the holder of a lease uses its
mux until it releases the lease. One place of the cap is the shared child's, so that children of
single sessions can never crowd out what serves all.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.bridge.children.lease import Lease, StartTurn, Wanted
from mcpbridge.bridge.children.listeners import Interceptor
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.errors import SpawnError, Unreachable
from mcpbridge.process.child import Child, MakeChild
from mcpbridge.rules.faults import (
    PoolExhausted,
    Unavailable,
    child_exited,
    spawn_failed,
    unreachable,
)
from mcpbridge.rules.supervision.isolation import Isolation, spares_text
from mcpbridge.rules.supervision.memory_budget import MOST, UNMEASURED
from mcpbridge.settings import Unit, setting
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import CURRENT

log = logging.getLogger("mcpbridge.bridge")

_STATUS_WAIT_S = 0.05
"""How long to wait for a dead child's exit status before its callers are told without it: they are
to know within 100 ms, also of a child that has closed its stdout and lives on."""


_STARTS_AT_ONCE = 2 * (os.cpu_count() or 1)
"""Children of single sessions that may start at the same moment: a server's imports take seconds of
processor time, and a storm of starts would make every one of them too late."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChildPoolSettings:
    """How children are given to sessions."""

    isolation: Isolation = setting(
        Isolation.AUTO,
        "--isolation",
        "Who gets a server process of its own: `auto` a client that offers sampling, elicitation"
        " or roots; `shared` nobody; `session` every session.",
        group="Isolation",
        choices=tuple(choice.value for choice in Isolation),
        parse=Isolation,
    )
    spares: str = setting(
        "auto",
        "--spares",
        "Un-initialised processes kept ready for sessions of their own: a number, or `auto`: one"
        " where the server takes more than 1 s to start.",
        group="Isolation",
        metavar="auto|N",
        parse=spares_text,
    )
    max_children: int | None = setting(
        None,
        "--max-children",
        "Server processes at once, the shared one and spares included; one place is kept for the"
        " shared one. If not given, what fits into the memory of the container or machine, by what"
        " a process was seen to use: 2 to 64.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )
    most_children: int = MOST
    """What open files allow, if the limit follows the memory."""
    start_timeout_s: float = setting(
        60.0,
        "--start-timeout",
        "How long a server may take to start and answer initialize.",
        group="Supervision",
        unit=Unit.SECONDS,
        minimum=0.1,
    )


async def _live(child: Child, *, task_status: TaskStatus[None]) -> None:
    # Whichever call had it started, what it says from now on belongs to no call.
    CURRENT.set(None)
    await child.run(task_status=task_status)


Evict = Callable[[], Collection[Lease]]
"""Take children that no client needs at present from their holders and return them; the pool ends
them. Empty if there are none."""

_FALLBACK_LOG_EVERY_S = 1.0
"""A burst of calls must not fill the log; the metric counts them all."""
_EVICT_GRACE_S = 1.0
"""The rungs of the stop ladder of a child whose place another client waits for."""


class _Place:
    """The right to start one process; `_taken` counts it until the process runs."""

    def __init__(self, ending: Lease | None = None) -> None:
        self.ending = ending
        """The child whose place it was; the next process starts when this one has ended."""


class ChildObserver(Protocol):
    """Wants to know of every child of a pool."""

    def child_started(self, lease: Lease) -> None:
        """A child runs; its handshake is still to come."""

    def request_limit_reached(self) -> None:
        """A child has had as many requests as the pool's limit says."""


class ChildPool:
    """Starts, counts and ends children; alive within `running`."""

    def __init__(
        self,
        make_child: MakeChild,
        settings: ChildPoolSettings,
        limits: PipeLimits,
        meters: Meters,
        loads: LoadLimits | None = None,
        interceptors: Sequence[Interceptor] = (),
        observers: Sequence[ChildObserver] = (),
        request_limit: int = 0,
    ) -> None:
        """Make a pool; it starts children within `running`.

        Args:
            make_child: Makes a child like all others.
            settings: How many children, which sessions get one, and how long a start may take.
            limits: Of the children's pipes.
            meters: Count starts and ends.
            loads: How many calls one child may have.
            interceptors: See each request to any child.
            observers: Told of each child.
            request_limit: After so many requests to a child observers are told; 0: never.
        """
        self._make_child = make_child
        self._settings = settings
        self._limits = limits
        self._loads = loads
        self._queue_timeout_s = (loads or LoadLimits()).queue_timeout_s
        self._interceptors = interceptors
        self._observers = observers
        self._request_limit = request_limit
        self._max_children = settings.max_children or min(UNMEASURED, settings.most_children)
        self.was_ready = anyio.Event()
        """A shared child has had its handshake."""
        self._meters = meters
        self._leases: set[Lease] = set()
        self._spares: list[Lease] = []
        self._spares_wanted = 0
        self._spares_due = anyio.Event()
        self._closing = anyio.Event()
        self._starts = anyio.Semaphore(_STARTS_AT_ONCE)
        self._places: set[_Place] = set()
        self._released: set[Lease] = set()
        """Children that end because their holders need them no more."""
        self._evicted: set[Lease] = set()
        """Children that end and whose places have been given away."""
        self._fallback_logged_at = float("-inf")
        self._waiters: collections.deque[tuple[asyncio.Future[_Place | None], Wanted]] = (
            collections.deque()
        )
        self._tasks: TaskGroup
        self._evictors: Sequence[Evict] = ()

    @property
    def leases(self) -> Collection[Lease]:
        """All children that run, spares included."""
        return list(self._leases)

    @property
    def children(self) -> int:
        """Processes that are running, spares included."""
        return len(self._leases)

    @property
    def max_children(self) -> int:
        """Processes that may run at once."""
        return self._max_children

    def resize(self, max_children: int) -> None:
        """Let so many processes run at once from now on; those that run already go on."""
        self._max_children = max_children
        self._serve_waiters()

    def became_ready(self, start_s: float) -> None:
        """A shared child has had its handshake, so many seconds after its start."""
        self.was_ready.set()
        self._meters.observe("child_start_seconds", start_s)

    def starts_again(self) -> None:
        """A shared child will be started in place of one that ended."""
        self._meters.tally("child_restarts", ())

    @asynccontextmanager
    async def running(self, evictors: Sequence[Evict] = ()) -> AsyncIterator[None]:
        """Start children on demand until the block ends; then stop what is left.

        Args:
            evictors: Asked in this order for a child to end when all places are taken.
        """
        self._evictors = evictors
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._keep_spares)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def shared(self) -> Lease:
        """A fresh child that many sessions will use.

        Raises:
            Unavailable: It could not be started.
        """
        return await self._start(self._make_child, shared=True)

    async def further(self, make_child: MakeChild | None) -> Lease:
        """A fresh child that the sessions of one principal share, beside the one kept a place for.

        Args:
            make_child: Makes it; None: like all others.

        Raises:
            Unavailable: All places are taken, or it could not be started.
        """
        place = await self._take_place()
        return await self._start_in_place(place, make_child or self._make_child, shared=True)

    async def own(
        self, make_child: MakeChild | None = None, *, wanted: Wanted | None = None
    ) -> Lease:
        """A fresh child for one session alone: a spare, or a new one.

        A new one waits for its turn where many start at once; its start has a time limit only from
        then on. Its holder says when its start is over: see `Lease.start_over`.

        Args:
            make_child: Makes it, and no spare will do; None: it is like all others.
            wanted: If all places are taken and none can be made free, wait for one as long as
                `--queue-timeout` says and this returns True; None: do not wait.

        Raises:
            PoolExhausted: All places are taken.
            Unavailable: It could not be started.
        """
        while self._spares and make_child is None:
            spare = self._spares.pop(0)
            self._spares_due.set()
            if not spare.mux.shut:
                return spare
        place = await self._take_place(wanted)
        return await self._start_in_place(place, make_child or self._make_child, shared=False)

    def idle(self) -> None:
        """A child serves no client at present: it may be ended for a client that waits."""
        self._serve_waiters()

    def fell_back(self) -> None:
        """A client that should have a child for itself is served by the shared one instead."""
        self._meters.tally("shared_fallbacks", ())
        now = asyncio.get_running_loop().time()
        if now - self._fallback_logged_at >= _FALLBACK_LOG_EVERY_S:
            self._fallback_logged_at = now
            extra = {"max_children": self._max_children, "served_by": "shared process"}
            log.warning("child_pool.exhausted", extra=extra)

    async def _take_place(self, wanted: Wanted | None = None) -> _Place:
        # Those who wait come first.
        place = None if self._waiters else self._free_place()
        if place is None and wanted is not None:
            place = await self._wait_for_place(wanted, self._queue_timeout_s)
        if place is None:
            raise PoolExhausted(self._max_children)
        return place

    def _free_place(self) -> _Place | None:
        """Return a place, that of a child which is ended for it if need be; None if there is none.

        Runs without waiting, so that the place goes to the one who asked and to nobody in between.
        """
        most = self._max_children - 1
        place = _Place()
        while self._taken() >= max(most, 1):
            victim = self._evict()
            if victim is None:
                return None
            # A limit that follows the memory may have sunk below what runs: then all but one of
            # these places are gone.
            place = _Place(victim)
            self._evicted.add(victim)
        if most < 1:
            return None
        self._places.add(place)
        return place

    def _evict(self) -> Lease | None:
        for lease in self._released - self._evicted:
            # It ends anyway, and its place is free as soon as it has.
            if lease.counted and not lease.child.exited.is_set():
                lease.child.stop(_EVICT_GRACE_S)
                return lease
        for evict in (self._spare_to_evict, *self._evictors):
            while found := evict():
                victims = [lease for lease in found if not lease.child.exited.is_set()]
                for lease in victims:
                    log.info("child.evicted_idle", extra={"pid": lease.child.pid})
                    lease.child.stop(_EVICT_GRACE_S)
                if victims:
                    return victims[0]
        return None

    def _spare_to_evict(self) -> Collection[Lease]:
        return [self._spares.pop()] if self._spares else ()

    def _taken(self) -> int:
        runs = sum(lease.counted for lease in self._leases if lease not in self._evicted)
        return runs + len(self._places)

    async def _wait_for_place(self, wanted: Wanted, within_s: float) -> _Place | None:
        waiter: asyncio.Future[_Place | None] = asyncio.get_running_loop().create_future()
        entry = waiter, wanted
        self._waiters.append(entry)
        self._watch_children()
        try:
            with anyio.move_on_after(within_s):
                await waiter
        except BaseException:
            place = waiter.result() if waiter.done() and not waiter.cancelled() else None
            if place is not None:
                # The client left in the very turn in which it got its place.
                self._give_up(place)
            raise
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)
        return waiter.result() if waiter.done() and not waiter.cancelled() else None

    def _serve_waiters(self) -> None:
        while self._waiters:
            waiter, wanted = self._waiters[0]
            if waiter.done():
                self._waiters.popleft()
                continue
            if not wanted():
                self._waiters.popleft()
                waiter.set_result(None)
                # What the others want may depend on what this one does now.
                asyncio.get_running_loop().call_soon(self._serve_waiters)
                return
            place = self._free_place()
            if place is None:
                self._watch_children()
                return
            self._waiters.popleft()
            waiter.set_result(place)

    def _watch_children(self) -> None:
        """Look again when a child has said something: it may be idle then."""
        for lease in self._leases:
            if lease.counted:
                lease.mux.when_stirred(self._serve_waiters)

    def _give_up(self, place: _Place) -> None:
        self._places.discard(place)
        if place.ending is not None:
            # If it still runs it counts again, until it has ended.
            self._evicted.discard(place.ending)
        self._serve_waiters()

    async def _start_in_place(self, place: _Place, make_child: MakeChild, *, shared: bool) -> Lease:
        try:
            if place.ending is not None:
                await place.ending.child.exited.wait()
                self._leases.discard(place.ending)
            if shared:
                return await self._start(make_child, shared=True, counted=True)
            return await self._start_in_turn(make_child)
        finally:
            # Not before: a process that is about to start counts all the time.
            self._give_up(place)

    async def _start_in_turn(self, make_child: MakeChild) -> Lease:
        await self._starts.acquire()
        turn = StartTurn(self._starts)
        try:
            return await self._start(make_child, shared=False, turn=turn)
        except BaseException:
            turn.end()
            raise

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """The child is not used any more: it ends."""
        if lease in self._leases:
            self._released.add(lease)
        lease.child.stop(grace_s)

    async def end(self, lease: Lease, grace_s: float) -> None:
        """End a child and wait until its place is free; bounded by the ladder that ends it."""
        lease.child.stop(grace_s)
        await lease.child.exited.wait()
        self._leases.discard(lease)

    def retire(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """Let a child finish what it has, then end it; another one serves in its place already.

        Args:
            lease: Gets no further call.
            within_s: How long its calls may take; None: as long as they are allowed each.
            settle: Sees to what came of the last calls.
        """
        lease.mux.stop_accepting()
        self._tasks.start_soon(self._finish, lease, within_s, settle)

    async def _finish(
        self, lease: Lease, within_s: float | None, settle: Callable[[], Awaitable[None]]
    ) -> None:
        with anyio.move_on_after(within_s):
            # Whoever waits to write to it goes first: those who came before us are woken before.
            await lease.mux.channel.writable()
            await lease.mux.wait_idle()
            await settle()
        lease.child.stop()

    def refresh(self, lease: Lease) -> bool:
        """End a spare child, for another one; False where it is none."""
        if lease not in self._spares:
            return False
        self._spares.remove(lease)
        self.release(lease)
        self._spares_due.set()
        return True

    def keep_spares(self, wanted: int) -> None:
        """How many spare children to have ready from now on."""
        self._spares_wanted = wanted
        self._spares_due.set()

    async def stop_all(self, grace_s: float) -> None:
        """End every child at once and wait until all are gone; none is started any more."""
        self._closing.set()
        for lease in self._leases:
            lease.child.stop(grace_s)
        for lease in list(self._leases):
            await lease.child.exited.wait()

    def kill_all(self) -> None:
        """End every child this instant: nobody waits any more."""
        for lease in self._leases:
            lease.child.kill()

    async def _start(
        self,
        make_child: MakeChild,
        *,
        shared: bool,
        counted: bool = False,
        turn: StartTurn | None = None,
    ) -> Lease:
        if self._closing.is_set():
            raise Unavailable(child_exited(None, "no"))
        child = make_child()
        try:
            await self._tasks.start(_live, child)
        except SpawnError as error:
            log.error("child.spawn_failed", extra={"problem": str(error)})
            self._meters.tally("child_start_failures", ())
            fault = unreachable() if isinstance(error, Unreachable) else spawn_failed()
            raise Unavailable(fault, str(error)) from error
        mux = Mux(
            child.channel,
            self._meters,
            shared=shared,
            max_message_bytes=self._limits.max_message_bytes,
            max_json_depth=self._limits.max_json_depth,
            loads=self._loads,
            interceptors=self._interceptors,
            secrets=child.secrets,
            request_limit=self._request_limit,
            on_request_limit=self._request_limit_reached,
        )
        lease = Lease(child, mux, counted=counted or not shared, turn=turn)
        self._leases.add(lease)
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
        CURRENT.set(None)
        try:
            try:
                await lease.mux.run()
            except Exception:
                # A bug of ours, met by what this child said: it costs this child and no other.
                log.exception("child.failed", extra={"pid": lease.child.pid})
                lease.child.kill()
            with anyio.move_on_after(_STATUS_WAIT_S):
                await lease.child.gone.wait()
            lease.mux.fail_all(child_exited(lease.child.how, "maybe"))
            await lease.child.exited.wait()
        finally:
            lease.start_over()
            for leases in (self._leases, self._released, self._evicted):
                leases.discard(lease)
            self._serve_waiters()
            report = lease.child.report
            if report is not None:
                asked = "yes" if report.asked else "no"
                self._meters.tally("child_exits", (str(report.how), asked))

    async def _keep_spares(self) -> None:
        while True:
            await self._spares_due.wait()
            self._spares_due = anyio.Event()
            self._spares = [spare for spare in self._spares if not spare.mux.lost]
            while len(self._spares) < self._spares_wanted and self._has_room_for_spare():
                place = _Place()
                self._places.add(place)
                try:
                    self._spares.append(await self._start(self._make_child, shared=False))
                except Unavailable:
                    break
                finally:
                    self._give_up(place)

    def _has_room_for_spare(self) -> bool:
        room = self._taken() < self._max_children - 1
        return room and not self._waiters and not self._closing.is_set()
