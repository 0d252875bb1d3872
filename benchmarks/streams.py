"""What event streams cost: those of calls, by the notification, and those that only stay open."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from os import kill

from benchmarks import measure, obstacles, target
from benchmarks.bench import Bench, rate
from benchmarks.figures import Figure
from benchmarks.rounds import Contender

NOTES = 200
CALLERS, FEW_CALLERS = 16, 4
US_A_NOTE, US_A_STREAM = 10, 50
STREAMS = 800
"""Fewer than `--max-sessions` admits by default."""
KIB_A_STREAM, TASKS_A_STREAM = 16, 2
WITHIN_S = 30.0
LOOK_EVERY_S = 0.01


def progress(bench: Bench) -> Iterator[Figure]:
    """Calls that answer in JSON, with a stream of one notification, and of many."""
    with bench.bridge() as bridge, target.sessions(bridge) as (headers,):

        def contender(name: str, connections: int, notes: int) -> Contender:
            work = bench.work(bridge, connections, headers=headers, notes=notes)
            return Contender(name, bridge, work)

        plain = contender("JSON", CALLERS, 0)
        one = contender("one", CALLERS, 1)
        few = contender("few", FEW_CALLERS, 1)
        many = contender("many", FEW_CALLERS, NOTES)
        bench.run(plain, one, few, many)
    row = "answer as an event stream"
    yield rate(row, plain, "JSON answer")
    yield rate(row, one, "stream of one notification and the answer")
    more = one.beyond(plain)
    yield Figure(row, "stream - JSON", "us", more, US_A_STREAM, obstacle=obstacles.STREAM)
    row = f"progress, {NOTES} notifications a call"
    lost = sum(done.tally.notes for done in many.rounds)
    yield Figure(row, "calls with lost or misplaced ones", "calls", [lost], 0)
    each = many.beyond(few, NOTES - 1)
    yield Figure(row, "each", "us", each, US_A_NOTE, obstacle=obstacles.NOTE)


def idle(bench: Bench) -> Iterator[Figure]:
    """Streams that are open and say nothing: memory and tasks, their connections included."""
    row = f"idle stream, one of {STREAMS}"
    with ExitStack() as stack:
        bridge = stack.enter_context(bench.bridge())
        opened = stack.enter_context(target.sessions(bridge, STREAMS))
        tasks, kib = _tasks(bridge, 1), measure.read_memory(bridge.pid).rss_kib
        for headers in opened:
            stack.enter_context(open_stream(bridge, headers))
        held_tasks, held_kib = _tasks(bridge, 2), measure.read_memory(bridge.pid).rss_kib
    yield Figure(row, "RSS", "KiB", [(held_kib - kib) / STREAMS], KIB_A_STREAM)
    yield Figure(row, "tasks", "1", [(held_tasks - tasks) / STREAMS], TASKS_A_STREAM)


def open_stream(bridge: target.Target, headers: Mapping[str, str]) -> socket.socket:
    """The standalone stream of a session, open; raises TargetFailed if it is refused."""
    fields = {"Host": f"{bridge.host}:{bridge.port}", "Accept": "text/event-stream", **headers}
    lines = [f"GET {bridge.path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    connection = socket.create_connection((bridge.host, bridge.port), WITHIN_S)
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200 "):
        connection.close()
        raise target.TargetFailed(f"{bridge.name}, GET: {answer[:200]!r}")
    return connection


def _tasks(bridge: target.Target, times: int) -> int:
    """How many tasks there are, as the bridge tells it in its log for the so-manieth time."""
    kill(bridge.pid, signal.SIGUSR1)
    bound = time.monotonic() + WITHIN_S
    while time.monotonic() < bound:
        told = [line for line in bridge.words().split(b"\n")[:-1] if b'"serve.state"' in line]
        if len(told) >= times:
            return sum(json.loads(told[-1])["tasks"].values())
        time.sleep(LOOK_EVERY_S)
    raise target.TargetFailed(f"{bridge.name} told no state on SIGUSR1")
