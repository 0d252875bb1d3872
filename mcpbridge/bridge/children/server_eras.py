"""Which eras the child speaks, and a supervised process for each that is needed.

One process per era: the first message on a pipe pins it. The legacy process is started at once
and serves from the moment it is ready; the question whether the server speaks 2026-07-28 too is
put to another process meanwhile, and its answer stands for as long as the bridge lives.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from mcpbridge import __version__
from mcpbridge.bridge.children.handshake import Answer, Probe, discover, shake_hands
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.supervisor import Failed, Prepare, Settle, Supervisor
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import UNREACHABLE, Fault, Unavailable
from mcpbridge.rules.mcp.era_probe import VERDICTS, ChildEra, ServerEras
from mcpbridge.rules.mcp.initialize import bridge_introduction
from mcpbridge.rules.mcp.methods import DISCOVER
from mcpbridge.rules.supervision.restart import RestartPolicy
from mcpbridge.settings import Unit, setting

log = logging.getLogger("mcpbridge.bridge")

_UNREACHED_S = 1.0
"""How long to wait before another attempt to ask a server that could not be reached."""
_SILENCE_S = 5.0
"""How long after a good handshake another process may leave the probe unanswered."""


@dataclasses.dataclass(frozen=True, slots=True)
class EraSettings:
    """Which eras are served to clients."""

    modern: str = setting(
        "emulate",
        "--modern",
        "Clients of 2026-07-28: `native` serves them where the server speaks it, `emulate` in front"
        " of a server of the legacy revisions as well, `off` lets them fall back.",
        group="Protocol",
        choices=("native", "emulate", "off"),
    )
    legacy: str = setting(
        "on",
        "--legacy",
        "Clients of the legacy revisions, 2024-11-05 to 2025-11-25.",
        group="Protocol",
        choices=("on", "off"),
    )

    prefer_legacy: bool = setting(
        False,
        "--prefer-legacy",
        "Serve clients of 2026-07-28 by the legacy process of a server that speaks both, for"
        " tools that ask their client while they run.",
        group="Protocol",
        unit=Unit.SWITCH,
    )
    child: ChildEra = setting(
        ChildEra.AUTO,
        "--child-era",
        "What the server speaks; `auto` asks a process of its own at start.",
        group="Protocol",
        choices=tuple(choice.value for choice in ChildEra),
        parse=ChildEra,
    )

    @property
    def serves_modern(self) -> bool:
        """Clients of 2026-07-28 are served."""
        return self.modern != "off"

    @property
    def serves_legacy(self) -> bool:
        """Clients of the legacy revisions are served."""
        return self.legacy == "on"


class EraSupervisors:
    """The verdict on the child, and its supervisors; owned by the bridge."""

    def __init__(
        self,
        child_pool: ChildSource,
        readiness: Readiness,
        policy: RestartPolicy,
        era: ChildEra,
        start_timeout_s: float,
        *,
        finish_s: float = 0,
        verdict: ServerEras | None = None,
        proven: bool = False,
    ) -> None:
        """Make it.

        Args:
            child_pool: Starts the processes.
            readiness: Learns whether the one that everything rests on is there.
            policy: When to start again, and when to give up.
            era: What the operator says of the server.
            start_timeout_s: For a start with its handshake.
            verdict: What the server speaks, if that is known from another of its processes.
            finish_s: How long a process whose place is taken has for its calls; 0: no limit.
            proven: The server is known to start, so that a first start which fails is tried again.
        """
        self._child_pool = child_pool
        self._era = era
        self._policy = policy
        self._finish_s = finish_s
        self._start_timeout_s = start_timeout_s
        client_profile = bridge_introduction(__version__)
        shake = functools.partial(shake_hands, params=client_profile, within_s=start_timeout_s)
        meet = functools.partial(discover, within_s=start_timeout_s)
        self._readiness = readiness
        self.legacy = Supervisor(child_pool, policy, shake, finish_s)
        self.modern = Supervisor(child_pool, policy, meet, finish_s, awaits=DISCOVER)
        self.verdict: ServerEras | None = verdict or VERDICTS.get(era)
        self._known = anyio.Event()
        self.gave_up = anyio.Event()
        """The process that everything rests on will not be started again."""
        self._tasks: TaskGroup
        self._run_legacy: Callable[[], Awaitable[None]]
        self._modern_runs = False
        self._proven = proven
        self._probe_counts = self.verdict is None
        self._probe = Probe(child_pool, start_timeout_s)

    def another(self, child_pool: ChildSource) -> EraSupervisors:
        """The same for children of another principal, which decide nothing about readiness."""
        return EraSupervisors(
            child_pool,
            Readiness(),
            self._policy,
            self._era,
            self._start_timeout_s,
            finish_s=self._finish_s,
            # It is the same program: what it speaks need not be found out again.
            verdict=self.verdict,
            proven=True,
        )

    @property
    def primary(self) -> Supervisor:
        """The process that readiness goes by."""
        alone = self.verdict is not None and not self.verdict.legacy
        return self.modern if alone else self.legacy

    @property
    def last_report(self) -> ExitReport | None:
        """How the process that everything rests on ended last."""
        return self.primary.last_report

    @property
    def start_failure(self) -> Fault | None:
        """Why the last start of that process failed; None if it succeeded."""
        return self.primary.start_failure

    def replace(self, lease: Lease) -> None:
        """Let another process take over from one that all share."""
        self.legacy.replace(lease)
        self.modern.replace(lease)

    def retire(self) -> None:
        """All ends: no process is started again."""
        self.legacy.retire()
        self.modern.retire()

    async def known(self) -> ServerEras:
        """The verdict, as soon as there is one."""
        while self.verdict is None:
            await self._known.wait()
        return self.verdict

    async def first_lease(self) -> Lease:
        """The child that readiness goes by, once one is ready; failed starts are waited out."""
        while True:
            if self.verdict is None and not await self.legacy.settled():
                await self.known()
            supervisor = self.primary
            try:
                return await supervisor.lease()
            except Unavailable:
                await supervisor.moved()

    async def modern_lease(self) -> Lease:
        """The child that speaks 2026-07-28; a second one is started when first asked for.

        Raises:
            Unavailable: It cannot be started at present.
        """
        if not self._modern_runs:
            self._modern_runs = True
            # A second process does not decide whether the first one serves: a gate of its own.
            self._tasks.start_soon(self.modern.run, Readiness())
        return await self.modern.lease()

    async def run(self, prepare: Prepare | None = None, settle: Settle | None = None) -> None:
        """Find the verdict and keep the processes running; the hooks are those of the legacy one.

        Args:
            prepare: See `Supervisor.run`.
            settle: See `Supervisor.run`.
        """
        hooks = (prepare, settle, self._cannot_start)
        self._run_legacy = functools.partial(self.legacy.run, self._readiness, *hooks)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self.verdict is None:
                await self._find_out(tasks)
            elif self.verdict.legacy:
                tasks.start_soon(self._run_legacy)
            else:
                self._modern_runs = True
                hooks = (None, None, self._cannot_start)
                tasks.start_soon(self.modern.run, self._readiness, *hooks)
            self._known.set()
            await self.primary.gave_up.wait()
            self.gave_up.set()

    async def _find_out(self, tasks: TaskGroup) -> None:
        handshake = anyio.CancelScope()
        tasks.start_soon(self._keep_legacy, handshake)
        while (answer := await self._asked()) is Answer.UNREACHABLE:
            # Its callers are told that it cannot be reached; what it speaks is found out when it
            # can, since two containers of a pod start in any order.
            self.verdict = ServerEras(legacy=True, modern=False)
            self._known.set()
            with anyio.move_on_after(_UNREACHED_S):
                await self.legacy.gave_up.wait()
                return
        modern = answer is Answer.MODERN
        if not modern or await self._is_legacy():
            self.verdict = ServerEras(legacy=True, modern=modern)
        else:
            handshake.cancel()
            self.verdict = ServerEras(legacy=False, modern=True)
            self._modern_runs = True
            tasks.start_soon(self.modern.run, self._readiness)
        log.info("child.eras_found", extra={"speaks": self.verdict.in_words})

    async def _is_legacy(self) -> bool:
        """Whether the legacy process came up, as soon as it could be reached at all."""
        while not await self.legacy.settled():
            match self.legacy.state:
                case Failed(fault) if fault.reason == UNREACHABLE:
                    await self.legacy.moved()
                case _:
                    return False
        return True

    async def _asked(self) -> Answer:
        self._probe = Probe(self._child_pool, self._start_timeout_s)
        answer = Answer.OTHER
        async with anyio.create_task_group() as asking:
            asking.start_soon(self._stop_asking, asking.cancel_scope)
            answer = await self._probe.ask()
            asking.cancel_scope.cancel()
        return answer

    async def _cannot_start(self) -> bool:
        """Return whether a first start that ended by itself shows that no other would succeed.

        Two processes of one server may be in each other's way: one port, one lock. So while the
        probe runs beside the first start, its process must have ended by itself as well; else the
        next start waits until that process is gone, and counts.
        """
        if self._proven:
            return False
        if self._probe_counts:
            self._probe_counts = False
            return await self._probe.until_gone() is Answer.ENDED
        return True

    async def _stop_asking(self, scope: anyio.CancelScope) -> None:
        # A server that has shaken hands and does not answer the probe swallows what it does not
        # know, and clients wait for the verdict.
        if await self.legacy.settled():
            await anyio.sleep(_SILENCE_S)
            scope.cancel()

    async def _keep_legacy(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self._run_legacy()
