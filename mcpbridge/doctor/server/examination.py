"""The order in which processes of the server are started, and what each is asked.

Each question that may pin a process has one of its own: the handshake as the bridge does it, the
handshake of a client that can be asked things, and `server/discover`. The first one runs alone,
so that its times are its own; the other two run at once.

Source: `rules.mcp.era_probe`; MCP 2026-07-28, Transports, stdio, Backward Compatibility.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from mcpbridge import __version__
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.doctor.server.report import Buffering, Ending, Listing, Memory, Outcome
from mcpbridge.doctor.server.server_process import ServerProcess, error_text
from mcpbridge.errors import CommandNotExecutable, CommandNotFound, SpawnError
from mcpbridge.process.memory import footprint
from mcpbridge.process.spec import ChildSpec
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
"""Each list of a server: its method, its member, and the capability that promises it."""

_LIST_S = 30.0
_PROBE_S = 5.0
"""How much longer than the handshake took a process may leave `server/discover` unanswered."""
_MUTE_PROBE_S = 5.0
"""How long that may take where the handshake was not answered at all."""
_QUESTIONS_S = 1.0
"""How long after its handshake a server is listened to for questions of its own."""

Tell = Callable[[str], None]


@dataclasses.dataclass(slots=True)
class Run:
    """What one process showed."""

    outcome: Outcome = Outcome.SILENT
    problem: str | None = None
    seconds: float | None = None
    """From its start to its answer."""
    profile: ServerProfile | None = None
    buffering: Buffering = Buffering.NONE
    lists: dict[str, Listing] = dataclasses.field(default_factory=dict)
    memory: Memory | None = None
    ending: Ending | None = None
    talk: ServerProcess | None = None
    """For what it said by the way."""

    @property
    def report(self) -> ExitReport | None:
        """How the process ended."""
        return self.talk.report if self.talk is not None else None


@dataclasses.dataclass(slots=True)
class Runs:
    """Every process that was started for one examination."""

    legacy: Run
    asked: Run | None = None
    """The one whose client could be asked."""
    modern: Run | None = None

    @property
    def main(self) -> Run:
        """The one that serves, else the one that tells why none does."""
        if self.legacy.profile is None and self.modern is not None and self.modern.profile:
            return self.modern
        return self.legacy


class Examination:
    """One examination of one command."""

    def __init__(self, spec: ChildSpec, limits: PipeLimits, within_s: float, tell: Tell) -> None:
        self._spec = spec
        self._limits = limits
        self._within_s = within_s
        self._tell = tell

    async def run(self) -> Runs:
        """Start, ask and end as many processes as it takes."""
        self._tell("starting the server for the handshake")
        visits = Runs(await self._by_handshake())
        if visits.legacy.outcome in (
            Outcome.NOT_FOUND,
            Outcome.NOT_EXECUTABLE,
            Outcome.NOT_STARTED,
        ):
            return visits
        self._tell("starting it again: server/discover, and as a client that can be asked")
        async with anyio.create_task_group() as both:
            both.start_soon(self._find_modern, visits)
            if visits.legacy.profile is not None:
                both.start_soon(self._find_questions, visits)
        return visits

    async def _by_handshake(self) -> Run:
        client_profile = bridge_introduction(__version__)
        visit, talk = Run(), ServerProcess(self._spec, self._limits)
        async with talk.running():
            visit.talk = talk
            if talk.refused is not None:
                visit.outcome, visit.problem = _refusal(talk.refused)
                return visit
            asked = talk.begin(INITIALIZE, client_profile)
            reply = await self._answer_or_opinion(visit, asked, client_profile)
            if isinstance(reply, Result):
                visit.profile = read_profile(reply.result)
            await _judge(visit, reply)
            if visit.profile is not None:
                talk.tell(INITIALIZED)
                await self._look_around(visit, visit.profile, {})
            visit.ending = await talk.end()
            if visit.buffering is Buffering.NONE and reply is None:
                late = await talk.answer(asked, 0)
                visit.buffering = Buffering.NONE if late is None else Buffering.UNTIL_END
        return visit

    async def _answer_or_opinion(
        self, visit: Run, asked: bytes, client_profile: bytes
    ) -> Reply | None:
        """The answer; none as soon as it is clear that the server keeps it back."""
        assert visit.talk is not None
        talk, reply = visit.talk, None
        async with anyio.create_task_group() as either:

            async def opine() -> None:
                found = await second_opinion(talk, self._spec, self._limits, client_profile)
                if found is not Buffering.NONE:
                    visit.buffering = found
                    either.cancel_scope.cancel()

            either.start_soon(opine)
            reply = await talk.answer(asked, self._within_s)
            visit.seconds = round(talk.age_s, 3) if reply is not None else None
            either.cancel_scope.cancel()
        if reply is not None:
            visit.buffering = Buffering.NONE
        return reply

    async def _find_modern(self, visits: Runs) -> None:
        visit, talk = Run(), ServerProcess(self._spec, self._limits)
        took_s = visits.legacy.seconds
        patience_s = _MUTE_PROBE_S if took_s is None else took_s * 2 + _PROBE_S
        envelope = own_envelope(SUPPORTED[0], __version__)
        async with talk.running():
            visit.talk = talk
            if talk.refused is not None:
                return
            reply = await talk.ask(DISCOVER, envelope, min(self._within_s, patience_s))
            visit.seconds = round(talk.age_s, 3) if reply is not None else None
            if reply is not None and speaks_modern(reply):
                visit.profile = discovery_of(reply)
            await _judge(visit, reply)
            if visit.profile is not None and visits.legacy.profile is None:
                await self._look_around(visit, visit.profile, msgspec.json.decode(envelope))
            visit.ending = await talk.end()
        visits.modern = visit

    async def _find_questions(self, visits: Runs) -> None:
        """As a client of the oldest revision that offers roots and sampling."""
        visit, talk = Run(), ServerProcess(self._spec, self._limits)
        params = {
            "protocolVersion": SERVED[0].date,
            "capabilities": {"roots": {"listChanged": True}, "sampling": {}},
            "clientInfo": {"name": "mcpbridge", "version": __version__},
        }
        async with talk.running():
            visit.talk = talk
            if talk.refused is not None:
                return
            reply = await talk.ask(INITIALIZE, msgspec.json.encode(params), self._within_s)
            if isinstance(reply, Result):
                visit.profile = read_profile(reply.result)
                talk.tell(INITIALIZED)
                await talk.ask(PING, None, _QUESTIONS_S)
                await anyio.sleep(_QUESTIONS_S)
            visit.ending = await talk.end()
        visits.asked = visit

    async def _look_around(
        self, visit: Run, profile: ServerProfile, common: Mapping[str, Any]
    ) -> None:
        assert visit.talk is not None
        self._tell("reading its lists")
        for name, (method, member, capability) in LISTS.items():
            if capability in profile.capabilities and not visit.talk.over:
                visit.lists[name] = await visit.talk.listing(method, member, common, _LIST_S)
        taken = footprint(visit.talk.pid)
        visit.memory = Memory(*taken) if taken is not None else None


def _refusal(error: SpawnError) -> tuple[Outcome, str]:
    match error:
        case CommandNotFound():
            outcome = Outcome.NOT_FOUND
        case CommandNotExecutable():
            outcome = Outcome.NOT_EXECUTABLE
        case _:
            outcome = Outcome.NOT_STARTED
    return outcome, str(error)


async def _judge(visit: Run, reply: Reply | None) -> None:
    """Say how the start went, once there is an answer or none will come."""
    assert visit.talk is not None
    if visit.profile is not None:
        visit.outcome = Outcome.SERVED
    elif isinstance(reply, Failure):
        visit.outcome, visit.problem = Outcome.REFUSED, error_text(reply)
    elif reply is not None:
        visit.outcome = Outcome.REFUSED
        visit.problem = "its answer names no protocol revision that is known here"
    elif visit.talk.over and await visit.talk.goes():
        visit.outcome = Outcome.ENDED
    elif visit.talk.over:
        visit.outcome = Outcome.CLOSED


QUIET_S = 3.0
"""So long a silence is worth a second process."""
_MARGIN_S = 2.0
"""The older process may answer so much later than the younger one and still be merely slow."""
_MORE = 20


async def second_opinion(
    first: ServerProcess, spec: ChildSpec, limits: PipeLimits, client_profile: bytes
) -> Buffering:
    """What another process does that is told more, while the first one is silent.

    The caller cancels this as soon as the first one answers.
    """
    await anyio.sleep(QUIET_S)
    second = ServerProcess(spec, limits)
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
