"""What it costs to be there: start, idle memory, ten servers, sessions that come and go."""

from __future__ import annotations

import http.client
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import measure, obstacles, target
from benchmarks.bench import Bench
from benchmarks.calls import SMALL
from benchmarks.figures import Figure

STARTS = 7
MS_TO_ANSWER, MS_BEYOND_SERVER, CPU_S_TO_ANSWER = 300, 60, 0.17
IDLE_MIB = 34
SERVERS, SERVERS_MIB = 10, 42
SETTLE_S = 1.0
"""After it what the start and the probe of the child had to do is done."""
HEAVY = (
    "httpx",
    "opentelemetry",
    "prometheus_client",
    "sse_starlette",
    "yaml",
)
LIBRARIES = (
    "import anyio._backends._asyncio, click, msgspec, os, uvloop;"
    "from mcpbridge.http.server.lazy_import import import_libraries; import_libraries();"
    "import uvicorn.protocols.http.httptools_impl; os._exit(0)"
)
"""What no bridge starts without."""
DEMO = ("-m", "mcpbridge.demo")
SHARED, FORKED, CLIENTS = 400, 40, 8
ROOM = ("--max-children", "64")
"""For those that are about to end beside those that have come since."""
MS_SHARED, MS_FORKED = 0.2, 1.5
TO_BARE_REQUESTS = 1.6
BARE_ID = "0" * 32
"""What stands for the id of a session in requests to a server that names none."""


def start(bench: Bench) -> Iterator[Figure]:
    """From the command to the first answer of the bundled example."""
    row = "start with the bundled example"
    times, used, held, least, alone = [], [], [], [], []
    argv = target.bridge_command([sys.executable, *DEMO])
    for _ in range(STARTS):
        began = time.monotonic()
        with target.running("bridge", argv, mark=DEMO[-1]) as bridge:
            client = target.Client(bridge)
            client.ask("POST", {}, target.HELLO)
            times.append((time.monotonic() - began) * 1000)
            used.append(_cpu_s(bridge))
            client.close()
            time.sleep(SETTLE_S)
            held.append(measure.read_memory(bridge.pid).rss_kib / 1024)
        least.append(_libraries_s())
        alone.append(_server_alone_ms())
    wall = obstacles.START
    yield Figure(row, "to the first initialize answer", "ms", times, MS_TO_ANSWER, obstacle=wall)
    beyond = [time_ms - server_ms for time_ms, server_ms in zip(times, alone, strict=True)]
    name = "of that, beyond the start of the server alone"
    yield Figure(row, name, "ms", beyond, MS_BEYOND_SERVER, obstacle=wall)
    yield Figure(row, "processor time of our own", "s", used, CPU_S_TO_ANSWER, obstacle=wall)
    libraries = "of that, the interpreter and its libraries"
    yield Figure(row, libraries, "s", least)
    heavy = _imported_heavy()
    yield Figure(row, "heavy imports", "1", [len(heavy)], 0, note=" ".join(heavy))
    yield Figure("memory", "idle RSS", "MiB", held, IDLE_MIB, obstacle=obstacles.IDLE)


def servers(bench: Bench) -> Iterator[Figure]:
    """Ten servers of one file in one process, beside their own processes."""
    entry = {"command": sys.executable, "args": [*DEMO]}
    held = []
    with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder:
        file = Path(folder, "mcp.json")
        file.write_text(json.dumps({"mcpServers": {f"s{n}": entry for n in range(SERVERS)}}))
        argv = [sys.executable, "-m", "mcpbridge", "--port", "0", "--config", str(file)]
        for _ in range(bench.rounds):
            with target.running("bridge", argv, mark=DEMO[-1]) as bridge:
                _until_all_ready(bridge)
                time.sleep(SETTLE_S)  # what the start had to do is done after it
                held.append(measure.read_memory(bridge.pid).rss_kib / 1024)
    name, wall = f"idle RSS with {SERVERS} servers", obstacles.SERVERS
    yield Figure("memory", name, "MiB", held, SERVERS_MIB, obstacle=wall)


def _until_all_ready(bridge: target.Target) -> None:
    """Wait until every server is ready; raise TargetFailed if one does not get so in time."""
    deadline = time.monotonic() + target.START_WITHIN_S
    states: list[str] = []
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(bridge.host, bridge.port, timeout=SETTLE_S)
        connection.request("GET", bridge.path)
        told = json.loads(connection.getresponse().read())
        connection.close()
        states = [each["state"] for each in told["servers"]]
        if states == ["ready"] * SERVERS:
            return
        time.sleep(0.1)  # nothing tells a client that a server is ready
    raise target.TargetFailed(f"the servers are {states}")


def _cpu_s(bridge: target.Target) -> float:
    nothing = measure.CpuReading({}, 0)
    return measure.cpu_ns_between(nothing, measure.read_cpu(*bridge.own_pids())) / measure.NS_PER_S


def _server_alone_ms() -> float:
    """How long the server takes from its command to its answer to initialize, without a bridge."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *DEMO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(target.HELLO).encode() + b"\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        took = (time.monotonic() - began) * 1000
        server.stdin.close()
    if b'"result"' not in answer:
        raise target.TargetFailed(f"{DEMO[-1]} alone: {answer[:200]!r}")
    return took


def _libraries_s() -> float:
    """Processor time of an interpreter that has imported what every bridge needs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _imported_heavy() -> list[str]:
    _, *words = target.bridge_command([sys.executable, *DEMO])
    argv = [sys.executable, "-X", "importtime", *words]
    with target.running("bridge", argv, mark=DEMO[-1]) as bridge:
        target.Client(bridge).ask("POST", {}, target.HELLO)
        time.sleep(SETTLE_S)
        said = bridge.words().decode(errors="replace")
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", said, re.MULTILINE))
    if "mcpbridge" not in imported:
        raise target.TargetFailed("the bridge under -X importtime told no imports")
    return [name for name in HEAVY if name in imported]


def sessions(bench: Bench) -> Iterator[Figure]:
    """initialize, initialized, DELETE: on a shared child, as bare requests, with a forked child."""
    row = "session, create and delete"
    with (
        bench.bridge("--isolation", "shared") as bridge,
        bench.limit("bare_asgi", SMALL) as bare,
    ):
        used: dict[str, list[float]] = {bridge.name: [], bare.name: []}
        for server in (bridge, bare):
            _come_and_go(server, server.own_pids(), CLIENTS)
        for number in range(bench.rounds):
            for server in (bridge, bare) if number % 2 else (bare, bridge):
                used[server.name].append(_come_and_go(server, server.own_pids(), SHARED))
    mine, its = used[bridge.name], used[bare.name]
    yield Figure(row, "shared child", "ms", mine, MS_SHARED, obstacle=obstacles.SESSION)
    yield Figure(row, "the same requests to bare_asgi", "ms", its)
    ratios = [one / other for one, other in zip(mine, its, strict=True)]
    name = "shared child / bare_asgi"
    yield Figure(row, name, "1", ratios, TO_BARE_REQUESTS, obstacle=obstacles.SESSION)
    with bench.bridge("--isolation", "session", *ROOM) as bridge:
        pids = bridge.own_pids()  # before a child could be seen between its fork and its exec
        _come_and_go(bridge, pids, CLIENTS)
        forked = [_come_and_go(bridge, pids, FORKED) for _ in range(bench.rounds)]
    yield Figure(row, "forked child", "ms", forked, MS_FORKED, obstacle=obstacles.FORK)


def _come_and_go(server: target.Target, pids: Sequence[int], count: int) -> float:
    """Milliseconds of its processor time for each of that many sessions, some at the same time.

    One client alone would measure what it costs to be woken for each request.
    """
    clients = [target.Client(server) for _ in range(CLIENTS)]
    before = measure.read_cpu(*pids)
    for _ in range(count // CLIENTS):
        for client in clients:
            client.say("POST", {}, target.HELLO)
        sessions = [
            (client, target.session_headers(client.hear() or BARE_ID)) for client in clients
        ]
        for method, message in (("POST", target.INITIALIZED), ("DELETE", None)):
            for client, headers in sessions:
                client.say(method, headers, message)
            for client, _ in sessions:
                client.hear()
    time.sleep(SETTLE_S / 2)  # children end after the answer to DELETE
    used = measure.cpu_ns_between(before, measure.read_cpu(*pids))
    for client in clients:
        client.close()
    return used / 1_000_000 / (count // CLIENTS * CLIENTS)
