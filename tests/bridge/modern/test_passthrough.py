"""Calls and listens of 2026-07-28 on a child of the same revision."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.modern.passthrough import Passthrough
from mcpbridge.rules.faults import Exit, Unavailable, spawn_failed, timed_out
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.wire.messages import Notification, Request, Result
from tests.bridge.fake_server import (
    MODERN,
    SILENT,
    FakeProcess,
    FakeServer,
    content_of,
    leased,
    params_of,
    profile_of,
    reason_of,
    told_on,
    until,
)
from tests.bridge.legacy.parts import context_of
from tests.bridge.playbook import bounded, turns

CALL, LISTEN = "tools/call", "subscriptions/listen"
TOOLS = "notifications/tools/list_changed"
TAG = "io.modelcontextprotocol/subscriptionId"
GOOD = {"resultType": "complete", "content": []}
META = RequestMeta("2026-07-28", b"{}", frozenset(), False, False, None)


class Passed:
    """A passthrough on one process; `next` is what the supervisors would return."""

    def __init__(
        self, context: CallContext, tasks: TaskGroup, server: FakeServer, *, keeps_listens: bool
    ) -> None:
        self.server, self.context = server, context
        self.next: Lease | None = None
        self.lease: Lease
        self.process: FakeProcess
        self.may_find = anyio.Event()
        eras = cast(EraSupervisors, self)
        self.passthrough = Passthrough(context, eras, keeps_listens=keeps_listens)
        self._tasks = tasks

    async def start(self) -> tuple[Lease, FakeProcess]:
        """Start a process of the server."""
        return await leased(self._tasks, self.server, profile_of(MODERN))

    async def modern_lease(self) -> Lease:
        """See `EraSupervisors`."""
        await self.may_find.wait()
        if self.next is None:
            raise Unavailable(spawn_failed())
        return self.next

    def call(self, method: str = CALL, number: int = 7, caller: bytes = b"", **params: Any) -> Any:
        """A client sends a request; its exchange."""
        request = Request(b"%d" % number, method, json.dumps(params).encode())
        return self.passthrough.call(request, META, self.lease, streams=True, caller=caller)

    @property
    def listens(self) -> list[Request]:
        """The listens that the process has got."""
        return self.process.asked_for(LISTEN)

    async def listen(self, *lists: str) -> tuple[Exchange, Request]:
        """A client listens to these lists, and the child acknowledges it."""
        wanted, before = {f"{name}ListChanged": True for name in lists}, len(self.listens)
        exchange = self.call(LISTEN, notifications=wanted)
        await until(lambda: len(self.listens) > before)
        request = self.listens[-1]
        self.acknowledge(request)
        await until(lambda: exchange.stream and exchange.stream.log.last)
        return exchange, request

    def acknowledge(self, request: Request) -> None:
        """The child acknowledges a listen."""
        params = {"notifications": {}, "_meta": {TAG: json.loads(request.id)}}
        method = "notifications/subscriptions/acknowledged"
        self.process.says(Notification(method, json.dumps(params).encode()))


@asynccontextmanager
async def passed(
    limits: dict[str, Any] | None = None, *, keeps_listens: bool = False, **answers: Any
) -> AsyncIterator[Passed]:
    """A passthrough whose child answers calls so, until the block ends."""
    found = {name.replace("_", "/"): answer for name, answer in answers.items()}
    server = FakeServer(MODERN, {CALL: GOOD, LISTEN: SILENT}, found)
    async with anyio.create_task_group() as tasks:
        context = msgspec.structs.replace(context_of(tasks.start_soon), **(limits or {}))
        made = Passed(context, tasks, server, keeps_listens=keeps_listens)
        made.lease, made.process = await made.start()
        yield made
        tasks.cancel_scope.cancel()


@bounded
async def test_a_call_is_passed_on_and_answered_under_the_clients_id() -> None:
    """Its params and result are not changed; it counts until it has its answer."""
    async with passed(tools_call=SILENT) as made:
        exchange = made.call(name="x", arguments={"a": 1})
        assert (made.passthrough.in_flight, made.context.drain.in_flight) == ({exchange}, 1)
        await until(lambda: made.process.asked_for(CALL))
        (sent,) = made.process.asked_for(CALL)
        assert params_of(sent) == {"name": "x", "arguments": {"a": 1}}
        made.process.answer(sent, GOOD)
        await until(lambda: exchange.reply)
        assert (exchange.reply.id, content_of(exchange)) == (b"7", GOOD)
        assert (made.passthrough.in_flight, made.context.drain.in_flight) == (set(), 0)


@bounded
async def test_translations_of_the_caller_are_applied_to_the_answer() -> None:
    """To mark it as private, for example."""
    async with passed() as made:
        exchange = made.passthrough.call(
            Request(b"1", CALL, b"{}"),
            META,
            made.lease,
            streams=True,
            translations=(lambda reply: Result(reply.id or b"", b'{"marked":true}'),),
        )
        await until(lambda: exchange.reply)
        assert content_of(exchange) == {"marked": True}


@bounded
async def test_over_the_limit_a_call_is_refused_and_a_listen_is_not() -> None:
    """The child gets nothing of the call; listens have their own limit."""
    async with passed({"max_calls": 1, "undivided_calls": 1}, tools_call=SILENT) as made:
        made.call()
        refused = made.call(number=8)
        assert (reason_of(refused), refused.refused) == ("capacity", True)
        assert "--max-calls 1" in content_of(refused)["message"]
        _, listen = await made.listen("tools")
        assert (len(made.process.asked_for(CALL)), listen.method) == (1, LISTEN)


@bounded
async def test_a_client_that_leaves_cancels_its_call_at_the_child() -> None:
    """Only its own call."""
    async with passed(tools_call=SILENT) as made:
        leaves, stays = made.call(number=1), made.call(number=2)
        made.passthrough.cancel(leaves)
        await until(lambda: len(made.process.got) == 3)
        assert made.process.methods == [CALL, CALL, "notifications/cancelled"]
        first = json.loads(made.process.asked_for(CALL)[0].id)
        assert params_of(made.process.got[-1])["requestId"] == first
        assert (reason_of(leaves), stays.reply) == ("cancelled", None)
        made.passthrough.cancel(stays, spawn_failed())
        assert reason_of(stays) == "spawn_failed"


@bounded
async def test_calls_that_take_too_long_end_and_listens_do_not() -> None:
    """A listen lasts as long as its client likes."""
    fault = timed_out("--request-timeout", 5.0)
    async with passed(tools_call=SILENT) as made:
        listen, _ = await made.listen("tools")
        late, early = made.call(number=1), made.call(number=2)
        made.passthrough.sweep(5.0, lambda each, now: fault if each is late else None)
        assert (late.fault, early.reply, listen.reply) == (fault, None, None)
        made.passthrough.sweep(5.0, lambda each, now: fault)
        assert (early.fault, listen.reply) == (fault, None)


@bounded
async def test_a_call_waits_for_the_next_child_if_its_own_is_gone() -> None:
    """Or is refused if there is none."""
    async with passed() as made:
        made.process.end(Exit(code=1))
        await until(lambda: made.lease.mux.shut)
        waiting = made.call()
        await turns()
        assert waiting.reply is None
        made.next, process = await made.start()
        made.may_find.set()
        await until(lambda: waiting.reply)
        assert (content_of(waiting), len(process.asked_for(CALL))) == (GOOD, 1)
        made.next = None
        refused = made.call(number=8)
        await until(lambda: refused.reply)
        assert (refused.fault, refused.refused) == (spawn_failed(), True)


@bounded
async def test_a_listen_ends_with_its_result_when_its_child_is_gone() -> None:
    """So that its client opens another; a call gets the error."""
    async with passed(tools_call=SILENT) as made:
        listen, _ = await made.listen("tools")
        call = made.call()
        made.process.end(Exit(code=1))
        await until(lambda: listen.reply and call.reply)
        assert content_of(listen) == {"resultType": "complete", "_meta": {TAG: 7}}
        assert reason_of(call) == "child_exited"


@bounded
async def test_an_error_of_the_child_about_a_listen_is_passed_on() -> None:
    """It is not a fault of the bridge: another listen would not help."""
    error = {"code": -32602, "message": "no such list"}
    async with passed(subscriptions_listen=error) as made:
        exchange = made.call(LISTEN, notifications={})
        await until(lambda: exchange.reply)
        assert content_of(exchange) == error


@bounded
async def test_the_end_of_the_process_ends_listens_first_and_calls_at_the_cut_off() -> None:
    """A listen with its result, a call with an error."""
    async with passed(tools_call=SILENT) as made:
        listen, _ = await made.listen("tools")
        call = made.call()
        made.passthrough.end_listens()
        assert (content_of(listen)["resultType"], call.reply) == ("complete", None)
        made.passthrough.cut_off()
        assert (reason_of(call), made.passthrough.in_flight) == ("shutdown", set())


@bounded
async def test_listens_learn_that_another_child_takes_over() -> None:
    """Of the lists that they want and that change, after the acknowledgement, with their tag."""
    profile = profile_of(
        {
            "server/discover": {
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {"listChanged": True}, "prompts": {}},
            }
        }
    )
    async with passed(tools_call=SILENT) as made:
        both, _ = await made.listen("tools", "prompts")
        others, _ = await made.listen("resources")
        early, call = made.call(LISTEN, notifications={"toolsListChanged": True}), made.call()
        for each in (early, call):
            each.always_stream()
        made.passthrough.announce_lists(profile)
        acknowledged, changed = told_on(both.stream)
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert (changed["method"], changed["params"]["_meta"]) == (TOOLS, {TAG: 7})
        assert len(told_on(others.stream)) == 1
        assert (told_on(early.stream), told_on(call.stream)) == ([], [])


@pytest.mark.parametrize("size", [0, 100_000])
@bounded
async def test_what_has_bytes_in_the_ledger_is_named_by_its_kind(size: int) -> None:
    """Small calls are not charged."""
    async with passed(tools_call=SILENT) as made:
        made.call(text="x" * size)
        await made.listen("tools")
        kinds = {each.kind: each.held for each in made.passthrough.holders}
        assert set(kinds) == ({"call", "subscription"} if size else {"subscription"})
        assert kinds.get("call", 0) >= size
