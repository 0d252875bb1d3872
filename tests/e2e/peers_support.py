"""The SDK peers as tests see them: servers with what they must show, clients that run and report.

The programs are in `peers/`, run by the interpreters of their own environments, since two SDK
versions do not fit into one and none of them fits beside the bridge's dependencies by promise.
A client prints what it saw; every judgement is here or in the tests.
"""

from __future__ import annotations

import json
import os
import sys
from asyncio import StreamReader, create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "e2e" / "peers"

# A report is one line, and the pictures and schemas of a tour make a long one.
MAX_LINE_BYTES = 16 * 1024 * 1024
# Starting a client and a server costs seconds of CPU each where the cores are few and busy.
REPORT_WITHIN_S = 90.0

HARD_TEXT = "line\r\nline\u2028\u2029 \U0001f98a \\ \" 'e\u0301' \u0000 end"


def interpreter(version: int) -> str:
    """The Python of the environment that holds major version 1 or 2 of the SDK."""
    python = ROOT / f".venv-mcp{version}" / "bin" / "python"
    assert python.exists(), f"{python.parent.parent.name} is missing: `make test` makes it"
    return str(python)


# --- Servers


@dataclass(frozen=True)
class Server:
    """A stdio server, what a tour visits in it and what must be seen there."""

    name: str
    argv: tuple[str, ...]
    plan: Mapping[str, Any]
    """As `--plan` of the clients: labels and what is sent under them."""
    shows: Mapping[str, object]
    """Label to gist, see `gist`; labels that no client can promise exactly are left out."""
    answers: Mapping[str, object]
    """Label to gist of the plan's questions, for a client that declares all it can answer."""
    wavering: frozenset[str] = frozenset()
    """Labels whose answers differ from one run to the next, bridge or no bridge."""


def said(text: str) -> tuple[str, str]:
    """The gist of a tool's answer."""
    return ("said", text)


def failed(text: str) -> tuple[str, str]:
    """The gist of a tool's answer marked as an error."""
    return ("failed", text)


def refused(code: int) -> tuple[str, int]:
    """The gist of a JSON-RPC error."""
    return ("refused", code)


def gist(seen: Any) -> object:
    """What one entry of a tour comes down to, without what SDKs add to it each in its way."""
    match seen:
        case {"error": {"code": code}}:
            return refused(code)
        case {"result": {"content": [{"text": text}], **rest}}:
            return failed(text) if rest.get("isError") else said(text)
        case {"result": {"contents": [{"uri": uri, **rest}]}}:
            return ("read", uri, rest.get("text", rest.get("blob")))
        case {"result": {"messages": [{"role": role, "content": {"text": text}}]}}:
            return ("prompted", role, text)
        case {"result": {"completion": {"values": values}}}:
            return ("completed", *values)
        case {"result": result}:
            return result
        case [*entries]:
            return [_name_of(entry) for entry in entries]
    return seen


def _name_of(entry: Any) -> object:
    if not isinstance(entry, Mapping):
        return entry
    return entry.get("uriTemplate") or entry.get("uri") or entry["name"]


LISTS = ("tools", "resources", "resourceTemplates", "prompts")
TOOLS = ["echo", "add", "countdown", "slow", "fail", "log", "pid", "ask", "sample", "roots"]
QUESTIONS = {
    "ask": ["ask", {"question": "who?"}],
    "sample": ["sample", {"prompt": "hum"}],
    "roots": ["roots", {}],
}
ANSWERS = {
    "ask": said("accept: said to: who?"),
    "sample": said("sampled from: hum"),
    "roots": said("file:///peer/root"),
}
EVERY_BYTE = (
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNE"
    "RUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJ"
    "iouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3O"
    "z9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/w=="
)

PEER_PLAN: Mapping[str, Any] = {
    "lists": LISTS,
    "calls": {
        "echo": ["echo", {"text": HARD_TEXT}],
        "add": ["add", {"a": 2, "b": 3}],
        "fail": ["fail", {"message": "as asked"}],
        "unknown tool": ["nonesuch", {}],
        "missing argument": ["echo", {}],
    },
    "counted": {"countdown": ["countdown", {"seconds": 0.2, "steps": 4}]},
    "reads": {
        "greeting": "peer://greeting",
        "bytes": "peer://bytes",
        "item": "peer://item/seven",
        "unknown resource": "peer://nonesuch",
    },
    "prompted": {
        "summarize": ["summarize", {"topic": "tea"}],
        "unknown prompt": ["nonesuch", {}],
    },
    "completions": {
        "topics": [{"type": "ref/prompt", "name": "summarize"}, {"name": "topic", "value": "be"}]
    },
    "questions": QUESTIONS,
}
PEER_SHOWS: Mapping[str, object] = {
    "ping": {},
    "tools": TOOLS,
    "resources": ["peer://greeting", "peer://bytes"],
    "resourceTemplates": ["peer://item/{name}"],
    "prompts": ["summarize"],
    "echo": said(HARD_TEXT),
    "fail": failed("as asked"),
    "countdown": said("liftoff"),
    "countdown-progress": [[0, 4], [1, 4], [2, 4], [3, 4]],
    "greeting": ("read", "peer://greeting", "good day"),
    "bytes": ("read", "peer://bytes", EVERY_BYTE),
    "item": ("read", "peer://item/seven", "item seven"),
    "summarize": ("prompted", "user", "Summarize tea."),
}


def fastmcp_server() -> Server:
    """The server made with the FastMCP package."""
    return Server(
        name="fastmcp",
        argv=(interpreter(1), str(PEERS / "server_fastmcp.py")),
        plan=PEER_PLAN,
        shows={
            **PEER_SHOWS,
            "add": said('{"sum":5.0}'),
            "unknown tool": failed("Unknown tool: 'nonesuch'"),
            "unknown resource": refused(-32002),
            "unknown prompt": refused(0),
            "topics": refused(-32601),
        },
        answers=ANSWERS,
    )


def mcp1_server() -> Server:
    """The server made with the low-level part of the SDK 1.x."""
    return Server(
        name="mcp1",
        argv=(interpreter(1), str(PEERS / "server_mcp1.py")),
        plan=PEER_PLAN,
        shows={
            **PEER_SHOWS,
            "add": said("5"),
            "unknown tool": failed("no tool 'nonesuch'"),
            "missing argument": failed("Input validation error: 'text' is a required property"),
            "unknown resource": refused(0),
            "unknown prompt": refused(0),
            "topics": ("completed", "bees", "beans"),
        },
        answers=ANSWERS,
    )


def demo_server() -> Server:
    """The example server of the package; its times and dates are left out of the tour."""
    return Server(
        name="demo",
        argv=(sys.executable, "-m", "mcpbridge.demo"),
        plan={
            "lists": LISTS,
            "calls": PEER_PLAN["calls"],
            "counted": PEER_PLAN["counted"],
            "reads": {"greeting": "demo://greeting", "unknown resource": "demo://nonesuch"},
            "prompted": PEER_PLAN["prompted"],
            "completions": PEER_PLAN["completions"],
            "questions": {"ask": QUESTIONS["ask"]},
        },
        shows={
            "ping": {},
            "echo": said(HARD_TEXT),
            "add": said("5"),
            "fail": failed("as asked"),
            "countdown": said("liftoff"),
            "unknown tool": refused(-32602),
            "unknown resource": refused(-32002),
            "unknown prompt": refused(-32602),
        },
        answers={"ask": said("The answer is: said to: who?")},
        # The last step comes with the answer, and then is heard by some clients only.
        wavering=frozenset({"countdown-progress"}),
    )


def shown(report: Mapping[str, Any], labels: Iterable[str]) -> dict[str, object]:
    """The gists of a report under the labels a server promises."""
    return {label: gist(report.get(label)) for label in labels}


def steady(report: Mapping[str, Any], server: Server) -> dict[str, Any]:
    """All of a report that must be the same whenever and however the server is visited."""
    return {label: seen for label, seen in report.items() if label not in server.wavering}


# --- Clients


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
        """Return once the client has told of an event; fail when it ends or is late."""
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
            # A grandchild may hold the pipe open; what it says is nobody's concern now.
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


# --- Processes


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


async def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether a condition came true in time.

    For what the kernel tells nobody, such as the shape of a process tree; what can be awaited is.
    """
    with anyio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110 - see above, there is no event to wait for
            await anyio.sleep(0.02)
    return condition()
