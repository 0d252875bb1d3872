"""Which eras the server speaks, and a supervised process for each era that is needed.

One process for each era: the first message on a pipe pins it. The legacy process is started at once
and serves from the moment it is ready. At the same time another process is probed for 2026-07-28;
its answer is valid until the bridge ends.
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
"""Seconds before a server that could not be reached is probed again."""
_SILENCE_S = 5.0
"""Seconds that the probe may stay unanswered after the legacy process has had its handshake."""


@dataclasses.dataclass(frozen=True, slots=True)
class EraSettings:
    """Settings of which eras are served to clients."""

    modern: str = setting(
        "emulate",
        "--modern",
        "Clients of 2026-07-28: `native` serves them if the server speaks it, `emulate` also if the"
        " server speaks only the legacy revisions, `off` lets them fall back.",
        group="Protocol",
        choices=("native", "emulate", "off"),
    )
    legacy: str = setting(
        "on",
        "--legacy",
        "Whether clients of the legacy revisions, 2024-11-05 to 2025-11-25, are served.",
        group="Protocol",
        choices=("on", "off"),
    )

    prefer_legacy: bool = setting(
        False,
        "--prefer-legacy",
        "If the server speaks both, serve clients of 2026-07-28 by its legacy process, for tools"
        " that send requests to their client while they run.",
        group="Protocol",
        unit=Unit.SWITCH,
    )
    child: ChildEra = setting(
        ChildEra.AUTO,
        "--child-era",
        "What the server speaks; `auto` starts a separate process to find out.",
        group="Protocol",
        choices=tuple(choice.value for choice in ChildEra),
        parse=ChildEra,
    )

    @property
    def serves_modern(self) -> bool:
        """Whether clients of 2026-07-28 are served."""
        return self.modern != "off"

    @property
    def serves_legacy(self) -> bool:
        """Whether clients of the legacy revisions are served."""
        return self.legacy == "on"


class EraSupervisors:
    """The supervisors of one server's processes and the eras it speaks; owned by the bridge."""

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
        """Make both supervisors; `run` starts processes.

        Args:
            child_pool: Starts the processes.
            readiness: Blocked while the primary process is not ready.
            policy: When to start again, and when to give up.
            era: What the operator says of the server.
            start_timeout_s: Limit for the handshake.
            verdict: The eras that the server speaks; None: they are to find out.
            finish_s: Seconds that a replaced process has to finish its calls; 0: no limit.
            proven: Whether the server is known to start: a failed first start is tried again.
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
        """Set when the primary process will not be started again."""
        self._tasks: TaskGroup
        self._run_legacy: Callable[[], Awaitable[None]]
        self._modern_runs = False
        self._proven = proven
        self._probe_counts = self.verdict is None
        self._probe = Probe(child_pool, start_timeout_s)

    def another(self, child_pool: ChildSource) -> EraSupervisors:
        """Return supervisors for another principal's children, which do not affect readiness."""
        return EraSupervisors(
            child_pool,
            Readiness(),
            self._policy,
            self._era,
            self._start_timeout_s,
            finish_s=self._finish_s,
            # It is the same program: it speaks the same eras.
            verdict=self.verdict,
            proven=True,
        )

    @property
    def primary(self) -> Supervisor:
        """The supervisor whose process decides about readiness: the legacy one, if there is one."""
        alone = self.verdict is not None and not self.verdict.legacy
        return self.modern if alone else self.legacy

    @property
    def last_report(self) -> ExitReport | None:
        """How the primary process ended last; None if none has."""
        return self.primary.last_report

    @property
    def start_failure(self) -> Fault | None:
        """Why the last start of the primary process failed; None if it succeeded."""
        return self.primary.start_failure

    def replace(self, lease: Lease) -> None:
        """Start another process and let it take over, if this is a shared one that serves."""
        self.legacy.replace(lease)
        self.modern.replace(lease)

    def retire(self) -> None:
        """Start no further process: the bridge is about to end."""
        self.legacy.retire()
        self.modern.retire()

    async def known(self) -> ServerEras:
        """Return the eras that the server speaks, as soon as they are known."""
        while self.verdict is None:
            await self._known.wait()
        return self.verdict

    async def first_lease(self) -> Lease:
        """Return the primary child, as soon as it is ready, however many starts fail before."""
        while True:
            if self.verdict is None and not await self.legacy.settled():
                await self.known()
            supervisor = self.primary
            try:
                return await supervisor.lease()
            except Unavailable:
                await supervisor.moved()

    async def modern_lease(self) -> Lease:
        """Return the child that speaks 2026-07-28; the first call may start it.

        Raises:
            Unavailable: It cannot be started at present.
        """
        if not self._modern_runs:
            self._modern_runs = True
            # The primary process alone decides about readiness: a separate `Readiness`.
            self._tasks.start_soon(self.modern.run, Readiness())
        return await self.modern.lease()

    async def run(self, prepare: Prepare | None = None, settle: Settle | None = None) -> None:
        """Find out the eras and keep the processes running; the hooks are for the legacy one.

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
            # Calls fail as "unreachable"; the eras are found out once the server can be reached,
            # since two containers of a pod start in any order.
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
        """Return whether the legacy process came up, once it could be reached."""
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
        """Return whether no start would succeed, after the first process ended by itself.

        Two processes of one server may conflict over a port or a lock. So if the probe ran beside
        the first start, its process must have ended by itself as well; else this waits until that
        process is gone, and the next start decides.
        """
        if self._proven:
            return False
        if self._probe_counts:
            self._probe_counts = False
            return await self._probe.until_gone() is Answer.ENDED
        return True

    async def _stop_asking(self, scope: anyio.CancelScope) -> None:
        # A server that has answered a handshake but not the probe ignores unknown methods; clients
        # wait for the eras, so the probe is not waited for any longer.
        if await self.legacy.settled():
            await anyio.sleep(_SILENCE_S)
            scope.cancel()

    async def _keep_legacy(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self._run_legacy()
