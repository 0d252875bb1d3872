"""Which child serves whom: the shared one, a spare, or one of the session's own.

Placement starts and counts children and knows nothing of sessions; whoever gets a lease uses its
mux until it releases it. One place of the cap is the shared child's, so that children of single
sessions can never crowd out what serves everybody.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from mcpbridge.bridge.mux import Mux
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.errors import SpawnError, Unavailable
from mcpbridge.process.child import Child
from mcpbridge.process.spec import ChildSpec
from mcpbridge.rules.faults import capacity, child_exited, spawn_failed
from mcpbridge.rules.isolation import Isolation, spares_text
from mcpbridge.rules.profile import Profile
from mcpbridge.settings import Unit, setting
from mcpbridge.telemetry.meters import Meters

log = logging.getLogger("mcpbridge.bridge")

_STATUS_WAIT_S = 0.05
"""How long to wait for a dead child's exit status before its callers are told without it: they are
to know within 100 ms, also of a child that has closed its stdout and lives on."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementSettings:
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
    max_children: int = setting(
        16,
        "--max-children",
        "Server processes at once, the shared one and spares included; one place is kept for the"
        " shared one.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )
    start_timeout_s: float = setting(
        60.0,
        "--start-timeout",
        "How long a server may take to start and answer initialize.",
        group="Supervision",
        unit=Unit.SECONDS,
        minimum=0.1,
    )


class Lease:
    """The right to use a child until it is released."""

    def __init__(self, child: Child, mux: Mux) -> None:
        self.child = child
        self.mux = mux
        self.profile: Profile | None = None
        """What the child said in the handshake; None while it has had none."""
        self.log_level: str | None = None
        """The level that calls without a session have set on it."""


class Placement:
    """Starts, counts and ends children; alive within `running`."""

    def __init__(
        self, spec: ChildSpec, settings: PlacementSettings, limits: PipeLimits, meters: Meters
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._limits = limits
        self._meters = meters
        self._leases: set[Lease] = set()
        self._spares: list[Lease] = []
        self._spares_wanted = 0
        self._spares_due = anyio.Event()
        self._closing = anyio.Event()
        self._tasks: TaskGroup

    @property
    def children(self) -> int:
        """Processes that are running, spares included."""
        return len(self._leases)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start children on demand until the block ends; then stop what is left."""
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
        return await self._start(shared=True)

    async def own(self) -> Lease:
        """A fresh child for one session alone: a spare, or a new one.

        Raises:
            Unavailable: All places are taken, or it could not be started.
        """
        while self._spares:
            spare = self._spares.pop(0)
            self._spares_due.set()
            if not spare.mux.lost:
                return spare
        single = sum(not lease.mux.shared for lease in self._leases)
        if single >= self._settings.max_children - 1:
            raise Unavailable(capacity("--max-children", self._settings.max_children))
        return await self._start(shared=False)

    def release(self, lease: Lease, grace_s: float = 5.0) -> None:
        """The child is not used any more: it ends."""
        lease.child.stop(grace_s)

    async def end(self, lease: Lease, grace_s: float) -> None:
        """End a child and wait until its place is free; bounded by the ladder that ends it."""
        lease.child.stop(grace_s)
        await lease.child.exited.wait()
        self._leases.discard(lease)

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

    async def _start(self, *, shared: bool) -> Lease:
        if self._closing.is_set():
            raise Unavailable(child_exited(None, "no"))
        child = Child(self._spec, self._limits)
        try:
            await self._tasks.start(child.run)
        except SpawnError as error:
            log.error("child.spawn_failed", extra={"problem": str(error)})
            raise Unavailable(spawn_failed()) from error
        mux = Mux(
            child.channel,
            self._meters,
            shared=shared,
            max_message_bytes=self._limits.max_message_bytes,
        )
        lease = Lease(child, mux)
        self._leases.add(lease)
        self._tasks.start_soon(self._attend, lease)
        if self._closing.is_set():
            child.stop(0)
        return lease

    async def _attend(self, lease: Lease) -> None:
        try:
            await lease.mux.run()
            with anyio.move_on_after(_STATUS_WAIT_S):
                await lease.child.gone.wait()
            lease.mux.lose(child_exited(lease.child.how, "maybe"))
            await lease.child.exited.wait()
        finally:
            self._leases.discard(lease)

    async def _keep_spares(self) -> None:
        while True:
            await self._spares_due.wait()
            self._spares_due = anyio.Event()
            self._spares = [spare for spare in self._spares if not spare.mux.lost]
            while len(self._spares) < self._spares_wanted and self._has_room_for_spare():
                try:
                    self._spares.append(await self._start(shared=False))
                except Unavailable:
                    break

    def _has_room_for_spare(self) -> bool:
        return len(self._leases) < self._settings.max_children and not self._closing.is_set()
