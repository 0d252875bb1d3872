"""`make replicas`: any of three replicas behind an ordinary balancer serves any session.

Three bridges on addresses of the loopback, HAProxy in front of them with round robin for each
request, and clients of the official SDKs of both languages, half of them with elicitation, with a
text in every call that no other call has. One row for each acceptance test, with its figures and
what each has to reach. DURATION=20m is the full size; without it all is short. ROWS="1 8" runs only
these.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import traceback
from time import monotonic

import httpx
import uvloop

from tests.suites.replicas import costs, cuts, hostile, load, spread, stored
from tests.suites.replicas.rows import SHORT, Row, Size, equal, full, show

ROWS = (
    Row("0", "control: replicas that do not know each other are noticed", load.control),
    Row("1", "calls without faults", load.row_1),
    Row("2", "rolling restarts under load", stored.row_2),
    Row("7", "the store stops, ends, begins empty, fails over", stored.row_7),
    Row("8", "one client's requests at three replicas", spread.row_8),
    Row("9", "the owner is killed in a streamed call", spread.row_9),
    Row("11", "HTTP+SSE at three replicas", spread.row_11),
    Row("12", "a parked call of 2026-07-28 at another replica", spread.row_12),
    Row("13", "wrong session ids", hostile.row_13),
    Row("14", "the port for other replicas", hostile.row_14),
    Row("15", "keys are rotated under load", load.row_15),
    Row("3, 10", "a replica is killed every 5 s", load.row_3, only_full=True),
    Row("4", "the same, started again at its address", load.row_4, only_full=True),
    Row("5", "sessions with a process each, asked at all replicas", stored.row_5, only_full=True),
    Row("6", "the network is cut, the cable pulled, and both healed", cuts.row_6, only_full=True),
    Row("16", "replicas are added and taken away, and one is full", load.row_16, only_full=True),
    Row("17", "instructions of a forwarded call", costs.row_17, only_full=True),
    Row("18", "latency of the hop", costs.row_18, only_full=True),
    Row("19", "streams that only wait", costs.row_19, only_full=True),
)
SECONDS = {"s": 1, "m": 60, "h": 3600}


def size_of(text: str) -> Size:
    """Return the sizes for a DURATION, which may be empty.

    Raises:
        ValueError: It is not a duration.
    """
    if not text:
        return SHORT
    found = re.fullmatch(r"(\d+)([smh])", text)
    if found is None:
        raise ValueError(f"invalid DURATION {text!r} (expected a number and s, m or h: 20m)")
    return full(int(found[1]) * SECONDS[found[2]])


def _check_rows(wanted: set[str]) -> None:
    """Refuse numbers of rows that do not exist: nothing would run, and nothing be missed.

    Raises:
        ValueError: There are such numbers.
    """
    known = {number for row in ROWS for number in row.number.split(", ")}
    if wanted - known:
        raise ValueError(f"no row {', '.join(sorted(wanted - known))} (rows: {', '.join(known)})")


async def _reached(row: Row, size: Size) -> bool:
    """Run a row and print it; a row that breaks off is missed, and the others still run."""
    began = monotonic()
    try:
        figures = await row.run(size)
    except (AssertionError, OSError, EOFError, httpx.HTTPError, ExceptionGroup):
        traceback.print_exc()
        figures = [equal("broken off", True, False)]
    return show(row, figures, monotonic() - began)


async def main() -> int:
    """Run the rows; the exit status."""
    task = asyncio.current_task()
    assert task is not None
    # Replicas, balancer and clients end with the suite, however it ends.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    wanted = set(os.environ.get("ROWS", "").split())
    try:
        size = size_of(os.environ.get("DURATION", ""))
        _check_rows(wanted)
    except ValueError as error:
        print(f"replicas: {error}", flush=True)
        return 2
    began = monotonic()
    missed: list[str] = []
    for row in ROWS:
        if (wanted and wanted.isdisjoint(row.number.split(", "))) or (
            row.only_full and not size.full
        ):
            continue
        if not await _reached(row, size):
            missed.append(row.number)
    # Not judged: a slower machine takes longer.
    print("replicas:", f"{monotonic() - began:.0f} s in all", flush=True)
    print("replicas:", f"MISSED {', '.join(missed)}" if missed else "all rows reached", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
