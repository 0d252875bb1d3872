"""Which eras the server speaks, and a supervised process for each that is needed.

One process per era, since the first message on a pipe pins it, and one process until the other era
has a client. The first process is asked whether it speaks 2026-07-28, and serves the era that it
answers in; see `handshake.FirstHandshake`. The verdict stands while the bridge lives.

| the first process | serves | a client of the other era |
|---|---|---|
| is legacy | legacy | is served by translation |
| speaks 2026-07-28 | that | starts a legacy process; is served by translation if there is none |
| the same, but legacy clients come first | is ended for a legacy one | starts a modern process |

Legacy clients come first with `--prefer-legacy` and `--modern off`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from mcpbridge import __version__
from mcpbridge.bridge.children.handshake import FirstHandshake, SpeaksModernError, discover
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.supervisor import (
    Failed,
    FirstChild,
    Prepare,
    Resting,
    Settle,
    StartFailure,
    Supervisor,
)
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import UNREACHABLE, Fault, Unavailable
from mcpbridge.rules.mcp.era_probe import VERDICTS, ChildEra, ServerEras
from mcpbridge.rules.mcp.initialize import bridge_introduction
from mcpbridge.rules.mcp.methods import DISCOVER
from mcpbridge.rules.supervision.restart import RestartPolicy
from mcpbridge.settings import SettingsSection, Unit, setting

log = logging.getLogger("mcpbridge.bridge")


def _no_step() -> None:
    """Do nothing: the caller takes no further step."""


class EraSettings(SettingsSection, frozen=True):
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
        "What the server speaks; `auto` asks its first process.",
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

    @property
    def legacy_first(self) -> bool:
        """The legacy process of a server that speaks both is the one that is needed."""
        return self.prefer_legacy or (self.serves_legacy and not self.serves_modern)


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
        legacy_first: bool = False,
        modern_first: bool = False,
        verdict: ServerEras | None = None,
        proven: bool = False,
        lazy: bool = False,
        roots: bool = False,
    ) -> None:
        """Make both supervisors; `run` starts processes.

        Args:
            child_pool: Starts the processes.
            readiness: Blocked while the primary process is not ready.
            policy: When to start again, and when to give up.
            era: What the operator says of the server.
            start_timeout_s: Limit for a start with its handshake.
            finish_s: Seconds that a replaced process has to finish its calls; 0: no limit.
            legacy_first: Whether the legacy process of a server that speaks both serves first.
            modern_first: Whether the other one does, if the verdict says that it speaks both.
            verdict: The eras that the server speaks; None: not known yet.
            proven: Whether the server is known to start: a failed first start is tried again.
            lazy: Whether to start no process before a client needs one.
            roots: Whether the bridge answers the server's requests for roots.
        """
        self._child_pool = child_pool
        self._era = era
        self._policy = policy
        self._finish_s = finish_s
        self._start_timeout_s = start_timeout_s
        self._legacy_first = legacy_first
        self._readiness = readiness
        self.verdict: ServerEras | None = verdict or VERDICTS.get(era)
        self._first_handshake = FirstHandshake(
            bridge_introduction(__version__, roots=roots),
            start_timeout_s,
            functools.partial(self._found, ServerEras(legacy=True, modern=False)),
            asks=self.verdict is None,
        )
        discovery = functools.partial(discover, within_s=start_timeout_s)
        introduce = self._first_handshake.introduce
        self.legacy = Supervisor(child_pool, policy, introduce, finish_s)
        self.modern = Supervisor(child_pool, policy, discovery, finish_s, awaits=DISCOVER)
        if self.verdict is not None and not self.verdict.legacy:
            modern_first = True
        self.primary = self.modern if modern_first else self.legacy
        """The process that readiness goes by."""
        self._changed = anyio.Event()
        self.gave_up = anyio.Event()
        """Set when the primary process will not be started again."""
        self._tasks: TaskGroup
        self._running = anyio.Event()
        self._legacy_hooks: tuple[Prepare | None, Settle | None] = (None, None)
        self._prepare_modern: Prepare | None = None
        self._legacy_runs, self._modern_runs = not modern_first, modern_first
        self._proven = proven
        self.lazy = lazy
        """Whether no process is started before a client needs one."""
        self._roots = roots

    def another(self, child_pool: ChildSource) -> EraSupervisors:
        """Return supervisors for another principal's children, which do not affect readiness."""
        return EraSupervisors(
            child_pool,
            Readiness(),
            self._policy,
            self._era,
            self._start_timeout_s,
            finish_s=self._finish_s,
            legacy_first=self._legacy_first,
            modern_first=self.primary is self.modern,
            # It is the same program: the verdict is known.
            verdict=self.verdict,
            proven=True,
            roots=self._roots,
        )

    @property
    def resting(self) -> bool:
        """Whether the primary process does not run because no client needs it."""
        return isinstance(self.primary.state, Resting)

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

    async def reload(self, primary_serves: Callable[[], None] = _no_step) -> StartFailure | None:
        """Replace the shared processes by ones that start now: see `Supervisor.reload`.

        The primary process comes first. If its start fails the other one is left as it is: it
        would be started from the same program.

        Args:
            primary_serves: Called once the primary process has been replaced, or rests.
        """
        primary = self.primary
        failure = await primary.reload()
        # If not, the first process was asked again what it speaks, and speaks the other era.
        same = primary is self.primary
        if same and failure is not None:
            return failure
        primary_serves()
        other = self.modern if primary is self.legacy else self.legacy
        return await other.reload() if same else None

    def rest(self) -> None:
        """End the shared processes, since no client needs them; see `Supervisor.rest`."""
        self.legacy.rest()
        self.modern.rest()

    def retire(self) -> None:
        """Start no further process: the bridge is about to end."""
        self.legacy.retire()
        self.modern.retire()

    async def known(self) -> ServerEras:
        """Return the verdict, as soon as there is one.

        Raises:
            Unavailable: There is none, and the first process cannot be started at present.
        """
        asked = False
        while self.verdict is None:
            state = self.primary.state
            if isinstance(state, Failed) and (asked or not self.primary.held):
                raise Unavailable(state.fault)
            asked = True
            self.primary.wake()
            await self._verdict_or_move()
        return self.verdict

    async def known_for_legacy(self) -> ServerEras:
        """Return the verdict for a client of the legacy revisions; `legacy` is not None.

        The first of them starts a legacy process of a server that speaks 2026-07-28.

        Raises:
            Unavailable: See `known`.
        """
        verdict = await self.known()
        if verdict.legacy is None:
            await self._start_legacy()
        while verdict.legacy is None:
            await self._changed.wait()
            assert self.verdict is not None
            verdict = self.verdict
        return verdict

    def found_legacy(self) -> None:
        """A process of one session has answered `initialize`: the server is legacy too."""
        if self.verdict is not None and self.verdict.legacy is None:
            self._found(ServerEras(legacy=True, modern=True))

    async def first_lease(self) -> Lease:
        """Return the primary child, as soon as it is ready, however many starts fail before.

        A server that rests is not started for it.
        """
        while self.verdict is None or (lease := self.primary.usable) is None:
            await self._verdict_or_move()
        return lease

    async def legacy_lease(self) -> Lease:
        """The child that speaks the legacy revisions; started when first asked for.

        Raises:
            Unavailable: It cannot be started at present.
        """
        await self._start_legacy()
        return await self.legacy.lease()

    async def modern_lease(self) -> Lease:
        """The child that speaks 2026-07-28; started when first asked for.

        Raises:
            Unavailable: It cannot be started at present.
        """
        # A client may come before `run` has begun.
        await self._running.wait()
        if not self._modern_runs:
            self._modern_runs = True
            # The primary process alone decides about readiness: a separate `Readiness`.
            self._tasks.start_soon(self.modern.run, Readiness(), self._prepare_modern)
        return await self.modern.lease()

    async def run(
        self,
        prepare: Prepare | None = None,
        settle: Settle | None = None,
        prepare_modern: Prepare | None = None,
    ) -> None:
        """Find out the eras and keep the processes running.

        Args:
            prepare: For the legacy process, see `Supervisor.run`.
            settle: For the legacy process, see `Supervisor.run`.
            prepare_modern: For the modern process, see `prepare`.
        """
        self._legacy_hooks, self._prepare_modern = (prepare, settle), prepare_modern
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._running.set()
            if self.primary is self.modern:
                await self._run_modern(None, rests=self.lazy)
            else:
                await self._run_first()
            # What has been given up stays so; a process of the other era may still be asked for.
            await anyio.sleep_forever()

    async def _run_first(self) -> None:
        """Run the process that everything rests on; this may find out of which era it is."""
        try:
            hooks = self._legacy_hooks
            await self.legacy.run(self._readiness, *hooks, self._cannot_start, rests=self.lazy)
            self._note_giving_up()
        except SpeaksModernError as found:
            await self._first_is_modern(found)

    async def _run_modern(self, first: FirstChild | None, *, rests: bool = False) -> None:
        hook = self._prepare_modern
        await self.modern.run(self._readiness, hook, None, self._cannot_start, first, rests=rests)
        self._note_giving_up()

    def _note_giving_up(self) -> None:
        if self.primary.gave_up.is_set():
            self.gave_up.set()

    async def _first_is_modern(self, found: SpeaksModernError) -> None:
        # A later legacy process must not be probed: its answer would be that of the modern server
        # again.
        self._first_handshake.ask_no_more()
        legacy: bool | None = None
        first = None
        if found.profile is None or self._legacy_first:
            # The same place for both, one after the other.
            found.lease.child.stop()
            await found.lease.child.exited.wait()
            legacy = await self._try_legacy(self._readiness)
            if legacy:
                self._found(ServerEras(legacy=True, modern=True))
                return
        else:
            self._legacy_runs = False
            found.lease.introduced_as(found.profile)
            first = FirstChild(found.lease, found.start_s)
            legacy = True if found.profile.names_legacy else None
        # From here until `_found` nothing waits: who reads the verdict finds the primary process
        # that fits.
        self.primary = self.modern
        self._modern_runs = True
        self._readiness.unblock("given_up")
        self._found(ServerEras(legacy=legacy, modern=True))
        await self._run_modern(first)

    async def _start_legacy(self) -> None:
        """Start the legacy process beside the modern one, if it does not run yet."""
        await self._running.wait()
        if not self._legacy_runs:
            self._legacy_runs = True
            self._tasks.start_soon(self._run_legacy_too)

    async def _run_legacy_too(self) -> None:
        legacy = await self._try_legacy(Readiness())
        if self.verdict is not None and self.verdict.legacy is None:
            self._found(ServerEras(legacy=legacy, modern=True))

    async def _try_legacy(self, readiness: Readiness) -> bool:
        """Start a legacy process; returns whether it came up and is kept running."""
        scope = anyio.CancelScope()
        self._tasks.start_soon(self._keep_legacy, scope, readiness)
        if await self._is_legacy():
            return True
        if self.verdict is None or self.verdict.legacy is None:
            scope.cancel()
            return False
        return True

    async def _keep_legacy(self, scope: anyio.CancelScope, readiness: Readiness) -> None:
        with scope:
            await self.legacy.run(readiness, *self._legacy_hooks)
            # One that never came up only shows that the server is not legacy: the modern process
            # becomes the primary one, and the bridge goes on.
            if self.legacy.profile is not None:
                self._note_giving_up()

    async def _is_legacy(self) -> bool:
        """Return whether the legacy process came up, once it could be reached."""
        while not await self.legacy.settled():
            match self.legacy.state:
                case Failed(fault) if fault.reason == UNREACHABLE:
                    await self.legacy.change.wait()
                case _:
                    return False
        return True

    def _found(self, verdict: ServerEras) -> None:
        before, self.verdict = self.verdict, verdict
        self._changed.set()
        self._changed = anyio.Event()
        if before is None or before.in_words != verdict.in_words:
            log.info("child.eras_found", extra={"speaks": verdict.in_words})

    async def _verdict_or_move(self) -> None:
        """Wait until the verdict is another, or the state of the first process is."""
        # Both events of this moment: by the turn in which the tasks begin, one may be over.
        changes = self._changed, self.primary.change
        async with anyio.create_task_group() as either:

            async def leave_after(change: anyio.Event) -> None:
                await change.wait()
                either.cancel_scope.cancel()

            for change in changes:
                either.start_soon(leave_after, change)

    async def _cannot_start(self) -> bool:
        """Return whether no start would succeed, after the first process ended by itself.

        Two processes of one server may be in each other's way: one port, one lock. So it does not
        if a process of a single session has been started.
        """
        return not self._proven and not self._child_pool.own_wanted.is_set()
