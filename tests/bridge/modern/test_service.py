"""Clients of 2026-07-28: which child serves a request, what is checked, and their listens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import EraSettings, EraSupervisors
from mcpbridge.bridge.children.shared_state import Subscriber
from mcpbridge.bridge.modern.emulation import EmulatedCalls
from mcpbridge.bridge.modern.passthrough import Passthrough
from mcpbridge.bridge.modern.service import ModernService, Route
from mcpbridge.rules.faults import Exit, Unavailable
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.rules.mcp.era_probe import ServerEras
from mcpbridge.rules.mcp.modern_checks import RoutingHeaders
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.rules.supervision.lifecycle import DrainEvent
from mcpbridge.wire.messages import Notification, Request, Result
from tests.bridge.fake_server import (
    LEGACY,
    MODERN,
    SILENT,
    FakeProcess,
    FakeServer,
    leased,
    params_of,
    profile_of,
    told_on,
    until,
)
from tests.bridge.legacy.parts import context_of
from tests.bridge.playbook import bounded, turns

CALL, LISTEN = "tools/call", "subscriptions/listen"
SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
META = RequestMeta("2026-07-28", b"{}", frozenset(), False, False, None)
PLAIN = RoutingHeaders("2026-07-28", CALL, "x", {}, False)
ONLY_LEGACY, ONLY_MODERN = ServerEras(legacy=True, modern=False), ServerEras(None, modern=True)
BOTH = ServerEras(legacy=True, modern=True)
SERVER: dict[str, Any] = {
    "initialize": {
        **LEGACY["initialize"],
        "capabilities": {
            "tools": {"listChanged": True},
            "prompts": {},
            "resources": {"subscribe": True},
        },
    }
}


class Backend:
    """A backend that keeps what it is to send."""

    def __init__(self) -> None:
        self.calls: list[tuple[Request, Lease, dict[str, Any]]] = []
        self.in_flight: set[Any] = set()
        self.holders: list[Any] = []
        self.cancelled: list[Any] = []
        self.busy = False
        self.ended = 0
        self.stream: Stream

    def call(self, request: Request, envelope: RequestMeta, lease: Lease, **how: Any) -> Any:
        """See `Passthrough` and `EmulatedCalls`."""
        self.calls.append((request, lease, how))
        return SimpleNamespace(request=request, streamed=lambda: self.stream)

    def cancel(self, exchange: Any, fault: Any = None) -> None:
        """See `Passthrough`."""
        self.cancelled.append((exchange, fault))
        if fault is not None:
            self.stream.close()

    def end_listens(self) -> None:
        """See `Passthrough`."""
        self.ended += 1

    def cut_off(self) -> None:
        """See `Passthrough`."""
        self.ended += 1


class Served:
    """A service, one child of each era, and fakes of its backends."""

    def __init__(
        self, tasks: TaskGroup, server: FakeServer, settings: EraSettings, limits: dict[str, Any]
    ) -> None:
        self.server, self._tasks = server, tasks
        self.verdict: ServerEras | None = None
        self.is_known = anyio.Event()
        self.leases: dict[str, Lease] = {}
        self.processes: dict[str, FakeProcess] = {}
        self.emulated, self.native = Backend(), Backend()
        self.others: list[Subscriber] = []
        context = msgspec.structs.replace(
            context_of(tasks.start_soon), subscribers=self._subscribers, **limits
        )
        self.context = context
        self.native.stream = Stream(context.window, context.meters)
        self.service = ModernService(
            context,
            cast(EraSupervisors, self),
            cast(EmulatedCalls, self.emulated),
            cast(Passthrough, self.native),
            2,
            settings,
        )

    def _subscribers(self) -> list[Subscriber]:
        return [*self.service.listens, *self.others]

    async def start(self) -> None:
        """Start a child of each era."""
        for era, answers in (("legacy", SERVER), ("modern", MODERN)):
            made = await leased(self._tasks, self.server, profile_of(answers))
            self.leases[era], self.processes[era] = made

    def find_out(self, verdict: ServerEras) -> None:
        """It is known from now on what the server speaks."""
        self.verdict = verdict
        self.is_known.set()

    async def known(self) -> ServerEras:
        """See `EraSupervisors`."""
        await self.is_known.wait()
        assert self.verdict is not None
        return self.verdict

    @property
    def legacy(self) -> Any:
        """See `EraSupervisors`."""
        return SimpleNamespace(usable=self.leases.get("legacy"))

    @property
    def modern(self) -> Any:
        """See `EraSupervisors`."""
        return SimpleNamespace(usable=self.leases.get("modern"))

    async def legacy_lease(self) -> Lease:
        """See `EraSupervisors`."""
        return self.leases["legacy"]

    async def modern_lease(self) -> Lease:
        """See `EraSupervisors`."""
        return self.leases["modern"]

    @property
    def process(self) -> FakeProcess:
        """The legacy child."""
        return self.processes["legacy"]


@asynccontextmanager
async def served(
    verdict: ServerEras | None = ONLY_LEGACY,
    settings: EraSettings | None = None,
    limits: dict[str, Any] | None = None,
    **answers: Any,
) -> AsyncIterator[Served]:
    """A service until the block ends."""
    found = {name.replace("_", "/"): answer for name, answer in answers.items()}
    server = FakeServer({SUBSCRIBE: {}, UNSUBSCRIBE: {}, "tools/list": {"tools": []}}, found)
    async with anyio.create_task_group() as tasks:
        made = Served(tasks, server, settings or EraSettings(), limits or {})
        await made.start()
        if verdict is not None:
            made.find_out(verdict)
        yield made
        tasks.cancel_scope.cancel()


def request(method: str = "prompts/list", params: Any = None, number: int = 7) -> Request:
    """A request of a client."""
    return Request(b"%d" % number, method, json.dumps(params or {}).encode())


def listen(*uris: str, lists: bool = True) -> Request:
    """A request for a listen."""
    wanted = {"toolsListChanged": lists, "resourceSubscriptions": list(uris)}
    return request(LISTEN, {"notifications": wanted})


@pytest.mark.parametrize(
    ("verdict", "settings", "native"),
    [
        (ONLY_LEGACY, EraSettings(), False),
        (ONLY_MODERN, EraSettings(), True),
        (BOTH, EraSettings(), True),
        (BOTH, EraSettings(prefer_legacy=True), False),
        (ONLY_MODERN, EraSettings(prefer_legacy=True), True),
    ],
)
@bounded
async def test_the_route_of_a_request_follows_what_the_server_speaks(
    verdict: ServerEras, settings: EraSettings, native: bool
) -> None:
    """It is the same with and without a wait, and names backend and child once for all."""
    async with served(None, settings) as made:
        assert made.service.resolve_nowait(request()) is None
        routes: list[Route] = []

        async def resolve() -> None:
            routes.append(await made.service.resolve(request()))

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(resolve)
            await turns()
            assert routes == []
            made.find_out(verdict)
        at_once = made.service.resolve_nowait(request())
        assert at_once is not None
        for route in (*routes, at_once):
            backend: Any = made.native if native else made.emulated
            assert route.backend is backend
            assert route.lease is made.leases["modern" if native else "legacy"]
            assert route.profile is route.lease.profile
        del made.leases["modern" if native else "legacy"]
        assert made.service.resolve_nowait(request()) is None


@pytest.mark.parametrize(
    ("modern", "verdict", "is_served"),
    [
        ("emulate", None, True),
        ("native", None, None),
        ("native", ONLY_LEGACY, False),
        ("native", BOTH, True),
    ],
)
@bounded
async def test_with_native_alone_it_depends_on_the_server_whether_clients_are_served(
    modern: str, verdict: ServerEras | None, is_served: bool | None
) -> None:
    """Which is not known before its first process has answered."""
    async with served(verdict, EraSettings(modern=modern)) as made:
        assert made.service.served is is_served


@bounded
async def test_nothing_is_begun_when_the_process_is_about_to_end() -> None:
    """Neither a call nor a listen."""
    async with served() as made:
        for event in (DrainEvent.SIGNAL, DrainEvent.LAME_DUCK_OVER):
            made.context.drain.advance(event)
        with pytest.raises(Unavailable):
            made.service.resolve_nowait(request())
        with pytest.raises(Unavailable):
            await made.service.resolve(request())
        with pytest.raises(Unavailable) as raised:
            async with made.service.listening(listen(), META):
                pass
        assert raised.value.fault.reason == "draining"


@bounded
async def test_a_method_that_the_server_does_not_offer_is_refused() -> None:
    """By the capabilities of the child that would serve it."""
    async with served() as made:
        route = await made.service.resolve(request())
        assert made.service.check(request(), PLAIN, route) is None
        refusal = made.service.check(request("completion/complete"), PLAIN, route)
        assert refusal is not None
        assert refusal.status == 404


@bounded
async def test_headers_that_repeat_arguments_are_checked_against_the_list_of_tools() -> None:
    """It is fetched once from the child, and a route without a wait is found from then on."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A"}}}
    tools = {"tools": [{"name": "x", "inputSchema": schema}]}
    call = request(CALL, {"name": "x", "arguments": {"a": "1"}})
    async with served(tools_list=tools) as made:
        assert made.service.resolve_nowait(call) is None
        route = await made.service.resolve(call)
        right = RoutingHeaders("2026-07-28", CALL, "x", {"a": "1"}, False)
        wrong = RoutingHeaders("2026-07-28", CALL, "x", {"a": "2"}, False)
        assert made.service.check(call, right, route) is None
        refusal = made.service.check(call, wrong, route)
        assert refusal is not None
        assert refusal.status == 400
        again = made.service.resolve_nowait(call)
        assert again is not None
        assert again.annotations == route.annotations
        assert len(made.process.asked_for("tools/list")) == 1


@pytest.mark.parametrize("legacy", ["on", "off"])
@bounded
async def test_discovery_names_the_revisions_that_are_served(legacy: str) -> None:
    """The legacy ones only if their clients are served."""
    async with served(settings=EraSettings(legacy=legacy)) as made:
        route = await made.service.resolve(request("server/discover"))
        found = json.loads(made.service.discover(route))
        assert "2026-07-28" in found["supportedVersions"]
        assert ("2025-11-25" in found["supportedVersions"]) is (legacy == "on")


@pytest.mark.parametrize(
    ("private", "method", "scope"),
    [(True, "tools/list", "private"), (False, "tools/list", "public"), (True, CALL, "public")],
)
@bounded
async def test_what_caches_may_keep_is_private_if_clients_are_told_apart(
    private: bool, method: str, scope: str
) -> None:
    """Whatever the server says of it."""
    async with served() as made:
        made.service.claim(private=private)
        sent = request(method)
        route = await made.service.resolve(sent)
        made.service.call(sent, META, route, streams=True, caller=b"c")
        ((called, lease, how),) = made.emulated.calls
        assert (called, lease, how["caller"]) == (sent, route.lease, b"c")
        reply = Result(b"7", b'{"cacheScope":"public"}')
        for translate in how["translations"]:
            reply = translate(reply)
        assert json.loads(reply.result)["cacheScope"] == scope


@bounded
async def test_a_listen_is_acknowledged_first_with_what_the_child_grants() -> None:
    """It is told to unsubscribe when the client has left, and hears no more."""

    def grant(process: FakeProcess, asked: Request) -> None:
        granted = params_of(asked)["uri"] != "b:1"
        process.answer(asked, {} if granted else {"code": -32602, "message": "no"})

    async with served(resources_subscribe=grant) as made:
        async with made.service.listening(listen("a:1", "b:1"), META) as stream:
            assert isinstance(stream, Stream)
            made.process.says(Notification("notifications/tools/list_changed"))
            await until(lambda: len(told_on(stream)) == 2)
            acknowledged, changed = told_on(stream)
            assert acknowledged["params"]["notifications"] == {
                "toolsListChanged": True,
                "resourceSubscriptions": ["a:1"],
            }
            assert changed["method"] == "notifications/tools/list_changed"
            assert made.service.busy
            assert [each.kind for each in made.service.holders] == ["subscription"]
        await until(lambda: made.process.asked_for(UNSUBSCRIBE))
        await turns()
        assert "listeners=0" in repr(made.leases["legacy"].mux)
        (taken_back,) = made.process.asked_for(UNSUBSCRIBE)
        assert params_of(taken_back) == {"uri": "a:1"}
        assert (made.service.busy, list(made.service.listens)) == (False, [])


@bounded
async def test_a_resource_that_another_client_has_is_neither_asked_for_nor_taken_back() -> None:
    """The child counts no subscribers."""
    async with served() as made, AsyncExitStack() as first:
        await first.enter_async_context(made.service.listening(listen("a:1"), META))
        async with made.service.listening(listen("a:1", "b:1"), META) as second:
            assert isinstance(second, Stream)
            granted = told_on(second)[0]["params"]["notifications"]["resourceSubscriptions"]
            assert granted == ["a:1", "b:1"]
        await until(lambda: made.process.asked_for(UNSUBSCRIBE))
        await turns()
        asked = [params_of(each)["uri"] for each in made.process.asked_for(SUBSCRIBE)]
        taken_back = [params_of(each)["uri"] for each in made.process.asked_for(UNSUBSCRIBE)]
        assert (asked, taken_back) == (["a:1", "b:1"], ["b:1"])


@bounded
async def test_a_listen_that_cannot_be_read_is_refused() -> None:
    """It takes no place."""
    async with served(limits={"max_subscriptions": 1}) as made:
        async with made.service.listening(listen("a:1", "b:1"), META) as refusal:
            assert isinstance(refusal, Refusal)
            assert refusal.status == 400
        assert not made.service.busy


@bounded
async def test_the_client_with_most_listens_makes_room_by_its_oldest() -> None:
    """For a client that has fewer; its own further one is refused, and names the setting."""
    async with served() as made, AsyncExitStack() as open_listens:
        streams = []
        for _ in range(2):
            entered = made.service.listening(listen(), META, b"heavy")
            streams.append(cast(Stream, await open_listens.enter_async_context(entered)))
        with pytest.raises(Unavailable) as raised:
            async with made.service.listening(listen(), META, b"heavy"):
                pass
        assert "--max-sessions 2" in raised.value.fault.message
        async with made.service.listening(listen(), META, b"light"):
            assert [each.log.closed for each in streams] == [True, False]
            assert told_on(streams[0])[-1]["result"]["resultType"] == "complete"


@bounded
async def test_a_listen_is_refused_while_memory_is_short() -> None:
    """And a listen that is open can be ended for it."""
    budget = Budget(1000)
    async with served(limits={"budget": budget, "account": budget}) as made:
        budget.charge(2000)
        with pytest.raises(Unavailable) as raised:
            async with made.service.listening(listen(), META):
                pass
        assert "--max-memory" in raised.value.fault.message
        budget.charge(-2000)
        assert not made.service.busy


@bounded
async def test_a_child_that_ends_while_it_grants_fails_the_listen() -> None:
    """Its client opens another."""
    async with served(resources_subscribe=SILENT) as made:
        failed: list[Unavailable] = []

        async def enter() -> None:
            try:
                async with made.service.listening(listen("a:1"), META):
                    pass
            except Unavailable as error:
                failed.append(error)

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(enter)
            await until(lambda: made.process.asked_for(SUBSCRIBE))
            made.process.end(Exit(code=1))
        assert [each.fault.reason for each in failed] == ["child_exited"]
        assert (made.service.busy, list(made.service.listens)) == (False, [])


@bounded
async def test_a_modern_child_gets_the_listen_itself() -> None:
    """It is cancelled when the client has left, or when it makes room for another client."""
    async with served(ONLY_MODERN) as made:
        async with made.service.listening(listen("a:1"), META, b"one") as stream:
            assert stream is made.native.stream
            assert made.native.calls[0][1] is made.leases["modern"]
            assert (made.native.cancelled, made.service.busy) == ([], True)
        ((_, fault),) = made.native.cancelled
        assert (fault, made.service.busy, made.process.got) == (None, False, [])
        async with AsyncExitStack() as open_listens:
            for _ in range(2):
                entered = made.service.listening(listen(), META, b"heavy")
                await open_listens.enter_async_context(entered)
            async with made.service.listening(listen(), META, b"light"):
                assert made.native.cancelled[-1][1].reason == "capacity"


@bounded
async def test_at_the_end_of_the_process_listens_end_with_their_result() -> None:
    """Before the calls, which the cut-off ends with an error."""
    async with served() as made, made.service.listening(listen(), META) as stream:
        assert isinstance(stream, Stream)
        made.service.end_listens()
        assert (told_on(stream)[-1]["id"], stream.log.closed) == (7, True)
        assert (made.native.ended, made.emulated.ended) == (1, 0)
        made.service.cut_off()
        assert (made.native.ended, made.emulated.ended) == (3, 1)
