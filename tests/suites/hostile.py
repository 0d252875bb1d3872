"""The hostile part of `make soak`: memory stays within `--max-memory` and a stated reserve.

| | |
|---|---|
| inputs | those of `tests.suites.attackers`, each on its own bridge, HOSTILE_S (20) seconds |
| memory | resident bytes of the bridge: at most those before, `--max-memory` and `RESERVE_MIB` |
| light client | one call and one probe at a time: probes get 200, and calls their answer or an \
error that names a limit; its session is not ended |

How long the light client waited is printed and not judged: it depends on the machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from benchmarks.measure import read_memory
from tests.suites.attackers import ATTACKS
from tests.suites.figures import Figures, percentile
from tests.suites.wire import Connection, Response, echo_call, open_session
from tests.support.bridge_process import RunningBridge, bridge

LIMIT_MIB = 64
RESERVE_MIB = 128
"""Of one bridge, above what it takes when idle and what it keeps: copies that are made while bytes
pass, a message that is read, the heap's gaps."""
AS_IN_IMAGES = {"MALLOC_ARENA_MAX": "1"}
"""Else glibc keeps a heap for each thread that reads bodies, up to 50 MiB more."""
FLAGS = ("--max-children", "12", "--spares", "0", "--grace", "6s")
LOOK_S = 0.02
SETTLE_S = 15.0
CHILD = Path(__file__).parents[1] / "children" / "greedy.py"


@asynccontextmanager
async def attacked(url: str, name: str) -> AsyncIterator[None]:
    """Attack a bridge until the block ends."""
    words = ("-m", "tests.suites.attackers", url, name)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=asyncio.subprocess.PIPE
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


class LightClient:
    """A client that does nothing wrong, and what it met."""

    def __init__(self, url: str) -> None:
        self.waits: list[float] = []
        """Seconds that each of its requests took."""
        self.outcomes: Counter[str] = Counter()
        self._connection = Connection(url)
        self._probes = Connection(url)

    async def begin(self) -> None:
        """Open its session."""
        self._headers = await open_session(self._connection)

    async def ask(self) -> None:
        """Probe, then call."""
        probed = await self._timed(self._probes.request("GET", {}, path="/livez"))
        self.outcomes[f"probe {probed.status}"] += 1
        body = echo_call(str(len(self.waits)), "light")
        called = await self._timed(self._connection.request("POST", self._headers, body))
        self.outcomes[f"call {outcome_of(called)}"] += 1

    async def _timed(self, request: object) -> Response:
        began = monotonic()
        response: Response = await request  # type: ignore[misc]
        self.waits.append(monotonic() - began)
        return response

    def close(self) -> None:
        """Close its connections."""
        self._connection.close()
        self._probes.close()


def outcome_of(response: Response) -> str:
    """What became of a call: `answered`, `memory`, `capacity`, or what should not be."""
    for reason, flag in ((b"memory", b"--max-memory"), (b"capacity", b"--max-calls")):
        if b'"%b"' % reason in response.body and flag in response.body:
            return reason.decode()
    if response.status == 200 and "result" in response.messages()[-1]:
        return "answered"
    return f"{response.status} {response.body[:200]!r}"


async def metrics(url: str) -> dict[str, float]:
    """The figures of the ledger, by the names and labels of `/metrics`."""
    connection = Connection(url)
    response = await connection.request("GET", {"connection": "close"}, path="/metrics")
    connection.close()
    pattern = r"^(mcpbridge_memory_\S+|mcpbridge_refusals_total\S+) (\S+)$"
    found = re.findall(pattern, response.body.decode(), re.MULTILINE)
    return {name.removeprefix("mcpbridge_"): float(value) for name, value in found}


async def suffer(name: str, seconds: float, figures: Figures) -> None:
    """One attack, and what is judged and shown of it."""
    flags = ("--max-memory", f"{LIMIT_MIB}MiB", *FLAGS)
    command = ("--", sys.executable, "-S", str(CHILD))
    async with bridge(*flags, *command, env=AS_IN_IMAGES) as running:
        client = LightClient(running.url)
        await client.begin()
        await client.ask()
        before = rss_mib(running)
        peak = before
        ends = monotonic() + seconds
        async with attacked(running.url, name):
            while monotonic() < ends:
                await client.ask()
                peak = max(peak, rss_mib(running))
                await asyncio.sleep(LOOK_S)  # a light client
            told = await metrics(running.url)
        waits = sorted(client.waits)
        shown = {
            "before_mib": before,
            "ledger": {key: value for key, value in told.items() if value},
            "outcomes": dict(client.outcomes),
        }
        bound = before + LIMIT_MIB + RESERVE_MIB
        figures.at_most(f"{name}_peak_rss_mib", peak, bound, **shown)
        figures.show(f"{name}_light_p99_ms", round(percentile(waits, 0.99) * 1000, 1))
        good = {"probe 200", "call answered", "call memory", "call capacity"}
        figures.equal(f"{name}_wrong_outcomes", sorted(set(client.outcomes) - good), [])
        figures.equal(f"{name}_served_again", await served_again(client), True)
        client.close()
        # 3: calls were in flight that the server never answers.
        figures.equal(f"{name}_ended_well", await running.terminate() in (0, 3), True)


async def served_again(client: LightClient) -> bool:
    """Whether calls are answered again soon after the attack."""
    ends = monotonic() + SETTLE_S
    while monotonic() < ends:
        before = client.outcomes["call answered"]
        await client.ask()
        if client.outcomes["call answered"] > before:
            return True
        await asyncio.sleep(LOOK_S)  # a light client
    return False


def rss_mib(running: RunningBridge) -> float:
    """Resident memory of the bridge."""
    return round(read_memory(running.pid).rss_kib / 1024, 1)


async def run(figures: Figures) -> None:
    """Every attack, or those that HOSTILE names."""
    seconds = float(os.environ.get("HOSTILE_S") or 20)
    wanted = (os.environ.get("HOSTILE") or " ".join(ATTACKS)).split()
    for name in wanted:
        await suffer(name, seconds, figures)


async def main() -> int:
    """The hostile part alone; the exit status."""
    figures = Figures("hostile")
    await run(figures)
    return figures.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
