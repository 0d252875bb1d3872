"""Decides which processes of the server are started and which requests each gets.

Each request that may pin a process gets a separate one: the handshake of the bridge, the handshake
of a client that can be asked, and `server/discover`. The first process runs alone, so that its
times are undisturbed; the other two run at the same time.

Source: `rules.mcp.era_probe`; MCP 2026-07-28, Transports, stdio, Backward Compatibility.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from mcpbridge import __version__
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.doctor.server.report import Buffering, Ending, Listing, Memory, Outcome
from mcpbridge.doctor.server.server_process import (
    FAIR_WAIT_S,
    STOP_GRACE_S,
    ServerProcess,
    error_text,
)
from mcpbridge.errors import CommandNotExecutable, CommandNotFound, SpawnError
from mcpbridge.process.memory import footprint
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.spec import ChildSpec, check_command
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.mcp.era_probe import discovery_of, own_envelope, speaks_modern
from mcpbridge.rules.mcp.initialize import ServerProfile, bridge_introduction, read_profile
from mcpbridge.rules.mcp.methods import DISCOVER, INITIALIZE, INITIALIZED, PING
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.rules.mcp.revisions import SERVED
from mcpbridge.wire.messages import Failure, Reply, Result

LISTS = {
    "tools": ("tools/list", "tools", "tools"),
    "prompts": ("prompts/list", "prompts", "prompts"),
    "resources": ("resources/list", "resources", "resources"),
    "resource_templates": ("resources/templates/list", "resourceTemplates", "resources"),
}
"""For each list of a server: its method, its member, and the capability that announces it."""

_LIST_S = 30.0
_PROBE_S = 5.0
"""Seconds that `server/discover` may take longer than the handshake took."""
_SILENT_PROBE_S = 5.0
"""Seconds that it may take if the handshake was not answered."""
_QUESTIONS_S = 1.0
"""Seconds to wait for server requests after a handshake."""

Tell = Callable[[str], None]


class Run:
    """One process and its results."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.outcome = Outcome.SILENT
        self.problem: str | None = None
        self.seconds: float | None = None
        """Seconds from its start to its answer."""
        self.profile: ServerProfile | None = None
        self.buffering = Buffering.NONE
        self.lists: dict[str, Listing] = {}
        self.memory: Memory | None = None
        self.ending: Ending | None = None

    @property
    def report(self) -> ExitReport | None:
        """The end of the process, if it has ended."""
        return self.server.report

    def refused(self, error: SpawnError) -> None:
        """Record that the process could not be started."""
        match error:
            case CommandNotFound():
                self.outcome = Outcome.NOT_FOUND
            case CommandNotExecutable():
                self.outcome = Outcome.NOT_EXECUTABLE
            case _:
                self.outcome = Outcome.NOT_STARTED
        self.problem = str(error)

    def answered(self, reply: Reply | None) -> None:
        """Record the time of the first answer; None if there was none."""
        self.seconds = round(self.server.age_s, 3) if reply is not None else None
        if reply is not None:
            self.buffering = Buffering.NONE

    def buffers(self, how: Buffering) -> None:
        """Record that the process withholds its answers."""
        self.buffering = how

    async def judge(self, reply: Reply | None, profile: ServerProfile | None) -> None:
        """Record the outcome of the start, when there is an answer or none will come."""
        self.profile = profile
        if profile is not None:
            self.outcome = Outcome.SERVED
        elif isinstance(reply, Failure):
            self.outcome, self.problem = Outcome.REFUSED, error_text(reply)
        elif reply is not None:
            self.outcome = Outcome.REFUSED
            self.problem = "its answer names no protocol revision that is known here"
        elif self.server.over and await self.server.goes():
            self.outcome = Outcome.ENDED
        elif self.server.over:
            self.outcome = Outcome.CLOSED

    async def look_around(
        self, profile: ServerProfile, common: Mapping[str, Any], within_s: float
    ) -> None:
        """Read the lists of the server, and its memory.

        Args:
            profile: Announces the lists.
            common: Params of every request.
            within_s: Seconds for each page; after a page that does not come the other lists are
                skipped.
        """
        for name, (method, member, capability) in LISTS.items():
            if capability not in profile.capabilities or self.server.over:
                continue
            listing = await self.server.listing(method, member, common, within_s)
            self.lists[name] = listing
            if listing.unanswered and not self.server.over:
                if name == "tools":
                    self.outcome = Outcome.STALLED
                    self.problem = f"it does not answer {method} (waited {within_s:g} s)"
                break
        taken = footprint(self.server.pid)
        self.memory = Memory(taken.bytes, taken.processes) if taken is not None else None

    async def end(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop the process and record how it ended."""
        self.ending = await self.server.end(grace_s)


class Runs(msgspec.Struct):
    """All processes that were started for one examination."""

    legacy: Run
    asked: Run | None = None
    """The run of a client that can be asked."""
    modern: Run | None = None

    @property
    def started(self) -> int:
        """The number of processes that were started."""
        return sum(run is not None for run in (self.legacy, self.asked, self.modern))

    @property
    def main(self) -> Run:
        """The run that is served, otherwise the one that shows why none is."""
        if self.legacy.profile is None and self.modern is not None and self.modern.profile:
            return self.modern
        return self.legacy


class Examination:
    """One examination of one command."""

    def __init__(
        self,
        spec: ChildSpec,
        limits: PipeLimits,
        process_tree: ProcessTree,
        within_s: float,
        tell: Tell,
    ) -> None:
        self._process_tree = process_tree
        self._spec = spec
        self._limits = limits
        self._within_s = within_s
        self._tell = tell

    async def run(self) -> Runs:
        """Start the processes, send them requests and stop them."""
        self._process_tree.open()
        async with anyio.create_task_group() as group:
            group.start_soon(self._process_tree.run)
            runs = await self._examine()
            group.cancel_scope.cancel()
        return runs

    async def _examine(self) -> Runs:
        try:
            check_command(self._spec)
        except (CommandNotFound, CommandNotExecutable) as error:
            run = self._new_run()
            run.refused(error)
            return Runs(run)
        self._tell("starting the server for the handshake")
        legacy = await self._by_handshake()
        if legacy.outcome in (
            Outcome.NOT_FOUND,
            Outcome.NOT_EXECUTABLE,
            Outcome.NOT_STARTED,
        ):
            return Runs(legacy)
        self._tell("starting it again: server/discover, and as a client that can be asked")
        modern, asked = self._new_run(), self._new_run()
        async with anyio.create_task_group() as both:
            both.start_soon(self._find_modern, modern, legacy)
            if legacy.profile is not None:
                both.start_soon(self._find_questions, asked)
        return Runs(
            legacy,
            asked if asked.ending is not None else None,
            modern if modern.ending is not None else None,
        )

    def _new_run(self) -> Run:
        return Run(self._new_process())

    def _new_process(self) -> ServerProcess:
        return ServerProcess(self._spec, self._limits, self._process_tree)

    async def _by_handshake(self) -> Run:
        client_profile = bridge_introduction(__version__)
        run = self._new_run()
        server = run.server
        async with server.running():
            if server.refused is not None:
                run.refused(server.refused)
                return run
            asked = server.begin(INITIALIZE, client_profile)
            reply = await self._answer_or_withheld(run, asked, client_profile)
            profile = read_profile(reply.result) if isinstance(reply, Result) else None
            await run.judge(reply, profile)
            if profile is not None:
                server.tell(INITIALIZED)
                self._tell("reading its lists")
                await run.look_around(profile, {}, min(self._within_s, _LIST_S))
            await run.end(STOP_GRACE_S if profile is None else FAIR_WAIT_S)
            if run.buffering is Buffering.NONE and reply is None:
                late = await server.answer(asked, 0)
                run.buffers(Buffering.NONE if late is None else Buffering.UNTIL_END)
        return run

    async def _answer_or_withheld(
        self, run: Run, asked: bytes, client_profile: bytes
    ) -> Reply | None:
        """Wait for the answer; return None once it is certain that the server withholds it."""
        reply = None
        async with anyio.create_task_group() as either:

            async def try_second() -> None:
                found = await try_second_process(run.server, self._new_process(), client_profile)
                if found is not Buffering.NONE:
                    run.buffers(found)
                    either.cancel_scope.cancel()

            either.start_soon(try_second)
            reply = await run.server.answer(asked, self._within_s)
            either.cancel_scope.cancel()
        run.answered(reply)
        return reply

    async def _find_modern(self, run: Run, legacy: Run) -> None:
        server, took_s = run.server, legacy.seconds
        patience_s = _SILENT_PROBE_S if took_s is None else took_s * 2 + _PROBE_S
        envelope = own_envelope(SUPPORTED[0], __version__)
        async with server.running():
            if server.refused is not None:
                return
            reply = await server.ask(DISCOVER, envelope, min(self._within_s, patience_s))
            run.answered(reply)
            speaks = reply is not None and speaks_modern(reply)
            profile = discovery_of(reply) if reply is not None and speaks else None
            await run.judge(reply, profile)
            if profile is not None and legacy.profile is None:
                self._tell("reading its lists")
                common = msgspec.json.decode(envelope)
                await run.look_around(profile, common, min(self._within_s, _LIST_S))
                await run.end(FAIR_WAIT_S)
            else:
                await run.end()

    async def _find_questions(self, run: Run) -> None:
        """Shake hands as a client of the oldest revision that offers roots and sampling."""
        server = run.server
        params = {
            "protocolVersion": SERVED[0].date,
            "capabilities": {"roots": {"listChanged": True}, "sampling": {}},
            "clientInfo": {"name": "mcpbridge", "version": __version__},
        }
        async with server.running():
            if server.refused is not None:
                return
            reply = await server.ask(INITIALIZE, msgspec.json.encode(params), self._within_s)
            if isinstance(reply, Result):
                await run.judge(reply, read_profile(reply.result))
                server.tell(INITIALIZED)
                await server.ask(PING, None, _QUESTIONS_S)
                await anyio.sleep(_QUESTIONS_S)
            await run.end()


QUIET_S = 3.0
"""Seconds of silence after which a second process is tried."""
_MARGIN_S = 2.0
"""Seconds by which the first process may answer after the second and still be merely slow."""
_MORE = 20


async def try_second_process(
    first: ServerProcess, second: ServerProcess, client_profile: bytes
) -> Buffering:
    """Return how another process that gets more input behaves, while the first one is silent.

    The caller cancels this as soon as the first process answers.
    """
    await anyio.sleep(QUIET_S)
    found = Buffering.NONE
    async with second.running():
        if second.refused is None:
            found = await _withheld(second, client_profile)
    if found is not Buffering.NONE:
        await anyio.sleep(_MARGIN_S)
    return Buffering.NONE if first.over else found


async def _withheld(second: ServerProcess, client_profile: bytes) -> Buffering:
    asked = second.begin(INITIALIZE, client_profile)
    second.tell(INITIALIZED)
    for _ in range(_MORE):
        second.begin(PING)
    if await second.answer(asked, QUIET_S) is not None:
        return Buffering.UNTIL_MORE
    await second.end()
    answered = await second.answer(asked, 0) is not None
    return Buffering.UNTIL_END if answered else Buffering.NONE
