"""`make chaos`: exactly one answer or error for every call, whatever becomes of the children.

50 sessions with 4 calls each at a time, all of the same few ids; half of them share one child, the
others offer sampling and so have one each. Every 200 ms a child is killed, stopped for a while (and
then continued or killed), or has its stdout closed. `tests.suites.history` judges what came of it.

CALLS (100000) is the size; SEED repeats the choice of victims, though not the scheduling of the
machine. The calls are made in rounds, each on a fresh bridge: the back-off of one that runs on
would after half a minute leave nothing of the shared child to kill.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from tests.suites.figures import Figures, percentile
from tests.suites.history import Answer, Call, How, Injection, Judgement
from tests.suites.wire import Connection, echo_call, open_session, read_head
from tests.support.bridge_process import RunningBridge, bridge, messages

SESSIONS = 50
IDS = ("0", '"0"', "1", '"1"')
"""As JSON; each session has one call in flight under each."""
ROUND_CALLS = 20_000
INJECT_EVERY_S = 0.2
SHARED_PART = 0.15
"""How often the shared child is chosen: it serves half of all sessions, and is slow to return."""
STOPPED_S = (0.05, 1.6)
"""A child stands still for that long; over the second of --json-window its answers are streams."""
DEADLINE_S = 90.0
"""For one call: the longest back-off twice, and the time of a start."""
ERROR_WITHIN_S: dict[How, float] = {"kill": 0.1, "close": 0.15}
"""For the median as it is, and for 99 of 100 beside what the machine was late by in the same run:
where others use the processors too, that is theirs. Of a child that closed its stdout and lives,
the bridge waits 50 ms for an exit status first."""
BEAT_S = 0.01
"""How often to look how late a process of this machine gets its turn."""
SHOWN = 5
CHILD = Path(__file__).with_name("chaos_child.py")


class Round:
    """One bridge with its sessions, and the history they make."""

    def __init__(self, running: RunningBridge, calls: int, chance: random.Random) -> None:
        self.calls: list[Call] = []
        self.injections: list[Injection] = []
        self.misplaced: list[Any] = []
        """Answers that came on a stream where none belongs."""
        self._bridge = running
        self._chance = chance
        self.late_s: list[float] = []
        """By how much this process got its turn too late, again and again."""
        self._left = itertools.repeat(None, calls)
        self._nonces = itertools.count()
        self._stopped: set[int] = set()

    async def run(self) -> None:
        """Make all the calls while children are killed."""
        opened = []
        for number in range(SESSIONS):
            connection = Connection(self._bridge.url)
            alone = number % 2 == 1
            headers = await open_session(connection, capabilities={"sampling": {}} if alone else {})
            opened.append((f"own{number}" if alone else "shared", headers))
            connection.close()
        async with asyncio.TaskGroup() as around:
            disturbing = [around.create_task(self._disturb()), around.create_task(self._beat())]
            disturbing += [around.create_task(self._listen(headers)) for _, headers in opened]
            async with asyncio.TaskGroup() as callers:
                for owner, headers in opened:
                    for request_id in IDS:
                        callers.create_task(self._call_on(owner, headers, request_id))
            for task in disturbing:
                task.cancel()

    async def _call_on(self, owner: str, headers: Mapping[str, str], request_id: str) -> None:
        connection = Connection(self._bridge.url)
        for _ in self._left:
            nonce = f"n{next(self._nonces)}"
            body = echo_call(request_id, nonce)
            sent_at, hung = monotonic(), False
            answers: tuple[Answer, ...] = ()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    response = await connection.request("POST", headers, body)
                answers = tuple(map(answer_of, response.messages()))
            except TimeoutError:
                hung = True
            except (OSError, EOFError, ValueError):
                connection.close()  # no answer: the history says lost
            self.calls.append(Call(owner, request_id, nonce, sent_at, monotonic(), answers, hung))
        connection.close()

    async def _listen(self, headers: Mapping[str, str]) -> None:
        """Keep the session's standalone stream open: no answer may ever come on it."""
        connection = Connection(self._bridge.url)
        reader = await connection.send("GET", headers)
        heard = b""
        try:
            status, _ = await read_head(reader)
            assert status == 200, status
            while piece := await reader.read(1 << 16):
                heard += piece
            assert not heard, "a standalone stream ended while its session was open"
        finally:
            connection.close()
            # Each event is one chunk; the sizes between them are not lines of data.
            text = heard.decode()
            data = [line for line in text.splitlines() if line.startswith("data:")]
            if data:
                self.misplaced += [m for m in messages("\n".join(data)) if "method" not in m]

    async def _beat(self) -> None:
        while True:
            due = monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.late_s.append(monotonic() - due)

    async def _disturb(self) -> None:
        async with asyncio.TaskGroup() as standing:
            while True:
                await asyncio.sleep(INJECT_EVERY_S)
                pid = self._victim()
                if pid is None:
                    continue
                match self._chance.choice(("kill", "stop", "close")):
                    case "kill":
                        self._strike(pid, signal.SIGKILL)
                    case "close":
                        self._strike(pid, signal.SIGUSR1)
                    case _:
                        standing.create_task(self._stop_for_a_while(pid))

    async def _stop_for_a_while(self, pid: int) -> None:
        self._stopped.add(pid)
        ends_with = self._chance.choice((signal.SIGCONT, signal.SIGKILL))
        self._strike(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._chance.uniform(*STOPPED_S))
        finally:
            self._strike(pid, ends_with)
            self._stopped.discard(pid)

    def _strike(self, pid: int, number: signal.Signals) -> None:
        # The bridge may have reaped it a moment ago: only a child of the bridge is ever signalled.
        if not self._is_child(pid):
            return
        with suppress(ProcessLookupError):
            self.injections.append(Injection(monotonic(), pid, INJECTIONS.get(number, "stop")))
            os.kill(pid, number)

    def _victim(self) -> int | None:
        """A living child, the shared one with its own chance; one in its start is as good."""
        ended = {int(record["pid"]) for name in ENDS for record in self._bridge.events(name)}
        started = {int(record["pid"]) for record in self._bridge.events("child.started")}
        alive = sorted(started - ended - self._stopped)
        shared = {int(record["pid"]) for record in self._bridge.events("child.ready")} & set(alive)
        if shared and self._chance.random() < SHARED_PART:
            return max(shared)
        others = [pid for pid in alive if pid not in shared]
        return self._chance.choice(others) if others else None

    def _is_child(self, pid: int) -> bool:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return int(fields[1]) == self._bridge.pid


ENDS = ("child.stopped", "child.exited")
INJECTIONS: dict[int, How] = {signal.SIGKILL: "kill", signal.SIGUSR1: "close"}


def answer_of(message: Any) -> Answer:
    """A JSON-RPC response as the history has it."""
    request_id = json.dumps(message.get("id"))
    result = message.get("result")
    if result is not None:
        return Answer(request_id, result["content"][0]["text"], result["_meta"]["pid"])
    error = message.get("error", {"message": "neither a result nor an error"})
    own = error.get("data", {}).get("mcpbridge", {})
    reason = own.get("reason", error["message"])
    return Answer(request_id, reason=reason, executed=own.get("executed", ""))


def rounds(calls: int) -> Iterator[int]:
    """How many calls each round makes."""
    while calls > 0:
        yield min(calls, ROUND_CALLS)
        calls -= ROUND_CALLS


async def play(calls: int, chance: random.Random, folder: Path) -> tuple[Round, Judgement]:
    """One round and its judgement.

    Raises:
        AssertionError: The bridge did not end as it should, or logged an unhandled error.
    """
    call_log = folder / "ledger"
    call_log.write_bytes(b"")
    command = (sys.executable, "-I", "-S", str(CHILD), str(call_log))
    words = ("--give-up-after", "0", "--max-children", str(4 * SESSIONS))
    async with bridge(*words, "--", *command) as running:
        played = Round(running, calls, chance)
        await played.run()
    executed = Counter(call_log.read_text().split())
    return played, Judgement(played.calls, played.injections, executed)


async def main() -> int:
    """Play all rounds; the exit status."""
    calls = int(os.environ.get("CALLS") or 100_000)
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    figures = Figures("chaos")
    figures.show("seed", seed, calls=calls)
    chance = random.Random(seed)
    made: Counter[str] = Counter()
    found: Counter[str] = Counter()
    delays: dict[How, list[float]] = {how: [] for how in ERROR_WITHIN_S}
    late_s: list[float] = []
    began = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for size in rounds(calls):
            played, judgement = await play(size, chance, Path(folder))
            made.update(outcome(call) for call in played.calls)
            late_s += played.late_s
            made["injections"] += len(played.injections)
            made["deaths"] += sum(injection.fatal for injection in played.injections)
            found.update(judgement.counts)
            found["double"] += len(played.misplaced)
            for how, found_s in judgement.error_delays_s.items():
                delays[how] += found_s
            for finding in judgement.findings[:SHOWN]:
                figures.show(finding.kind, finding.text)
    figures.show("seconds", round(monotonic() - began, 1))
    for name in ("ok", "errors", "injections", "deaths"):
        figures.show(name, made[name])
    figures.equal("calls", made["ok"] + made["errors"] + made["none"], calls)
    for kind in ("lost", "crossed", "double", "hung", "invented", "denied", "unexplained"):
        figures.equal(kind, found[kind], 0)
    # Both ends of a call may be kept waiting: the bridge, and this process.
    late = round(2 * percentile(late_s, 0.999), 4)
    figures.show("machine_late_s", late)
    for how, bound in ERROR_WITHIN_S.items():
        median, p99 = (round(percentile(delays[how], part), 4) for part in (0.5, 0.99))
        of = len(delays[how])
        figures.at_most(f"median_s_from_{how}_to_error", median, bound, of=of)
        figures.at_most(f"p99_s_from_{how}_to_error", p99, round(bound + late, 4), late=late)
    return figures.end()


def outcome(call: Call) -> str:
    """What a call came to, for the count."""
    if not call.answers:
        return "none"
    return "ok" if call.answers[0].reason is None else "errors"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
