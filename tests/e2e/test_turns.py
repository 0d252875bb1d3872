"""No message holds the event loop: its turns are bounded by items as well as by bytes.

The inputs are those of the benchmark `benchmarks/turns.py`, which shows figures by the clock too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx
import pytest

from benchmarks import hostile
from benchmarks.calls import ENVELOPE
from benchmarks.turns import modern_head
from tests.e2e.test_faults_bounds import probed
from tests.support.bridge_process import ACCEPT, RunningBridge, bridge, open_session

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

SERVER = ("--isolation", "shared", "--", sys.executable, str(Path(hostile.__file__)))
MOST_S = 0.04
"""Processor time of the loop while a probe waits for its answer: two or three of its turns.

No turn takes 20 ms; on a machine that does nothing else the longest took 7.
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
    running: RunningBridge, body: bytes, modern: str = ""
) -> tuple[httpx.Response, float]:
    """The answer to a body, and the processor time of the slowest probe during it, in seconds.

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
        async with probed(running) as took:
            answer = await client.post("/mcp", content=body, headers=headers)
    assert took
    return answer, max(took)


@pytest.mark.parametrize("names", in_groups(hostile.BODIES))
async def test_no_body_of_a_client_holds_the_loop(names: Sequence[str]) -> None:
    """Members, elements and levels are counted before they are walked, long bodies off the loop."""
    slow: dict[str, float] = {}
    async with bridge(*SERVER) as running:
        for name in names:
            answer, slowest_s = await _asked(running, hostile.BODIES[name]())
            assert answer.status_code == _status(name), (name, answer.text[:200])
            assert REFUSED.get(name, "") in answer.text
            if slowest_s >= MOST_S:
                slow[name] = slowest_s
    assert slow == {}


@pytest.mark.parametrize("names", in_groups([*hostile.OUTPUTS, hostile.STDERR]))
@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_no_output_of_the_server_holds_the_loop(names: Sequence[str], modern: bool) -> None:
    """Lines, elements and members are counted, slices end a turn, long lines are read off it."""
    await _hold_no_loop(names, SERVER, modern=modern)


@pytest.mark.parametrize("names", in_groups(hostile.TRANSLATED))
async def test_no_answer_of_a_modern_server_holds_the_loop(names: Sequence[str]) -> None:
    """What is translated for a legacy client is translated off the loop."""
    await _hold_no_loop(names, ("--child-era", "auto", *SERVER, "modern"), modern=False)


async def _hold_no_loop(names: Sequence[str], server: Sequence[str], *, modern: bool) -> None:
    """Ask for outputs as a client of either era, and look that none holds the loop."""
    slow: dict[str, float] = {}
    async with bridge(*server) as running:
        for name in names:
            body = hostile.request(name, ENVELOPE if modern else {})
            answer, slowest_s = await _asked(running, body, name if modern else "")
            assert answer.status_code == 200, (name, answer.text[:200])
            if slowest_s >= MOST_S:
                slow[name] = slowest_s
    assert slow == {}
