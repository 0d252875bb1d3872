"""The handshake with a child: `initialize`, its answer, `notifications/initialized`.

Source: MCP 2025-11-25, Lifecycle, Initialization.
"""

from __future__ import annotations

import anyio

from mcpbridge.bridge.placement import Lease
from mcpbridge.rules.faults import Unavailable, child_exited, handshake_refused, start_timeout
from mcpbridge.rules.mcp.initialize import Profile, read_profile
from mcpbridge.rules.mcp.methods import INITIALIZE, INITIALIZED
from mcpbridge.wire.messages import Notification, Reply, Result


async def initialize(lease: Lease, params: bytes, within_s: float) -> Reply:
    """Send `initialize` and wait for the child's answer, whatever it is.

    Raises:
        Unavailable: No answer in time, or the child ended before it answered.
    """
    try:
        with anyio.move_on_after(within_s):
            return await lease.mux.ask(INITIALIZE, params)
    except Unavailable as error:
        # A handshake carries out nothing: whoever waits for this child may try again.
        raise Unavailable(child_exited(error.fault.exit, "no")) from error
    finally:
        lease.introduced()
    raise Unavailable(start_timeout(within_s))


async def shake_hands(lease: Lease, params: bytes, within_s: float) -> Profile:
    """The whole handshake, as the bridge does it for itself.

    Raises:
        Unavailable: No answer in time, an error, or an answer that is none.
    """
    reply = await initialize(lease, params, within_s)
    profile = read_profile(reply.result) if isinstance(reply, Result) else None
    if profile is None:
        raise Unavailable(handshake_refused())
    lease.profile = profile
    lease.mux.send(Notification(INITIALIZED))
    return profile
