"""A legacy session on a child of 2026-07-28: what is answered for it, and its one listen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.legacy import modern_child
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.modern_child import ModernChildAdapter
from mcpbridge.bridge.legacy.server_requests import ServerRequestSender
from mcpbridge.rules.faults import Exit, Unavailable, spawn_failed
from mcpbridge.wire.messages import Notification, Request, Result
from tests.bridge.calls.test_exchange import FakeScope
from tests.bridge.fake_server import (
    MODERN,
    SILENT,
    FakeProcess,
    FakeServer,
    content_of,
    leased,
    params_of,
    profile_of,
    until,
)
from tests.bridge.legacy.parts import ASKED
from tests.bridge.playbook import bounded, turns

LISTEN = "subscriptions/listen"
TOOLS = "notifications/tools/list_changed"
TAG = "io.modelcontextprotocol/subscriptionId"
LEVEL = "io.modelcontextprotocol/logLevel"
INVALID, UNKNOWN = -32602, -32601


def tagged(listen: Request, method: str, params: dict[str, Any]) -> Notification:
    """A notification of a listen."""
    found = {**params, "_meta": {TAG: json.loads(listen.id)}}
    return Notification(method, json.dumps(found).encode())


def grants(*uris: str) -> Any:
    """An answer that acknowledges a listen, with these resources if they are wanted."""

    def acknowledge(process: FakeProcess, listen: Request) -> None:
        wanted = params_of(listen)["notifications"].get("resourceSubscriptions", [])
        granted = {"resourceSubscriptions": [uri for uri in wanted if uri in uris]}
        method = "notifications/subscriptions/acknowledged"
        process.says(tagged(listen, method, {"notifications": granted}))

    return acknowledge


class Scope(FakeScope):
    """A session that records granted subscriptions."""

    def __init__(self, client: ClientState) -> None:
        super().__init__()
        self._client = client

    def ended(self, exchange: Exchange) -> None:
        """See `Scope`."""
        if exchange.request.method == "resources/subscribe":
            self._client.settle(exchange.request, granted=isinstance(exchange.reply, Result))


class Adapted:
    """An adapter, its client, and the processes that it gets in turn."""

    def __init__(self, server: FakeServer, tasks: TaskGroup) -> None:
        self.server, self.client = server, ClientState(ASKED, 0.0)
        self.told: list[Notification] = []
        self.may_find = anyio.Event()
        self.may_find.set()
        self._lease: Lease | None = None
        self._tasks = tasks
        self.adapter = ModernChildAdapter(
            self.client, self._find, self, self.told.append, tasks.start_soon
        )

    async def _find(self) -> Lease:
        await self.may_find.wait()
        if self._lease is None or self._lease.mux.shut:
            if self.server.broken:
                raise Unavailable(spawn_failed())
            profile = profile_of(self.server.answers)
            self._lease, _ = await leased(self._tasks, self.server, profile)
        return self._lease

    def ask_for_call(
        self, request: Request, asker: ServerRequestSender, exchange: Exchange
    ) -> None:
        """See `CallServerRequests`."""
        raise AssertionError("no call asks here")

    def call_over(self, exchange: Exchange) -> None:
        """See `CallServerRequests`."""

    def begin(self, method: str, **params: Any) -> Exchange:
        """The client sends a request."""
        request = Request(b"7", method, json.dumps(params).encode())
        scope = Scope(self.client)
        exchange = Exchange(request, scope, anyio.current_time(), streams=True, stream=None)
        self.adapter.call(exchange)
        return exchange

    async def call(self, method: str, **params: Any) -> Any:
        """The answer to a request of the client."""
        exchange = self.begin(method, **params)
        await until(lambda: exchange.reply)
        return content_of(exchange)

    @property
    def process(self) -> FakeProcess:
        """The process that was started last."""
        return self.server.processes[-1]

    @property
    def listens(self) -> list[Request]:
        """The listens that it has got."""
        return self.process.asked_for(LISTEN)

    @property
    def cancelled(self) -> list[int]:
        """The numbers of the requests that were cancelled at it."""
        told = [each for each in self.process.got if isinstance(each, Notification)]
        return [params_of(each)["requestId"] for each in told]

    async def listen(self, count: int = 1) -> Request:
        """The client has initialized: wait for a listen."""
        self.adapter.tell(Notification("notifications/initialized"))
        return await self.listened(count)

    async def listened(self, count: int) -> Request:
        """Wait for the listen of this number on the last process."""
        await until(lambda: self.server.processes and len(self.listens) >= count)
        return self.listens[count - 1]


@asynccontextmanager
async def adapted(**answers: Any) -> AsyncIterator[Adapted]:
    """An adapter on a server that answers so, until the block ends."""
    found = {name.replace("_", "/"): answer for name, answer in answers.items()}
    server = FakeServer(MODERN, {LISTEN: grants()}, found)
    async with anyio.create_task_group() as tasks:
        yield Adapted(server, tasks)
        tasks.cancel_scope.cancel()


@bounded
async def test_what_the_newer_revision_does_not_have_is_answered_without_the_child() -> None:
    """And what no legacy revision has is unknown."""
    async with adapted() as made:
        assert await made.call("ping") == {}
        for method in ("server/discover", LISTEN, "tasks/get"):
            assert (await made.call(method))["code"] == UNKNOWN
        assert made.server.processes == []


@bounded
async def test_the_log_level_of_the_session_goes_with_each_request() -> None:
    """Only one that exists; before the first there is none."""
    async with adapted(tools_list={"resultType": "complete", "tools": []}) as made:
        await made.call("tools/list")
        assert (await made.call("logging/setLevel", level="loud"))["code"] == INVALID
        assert (await made.call("logging/setLevel"))["code"] == INVALID
        await made.call("tools/list")
        assert await made.call("logging/setLevel", level="error") == {}
        await made.call("tools/list")
        sent = made.process.asked_for("tools/list")
        assert [params_of(each)["_meta"].get(LEVEL) for each in sent] == [None, None, "error"]


@bounded
async def test_a_call_without_a_child_is_told_why() -> None:
    """A subscription is refused."""
    async with adapted() as made:
        made.server.broken = True
        exchange = made.begin("tools/list")
        await until(lambda: exchange.reply)
        assert exchange.fault == spawn_failed()
        assert "code" in await made.call("resources/subscribe", uri="a:1")


@bounded
async def test_params_that_cannot_be_read_are_an_error_of_the_call() -> None:
    """The task that serves it ends with the answer."""
    async with adapted() as made:
        request = Request(b"7", "tools/list", b'{"_meta":{},"_meta":{}}')
        exchange = Exchange(request, FakeScope(), 0.0, streams=True, stream=None)
        made.adapter.call(exchange)
        await until(lambda: exchange.reply)
        assert content_of(exchange)["code"] == INVALID


@bounded
async def test_a_session_listens_once_it_has_initialized() -> None:
    """To the lists that the child announces; its client gets them without the tag."""
    async with adapted() as made:
        made.adapter.tell(Notification("notifications/roots/list_changed"))
        await turns()
        assert made.server.processes == []
        listen = await made.listen()
        assert params_of(listen)["notifications"] == {"toolsListChanged": True}
        made.process.says(tagged(listen, TOOLS, {"x": 1}))
        await until(lambda: made.told)
        assert made.told == [Notification(TOOLS, b'{"x":1}')]


@bounded
async def test_a_subscription_opens_another_listen_before_the_last_one_ends() -> None:
    """So that no event is lost in between; what the child does not grant is refused."""
    async with adapted(subscriptions_listen=grants("a:1")) as made:
        first = await made.listen()
        assert await made.call("resources/subscribe", uri="a:1") == {}
        second = made.listens[1]
        assert params_of(second)["notifications"]["resourceSubscriptions"] == ["a:1"]
        await until(lambda: made.cancelled)
        order = [each for each in made.process.methods if each != "server/discover"]
        assert order == [LISTEN, LISTEN, "notifications/cancelled"]
        assert made.cancelled == [json.loads(first.id)]
        assert (await made.call("resources/subscribe", uri="b:1"))["code"] == INVALID
        assert (await made.call("resources/subscribe"))["code"] == INVALID
        assert await made.call("resources/unsubscribe", uri="a:1") == {}
        assert "resourceSubscriptions" not in params_of(made.listens[-1])["notifications"]


@bounded
async def test_subscriptions_of_one_moment_follow_each_other() -> None:
    """The listen that stays is the last one, with the resources of both."""
    async with adapted(subscriptions_listen=SILENT) as made:
        exchanges = [made.begin("resources/subscribe", uri=uri) for uri in ("a:1", "b:1")]
        answer = grants("a:1", "b:1")
        first = await made.listened(1)
        await turns()
        assert len(made.listens) == 1
        answer(made.process, first)
        second = await made.listened(2)
        assert params_of(second)["notifications"]["resourceSubscriptions"] == ["a:1", "b:1"]
        answer(made.process, second)
        await until(lambda: all(each.reply for each in exchanges))
        await until(lambda: made.cancelled)
        assert made.cancelled == [json.loads(first.id)]


@bounded
async def test_the_next_child_is_listened_to_when_one_is_gone() -> None:
    """Its lists may differ: the client looks again."""
    async with adapted() as made:
        await made.listen()
        await turns()
        made.process.end(Exit(code=1))
        await until(lambda: len(made.server.processes) == 2 and made.told)
        assert (len(made.listens), made.told) == (1, [Notification(TOOLS)])


@bounded
async def test_a_child_that_is_gone_before_it_acknowledges_is_not_the_last() -> None:
    """Its listen was not yet the session's."""
    async with adapted(subscriptions_listen=SILENT) as made:
        await made.listen()
        made.server.answers[LISTEN] = grants()
        made.process.end(Exit(code=1))
        await until(lambda: len(made.server.processes) == 2 and made.listens)


@pytest.mark.parametrize("refused", [True, False])
@bounded
async def test_a_listen_that_the_child_ends_is_opened_again_but_not_one_that_it_refuses(
    monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """After a pause, since it may end that one too."""
    monkeypatch.setattr(modern_child, "_RENEWED_AFTER_S", 0.0)
    answer = {"code": -32603, "message": "no"} if refused else grants()
    async with adapted(subscriptions_listen=answer) as made:
        listen = await made.listen()
        if refused:
            assert "code" in await made.call("resources/subscribe", uri="a:1")
            await turns()
            assert len(made.listens) == 2
        else:
            made.process.answer(listen, {"resultType": "complete"})
            await made.listened(2)
            await until(lambda: made.told)
            assert made.told == [Notification(TOOLS)]


@bounded
async def test_a_client_is_told_in_place_of_a_listen_that_the_child_refuses() -> None:
    """Of each list that the next child says it changes; a listen that it has tells by itself."""
    refusal = {"code": UNKNOWN, "message": "method not found"}
    for answer, told in ((refusal, [Notification(TOOLS)]), (grants(), [])):
        async with adapted(subscriptions_listen=answer) as made:
            made.adapter.announce_lists(profile_of(MODERN))
            await made.listen()
            await turns()
            assert made.told == []
            made.adapter.announce_lists(profile_of(MODERN))
            assert made.told == told
            made.adapter.close()
            made.adapter.announce_lists(profile_of(MODERN))
            assert made.told == told


@bounded
async def test_a_closed_session_listens_to_nothing() -> None:
    """Not even by a listen that was being opened."""
    async with adapted() as made:
        first = await made.listen()
        await turns()
        made.adapter.close()
        await until(lambda: made.cancelled)
        assert made.cancelled == [json.loads(first.id)]
    async with adapted(subscriptions_listen=SILENT) as made:
        opening = await made.listen()
        made.adapter.close()
        grants()(made.process, opening)
        await until(lambda: made.cancelled)
        assert made.cancelled == [json.loads(opening.id)]
        made.process.end(Exit(code=1))
        await turns()
        assert len(made.server.processes) == 1


@bounded
async def test_a_listen_without_an_acknowledgement_grants_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client is not kept waiting for it."""
    monkeypatch.setattr(modern_child, "_ACKNOWLEDGED_WITHIN_S", 0.0)
    async with adapted(subscriptions_listen=SILENT) as made:
        assert (await made.call("resources/subscribe", uri="a:1"))["code"] == INVALID


@bounded
async def test_results_fit_the_output_schemas_that_the_client_has_seen() -> None:
    """Both are wrapped in an object, or neither."""
    tools = [
        {"name": "number", "outputSchema": {"type": "integer"}},
        {"name": "object", "outputSchema": {"type": "object"}},
    ]
    result = {"resultType": "complete", "structuredContent": 7, "content": []}
    async with adapted(
        tools_list={"resultType": "complete", "tools": tools}, tools_call=result
    ) as made:
        listed = await made.call("tools/list")
        assert [tool["outputSchema"]["type"] for tool in listed["tools"]] == ["object", "object"]
        called = await made.call("tools/call", name="number")
        assert called["structuredContent"] == {"result": 7}
        assert [made.adapter.wraps(name) for name in ("number", "object", None)] == [
            True,
            False,
            False,
        ]
