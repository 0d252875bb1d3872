"""How soon the servers of a folder answer after `mcpbridge dev` was typed in it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import target
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.lives import DEMO

ROOT = Path(__file__).resolve().parents[1]
SERVERS = 5
MS_BEYOND_SERVERS = 1000
TERMS = (20, 22)
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "add", "arguments": dict(zip("ab", TERMS, strict=True))},
}
AGAIN_AFTER_S = 0.01


def folder(bench: Bench) -> Iterator[Figure]:
    """From the command to the first right answer of the last server, and the servers alone."""
    row = f"mcpbridge dev in a folder with {SERVERS} servers"
    through, alone = [], []
    with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as place:
        names = [f"s{number}" for number in range(SERVERS)]
        entry = {"command": sys.executable, "args": [*DEMO]}
        text = json.dumps({"mcpServers": dict.fromkeys(names, entry)})
        Path(place, ".mcp.json").write_text(text, "utf-8")
        for _ in range(bench.rounds):
            through.append(_through_bridge_ms(place, names))
            alone.append(_alone_ms(len(names)))
    beyond = [time_ms - own_ms for time_ms, own_ms in zip(through, alone, strict=True)]
    yield Figure(row, "to the first answer of the last one", "ms", through)
    name = "of that, beyond the start of the servers alone"
    yield Figure(row, name, "ms", beyond, MS_BEYOND_SERVERS)
    yield Figure(row, "as many servers side by side, without a bridge", "ms", alone)


def _through_bridge_ms(place: str, names: list[str]) -> float:
    """Milliseconds until each server has answered a call over HTTP."""
    words = ("-m", "mcpbridge", "dev", "--port", "0", "--log-format", "json")
    # A checkout that is not installed is on the path of programs that begin in it alone.
    argv = ["env", "-C", place, f"PYTHONPATH={ROOT}", sys.executable, *words]
    began = time.monotonic()
    with target.running("mcpbridge dev", argv, mark=DEMO[-1]) as bridge:
        servers = [replace(bridge, name=name, path=f"{bridge.path}/{name}/mcp") for name in names]
        with ThreadPoolExecutor(len(servers)) as clients:
            answered = [*clients.map(_answered_at, servers)]
    return (max(answered) - began) * 1000


def _answered_at(server: target.Target) -> float:
    """When a server has given its first right answer; raise TargetFailed if it gives none."""
    deadline = time.monotonic() + target.START_WITHIN_S
    while True:
        try:
            _call(server)
            return time.monotonic()
        except (OSError, http.client.HTTPException, target.TargetFailed) as error:
            if time.monotonic() > deadline:
                raise target.TargetFailed(f"{server.name}: {error}") from error
        time.sleep(AGAIN_AFTER_S)  # nothing tells a client that a server is ready


def _call(server: target.Target) -> None:
    """Open a session and call a tool; raise TargetFailed unless the answer is right."""
    client = target.Client(server)
    try:
        headers = client.open_session()
    finally:
        client.close()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=1.0)
    try:
        sent = {**target.FIXED, **headers}
        connection.request("POST", server.path, json.dumps(CALL), sent)
        check_answer(server.name, connection.getresponse().read())
    finally:
        connection.close()


def _alone_ms(count: int) -> float:
    """Milliseconds until as many servers have answered the same call on their pipes."""
    asked = b"".join(
        json.dumps(each).encode() + b"\n" for each in (target.HELLO, target.INITIALIZED, CALL)
    )
    pipe = subprocess.PIPE
    began = time.monotonic()
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *DEMO], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
                )
            )
            for _ in range(count)
        ]
        for server in started:
            assert server.stdin is not None
            server.stdin.write(asked)
            server.stdin.flush()
        for server in started:
            assert server.stdout is not None
            server.stdout.readline()
            check_answer(DEMO[-1], server.stdout.readline())
        took_ms = (time.monotonic() - began) * 1000
        for server in started:
            assert server.stdin is not None
            server.stdin.close()
    return took_ms


def check_answer(name: str, text: bytes) -> None:
    """Raise TargetFailed unless this is the right answer to the call."""
    try:
        told = json.loads(text)
        right = told["id"] == CALL["id"] and _sum_in(told["result"]) == sum(TERMS)
    except (ValueError, KeyError, TypeError, IndexError):
        right = False
    if not right:
        raise target.TargetFailed(f"{name}: {text[:200]!r}")


def _sum_in(result: dict[str, list[dict[str, str]]]) -> float:
    return float(result["content"][0]["text"])
