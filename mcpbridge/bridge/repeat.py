"""What a new child is told that the last one knew, and what its sessions are told of it.

A session outlives its child. The new one has had the handshake; it still has to hear the log level
and the subscriptions that sessions were granted, and the sessions that lists may have changed.

Source: MCP 2025-11-25, Logging; Resources, Subscriptions; list_changed of each feature.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import anyio
import msgspec

from mcpbridge.bridge.commons import Sharer
from mcpbridge.bridge.placement import Lease
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.initialize import Profile
from mcpbridge.rules.mcp.methods import SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, more_verbose
from mcpbridge.wire.messages import Failure, Notification

log = logging.getLogger("mcpbridge.bridge")

_ANSWER_S = 10.0


async def repeat(lease: Lease, profile: Profile, sharers: Collection[Sharer]) -> None:
    """Tell a new child what these sessions asked of the last one; then tell them of it.

    A child that refuses or dies meanwhile is only logged: the sessions are served all the same.
    """
    await catch_up(lease, sharers)
    for sharer in sharers:
        for method in profile.changing_lists:
            sharer.told(Notification(method))


async def catch_up(lease: Lease, sharers: Collection[Sharer]) -> None:
    """Tell a new child what these sessions were granted and it has not been told.

    Where the last child finished calls while the new one served already, that is what came of
    those calls.
    """
    level: str | None = None
    for sharer in sharers:
        level = more_verbose(level, sharer.level)
    if level is not None and level != lease.repeated_level:
        lease.repeated_level = level
        await _ask(lease, SET_LEVEL, {"level": level})
    uris = frozenset(uri for sharer in sharers for uri in sharer.subscriptions)
    told, lease.repeated_uris = lease.repeated_uris, uris
    for uri in sorted(uris - told):
        await _ask(lease, SUBSCRIBE, {"uri": uri})
    for uri in sorted(told - uris):
        await _ask(lease, UNSUBSCRIBE, {"uri": uri})


async def _ask(lease: Lease, method: str, params: dict[str, str]) -> None:
    reply = None
    try:
        with anyio.move_on_after(_ANSWER_S):
            reply = await lease.mux.ask(method, msgspec.json.encode(params))
    except Unavailable:
        pass
    if reply is None or isinstance(reply, Failure):
        log.warning("child.not_repeated", extra={"method": method})
