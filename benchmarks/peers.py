"""The bridge beside its peers: the same loads on each, over the same echo child, in one run.

    make bench-peers      (installs the peers, then runs this program with BENCH_ARGS)

The peers are supergateway and mcp-proxy for Node, mcp-proxy and FastMCP for Python, at the versions
in `peers/`, as their documentation starts them, with their defaults; supergateway with --stateful,
without which it starts a process for each request. Beside them the limit, `bare_asgi`. The order
rotates from round to round. A server's cost is that of all its processes, without the child's.
Every answer is checked for its id and text; wrong ones are counted by what is wrong with them.
Last, clients of the official SDK call a FastMCP server through each of them, and directly: `users`.

One JSON line a figure on standard output, the table on standard error. Exit status: 0, goals met or
not; 1 if an answer of the bridge was wrong; 2 if there was nothing to measure, or bad usage.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import figures, load, target
from benchmarks.bench import Bench
from benchmarks.calls import LARGE, SMALL
from benchmarks.compiled import compiler, prepare
from benchmarks.rounds import Contender, one_round
from benchmarks.streams import NOTES
from benchmarks.users import seen_by_users

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "peers"
LEAST_ROUNDS = 3
FIELDS = "us median", "us least", "times ours", "calls/s", "MiB"
AT_MOST = {"mcp-proxy (Python)": 10, "supergateway": 8, "mcp-proxy (TypeScript)": 8}
"""The bridge's part of their processor time per call is at most 1 by that much."""
OF_THE_FASTEST = 4
START_WITHIN_S, LOOK_EVERY_S = 60.0, 0.05
BRIDGE, LIMIT = "mcpbridge", "bare_asgi"
WRONG_ANSWERS = 1
COULD_NOT_MEASURE = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What is the same of a load on all servers."""

    connections: int
    size: int
    """Bytes of text."""
    notes: int = 0
    """Notifications of progress a call."""

    def __str__(self) -> str:
        notes = f", {self.notes} notifications a call" if self.notes else ""
        return f"{self.connections} connections, {self.size} B{notes}"

    @property
    def usual(self) -> bool:
        """Whether it is what the goals are about: small messages, one answer each."""
        return self.size == SMALL and not self.notes


LOADS = (Shape(16, SMALL), Shape(64, SMALL), Shape(16, LARGE), Shape(4, SMALL, NOTES))


@dataclass(frozen=True, slots=True)
class Peer:
    """A bridge of another project: how it is started on a port, and what it is."""

    name: str
    version: str
    argv: list[str]


def peers(port: int, child: Sequence[str], folder: Path) -> list[Peer]:
    """The peers over a child; FastMCP's configuration is written into a folder."""
    node = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    scripts, at = FOLDER / "node_modules" / ".bin", ["--port", str(port)]
    served = folder / "fastmcp.json"
    server = {"command": child[0], "args": list(child[1:])}
    served.write_text(json.dumps({"mcpServers": {"echo": server}}))
    streamable = ["--outputTransport", "streamableHttp", "--stateful"]
    return [
        Peer(
            "supergateway",
            node["supergateway"],
            ["node", str(scripts / "supergateway"), "--stdio", " ".join(child), *at, *streamable],
        ),
        Peer(
            "mcp-proxy (TypeScript)",
            node["mcp-proxy"],
            ["node", str(scripts / "mcp-proxy"), "--host", "127.0.0.1", *at, "--", *child],
        ),
        Peer(
            "mcp-proxy (Python)",
            _pinned("mcp-proxy"),
            [str(ROOT / ".venv-peer-mcp-proxy" / "bin" / "mcp-proxy"), *at, "--", *child],
        ),
        Peer(
            "FastMCP",
            _pinned("fastmcp"),
            [
                *(str(ROOT / ".venv-peer-fastmcp" / "bin" / "fastmcp"), "run", str(served)),
                *("--transport", "http", "--host", "127.0.0.1", *at, "--no-banner"),
            ],
        ),
    ]


def _pinned(name: str) -> str:
    text = (FOLDER / f"{name}.txt").read_text()
    found = re.search(rf"^{name}==(\S+)$", text, re.MULTILINE)
    return found[1] if found else "unknown"


@contextmanager
def running(peer: Peer, port: int, mark: str) -> Iterator[target.Target]:
    """A peer, from when it takes connections on; its output is not read.

    Raises:
        TargetFailed: It takes none in time.
        FileNotFoundError: It is not installed.
    """
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(peer.argv, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        bound = time.monotonic() + START_WITHIN_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > bound:
                raise target.TargetFailed(f"{peer.name} takes no connections on port {port}")
            time.sleep(LOOK_EVERY_S)
        yield target.Target(peer.name, process.pid, "127.0.0.1", port, "/mcp", mark, bytes)
    finally:
        target.stop(process)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def contenders(bench: Bench, stack: ExitStack, folder: Path, shape: Shape) -> list[Contender]:
    """The bridge, the limit and all peers, started, with one session each, under one load."""
    child, mark = bench.programs.child, bench.programs.mark
    servers = [stack.enter_context(bench.bridge())]
    for number in range(len(peers(0, child, folder))):
        port = _free_port()
        servers.append(stack.enter_context(running(peers(port, child, folder)[number], port, mark)))
    found = []
    for server in servers:
        (headers,) = stack.enter_context(target.sessions(server))
        name = BRIDGE if server.name == "bridge" else server.name
        work = bench.work(server, shape.connections, shape.size, headers=headers, notes=shape.notes)
        found.append(Contender(name, server, work))
    if not shape.notes:
        bare = stack.enter_context(bench.limit(LIMIT, shape.size))
        work = bench.work(bare, shape.connections, shape.size, same_id=True)
        found.append(Contender(LIMIT, bare, work))
    return found


def take_turns(bench: Bench, all_of_them: Sequence[Contender]) -> Iterator[str]:
    """All rounds; yields what gave way. A server that gives way has no further rounds."""
    gone: set[str] = set()
    for number in range(bench.rounds):
        first = number % len(all_of_them)
        for each in [*all_of_them[first:], *all_of_them[:first]]:
            if each.name in gone:
                continue
            try:
                done = one_round(each.target, each.work, bench.programs.generator)
            except (load.GeneratorFailed, OSError) as error:
                gone.add(each.name)
                yield f"{each.name}: {error}"
            else:
                each.rounds.append(done)


def told(each: Contender, mine: Contender, shape: Shape) -> dict[str, object]:
    """All figures of one server under one load."""
    tallies = [done.tally for done in each.rounds]
    counts = {name: sum(getattr(tally, name) for tally in tallies) for name in load.OUTCOMES}
    return {
        "figure": "peer",
        "target": each.name,
        "connections": shape.connections,
        "bytes": shape.size,
        "notes": shape.notes,
        "cpu_us_median": round(median(each.cpu_us), 1),
        "cpu_us_least": round(min(each.cpu_us), 1),
        "times_the_bridge": round(median(each.cpu_us) / median(mine.cpu_us), 2),
        "calls_per_s": round(median(tally.calls_per_s for tally in tallies), 1),
        "rss_mib": round(median(done.memory.rss_kib for done in each.rounds) / 1024, 1),
        "generator_busy": round(each.busiest, 2),
        "calls": sum(tally.calls for tally in tallies),
        "reopened": sum(tally.reopened for tally in tallies),
        "wrong": {name: number for name, number in counts.items() if name != "right" and number},
    }


def goals(lines: Sequence[dict[str, object]], shape: Shape) -> Iterator[figures.Figure]:
    """The bridge's processor time per call as a part of each peer's, under one load."""
    row = str(shape)
    parts = {
        str(line["target"]): 1 / float(str(line["times_the_bridge"]))
        for line in lines
        if line["target"] not in (BRIDGE, LIMIT)
    }
    for name, part in parts.items():
        bound = 1 / AT_MOST[name] if shape.usual and name in AT_MOST else None
        yield figures.Figure(row, f"bridge / {name}", "1", [part], bound)
    fastest = max(parts, key=lambda name: parts[name])
    bound = 1 / OF_THE_FASTEST if shape.usual else None
    yield figures.Figure(row, "bridge / the fastest", "1", [parts[fastest]], bound, note=fastest)


def table(lines: Sequence[dict[str, object]], versions: dict[str, str]) -> str:
    """The figures of one load, a server a line."""
    shown: list[tuple[str, ...]] = [("", "version", *FIELDS, "wrong")]
    for line in lines:
        wrong = line["wrong"]
        wrongs = ", ".join(f"{n} {k}" for k, n in wrong.items()) if isinstance(wrong, dict) else ""
        keys = ("cpu_us_median", "cpu_us_least", "times_the_bridge", "calls_per_s", "rss_mib")
        name = str(line["target"])
        cells = (str(line[key]) for key in keys)
        shown.append((name, versions.get(name, ""), *cells, wrongs or "0"))
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def by_the_clock(bench: Bench, folder: Path) -> Iterator[figures.Figure]:
    """How long calls of SDK clients take: to a FastMCP server directly, and through each bridge."""
    python = str(ROOT / ".venv-peer-fastmcp" / "bin" / "python")
    child = [python, str(FOLDER / "fastmcp_server.py")]
    version = _pinned("fastmcp")
    with ExitStack() as stack:
        servers = [stack.enter_context(target.running(BRIDGE, target.bridge_command(child)))]
        for number in range(len(peers(0, child, folder)) + 1):
            port = _free_port()
            itself = Peer("the server's own HTTP", version, [*child, str(port)])
            peer = [itself, *peers(port, child, folder)][number]
            servers.append(stack.enter_context(running(peer, port, target.NO_MARK)))
        sdk = ROOT / ".venv-peer-mcp-proxy" / "bin" / "python"
        yield from seen_by_users(servers, sdk, bench.rounds)


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, read; ends the process with status 2 where it is wrong."""
    language = "c" if compiler() else "python"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (2)")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="rounds on each (3)")
    parser.add_argument("--child", choices=("c", "python"), default=language)
    parser.add_argument("--generator", choices=("c", "python"), default=language)
    given = parser.parse_args(argv)
    if given.rounds < LEAST_ROUNDS or given.seconds <= 0:
        parser.error(f"--rounds is at least {LEAST_ROUNDS}, --seconds more than 0")
    return given


def one_load(bench: Bench, folder: Path, shape: Shape) -> bool:
    """Measure one load and print it; whether the bridge answered all of it right."""
    with ExitStack() as stack:
        all_of_them = contenders(bench, stack, folder, shape)
        for words in take_turns(bench, all_of_them):
            print(json.dumps({"figure": "gave way", "what": words}), flush=True)
    mine = all_of_them[0]
    lines = [told(each, mine, shape) for each in all_of_them if each.rounds]
    for line in lines:
        print(json.dumps(line), flush=True)
    reached = list(goals(lines, shape))
    for figure in reached:
        print(figure.line(), flush=True)
    versions = {each.name: each.version for each in peers(0, bench.programs.child, folder)}
    print(f"\n{shape}", file=sys.stderr)
    print(table(lines, versions), file=sys.stderr)
    print(figures.table(reached), file=sys.stderr)
    return mine.wrong == 0


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    given = options(argv)
    print(json.dumps(figures.machine(vars(given))), flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="mcpbridge-peers-") as scratch:
            folder = Path(scratch)
            bench = Bench(
                prepare(given.child, given.generator, folder), given.seconds, given.rounds
            )
            right = [one_load(bench, folder, each) for each in LOADS]
            told = []
            for figure in by_the_clock(bench, folder):
                told.append(figure)
                print(figure.line(), flush=True)
            print(f"\n{figures.table(told)}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"peers: {error}\n{error.stderr}", file=sys.stderr)
        return COULD_NOT_MEASURE
    except (OSError, target.TargetFailed) as error:
        print(f"peers: {error}", file=sys.stderr)
        return COULD_NOT_MEASURE
    return 0 if all(right) else WRONG_ANSWERS


if __name__ == "__main__":
    sys.exit(main())
