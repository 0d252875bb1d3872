"""A server program whose processes are in memory, and a pool of them, for tests of many parts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.memory import MemoryChannel, memory_pair
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.errors import SpawnError
from mcpbridge.process.child import Child
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.access.principals import NOTHING
from mcpbridge.rules.faults import Exit, child_exited
from mcpbridge.rules.mcp.initialize import ServerProfile, read_discovery, read_profile
from mcpbridge.rules.supervision.restart import RestartPolicy
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Message, Notification, Request, Result, whole

AT_ONCE = RestartPolicy(give_up_after=3, first_delay_s=0.0, max_delay_s=0.0)
"""Start again without a delay; give up after the third failed start."""
EXITS = "exits"
"""In place of an answer: the process ends by itself."""
SILENT = "silent"
"""In place of an answer: the request stays without one until the test sends it."""
UNKNOWN = {"code": -32601, "message": "method not found"}
LEGACY: dict[str, Any] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {"listChanged": True}, "logging": {}},
        "serverInfo": {"name": "fake", "version": "1"},
    },
}
MODERN: dict[str, Any] = {
    "server/discover": {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {"listChanged": True}},
    },
}


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until the condition holds."""
    while not condition():  # noqa: ASYNC110 - the parts have no event for each state
        await asyncio.sleep(0)  # one turn of the loop


class FakeProcess:
    """A child in memory that answers as its program says; ends when it is told to."""

    secrets = NOTHING

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.pid = server.next_pid()
        self.channel: MemoryChannel
        self.channel, self._far = memory_pair()
        self.gone, self.exited = anyio.Event(), anyio.Event()
        self.how: Exit | None = None
        self.report: ExitReport | None = None
        self.asked = False
        """Whether the bridge has told it to end."""
        self.got: list[Message] = []
        """The messages on its stdin."""

    @property
    def methods(self) -> list[str]:
        """The methods of the requests and notifications that it has got."""
        return [each.method for each in self.got if isinstance(each, Request | Notification)]

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until it ends."""
        await self._server.may_start.wait()
        if self._server.broken:
            raise SpawnError("fake", "it is broken")
        self._server.processes.append(self)
        task_status.started()
        while received := await self._far.receive():
            for item in received:
                self._take(cast(Message, item))
        await self.exited.wait()

    def _take(self, message: Message) -> None:
        self.got.append(message)
        if isinstance(message, Request):
            self.answer(message, self._server.answers.get(message.method, UNKNOWN))

    def answer(self, request: Request, answer: Any) -> None:
        """Answer a request.

        Args:
            request: The request.
            answer: `EXITS`, `SILENT`, an error (it has a `code`), a result, or what is called with
                the process and the request.
        """
        if callable(answer):
            answer(self, request)
        elif answer == EXITS:
            self.end(Exit(code=1))
        elif answer != SILENT:
            kind = Failure if "code" in answer else Result
            self.says(kind(request.id, json.dumps(answer).encode()))

    def asked_for(self, method: str) -> list[Request]:
        """The requests of this method that it has got."""
        found = (each for each in self.got if isinstance(each, Request))
        return [each for each in found if each.method == method]

    def says(self, message: Message) -> None:
        """Write a message to its stdout."""
        self._far.send(message)

    def probed(self, method: str) -> AbstractContextManager[None]:
        """See `Child`: it writes to no stderr."""
        return nullcontext()

    def stop(self, grace_s: float = 5.0) -> None:
        """See `Child`."""
        self.asked = True
        if self._server.obeys:
            self.end(Exit(signal=15))

    def kill(self) -> None:
        """See `Child`."""
        self.asked = True
        self.end(Exit(signal=9))

    def end(self, how: Exit) -> None:
        """End the process."""
        if not self.exited.is_set():
            self.how, self.report = how, ExitReport(how, 0.0, (), self.asked)
            self._far.close()
            self.gone.set()
            self.exited.set()


class FakeServer:
    """The program: what its processes answer, and how they behave."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers: dict[str, Any] = {}
        """By method; others are unknown to it."""
        for each in answers:
            self.answers |= each
        self.processes: list[FakeProcess] = []
        """All that were started, the oldest first."""
        self.broken = False
        self.obeys = True
        """Whether processes end when they are told to."""
        self.may_start = anyio.Event()
        self.may_start.set()
        self._pids = 0

    @property
    def running(self) -> list[FakeProcess]:
        """The processes that have not ended."""
        return [each for each in self.processes if not each.exited.is_set()]

    def next_pid(self) -> int:
        """Return a pid that no process had."""
        self._pids += 1
        return self._pids

    def pool(self, max_children: int = 8, **settings: Any) -> ChildPool:
        """Return a pool that starts its processes."""
        return ChildPool(
            lambda: cast(Child, FakeProcess(self)),
            ChildPoolSettings(max_children=max_children, **settings),
            PipeLimits(),
            Meters(),
        )


@asynccontextmanager
async def running_pool(server: FakeServer, max_children: int = 8) -> AsyncIterator[ChildPool]:
    """A pool of the server's processes that runs until the block ends."""
    pool = server.pool(max_children)
    async with pool.running():
        yield pool
        server.obeys = True
        await pool.stop_all(0)


async def leased(
    tasks: TaskGroup,
    server: FakeServer,
    profile: ServerProfile | None = None,
    *,
    shared: bool = True,
) -> tuple[Lease, FakeProcess]:
    """A lease on a process that no pool has started; introduced if there is a profile."""
    process = FakeProcess(server)
    await tasks.start(process.run)
    mux = Mux(process.channel, Meters(), shared=shared, max_message_bytes=1 << 20)
    lease = Lease(cast(Child, process), mux)
    if profile is not None:
        lease.introduced_as(profile)

    async def attend() -> None:
        await mux.run()
        mux.fail_all(child_exited(process.how, "maybe"))

    tasks.start_soon(attend)
    return lease, process


def profile_of(answers: dict[str, Any]) -> ServerProfile:
    """The profile of a server that answers so: `LEGACY` or `MODERN`."""
    if "initialize" in answers:
        found = read_profile(json.dumps(answers["initialize"]).encode())
    else:
        found = read_discovery(json.dumps(answers["server/discover"]).encode())
    assert found is not None
    return found


def params_of(message: Message) -> Any:
    """The params of a request or notification."""
    assert isinstance(message, Request | Notification)
    return json.loads(message.params or b"{}")


def content_of(exchange: Exchange) -> Any:
    """The result or error that a client gets."""
    assert exchange.reply is not None
    reply = exchange.reply
    return json.loads(reply.result if isinstance(reply, Result) else reply.error)


def told_on(stream: Stream | None) -> list[Any]:
    """The messages on a stream."""
    assert stream is not None
    return [json.loads(whole(entry.payload)) for entry in stream.log.after(0)]


def reason_of(exchange: Exchange) -> str:
    """The reason of the fault that a client gets in the child's place."""
    assert exchange.fault is not None
    return exchange.fault.reason
