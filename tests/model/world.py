"""A whole bridge without processes, sockets or its own clock, for the model to play with.

Everything between the HTTP faces and the children's channels is the real thing. Requests are ASGI
calls, children are programs in memory that answer when they are told to, and time stands still
until the test lets it pass.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from typing import Any

import anyio
from anyio.abc import TaskStatus

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.health_check import HealthChecker
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.modern.emulation import ParkSettings
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.bridge.tenant import BridgeSettings
from mcpbridge.channels.channel import InvalidLine
from mcpbridge.channels.memory import memory_pair
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.http.app import HttpApp, admin_routes, mcp_routes
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import BodyLimits
from mcpbridge.http.health import Probes
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.transports.legacy import AnswerSettings, LegacyTransport
from mcpbridge.http.transports.modern import ModernTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.access.principals import NOTHING
from mcpbridge.rules.faults import Exit
from mcpbridge.rules.mcp.era_probe import ChildEra
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import OnChildExit, RestartPolicy
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Message, Notification, Request, Result, decode
from tests.bridge.playbook import turns
from tests.http.fakes import Wire, body, scope_on
from tests.support.bridge_process import messages

MAX_SESSIONS = 4
SESSIONS = SessionSettings(max_sessions=MAX_SESSIONS, idle_timeout_s=100.0, unused_timeout_s=10.0)
CALLS = CallLimits(timeout_s=60.0, idle_timeout_s=20.0)
STEP_S = 0.25
"""Time passes in steps of this: no timer is more than that late."""


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is a number."""

    now = 1000.0

    def time(self) -> float:
        """What everything in it takes for the time."""
        return self.now


class FakeChild:
    """A server in memory: it shakes hands at once and keeps calls until it is told to answer."""

    secrets = NOTHING

    def __init__(self) -> None:
        self.channel, self._far = memory_pair()
        # It is not a process: what the system says of one with its number would come from a thread,
        # at a time and of a content that no play repeats.
        self.pid: int | None = None
        self.gone, self.exited = anyio.Event(), anyio.Event()
        self.how: Exit | None = None
        self.report: ExitReport | None = None
        self.calls: dict[str, Request] = {}
        """Unanswered, by the text they carry."""
        self._over = anyio.Event()
        self._asked = False

    def stop(self, grace_s: float = 5.0) -> None:
        """See `Child`."""
        self._asked = True
        self._over.set()

    def probed(self, method: str) -> AbstractContextManager[None]:
        """It writes to no stderr."""
        return nullcontext()

    def kill(self) -> None:
        """See `Child`."""
        self.stop()

    def crash(self) -> None:
        """End by itself."""
        self._over.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """See `Child`."""
        task_status.started()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve)
                await self._over.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._far.close()
            self.how = Exit(code=0) if self._asked else Exit(signal=9)
            self.report = ExitReport(self.how, 0.0, (), self._asked)
            self.gone.set()
            self.exited.set()

    def say(self, message: Message) -> None:
        """Send something to the bridge, if that is still possible."""
        if not self.gone.is_set():
            self._far.send(message)

    async def _serve(self) -> None:
        while received := await self._far.receive():
            for item in received:
                assert not isinstance(item, InvalidLine)
                self._hear(item)

    def _hear(self, message: Message) -> None:
        match message:
            case Request(method="initialize"):
                result = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "1"},
                }
                self.say(Result(message.id, json.dumps(result).encode()))
            case Request(method="tools/call"):
                params = json.loads(message.params or b"{}")
                self.calls[params["arguments"]["text"]] = message
            case Request():
                self.say(Result(message.id, b"{}"))


class Http:
    """One HTTP exchange in memory."""

    def __init__(self, wire: Wire, task: asyncio.Task[None]) -> None:
        self.wire = wire
        self.task = task
        self._seen_until: int | None = None

    def leave(self) -> None:
        """The client goes: what is sent from now on it does not see."""
        self._seen_until = len(self.wire.sent)
        self.wire.leave()

    @property
    def connected(self) -> bool:
        """The client is there, and the response has not ended."""
        return self._seen_until is None and not self.wire.ended

    @property
    def text(self) -> str:
        """The body that the client has seen so far."""
        return b"".join(sent["body"] for sent in self.wire.sent[1 : self._seen_until]).decode()

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages in it."""
        return messages(self.text) if self.text.strip() else []

    @property
    def event_ids(self) -> list[str]:
        """Of the events seen, those that say something."""
        events = self.text.replace("\r\n", "\n").split("\n\n")
        full = (event for event in events if "event: message\n" in event)
        return [line[4:] for event in full for line in event.split("\n") if line[:4] == "id: "]

    @property
    def last_event_id(self) -> str | None:
        """Of the events seen."""
        ids = [line[4:].strip() for line in self.text.splitlines() if line.startswith("id: ")]
        return ids[-1] if ids else None


class World:
    """The bridge, its children, and the hand on the clock."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.children: list[FakeChild] = []
        self.exchanges: list[Http] = []
        self.failures: list[dict[str, Any]] = []
        """What the loop's exception handler was told."""
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.bridge: Bridge
        self.child_pool: ChildPool
        self._stack = AsyncExitStack()
        self._endpoint: HttpApp
        self.keepalive: KeepAlive
        self._do(self._build())

    @property
    def living(self) -> list[FakeChild]:
        """Children that run."""
        return [child for child in self.children if not child.gone.is_set()]

    def request(
        self, method: str, headers: Iterable[tuple[str, str]] = (), message: Any = None
    ) -> Http:
        """Send a request and let every task run until it waits."""
        head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        head += [(b"accept", b"application/json, text/event-stream")]
        head += [(name.encode(), value.encode()) for name, value in headers]
        wire = Wire(body(b"" if message is None else json.dumps(message).encode()))
        serving = self._endpoint(scope_on(wire, method, headers=head), wire.receive, wire.send)
        http = Http(wire, self.loop.create_task(serving))
        self.exchanges.append(http)
        self.settle()
        return http

    def settle(self) -> None:
        """Let every task run until it waits."""
        self._do(turns(40))

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.loop.now = min(until, self.loop.now + STEP_S)
            self.settle()

    def cut_off(self) -> None:
        """The end of the shutdown."""
        self._do(self.bridge.cut_off(2.0))
        self.settle()

    def close(self) -> set[asyncio.Task[Any]]:
        """End the bridge; returns the tasks that are left, which should be none."""
        for http in self.exchanges:
            if not http.task.done():
                http.leave()
        self.settle()
        self._do(self._stack.aclose())
        self.settle()
        left = asyncio.all_tasks(self.loop)
        for http in self.exchanges:
            if http.task.done():
                http.task.result()
        for task in left:
            task.cancel()
        self.settle()
        self.loop.close()
        return left

    async def _build(self) -> None:
        meters, readiness = Meters(), Readiness()
        health_checker = HealthChecker(RecyclePolicy())
        placing, pipes = ChildPoolSettings(max_children=MAX_SESSIONS + 1), PipeLimits()
        self.child_pool = ChildPool(
            self._make_child, placing, pipes, meters, observers=[health_checker]
        )
        policy = RestartPolicy(give_up_after=0)
        eras = EraSupervisors(
            self.child_pool, readiness, policy, ChildEra.LEGACY, placing.start_timeout_s
        )
        settings = BridgeSettings(
            placing,
            SESSIONS,
            CALLS,
            ParkSettings(),
            EraSettings(),
            OnChildExit.RESTART,
            RecyclePolicy(),
        )
        call_log = CallLog(meters, log_calls=False)
        self.bridge = Bridge(
            self.child_pool,
            eras,
            settings,
            readiness,
            meters,
            call_log,
            RequestStateCodec(lambda: (b"k" * 32,)),
            health_checker,
        )
        self.keepalive, answers = KeepAlive(15.0), AnswerSettings()
        limits = BodyLimits(1 << 20, 64)
        stateful = LegacyTransport(self.bridge, self.keepalive, answers)
        stateless = ModernTransport(self.bridge, self.keepalive, answers.json_window_s)
        streamable = StreamableHttp(stateful, stateless, EraSettings(), limits)
        self._endpoint = HttpApp(
            [
                *mcp_routes(streamable, None, ("/", "/mcp"), AccessControl()),
                *admin_routes(Probes(readiness), None),
            ],
            HostRules(loopback=True, allowed_hosts=(), allowed_origins=()),
        )
        # In its own task: a task group must be left by the task that entered it.
        begun, self._end = asyncio.Event(), asyncio.Event()
        self._living = asyncio.create_task(self._live(begun))
        self._stack.push_async_callback(self._finish)
        await begun.wait()
        await turns(40)

    async def _live(self, begun: asyncio.Event) -> None:
        async with self.bridge.running():
            begun.set()
            await self._end.wait()

    async def _finish(self) -> None:
        self._end.set()
        await self._living

    def _make_child(self) -> FakeChild:
        child = FakeChild()
        self.children.append(child)
        return child

    def _do(self, work: Any) -> None:
        self.loop.run_until_complete(work)


def progress_of(call: Request, number: int) -> Notification:
    """Progress of a call, under the token that the bridge gave it."""
    token = json.loads(call.params or b"{}")["_meta"]["progressToken"]
    params = json.dumps({"progressToken": token, "progress": number}).encode()
    message = decode(b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % params)
    assert isinstance(message, Notification)
    return message
