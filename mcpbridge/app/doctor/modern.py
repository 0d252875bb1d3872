"""`server/discover` over HTTP, as a client of 2026-07-28 asks it."""

from __future__ import annotations

import msgspec

from mcpbridge import __version__
from mcpbridge.app.doctor.asking import Answer, Manner, post, request
from mcpbridge.app.doctor.web import Place
from mcpbridge.rules.mcp.era_probe import own_envelope
from mcpbridge.rules.mcp.methods import DISCOVER
from mcpbridge.rules.mcp.modern_checks import SUPPORTED


async def discover(place: Place, manner: Manner) -> Answer:
    """The answer to `server/discover`, whose id is 1."""
    params = msgspec.json.decode(own_envelope(SUPPORTED[0], __version__))
    headers = {"mcp-protocol-version": SUPPORTED[0], "mcp-method": DISCOVER}
    return await post(place, request(1, DISCOVER, params), manner, headers)
