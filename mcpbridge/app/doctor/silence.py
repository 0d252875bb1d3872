"""Telling a server that is slow from one that keeps its answers back.

Both are silent. So a second process is asked the same and more, and then its input ends: one that
buffers its output gives it away now at the latest, while the first process, which is older and
has only been asked, is still silent.
"""

from __future__ import annotations

import anyio

from mcpbridge.app.doctor.report import Buffering
from mcpbridge.app.doctor.talk import Talk
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.process.spec import ChildSpec
from mcpbridge.rules.mcp.methods import INITIALIZE, INITIALIZED, PING

QUIET_S = 3.0
"""So long a silence is worth a second process."""
_MARGIN_S = 2.0
"""The older process may answer so much later than the younger one and still be merely slow."""
_MORE = 20


async def second_opinion(
    first: Talk, spec: ChildSpec, limits: PipeLimits, introduction: bytes
) -> Buffering:
    """What another process does that is told more, while the first one is silent.

    The caller cancels this as soon as the first one answers.
    """
    await anyio.sleep(QUIET_S)
    second = Talk(spec, limits)
    found = Buffering.NONE
    async with second.running():
        if second.refused is None:
            found = await _withheld(second, introduction)
    if found is not Buffering.NONE:
        await anyio.sleep(_MARGIN_S)
    return Buffering.NONE if first.over else found


async def _withheld(second: Talk, introduction: bytes) -> Buffering:
    asked = second.begin(INITIALIZE, introduction)
    second.tell(INITIALIZED)
    for _ in range(_MORE):
        second.begin(PING)
    if await second.answer(asked, QUIET_S) is not None:
        return Buffering.UNTIL_MORE
    await second.end()
    answered = await second.answer(asked, 0) is not None
    return Buffering.UNTIL_END if answered else Buffering.NONE
