"""The handshake with a child: `initialize`, its answer, `notifications/initialized`.

Source: MCP 2025-11-25, Lifecycle, Initialization.
"""

from __future__ import annotations

import enum
import logging
from contextlib import suppress

import anyio

from mcpbridge import __version__
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.errors import WireError
from mcpbridge.rules.access.tool_policy import TOOLS_LIST
from mcpbridge.rules.faults import (
    UNREACHABLE,
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
        raise Unavailable(child_exited(error.fault.exit, "no")) from error
    finally:
        lease.start_over()
    raise Unavailable(start_timeout(within_s))


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
_PROBE_GRACE_S = 1.0
_MOST_PAGES = 100


class Answer(enum.Enum):
    """What a probe for 2026-07-28 found out."""

    MODERN = "modern"
    OTHER = "other"
    """An error, silence, or an answer that cannot be understood."""
    ENDED = "ended"
    """The process ended before it answered."""
    UNREACHABLE = "unreachable"
    """There was no server to probe: the address cannot be connected to yet."""


class Probe:
    """A probe that asks a separate process once whether the server speaks 2026-07-28."""

    def __init__(self, child_pool: ChildSource, within_s: float) -> None:
        self._child_pool = child_pool
        self._within_s = within_s
        self._lease: Lease | None = None
        self._answer = Answer.OTHER
        self._over = anyio.Event()

    async def ask(self) -> Answer:
        """Start the process, ask it, end it, return the answer; silence is `Answer.OTHER`."""
        try:
            lease = await self._child_pool.shared()
            self._lease = lease
            with anyio.move_on_after(self._within_s):
                async with anyio.create_task_group() as asking:
                    asking.start_soon(_ping_after_silence, lease, asking.cancel_scope)
                    self._answer = await _asked(lease)
                    asking.cancel_scope.cancel()
        except Unavailable as error:
            return Answer.UNREACHABLE if error.fault.reason == UNREACHABLE else Answer.OTHER
        finally:
            self._over.set()
            if self._lease is not None:
                self._child_pool.release(self._lease, _PROBE_GRACE_S)
        modern = self._answer is Answer.MODERN
        log.info("child.probed", extra={"pid": lease.child.pid, "modern": modern})
        return self._answer

    async def until_gone(self) -> Answer:
        """Wait until the process is gone; return what it answered."""
        await self._over.wait()
        if self._lease is not None:
            await self._lease.child.exited.wait()
        return self._answer


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


async def _asked(lease: Lease) -> Answer:
    try:
        reply = await lease.mux.ask(DISCOVER, own_envelope(SUPPORTED[0], __version__))
    except Unavailable:
        return Answer.ENDED
    return Answer.MODERN if speaks_modern(reply) else Answer.OTHER


async def _ping_after_silence(lease: Lease, scope: anyio.CancelScope) -> None:
    # `ping` is allowed before a handshake: if it is answered, `server/discover` was ignored.
    await anyio.sleep(_SILENCE_S)
    try:
        await lease.mux.ask(PING, None)
    except Unavailable:
        return
    scope.cancel()
