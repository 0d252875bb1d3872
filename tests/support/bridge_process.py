"""The bridge as a process, for tests that drive it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge.runtime.signals import ONE_ORDER_S

START_S = 30.0
END_S = 30.0
DEMO = (sys.executable, "-m", "mcpbridge.demo")
CHILDREN = Path(__file__).parent.parent / "children"
ACCEPT = {"accept": "application/json, text/event-stream"}
WITHOUT_POSIX = "BRIDGE_TEST_WITHOUT_POSIX"
"""The variable that has the bridge run in an interpreter that lacks what Windows lacks."""
_MARK = "BRIDGE_TEST_RUN"
_TRUSTING = ssl.create_default_context()
_SETTLED = {"MCPBRIDGE_CHILD_ERA": "legacy"}
"""No probe, so that every process of a run is one that serves; tests of eras say otherwise."""


def child(name: str, *words: str) -> tuple[str, ...]:
    """The command of one of the programs in `tests/children`."""
    return (sys.executable, str(CHILDREN / f"{name}.py"), *words)


class RunningBridge:
    """One `python -m mcpbridge`, its log, and everything it started."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self.process = process
        self.pid = process.pid
        self.url = ""
        """Without a path: `http://127.0.0.1:PORT`."""
        self.log: list[dict[str, Any]] = []
        """Every record it wrote so far, oldest first."""
        self.noise: list[str] = []
        """Lines on stderr that were no record."""
        self._mark = mark
        self._news = asyncio.Condition()
        self._ended = False

    @property
    def start_errors(self) -> list[str]:
        """Why it did not start: the problems of its `serve.failed` records."""
        return [str(record["problem"]) for record in self.events("serve.failed")]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The records with this event name, oldest first."""
        return [record for record in self.log if record["event"] == name]

    async def logged(
        self, name: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True, count: int = 1
    ) -> list[dict[str, Any]]:
        """Wait until that many records of this name (and kind) have been written."""

        def found() -> list[dict[str, Any]]:
            return [record for record in self.events(name) if wanted(record)]

        async with self._news, asyncio.timeout(START_S):
            await self._news.wait_for(lambda: len(found()) >= count or self._ended)
        assert len(found()) >= count, f"no {name} in {self.log} {self.noise}"
        return found()

    def client(self, **options: Any) -> httpx.AsyncClient:
        """An HTTP client of this bridge."""
        # One context for all: each client would read the certificates of all authorities.
        given = {"verify": _TRUSTING, **options}
        return httpx.AsyncClient(base_url=self.url, timeout=END_S, **given)

    def signal(self, number: int) -> None:
        """Send a signal to the bridge's own process."""
        self.process.send_signal(number)

    async def next_order(self, number: int) -> None:
        """Send a signal that counts as a further order to end, after one that is in the log."""
        await asyncio.sleep(ONE_ORDER_S)  # no event for the end of a repetition
        self.signal(number)

    async def ended(self, within_s: float = END_S) -> int:
        """Wait for its end; the exit status."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM and the exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def processes(self) -> set[int]:
        """Every living process of this run but the bridge itself: children, grandchildren."""
        return {pid for pid in marked(self._mark) if pid != self.pid}

    async def read_log(self) -> None:
        """Collect what it writes until it ends."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.noise.append(line.decode("utf-8", "replace").rstrip())
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()


_COMPLETE = {"--", "--connect", "--config", "connect", "dev", "login"}
"""Words beside which no command is needed."""


def marked(mark: str) -> set[int]:
    """Living processes that carry a run's mark in their environment; zombies have none."""
    found: set[int] = set()
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if wanted in environment.split(b"\0"):
                found.add(int(entry.name))
    return found


async def eventually(condition: Callable[[], bool], what: str, within_s: float = END_S) -> None:
    """Look until a condition of the outside world holds, of which nothing tells."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)  # the outside world gives no event to wait for


async def asked_until(
    ask: Callable[[], Awaitable[bool]], what: str, within_s: float = END_S
) -> None:
    """Ask again and again until the answer is the one awaited, of which nothing tells."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not await ask():
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)  # each answer is a look at the outside world


@contextmanager
def run_without_posix(lacking: bool) -> Iterator[None]:
    """Have bridges run in an interpreter that lacks what Windows lacks, if so asked."""
    with pytest.MonkeyPatch.context() as patch:
        if lacking:
            patch.setenv(WITHOUT_POSIX, "1")
        yield


def interpreter() -> tuple[str, ...]:
    """What runs `mcpbridge`: Python, or one that lacks what Windows lacks."""
    if os.environ.get(WITHOUT_POSIX):
        return (sys.executable, str(Path(__file__).with_name("without_posix.py")))
    return (sys.executable, "-m", "mcpbridge")


@asynccontextmanager
async def started(
    *words: str,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    faulty: bool = False,
    **options: Any,
) -> AsyncIterator[RunningBridge]:
    """`python -m mcpbridge WORDS`, whatever becomes of it; serves the demo if no `--` is in them.

    Whatever the test left running is killed at the end; it is the test's to say how it ended.

    Args:
        words: The command line.
        env: Variables in addition to those of the test run.
        under: A program that runs the bridge, with its own arguments.
        faulty: The test puts a bug into the program, and checks the consequence.
        options: More for `asyncio.create_subprocess_exec`.
    """
    mark = uuid.uuid4().hex
    given: dict[str, Any] = {"stdin": asyncio.subprocess.DEVNULL, **options}
    process = await asyncio.create_subprocess_exec(
        *under,
        *interpreter(),
        *words,
        *(() if _COMPLETE & set(words) else ("--", *DEMO)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **_SETTLED, **(env or {}), _MARK: mark},
        limit=1 << 24,
        **given,
    )
    bridge = RunningBridge(process, mark)
    reading = asyncio.create_task(bridge.read_log())
    try:
        yield bridge
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        await reading
    if not faulty:
        assert_handled(bridge)


@asynccontextmanager
async def bridge(
    *words: str,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
    program: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[RunningBridge]:
    """A bridge that serves, on a free port; `options` are those of `started`.

    `program` names another program that serves: `dev`.

    Ends it with SIGTERM if the test has not, and asserts what every end must show: exit status 0
    (if no other was asked for), no process left, no unhandled error in the log.
    """
    async with started(*program, "--port", "0", *words, env=env, **options) as running:
        (record,) = await running.logged("serve.started")
        running.url = "/".join(str(record["url"]).split("/")[:3])
        if ready:
            await running.logged("child.ready")
        yield running
        if running.process.returncode is None:
            assert await running.terminate() == 0, running.log
        await eventually(lambda: not marked(running._mark), "no process is left", 5)
        assert_clean(running)


async def ran(
    *words: str,
    env: Mapping[str, str] | None = None,
    within_s: float = START_S,
    cwd: Path | None = None,
) -> tuple[int, str]:
    """`python -m mcpbridge WORDS`, for words that end by themselves: status, and all it says."""
    process = await asyncio.create_subprocess_exec(
        *(*interpreter(), *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(within_s):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"Traceback" not in out, out
    return process.returncode or 0, out.decode()


def assert_clean(running: RunningBridge) -> None:
    """As `assert_handled`, and it wrote nothing but its records."""
    assert running.noise == []
    assert_handled(running)


def assert_handled(running: RunningBridge) -> None:
    """No record of the run may report an unhandled error: a 500 is one.

    It holds for a run that ends badly too; what it says of wrong words is not a record.
    """
    bad = [record for record in running.log if "exception" in record]
    assert bad == []
    assert [line for line in running.noise if line.startswith("Traceback")] == []


def rpc(request_id: Any, method: str, params: Any = None) -> dict[str, Any]:
    """A JSON-RPC request."""
    message = {"jsonrpc": "2.0", "id": request_id, "method": method}
    return message if params is None else {**message, "params": params}


def initialize(
    request_id: Any = 0, revision: str = "2025-06-18", capabilities: Any = None
) -> dict[str, Any]:
    """An `initialize` request."""
    params = {
        "protocolVersion": revision,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    return rpc(request_id, "initialize", params)


async def open_session(
    client: httpx.AsyncClient, revision: str = "2025-06-18", capabilities: Any = None
) -> dict[str, str]:
    """Initialize a session; the headers that name it in every further request."""
    response = await client.post("/mcp", json=initialize(0, revision, capabilities), headers=ACCEPT)
    assert response.status_code == 200, response.text
    headers = {
        **ACCEPT,
        "mcp-session-id": response.headers["mcp-session-id"],
        "mcp-protocol-version": revision,
    }
    told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    response = await client.post("/mcp", json=told, headers=headers)
    assert (response.status_code, response.content) == (202, b"")
    return headers


def messages(body: str) -> list[Any]:
    """The messages of an event stream or a JSON answer, in order."""
    if not body.lstrip().startswith(("event:", "data:", "id:", ":", "retry:")):
        return [json.loads(body)]
    lines = body.replace("\r\n", "\n").split("\n")
    return [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip()]
