"""The handshake with a child: `initialize`, its answer, `notifications/initialized`.

Source: MCP 2025-11-25, Lifecycle, Initialization.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import anyio

from mcpbridge import __version__
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.errors import WireError
from mcpbridge.rules.access.tool_policy import TOOLS_LIST
from mcpbridge.rules.faults import (
    Exit,
    Fault,
    Unavailable,
    child_exited,
    handshake_refused,
    start_timeout,
)
from mcpbridge.rules.mcp.era_probe import discovery_of, own_envelope, speaks_modern
from mcpbridge.rules.mcp.initialize import ServerProfile, read_profile
from mcpbridge.rules.mcp.methods import DISCOVER, INITIALIZE, INITIALIZED, PING
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.rules.mcp.revisions import Era
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Notification, Reply, Result


async def initialize(lease: Lease, params: bytes, within_s: float) -> Reply:
    """Send `initialize` and return the child's answer, be it an error.

    Raises:
        Unavailable: No answer in time, or the child ended before it answered.
    """
    try:
        with anyio.move_on_after(within_s):
            return await lease.mux.ask(INITIALIZE, params)
    except Unavailable as error:
        # A handshake has no effect: the call that waits for this child may be tried again.
        raise Unavailable(child_exited(await _end_of(lease, error.fault), "no")) from error
    finally:
        lease.start_over()
    raise Unavailable(start_timeout(within_s))


async def _end_of(lease: Lease, fault: Fault) -> Exit | None:
    """Return how the process ended, which a fault of a pipe that was closed already cannot say."""
    if fault.exit is None:
        with anyio.move_on_after(_END_S):
            await lease.child.gone.wait()
    return fault.exit or lease.child.how


async def shake_hands(lease: Lease, params: bytes, within_s: float) -> ServerProfile:
    """Do the whole handshake for the bridge itself; return what the child said.

    Raises:
        Unavailable: No answer in time, an error, or an invalid answer.
    """
    reply = await initialize(lease, params, within_s)
    profile = read_profile(reply.result) if isinstance(reply, Result) else None
    if profile is None:
        raise Unavailable(handshake_refused())
    lease.introduced_as(profile)
    lease.mux.send(Notification(INITIALIZED))
    return profile


log = logging.getLogger("mcpbridge.bridge")

_SILENCE_S = 2.0
"""Seconds of silence after which the probed process is sent a `ping`."""
_READ_SILENCE_S = 3.0
"""Seconds after which a server that has read the probe and is silent gets `initialize`."""
_HARMED_S = 10.0
"""Seconds after that until another process is started in its place."""
_LOOK_S = 0.1
"""Seconds between checks whether a process has read the probe: there is no event for it."""
_END_S = 1.0
"""Seconds that a process may live after its pipes have closed until its end is called unknown."""
_MOST_PAGES = 100


class SpeaksModernError(Exception):
    """The first process of a server has answered the probe and speaks 2026-07-28."""

    def __init__(self, lease: Lease, profile: ServerProfile | None, start_s: float) -> None:
        """Make the exception.

        Args:
            lease: The lease on the process.
            profile: The profile in its answer; None: the process must not serve.
            start_s: How many seconds its start took.
        """
        super().__init__()
        self.lease = lease
        self.profile = profile
        self.start_s = start_s


class HarmedByProbeError(Exception):
    """The probe ended or confused a process: another one is needed, which is not probed."""


class FirstHandshake:
    """Does the handshake with legacy processes of a server, and probes the first one before.

    The probe goes to the process that will serve. The `Mux` drops an answer to it that comes late,
    since no number is used twice.
    """

    def __init__(
        self, params: bytes, within_s: float, found_legacy: Callable[[], None], *, asks: bool
    ) -> None:
        """Make it.

        Args:
            params: The params of the bridge's own `initialize`.
            within_s: Limit for a start with its handshake, in seconds.
            found_legacy: Called when a probed process has had a legacy handshake.
            asks: Whether to probe: it is not known what the server speaks.
        """
        self._params = params
        self._within_s = within_s
        self._found_legacy = found_legacy
        self._asks = asks
        self._harmed = False

    def ask_no_more(self) -> None:
        """Probe no further process: it is known what the server speaks."""
        self._asks = False

    async def introduce(self, lease: Lease) -> ServerProfile:
        """Return the profile of a process that has just been started.

        Raises:
            Unavailable: No answer in time, an error, or an invalid answer.
            SpeaksModernError: It speaks 2026-07-28.
            HarmedByProbeError: It cannot be used; another one must be started.
        """
        if not self._asks:
            return await shake_hands(lease, self._params, self._within_s)
        # One process goes without the probe. If its handshake fails as well, the probe was not the
        # reason, and the next process is probed again.
        harmed, self._harmed = self._harmed, False
        if harmed:
            profile = await shake_hands(lease, self._params, self._within_s)
        else:
            with lease.child.probed(DISCOVER):
                profile = await self._ask_first(lease)
        self._asks = False
        self._found_legacy()
        return profile

    async def _ask_first(self, lease: Lease) -> ServerProfile:
        began = anyio.current_time()
        question = _Question(lease)
        profile: ServerProfile | None = None
        # The probe stays open while `initialize` is sent: a slow server of 2026-07-28 may still
        # answer it.
        async with anyio.create_task_group() as asking:
            asking.start_soon(question.ask)
            with anyio.move_on_after(self._within_s):
                await question.answer_or_silence()
            if not question.modern and question.fault is None:
                rest_s = began + self._within_s - anyio.current_time()
                profile = await self._shake(lease, question, rest_s)
            # Now: an answer to the probe that comes behind this one is late and does not count.
            modern = question.modern
            asking.cancel_scope.cancel()
        if modern:
            log.info("child.probed", extra={"pid": lease.child.pid, "modern": True})
            # A process that has answered `initialize` as well is in neither era for certain.
            clean = profile is None
            found = discovery_of(question.reply) if clean and question.reply is not None else None
            raise SpeaksModernError(lease, found, anyio.current_time() - began)
        log.info("child.probed", extra={"pid": lease.child.pid, "modern": False})
        if profile is not None:
            return profile
        unread = lease.mux.channel.unread or (question.fault and question.fault.executed == "no")
        if question.fault is not None and unread:
            # It had not read the probe, so the probe was not the reason.
            raise Unavailable(child_exited(await _end_of(lease, question.fault), "no"))
        self._harmed = not unread
        if anyio.current_time() - began >= self._within_s:
            raise Unavailable(start_timeout(self._within_s))
        raise HarmedByProbeError

    async def _shake(
        self, lease: Lease, question: _Question, rest_s: float
    ) -> ServerProfile | None:
        if not question.answered:
            rest_s = min(rest_s, _HARMED_S)
        try:
            return await shake_hands(lease, self._params, max(rest_s, 0.0))
        except Unavailable:
            return None


class _Question:
    """The probe of one process, which has received nothing else."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self.reply: Reply | None = None
        self.fault: Fault | None = None
        """What the probe failed with if the process ended before it answered; else None."""
        self._over = anyio.Event()

    @property
    def answered(self) -> bool:
        return self.reply is not None

    @property
    def modern(self) -> bool:
        """Whether only a server of 2026-07-28 answers so."""
        return self.reply is not None and speaks_modern(self.reply)

    async def ask(self) -> None:
        """Send the probe; return when it is answered or the process is gone."""
        try:
            self.reply = await self._lease.mux.ask(
                DISCOVER, own_envelope(SUPPORTED[0], __version__)
            )
        except Unavailable as error:
            self.fault = error.fault
        self._over.set()

    async def answer_or_silence(self) -> None:
        """Wait for the answer, or until it is clear that none will come."""
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(self._ping_after_silence, waiting.cancel_scope)
            waiting.start_soon(self._silence_after_reading, waiting.cancel_scope)
            await self._over.wait()
            waiting.cancel_scope.cancel()

    async def _ping_after_silence(self, scope: anyio.CancelScope) -> None:
        # `ping` is allowed before a handshake: its answer shows that discover was swallowed.
        await anyio.sleep(_SILENCE_S)
        try:
            await self._lease.mux.ask(PING, None)
        except Unavailable:
            return
        scope.cancel()

    async def _silence_after_reading(self, scope: anyio.CancelScope) -> None:
        # A server that still loads its modules has read nothing yet. `initialize` behind the probe
        # would make it unclear which era a server of both is in.
        while self._lease.mux.channel.unread:  # noqa: ASYNC110 - there is no event for it
            await anyio.sleep(_LOOK_S)
        # It has read the probe. Now silence means something, since it is not busy with its start.
        await anyio.sleep(_READ_SILENCE_S)
        scope.cancel()


async def discover(lease: Lease, within_s: float) -> ServerProfile:
    """Send `server/discover` and return what the child says of itself.

    Raises:
        Unavailable: No answer in time, an error, or an invalid answer.
    """
    with anyio.move_on_after(within_s):
        reply = await lease.mux.ask(DISCOVER, own_envelope(SUPPORTED[0], __version__))
        profile = discovery_of(reply)
        if profile is None:
            raise Unavailable(handshake_refused())
        return profile
    raise Unavailable(start_timeout(within_s))


async def list_tools(lease: Lease, within_s: float) -> list[bytes]:
    """Return the pages of a child's list of tools, as it sent them; empty if it offers no tools.

    Never raises: after an error or the time limit, the pages that came before are returned.
    """
    pages: list[bytes] = []
    if lease.profile is None or "tools" not in lease.profile.capabilities:
        return pages
    modern = lease.profile.revision.era is Era.MODERN
    own = own_envelope(SUPPORTED[0], __version__) if modern else None
    params = own
    with anyio.move_on_after(within_s), suppress(Unavailable, WireError):
        while len(pages) < _MOST_PAGES:
            reply = await lease.mux.ask(TOOLS_LIST, params)
            if not isinstance(reply, Result):
                break
            pages.append(reply.result)
            cursor = member(reply.result, "nextCursor")
            if cursor is None or cursor == b"null":
                break
            params = (own[:-1] + b"," if own else b"{") + b'"cursor":' + cursor + b"}"
    return pages
