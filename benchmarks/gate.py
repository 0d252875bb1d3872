"""The gate on what a call costs: instructions counted under valgrind, compared with a record.

    .venv/bin/python benchmarks/gate.py            compare; status 1 beyond the tolerance
    .venv/bin/python benchmarks/gate.py --record   take what is counted as the record

Times on a shared machine differ by a third from run to run, counts by a hundredth. A bridge runs
under cachegrind (callgrind counts the same in thrice the time) and is given calls of each kind, one
after the other on one connection, and another one more calls of one kind; the difference, by the
call, holds no start and no end. The other processes run as they are. The seed of hashes is fixed,
for how often a dictionary has to look twice hangs on it.

Timers run by the clock, and calls under an instrument take long, the longer the busier the machine
is. So the bridge is that of `patient.py`, which has fewer of them and waits for a late body; and
one more bridge is left idle for a while, and what it counts in that time is taken from the others
by the second. What is beyond the tolerance all the same is counted again, at most twice, and the
least count is taken.

`instructions.json` holds the record, by minor version of Python: interpreters differ by more than
the tolerance. A version without a record fails; it says how to make one.

Exit status: 0; 1 more (or less) than the record admits, or no record; 2 nothing could be counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import load, target
from benchmarks.calls import ENVELOPE, MODERN_HEAD, SMALL
from benchmarks.compiled import Programs, prepare

RECORD = Path(__file__).with_name("instructions.json")
LESS_AT_MOST, MORE_AT_MOST = 0.10, 0.03
MOST_COUNTS = 3
"""How much less and more than the record is admitted. A call that is much cheaper is recorded, lest
it become as dear as before."""
FIRST, MORE = 200, 800
"""Calls of every run, and calls that are counted: enough to hide a single garbage collection."""
IDLE_S = 40.0
"""Seconds without a call: long, since the counts of two starts differ by up to a million."""
WITHIN_S = 300.0
BEYOND = 1
COULD_NOT_COUNT = 2
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


SPLIT = "split"
KINDS: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "legacy": ({}, {}),
    "ordinary": ({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}, {}),
    "sse": ({"Accept": "text/event-stream"}, {}),
    "modern": (MODERN_HEAD, ENVELOPE),
    SPLIT: ({}, {}),
}
"""Headers and `_meta` of a call, by kind. `legacy` and `modern` take the fast path; `sse` begins on
it and is answered with an event by ASGI; no head with a trace is remembered, so `ordinary` takes
the parser and ASGI. `split` is `legacy` with the body in a second segment, as httpx sends it."""


class Life(NamedTuple):
    """What a bridge counted from its start to its end."""

    instructions: int
    seconds: float
    """How long it was asked, or idle."""


def count(programs: Programs, folder: Path, calls: Mapping[str, int], idle_s: float = 0.0) -> Life:
    """The whole life of a bridge, with these calls of each kind, then `idle_s` seconds without any.

    Raises:
        TargetFailed: It did not start, or an answer was wrong.
    """
    out = folder / "-".join(map(str, (*calls.values(), idle_s)))
    pid, seconds = _live(instrument(out), programs, calls, idle_s)
    return Life(total(out, pid), seconds)


def instrument(out: Path) -> tuple[str, ...]:
    """Return the words before a command that let its instructions be counted; see `total`."""
    return ("valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={out}.%p")


def total(out: Path, pid: int) -> int:
    """Return what a process under `instrument` executed, once it has ended; raise TargetFailed."""
    told = Path(f"{out}.{pid}").read_text()
    found = re.search(r"^(?:summary|totals): (\d+)", told, re.MULTILINE)
    if found is None:
        raise target.TargetFailed("cachegrind told no total")
    return int(found[1])


def _live(
    instrument: Sequence[str], programs: Programs, calls: Mapping[str, int], idle_s: float
) -> tuple[int, float]:
    """Let a bridge be asked and idle; return its pid, and how long that took."""
    argv = [*instrument, *target.program_command("patient", "--port", "0", "--", *programs.child)]
    with target.running("bridge", argv, mark=programs.mark) as bridge:
        with target.sessions(bridge) as (session,):
            began = time.monotonic()
            for kind, (headers, meta) in KINDS.items():
                mine = headers if meta else {**session, **headers}
                make = _make_split_calls if kind == SPLIT else _make_calls
                make(bridge, calls[kind], mine, meta)
            time.sleep(idle_s)
            seconds = time.monotonic() - began
        return bridge.pid, seconds


def _make_calls(
    bridge: target.Target, calls: int, headers: Mapping[str, str], meta: Mapping[str, object]
) -> None:
    if not calls:
        return
    work = load.Load(
        host=bridge.host,
        port=bridge.port,
        path=bridge.path,
        connections=1,
        payload_bytes=SMALL,
        seconds=WITHIN_S,
        headers=dict(headers),
        meta=dict(meta),
        max_calls=calls,
        patience_s=WITHIN_S,
    )
    with load.warm_generator(work, None) as measured:
        tally = measured()
    if tally.right != calls:
        raise target.TargetFailed(f"{tally.right} right answers to {calls} calls: {tally}")


def _make_split_calls(
    bridge: target.Target, calls: int, headers: Mapping[str, str], meta: Mapping[str, object]
) -> None:
    with socket.create_connection((bridge.host, bridge.port), WITHIN_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = connection.makefile("rb")
        for number in range(load.FIRST_ID, load.FIRST_ID + calls):
            body = load.call(number, SMALL, meta=dict(meta))
            lines = [f"POST {bridge.path} HTTP/1.1", f"Host: {bridge.host}:{bridge.port}"]
            lines += [f"{name}: {value}" for name, value in {**target.FIXED, **headers}.items()]
            connection.sendall(
                "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
            )
            _await_reader(connection)
            connection.sendall(body)
            check_answer(answers, number)


def _await_reader(connection: socket.socket) -> None:
    """Wait until the other end, on this machine, has read all that was sent."""
    ours, theirs = (_in_proc(name) for name in (connection.getsockname(), connection.getpeername()))
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        for line in Path("/proc/net/tcp").read_text().splitlines():
            local, remote, _, queues = line.split()[1:5]
            if (local, remote) == (theirs, ours) and queues.endswith(":00000000"):
                return
        time.sleep(0.001)  # leaves the processor to the bridge, which is what is waited for
    raise target.TargetFailed("a head was not read")


def _in_proc(name: tuple[str, int]) -> str:
    address = int.from_bytes(socket.inet_aton(name[0]), sys.byteorder)
    return f"{address:08X}:{name[1]:04X}"


def check_answer(answers: BinaryIO, number: int) -> None:
    """Read the next response.

    Raises:
        TargetFailed: It is not the right answer to the call with this id.
    """
    status, size = answers.readline(), 0
    while line := answers.readline().lower().strip():
        if line.startswith(b"content-length:"):
            size = int(line.partition(b":")[2])
    body = answers.read(size)
    try:
        answer = json.loads(body)
        text = answer["result"]["content"][0]["text"]
    except (ValueError, LookupError, TypeError):
        raise target.TargetFailed(f"no right answer: {status!r} {body!r}") from None
    right = (answer["id"], text) == (number, load.payload(number, SMALL))
    if not right or status.split()[1:2] != [b"200"]:
        raise target.TargetFailed(f"a wrong answer to call {number}: {status!r} {body!r}")


def per_call(folder: Path) -> dict[str, int]:
    """Instructions of a call, by kind."""
    # In Python, so that no compiler is needed; they are not what is counted.
    programs = prepare("python", "python", folder)
    # Else those that start first would compile the modules, and count that.
    _live((), programs, dict.fromkeys(KINDS, 1), 0.0)
    few = dict.fromkeys(KINDS, FIRST)
    runs = [(few, 0.0), (few, IDLE_S), *(({**few, kind: FIRST + MORE}, 0.0) for kind in KINDS)]
    with ThreadPoolExecutor(max_workers=min(len(runs), os.cpu_count() or 1)) as side_by_side:
        base, idle, *lives = side_by_side.map(lambda run: count(programs, folder, *run), runs)
    a_second = (idle.instructions - base.instructions) / (idle.seconds - base.seconds)
    return {kind: _between(base, life, a_second) for kind, life in zip(KINDS, lives, strict=True)}


def _between(base: Life, life: Life, a_second: float) -> int:
    timers = a_second * (life.seconds - base.seconds)
    return round((life.instructions - base.instructions - timers) / MORE)


def least(recorded: Mapping[str, int] | None) -> dict[str, int]:
    """Instructions of a call, by kind: the least of several counts if the first is beyond."""
    found: dict[str, int] = {}
    for _ in range(MOST_COUNTS):
        with tempfile.TemporaryDirectory(prefix="mcpbridge-gate-") as folder:
            counted = per_call(Path(folder))
        found = {kind: min(found.get(kind, number), number) for kind, number in counted.items()}
        if recorded is None or set(recorded) != set(found) or not judge(found, recorded):
            break
    return found


def judge(counted: Mapping[str, int], recorded: Mapping[str, int] | None) -> list[str]:
    """What is wrong with what was counted; empty if nothing is."""
    renew = "`make bench-gate GATE_ARGS=--record` takes what is counted as the record"
    if recorded is None or set(recorded) != set(counted):
        return [f"no record for Python {PYTHON} in {RECORD.name}; {renew}"]
    wrong = []
    for kind, instructions in counted.items():
        share = instructions / recorded[kind] - 1
        if not -LESS_AT_MOST <= share <= MORE_AT_MOST:
            wrong.append(
                f"a call of kind {kind} takes {instructions} instructions,"
                f" {share:+.1%} of the recorded {recorded[kind]}"
                f" (allowed: -{LESS_AT_MOST:.0%} to +{MORE_AT_MOST:.0%}); if that is meant, {renew}"
            )
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Count, print one JSON line, compare or record, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="take it as the record")
    given = parser.parse_args(argv)
    if shutil.which("valgrind") is None:
        print("gate: needs valgrind (Debian, Ubuntu: apt-get install valgrind)", file=sys.stderr)
        return COULD_NOT_COUNT
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        recorded = record.get(PYTHON)
        with tempfile.TemporaryDirectory(prefix="mcpbridge-compiled-") as compiled:
            # As who installed it has it: pip compiles the modules.
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ["PYTHONPYCACHEPREFIX"] = compiled
            counted = least(None if given.record else recorded)
    except (OSError, load.GeneratorFailed, target.TargetFailed) as error:
        print(f"gate: {error}", file=sys.stderr)
        return COULD_NOT_COUNT
    line = {"figure": "instructions_per_call", "python": PYTHON, **counted, "recorded": recorded}
    print(json.dumps(line), flush=True)
    if given.record:
        record[PYTHON] = counted
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        return 0
    wrong = judge(counted, recorded)
    for sentence in wrong:
        print(f"gate: {sentence}", file=sys.stderr)
    return BEYOND if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
