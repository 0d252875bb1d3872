"""What the client programs do and report, written once for both Python SDKs.

Each `client_*.py` hands `main` a way to connect; the scenario then speaks through the small
`PeerSession` surface, where every answer is the JSON object of the wire (a dict). The program
prints one JSON line with what it saw and asserts nothing: judging is the test's work. Events the
test waits for (`{"event": "ready"}`) go to stderr as JSON lines, since a pipe read is a better wait
than a sleep.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol

import anyio
import anyio.to_thread

JsonObject = dict[str, Any]
OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]

# A log message is not an answer and may come after it, or never; this bounds the wait for it.
ARRIVAL_BOUND_S = 10


class RefusedError(Exception):
    """The peer answered with a JSON-RPC error.

    Attributes:
        error: Its `code`, `message` and `data` as on the wire.
    """

    def __init__(self, error: JsonObject) -> None:
        super().__init__(error)
        self.error = error


class Arrivals:
    """Notifications in the order of their arrival, and a way to wait for one of them."""

    def __init__(self) -> None:
        self.entries: list[JsonObject] = []
        self._more = anyio.Event()

    def append(self, entry: JsonObject) -> None:
        """Take one in and wake who waits."""
        self.entries.append(entry)
        self._more.set()
        self._more = anyio.Event()

    async def holding(self, marker: str) -> None:
        """Return when an entry with the marker is there, or at the bound without one."""
        with anyio.move_on_after(ARRIVAL_BOUND_S):
            while not any(marker in json.dumps(entry) for entry in self.entries):
                await self._more.wait()


class PeerSession(Protocol):
    """One initialized conversation; every method raises `RefusedError` on a JSON-RPC error."""

    hello: JsonObject
    logs: Arrivals

    async def call(
        self, name: str, arguments: JsonObject, on_progress: OnProgress | None = None
    ) -> JsonObject: ...

    async def page(self, kind: str, cursor: str | None) -> JsonObject: ...

    async def read(self, uri: str) -> JsonObject: ...

    async def prompt(self, name: str, arguments: dict[str, str]) -> JsonObject: ...

    async def complete(self, ref: JsonObject, argument: dict[str, str]) -> JsonObject: ...

    async def ping(self) -> JsonObject: ...

    async def set_level(self, level: str) -> JsonObject: ...


Connect = Callable[[argparse.Namespace], AbstractAsyncContextManager[PeerSession]]
Whole = Callable[[Connect, argparse.Namespace], Awaitable[JsonObject]]
"""A scenario that opens its sessions itself; returns its report."""


def tell(event: str, **fields: Any) -> None:
    """Say on stderr that something happened."""
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)


def report(seen: JsonObject) -> None:
    """Print the one line of the program."""
    print(json.dumps(seen), flush=True)


async def _wait_for_go(options: argparse.Namespace) -> None:
    """With --gate: say `ready` and wait for a line (or the end) on stdin, so that several
    clients begin their calls in the same moment."""
    if options.gate:
        tell("ready")
        await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


async def _everything(peer: PeerSession, kind: str) -> list[JsonObject]:
    found: list[JsonObject] = []
    cursor: str | None = None
    while True:
        page = await peer.page(kind, cursor)
        found += page[kind]
        cursor = page.get("nextCursor")
        if cursor is None:
            return found


async def attempt(step: Awaitable[JsonObject]) -> JsonObject:
    """The answer of a step that is expected to be refused, whichever way it ends."""
    try:
        return {"result": await step}
    except RefusedError as refused:
        return {"error": refused.error}


async def _tour(peer: PeerSession, options: argparse.Namespace) -> JsonObject:
    plan = options.plan
    seen: JsonObject = {"hello": peer.hello, "ping": await attempt(peer.ping())}
    for kind in ("tools", "resources", "resourceTemplates", "prompts"):
        if kind in plan["lists"]:
            seen[kind] = await _everything(peer, kind)
    for label, (name, arguments) in plan.get("calls", {}).items():
        seen[label] = await attempt(peer.call(name, arguments))
    for label, (name, arguments) in plan.get("counted", {}).items():
        steps: list[list[float | None]] = []

        async def on_progress(
            done: float, total: float | None, _message: str | None, steps: list[Any] = steps
        ) -> None:
            steps.append([done, total])

        seen[label] = await attempt(peer.call(name, arguments, on_progress))
        seen[f"{label}-progress"] = steps
    for label, uri in plan.get("reads", {}).items():
        seen[label] = await attempt(peer.read(uri))
    for label, (name, given) in plan.get("prompted", {}).items():
        seen[label] = await attempt(peer.prompt(name, given))
    for label, (ref, argument) in plan.get("completions", {}).items():
        seen[label] = await attempt(peer.complete(ref, argument))
    return seen


def payload(marker: str, number: int) -> str:
    """A text no other call of any client sends, with all that could break a line in it."""
    return f"{marker}/{number}/\r\n\u2028\u2029\u0000\U0001f98a/" + "x" * (number * 61)


async def _echoes(peer: PeerSession, options: argparse.Namespace) -> JsonObject:
    right, wrong = 0, []
    limit = anyio.CapacityLimiter(options.together)

    async def one(number: int) -> None:
        nonlocal right
        sent = payload(options.marker, number)
        async with limit:
            answer = await attempt(peer.call(options.echo_tool, {options.echo_argument: sent}))
        content = answer.get("result", {}).get("content", [{}])
        # Some servers put words before what they echo; none may put anything after it.
        if len(content) == 1 and content[0].get("text", "").endswith(sent):
            right += 1
        else:
            wrong.append({"number": number, "answer": str(answer)[:300]})

    await _wait_for_go(options)
    async with anyio.create_task_group() as group:
        for number in range(options.calls):
            group.start_soon(one, number)
    child = await attempt(peer.call("pid", {})) if options.ask_pid else None
    return {"right": right, "wrong": wrong[:5], "wrong_count": len(wrong), "child": child}


async def _slow_call(peer: PeerSession, options: argparse.Namespace) -> JsonObject:
    steps: list[float] = []

    async def on_progress(done: float, _total: float | None, _message: str | None) -> None:
        steps.append(done)
        tell("progress", done=done)

    # The SDKs check an answer against the tool's output schema, and ask for the list of tools
    # after the answer if they have none yet; by then the server this scenario is for is gone.
    await _everything(peer, "tools")
    began = time.monotonic()
    arguments = {"seconds": options.seconds, "steps": options.steps}
    answer = await attempt(peer.call("countdown", arguments, on_progress))
    return {**answer, "took_s": round(time.monotonic() - began, 3), "progress": steps}


async def _questions(peer: PeerSession, options: argparse.Namespace) -> JsonObject:
    seen = {}
    for label, (name, arguments) in options.plan["questions"].items():
        seen[label] = await attempt(peer.call(name, arguments))
    return {"hello": peer.hello, **seen}


async def _logs(peer: PeerSession, options: argparse.Namespace) -> JsonObject:
    answer = await attempt(peer.call("log", {"message": options.marker}))
    await peer.logs.holding(options.marker)
    return {**answer, "logs": peer.logs.entries}


SCENARIOS = {
    "tour": _tour,
    "echoes": _echoes,
    "slow-call": _slow_call,
    "questions": _questions,
    "logs": _logs,
}


async def _connect_and_vanish(connect: Connect, options: argparse.Namespace) -> None:
    """Initialize, then die as a killed client does: no DELETE, no FIN but the kernel's."""
    async with AsyncExitStack() as stack:
        for _ in range(options.sessions):
            peer = await stack.enter_async_context(connect(options))
            if options.used:
                await peer.call(options.echo_tool, {options.echo_argument: "here I am"})
        await _wait_for_go(options)
        report({"sessions": options.sessions})
        os._exit(0)


async def _run(connect: Connect, more: Mapping[str, Whole], options: argparse.Namespace) -> None:
    with anyio.fail_after(options.within):
        if options.scenario in more:
            report(await more[options.scenario](connect, options))
            return
        if options.scenario == "connect-and-vanish":
            await _connect_and_vanish(connect, options)
        async with connect(options) as peer:
            seen = await SCENARIOS[options.scenario](peer, options)
            # Reported before the conversation is closed: what closing does is another matter.
            report(seen)


def _options(more: Mapping[str, Whole]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="+", help="the URL, or with --transport stdio a command")
    scenarios = [*SCENARIOS, "connect-and-vanish", *more]
    parser.add_argument("--scenario", choices=scenarios, required=True)
    parser.add_argument("--transport", choices=["http", "sse", "stdio"], default="http")
    parser.add_argument("--mode", default="legacy", help="mcp 2.x: legacy, auto or a revision")
    parser.add_argument("--bearer", help="the token that goes with every request")
    parser.add_argument("--declare", action="store_true", help="roots, sampling and elicitation")
    parser.add_argument("--plan", type=json.loads, default={}, help="what a tour visits, as JSON")
    parser.add_argument("--marker", default="m", help="echoes, logs: goes into every payload")
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--together", type=int, default=40, help="echoes: most calls in flight")
    parser.add_argument("--echo-tool", default="echo")
    parser.add_argument("--echo-argument", default="text")
    parser.add_argument("--ask-pid", action="store_true", help="echoes: ask for the child's pid")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--sessions", type=int, default=1, help="connect-and-vanish: how many")
    parser.add_argument("--used", action="store_true", help="connect-and-vanish: after a call each")
    parser.add_argument("--gate", action="store_true", help="say ready, begin at a line on stdin")
    parser.add_argument("--within", type=float, default=60, help="give up after, in seconds")
    return parser.parse_args()


def main(connect: Connect, more: Mapping[str, Whole] | None = None) -> None:
    """Run the scenario argv asks for; exit status 1 and a traceback when it cannot be told.

    Args:
        connect: Opens a session.
        more: Scenarios that only this client has, by name.
    """
    anyio.run(_run, connect, more or {}, _options(more or {}))
