"""The SDK clients as tests see them: programs that run, report events and tell what they saw.

The programs are in `peers/`, run by the interpreters of separate environments, since two SDK
versions do not fit into one and none of them fits beside the bridge's dependencies by promise.
A client prints what it saw; every judgement is in `peers_servers` or in the tests.
"""

from __future__ import annotations

import json
import os
from asyncio import StreamReader, create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from tests.support.sdk_servers import PEERS, ROOT, Server, interpreter, shown

# A report is one line, and the pictures and schemas of a tour make a long one.
MAX_LINE_BYTES = 16 * 1024 * 1024
# Starting a client and a server costs seconds of CPU each where the cores are few and busy.
REPORT_WITHIN_S = 90.0


@dataclass(frozen=True)
class Client:
    """A client program with the options that make it this client."""

    name: str
    argv: tuple[str, ...]
    options: tuple[str, ...] = ()


def python_clients() -> dict[str, Client]:
    """The Python SDK's clients by name; version 2 once for each way to begin."""
    one, two = (str(PEERS / f"client_mcp{version}.py") for version in (1, 2))
    return {
        "mcp1": Client("mcp1", (interpreter(1), one)),
        "mcp2-legacy": Client("mcp2-legacy", (interpreter(2), two), ("--mode", "legacy")),
        "mcp2-auto": Client("mcp2-auto", (interpreter(2), two), ("--mode", "auto")),
    }


class ClientRun:
    """One run of a client program; made by `running`."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process
        self._words: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._heard = anyio.Event()
        self._silent = False

    def __str__(self) -> str:
        return f"{self.name}, whose last words were:\n" + "\n".join(self._words[-25:])

    async def listen(self) -> None:
        """Read stderr to its end, so that the client never waits for its reader."""
        assert self._process.stderr is not None
        async for line in _lines(self._process.stderr):
            if line.startswith('{"event"'):
                self._events.append(json.loads(line))
            else:
                self._words.append(line)
            self._wake()
        self._silent = True
        self._wake()

    def _wake(self) -> None:
        self._heard.set()
        self._heard = anyio.Event()

    async def event(self, name: str, within_s: float = REPORT_WITHIN_S) -> None:
        """Return once the client has reported an event; fail when it ends or is late."""
        with anyio.move_on_after(within_s):
            while not any(told["event"] == name for told in self._events) and not self._silent:
                await self._heard.wait()
        assert any(told["event"] == name for told in self._events), f"no {name!r} from {self}"

    async def go(self) -> None:
        """Let a client with --gate begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()

    async def line(self, within_s: float = REPORT_WITHIN_S) -> dict[str, Any]:
        """The report, as soon as it is printed; the client may still be running."""
        assert self._process.stdout is not None
        line = b""
        with anyio.move_on_after(within_s):
            line = await self._process.stdout.readline()
        assert line, f"no report in {within_s} s from {self}"
        report: dict[str, Any] = json.loads(line)
        return report

    async def ended(self, within_s: float = REPORT_WITHIN_S) -> int:
        """The exit status."""
        with anyio.move_on_after(within_s):
            return await self._process.wait()
        raise AssertionError(f"still running after {within_s} s: {self}")

    async def report(self, within_s: float = REPORT_WITHIN_S) -> dict[str, Any]:
        """The report of a client that came to a good end; bounded by twice the seconds given."""
        line = await self.line(within_s)
        status = await self.ended(within_s)
        assert status == 0, f"exit status {status} of {self}"
        return line


async def _lines(stream: StreamReader) -> AsyncIterator[str]:
    while line := await stream.readline():
        yield line.decode(errors="replace").rstrip("\n")


@asynccontextmanager
async def running(
    client: Client, scenario: str, *args: str, target: Iterable[str]
) -> AsyncIterator[ClientRun]:
    """A client at work; killed when the block is left and it has not ended.

    Args:
        client: Which program.
        scenario: Its --scenario.
        args: More options.
        target: A URL, or a command for `--transport stdio`.
    """
    # The package may be installed nowhere: a child of a client finds the demo from the checkout.
    argv = (*client.argv, "--scenario", scenario, *client.options, *args, "--", *target)
    process = await create_subprocess_exec(
        *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=MAX_LINE_BYTES, cwd=ROOT
    )
    run = ClientRun(f"{client.name} ({scenario})", process)
    async with anyio.create_task_group() as group:
        group.start_soon(run.listen)
        try:
            yield run
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
            # A grandchild may hold the pipe open; what it says does not matter now.
            group.cancel_scope.cancel()


async def reported(
    client: Client, scenario: str, *args: str, target: Iterable[str]
) -> dict[str, Any]:
    """Run a client to its end and return what it saw."""
    async with running(client, scenario, *args, target=target) as run:
        return await run.report()


async def toured(client: Client, server: Server, url: str | None) -> dict[str, Any]:
    """What a client sees of a server: through the bridge at a URL, or with None on a pipe."""
    plan = ("--plan", json.dumps(server.plan))
    if url is None:
        return await reported(client, "tour", *plan, "--transport", "stdio", target=server.argv)
    return await reported(client, "tour", *plan, target=(url,))


async def questioned(client: Client, server: Server, url: str) -> dict[str, object]:
    """The gists of what a server made of the answers of a client that declared it has them."""
    plan = ("--declare", "--plan", json.dumps(server.plan))
    report = await reported(client, "questions", *plan, target=(url,))
    return shown(report, server.plan["questions"])


def descendants(pid: int) -> frozenset[int]:
    """All processes below one, zombies among them: an unreaped child is a leak too."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent_of(entry)) is not None:
            below.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        children = below.get(unseen.pop(), [])
        found.update(children)
        unseen.extend(children)
    return frozenset(found)


def _parent_of(process: Path) -> int | None:
    try:
        # The name, in parentheses, may hold anything; the parent is second after it.
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pids: Iterable[int]) -> set[int]:
    """Those of some processes that are still there."""
    return {pid for pid in pids if os.path.exists(f"/proc/{pid}")}
