"""No message holds the event loop: its turns are bounded by items as well as by bytes.

The inputs are those of the benchmark `benchmarks/turns.py`, which shows figures by the clock too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx
import pytest

from benchmarks import hostile
from benchmarks.calls import ENVELOPE
from benchmarks.turns import METER, longest, modern_head
from tests.support.bridge_process import ACCEPT, RunningBridge, bridge, open_session
from tests.support.proofs import proves

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

SERVER = ("--isolation", "shared", "--", sys.executable, str(Path(hostile.__file__)))
MOST_S = 0.04
"""Processor time of a turn of the loop; if the machine does nothing else the longest takes 15 ms.

The load of the machine does not lengthen it by much: what other processes take does not count.
"""
REFUSED = {
    "members of the message": "more than 1000 members",
    "a batch of 90,000": "a batch holds 1 to 100 messages",
    "a batch of numbers": "a batch holds 1 to 100 messages",
    "a string that is not UTF-8 at its end": "not UTF-8 at byte",
    "not JSON at its end": "JSON is malformed",
    "a long id": "an id is a string or an integer of at most 1024 bytes",
}
ACCEPTED = ("a long notification", "a long answer")
"""Bodies that get no answer."""


def _status(name: str) -> int:
    """The HTTP status of the response to a body."""
    if name in ACCEPTED:
        return 202
    return 400 if name in REFUSED else 200


def in_groups(names: Iterable[str], size: int = 8) -> list[Sequence[str]]:
    """Names that are sent to one bridge, one after the other."""
    every = list(names)
    return [every[at : at + size] for at in range(0, len(every), size)]


async def _asked(
    running: RunningBridge, turns: Path, body: bytes, modern: str = ""
) -> tuple[httpx.Response, float]:
    """The answer to a body, and the processor time of the longest turn during it, in seconds.

    The client is one of 2026-07-28 if `modern` names the output that it asks for.
    """
    async with running.client() as client:
        headers = {**ACCEPT, "content-type": "application/json"}
        if modern:
            plain = hostile.request("plain", ENVELOPE)
            first = client.post("/mcp", content=plain, headers=headers | modern_head("plain"))
            headers |= modern_head(modern)
        else:
            headers |= await open_session(client, "2025-03-26")
            first = client.post("/mcp", content=hostile.request("plain"), headers=headers)
        # What is loaded with the first request of a kind is not part of what a message costs.
        assert (await first).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        began = time.monotonic()
        answer = await client.post("/mcp", content=body, headers=headers)
        # The turn in which the answer was sent is over when another request is answered.
        assert (await client.get("/livez")).status_code == 200
        assert turns.stat().st_size, "no turn was measured, not even those of the start"
        return answer, longest(turns, began, time.monotonic())


@proves("fault 137")
@pytest.mark.parametrize("names", in_groups(hostile.BODIES))
async def test_no_body_of_a_client_holds_the_loop(names: Sequence[str], tmp_path: Path) -> None:
    """Members, elements and levels are counted before they are walked, long bodies off the loop."""
    slow: dict[str, float] = {}
    turns = tmp_path / "turns"
    async with bridge(*SERVER, under=(*METER, str(turns))) as running:
        for name in names:
            answer, slowest_s = await _asked(running, turns, hostile.BODIES[name]())
            assert answer.status_code == _status(name), (name, answer.text[:200])
            assert REFUSED.get(name, "") in answer.text
            if slowest_s >= MOST_S:
                slow[name] = slowest_s
    assert slow == {}


@proves("fault 138")
@pytest.mark.parametrize("names", in_groups([*hostile.OUTPUTS, hostile.STDERR]))
@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_no_output_of_the_server_holds_the_loop(
    names: Sequence[str], modern: bool, tmp_path: Path
) -> None:
    """Lines, elements and members are counted, slices end a turn, long lines are read off it."""
    await _hold_no_loop(names, tmp_path, SERVER, modern=modern)


@proves("fault 138")
@pytest.mark.parametrize("names", in_groups(hostile.TRANSLATED))
async def test_no_answer_of_a_modern_server_holds_the_loop(
    names: Sequence[str], tmp_path: Path
) -> None:
    """What is translated for a legacy client is translated off the loop."""
    await _hold_no_loop(names, tmp_path, ("--child-era", "auto", *SERVER, "modern"), modern=False)


async def _hold_no_loop(
    names: Sequence[str], folder: Path, server: Sequence[str], *, modern: bool
) -> None:
    """Ask for outputs as a client of either era, and look that none holds the loop."""
    slow: dict[str, float] = {}
    turns = folder / "turns"
    async with bridge(*server, under=(*METER, str(turns))) as running:
        for name in names:
            body = hostile.request(name, ENVELOPE if modern else {})
            answer, slowest_s = await _asked(running, turns, body, name if modern else "")
            assert answer.status_code == 200, (name, answer.text[:200])
            if slowest_s >= MOST_S:
                slow[name] = slowest_s
    assert slow == {}
