"""The order of a client's messages, whatever its child does in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import anyio
import msgspec
import pytest

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.send_queue import MAX_WAITING, SendQueue
from mcpbridge.bridge.legacy.session_child import ChildLink
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.process.child import Child
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import Unavailable, child_exited
from mcpbridge.rules.uri_set import UriSet
from mcpbridge.wire.messages import Message, Notification, Request, Result, encode
from tests.bridge.calls.test_exchange import FakeScope, exchange_of
from tests.bridge.legacy.parts import ASKED, context_of
from tests.bridge.playbook import bounded, turns


class SlowChannel(MemoryChannel):
    """A pipe whose reader may be behind."""

    def __init__(self) -> None:
        super().__init__()
        self.read_on = asyncio.Event()
        self.read_on.set()
        self.fills = False
        """Each message fills it."""

    def send(self, message: Message) -> None:
        """A message for the reader."""
        super().send(message)
        if self.fills:
            self.read_on.clear()

    @property
    def congested(self) -> bool:
        """The reader is behind."""
        return not self.read_on.is_set()

    async def writable(self) -> None:
        """Wait for the reader."""
        await self.read_on.wait()


class FakeLink:
    """The way to the child: there is one, or there will be."""

    adapter = None

    def __init__(self) -> None:
        self.usable: Lease | None = None
        self.found = asyncio.Event()
        self.lease: Lease | None = None
        self.asked = 0

    async def find(self) -> Lease:
        """Wait for the child."""
        self.asked += 1
        await self.found.wait()
        if self.lease is None:
            raise Unavailable(child_exited(None, "no"))
        return self.lease


class Client:
    """One client, its queue and the child that it gets."""

    def __init__(self, tasks: Any, *, shared: bool = True, others: list[Any] | None = None) -> None:
        self.link = FakeLink()
        self.pipe, self.far = SlowChannel(), MemoryChannel()
        self.pipe.join(self.far)
        self.context = msgspec.structs.replace(
            context_of(tasks), subscribers=lambda: [*self.others, cast(Any, self)]
        )
        self.mux = Mux(self.pipe, self.context.meters, shared=shared, max_message_bytes=1 << 20)
        self.lease = Lease(cast(Child, None), self.mux)
        self.others: list[Any] = others or []
        self.state = ClientState(ASKED, 0.0)
        self.queue = self.new_queue()

    def new_queue(self) -> SendQueue:
        """A queue under the limits of the context as it is now."""
        link = cast(ChildLink, self.link)
        return SendQueue(link, self.state, cast(Any, self), self.context, Account())

    def serve(self) -> None:
        """The child is there."""
        self.link.lease = self.link.usable = self.lease
        self.link.found.set()

    def tell(self, name: str) -> None:
        """A notification."""
        self.queue.tell(Notification(f"notifications/{name}"))

    def call(self, method: str, params: bytes | None = None) -> Exchange:
        """A request."""
        exchange = Exchange(
            Request(b"1", method, params), FakeScope(), 0.0, streams=False, stream=None
        )
        self.queue.call(exchange)
        return exchange

    async def got(self) -> list[str]:
        """The methods of what the child has got since."""
        self.far.put(Notification("end"))
        got = [json.loads(encode(cast(Any, each)))["method"] for each in await self.far.receive()]
        return [method.removeprefix("notifications/") for method in got][:-1]


@bounded
async def test_messages_wait_for_the_child_and_keep_their_order() -> None:
    """Those that come while the first ones are sent stay behind them."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        client.tell("a")
        exchange = client.call("tools/call")
        client.tell("b")
        await turns()
        assert (await client.got(), exchange.number, client.link.asked) == ([], None, 1)
        client.serve()
        client.tell("c")
        assert await client.got() == []
        await turns()
        assert await client.got() == ["a", "tools/call", "b", "c"]
        client.tell("d")
        assert await client.got() == ["d"], "nothing waits: at once"


@bounded
async def test_a_full_pipe_holds_messages_back_in_order() -> None:
    """Until the child has read enough."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        client.serve()
        client.pipe.read_on.clear()
        client.tell("a")
        client.tell("b")
        await turns()
        assert await client.got() == []
        client.pipe.read_on.set()
        client.tell("c")
        await turns()
        assert await client.got() == ["a", "b", "c"]


@bounded
async def test_no_more_is_sent_than_the_pipe_takes() -> None:
    """What waits is looked after message by message."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        client.tell("a")
        client.tell("b")
        client.pipe.fills = True
        client.serve()
        await turns()
        assert await client.got() == ["a"]
        client.pipe.read_on.set()
        await turns()
        assert await client.got() == ["b"]


@bounded
async def test_what_waits_goes_to_the_child_that_serves_then() -> None:
    """The first one took no further call before its turn came."""
    async with anyio.create_task_group() as tasks:
        client, other = Client(tasks.start_soon), Client(tasks.start_soon)
        client.serve()
        client.pipe.read_on.clear()
        client.tell("a")
        await turns()
        client.mux.introduced()
        client.mux.stop_accepting()
        client.link.lease, client.link.usable = other.lease, None
        client.pipe.read_on.set()
        await turns()
        assert (await client.got(), await other.got()) == ([], ["a"])


@bounded
async def test_without_a_child_calls_are_answered_and_notifications_dropped() -> None:
    """The next message asks for a child again."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        client.tell("a")
        exchange = client.call("tools/call")
        client.link.found.set()
        await turns()
        assert exchange.fault is not None
        assert exchange.fault.reason == "child_exited"
        client.tell("b")
        await turns()
        assert client.link.asked == 2


@bounded
async def test_the_number_of_waiting_messages_is_bounded() -> None:
    """A call is answered, a notification counted; those before them stay."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        for _ in range(MAX_WAITING + 1):
            client.tell("a")
        exchange = client.call("tools/call")
        assert exchange.fault is not None
        assert exchange.fault.reason == "capacity"
        assert client.context.meters.counts() == {"shed_client_notification": 1}
        client.serve()
        await turns()
        assert await client.got() == ["a"] * MAX_WAITING


@bounded
async def test_the_bytes_of_waiting_messages_are_bounded() -> None:
    """Those of calls count; the first may be larger; what was sent, or dropped, counts no more."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon, shared=False)
        client.context = msgspec.structs.replace(client.context, queue_bytes=1000)
        client.queue = client.new_queue()
        client.call("a", b'"%b"' % (b"x" * 2000))
        client.tell("shed")
        refused = client.call("b")
        assert refused.fault is not None
        assert refused.fault.reason == "capacity"
        assert "(--queue-bytes) 1000" in refused.fault.message
        assert client.context.meters.counts() == {"shed_client_notification": 1}
        client.serve()
        await turns()
        assert await client.got() == ["a"]
        client.pipe.read_on.clear()
        client.tell("initialized")
        client.tell("c")
        client.call("d")
        client.tell("shed")
        client.queue.forget_initialized()
        client.tell("e")
        client.pipe.read_on.set()
        await turns()
        assert await client.got() == ["c", "d", "e"]


@pytest.mark.parametrize("shared", [True, False])
@bounded
async def test_a_shared_child_does_not_get_what_is_of_one_client(shared: bool) -> None:
    """It was initialized by the bridge, and the roots of one client are not those of all."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon, shared=shared)
        client.serve()
        client.tell("initialized")
        client.tell("roots/list_changed")
        client.tell("x")
        private = [] if shared else ["initialized", "roots/list_changed"]
        assert await client.got() == [*private, "x"]


@bounded
async def test_an_initialized_that_waits_can_be_forgotten() -> None:
    """The child is told in the bridge's name; what is before and behind it stays."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon, shared=False)
        client.tell("a")
        client.tell("initialized")
        client.call("tools/call")
        client.queue.forget_initialized()
        client.serve()
        await turns()
        assert await client.got() == ["a", "tools/call"]


class Other:
    """Another client of the shared child."""

    level = "debug"
    subscriptions = UriSet(["a:1"])

    def wants(self, uri: str) -> bool:
        """As granted."""
        return uri in self.subscriptions


@bounded
async def test_what_the_clients_set_together_is_merged_for_a_shared_child() -> None:
    """A subscription that it has already is not sent; the level is that of the most verbose."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon, others=[Other()])
        client.serve()
        granted = client.call("resources/subscribe", b'{"uri":"a:1"}')
        assert granted.reply == Result(b"1", b"{}")
        client.call("logging/setLevel", b'{"level":"error"}')
        assert client.state.level == "error"
        (sent,) = [each for each in await client.far.receive() if isinstance(each, Request)]
        assert sent.params == b'{"level":"debug"}'


@bounded
async def test_nothing_is_sent_for_a_call_that_has_its_answer() -> None:
    """Its client may have cancelled it while it waited."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        exchange = exchange_of(FakeScope())
        client.queue.call(exchange)
        exchange.fail(child_exited(None, "no"))
        client.serve()
        await turns()
        assert await client.got() == []


@bounded
async def test_a_child_is_looked_for_before_there_is_anything_to_send() -> None:
    """Once, however often it is asked for; a message that comes then waits for it."""
    async with anyio.create_task_group() as tasks:
        client = Client(tasks.start_soon)
        client.queue.seek()
        client.queue.seek()
        client.tell("a")
        await turns()
        assert (client.link.asked, await client.got()) == (1, [])
        client.serve()
        await turns()
        assert await client.got() == ["a"]
