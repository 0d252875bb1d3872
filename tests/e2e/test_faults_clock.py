"""A wall clock that jumps: nothing that is measured in time changes by it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import CHILDREN, bridge, child, eventually, open_session, rpc
from tests.support.proofs import proves
from tests.support.raw_http import recorded, streaming

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

YEAR_S = 366 * 24 * 3600
OWN: dict[str, Any] = {"elicitation": {}}


async def held_over(
    client: httpx.AsyncClient, headers: dict[str, str], off: Path, to_s: int
) -> None:
    """A call and a listener that are open while the clock jumps, and calls after it."""
    params = {"name": "h", "progress": 1, "_meta": {"progressToken": 1}}
    async with (
        streaming(client, headers, rpc("held", "x/hold", params)) as call,
        streaming(client, headers),
    ):
        assert (await call.next())["method"] == "notifications/progress"
        off.write_text(str(to_s))
        for number in range(5):
            answer = await client.post("/mcp", json=rpc(number, "x/pid"), headers=headers)
            assert "result" in answer.json()
        released = rpc("release", "x/release", {"name": "h"})
        assert "result" in (await client.post("/mcp", json=released, headers=headers)).json()
        assert await call.rest() == [{"jsonrpc": "2.0", "id": "held", "result": {"held": "h"}}]


async def pinged(folder: Path) -> None:
    """Wait until the idle children have been asked again whether they live."""
    before = recorded(folder).count(b'"ping"')
    await eventually(lambda: recorded(folder).count(b'"ping"') > before + 2, "they are pinged")


@proves("fault 107")
async def test_a_clock_that_jumps_moves_no_deadline(tmp_path: Path) -> None:
    """A year on and two years back: calls, streams, sessions and processes stay."""
    off, folder = tmp_path / "off", tmp_path / "record"
    folder.mkdir()
    off.write_text("0")
    under = (sys.executable, str(CHILDREN / "clock_jump.py"), str(off))
    words = ("--ping-interval", "100ms", "--spares", "0", "--", *child("recorder", str(folder)))
    async with bridge(*words, under=under) as running, running.client() as client:
        sessions = [await open_session(client, capabilities=able) for able in ({}, OWN)]
        years = {str(running.log[0]["timestamp"])[:4]}
        for count, to_s in enumerate((YEAR_S, -YEAR_S), 1):
            for headers in sessions:
                await held_over(client, headers, off, to_s)
            # What is done from time to time goes on being done.
            await pinged(folder)
            running.signal(signal.SIGUSR1)
            told = await running.logged("serve.state", count=count)
            years.add(str(told[-1]["timestamp"])[:4])
        assert len(years) == 3, "it has jumped twice"
        assert running.events("child.exited") == []
        assert len(running.events("child.started")) == len(sessions)
        for headers in sessions:
            assert (await client.delete("/mcp", headers=headers)).status_code == 200
