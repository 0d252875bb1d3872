"""What a person waits for: calls by the official SDK, to a server directly and through each bridge.

The server is one made with FastMCP. Directly it serves HTTP itself; each bridge runs it on stdio.
Clients of the official Python SDK make their calls side by side, each one after the other, so that
the time of a call is the client's own, the bridge's and the server's. The order rotates from round
to round.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

from benchmarks import target
from benchmarks.figures import Figure

FOLDER = Path(__file__).resolve().parent / "peers"
CLIENTS = 16
CALLS = 25
WITHIN_S = 300.0
ROW = f"{CLIENTS} clients of the Python SDK, FastMCP server"


def seen_by_users(servers: Sequence[target.Target], python: Path, rounds: int) -> Iterator[Figure]:
    """Measure how long calls take on each of some servers that run side by side.

    Args:
        servers: The servers.
        python: The interpreter of the environment that holds the SDK.
        rounds: Rounds on each.

    Raises:
        TargetFailed: An answer was wrong, or a client gave up.
    """
    medians_ms: dict[str, list[float]] = {each.name: [] for each in servers}
    slowest_ms: dict[str, list[float]] = {each.name: [] for each in servers}
    for number in range(rounds):
        first = number % len(servers)
        for server in [*servers[first:], *servers[:first]]:
            took_ms = _one_round(server, python)
            medians_ms[server.name].append(median(took_ms))
            slowest_ms[server.name].append(quantiles(took_ms, n=100)[98])
    for name, found in medians_ms.items():
        yield Figure(ROW, f"{name}, median", "ms", found)
        yield Figure(ROW, f"{name}, 99 %", "ms", slowest_ms[name])


def _one_round(server: target.Target, python: Path) -> list[float]:
    url = f"http://{server.host}:{server.port}{server.path}"
    argv = [str(python), str(FOLDER / "sdk_client.py"), url, str(CLIENTS), str(CALLS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=WITHIN_S)
    if done.returncode:
        raise target.TargetFailed(f"a client of {server.name}: {done.stderr.strip()[-2000:]}")
    told = json.loads(done.stdout)
    if told["wrong"]:
        raise target.TargetFailed(f"{server.name}: {told['wrong']} answers with a wrong text")
    return list(told["took_ms"])
