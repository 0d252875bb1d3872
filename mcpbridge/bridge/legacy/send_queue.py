"""A queue that sends a client's messages to its child in order.

A notification is acknowledged to the client before the child has read it, and the client may send
its next request on another connection at once; so the order must be kept here. Messages that cannot
be sent at once wait, up to a limit, until there is a child that reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from mcpbridge.bridge.calls.context import CallContext
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.children.shared_state import Subscriber, shared_verb
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.session_child import ChildLink
from mcpbridge.rules.access.shares import MESSAGE_BYTES, Account
from mcpbridge.rules.faults import Fault, Unavailable, capacity, out_of_memory
from mcpbridge.rules.mcp.methods import (
    INITIALIZED,
    SHARED_VERBS,
    SUBSCRIBE,
    stops_at_the_bridge,
)
from mcpbridge.wire.messages import Notification, Result

MAX_WAITING = 1024
"""Most messages of one session that may wait for a child; `--queue-bytes` bounds their size."""

Item = Exchange | Notification


class SendQueue:
    """A queue of one client's messages to its child; owned by the session."""

    __slots__ = (
        "_account",
        "_client",
        "_context",
        "_link",
        "_moving",
        "_size",
        "_subscriber",
        "_waiting",
    )

    def __init__(
        self,
        link: ChildLink,
        client: ClientState,
        subscriber: Subscriber,
        context: CallContext,
        account: Account,
    ) -> None:
        """Make an empty queue.

        Args:
            link: Finds the child.
            client: The state of the client.
            subscriber: The client as one of those that share the child.
            context: Starts tasks, counts dropped messages, and has the other subscribers.
            account: Charged for the notifications that wait; calls are charged by themselves.
        """
        self._link = link
        self._client = client
        self._subscriber = subscriber
        self._context = context
        self._account = account
        # Not a deque, whose first block takes 600 bytes: every session has a queue, and nearly all
        # of them are empty.
        self._waiting: list[Item] = []
        self._size = 0
        """Bytes of what waits, those of calls included."""
        self._moving = False
        """Whether a task is sending what waits; there is at most one, which keeps the order."""

    def call(self, exchange: Exchange) -> None:
        """Send a request, or answer it if the child need not be asked; see `shared_verb`."""
        if exchange.request.method in SHARED_VERBS and not self._passes_on(exchange):
            return
        adapter = self._link.adapter
        if adapter is not None:
            adapter.call(exchange)
        else:
            self._put(exchange)

    def _passes_on(self, exchange: Exchange) -> bool:
        """Return whether the child has to be asked for one of `SHARED_VERBS`; else answer it."""
        request = exchange.request
        if request.method == SUBSCRIBE:
            problem = self._client.subscription_problem(request, self._context.max_subscriptions)
            if problem is not None:
                exchange.invalid(problem)
                return False
        if self._link.adapter is not None:
            return True
        self._client.intend(request)
        lease = self._subscriber.lease
        if lease is not None and lease.mux.shared:
            others = (each for each in self._context.subscribers() if each is not self._subscriber)
            verdict = shared_verb(request, others)
            if isinstance(verdict, Result):
                exchange.answered(verdict)
                return False
            exchange.send_instead(verdict)
        return True

    def tell(self, notification: Notification) -> None:
        """Send a notification, or pass it to the adapter."""
        adapter = self._link.adapter
        if adapter is not None:
            adapter.tell(notification)
        else:
            self._put(notification)

    def _put(self, item: Item) -> None:
        """Send an item after all before it; never raises, an exchange gets its error as answer."""
        if not self._waiting and not self._moving:
            # The item may go directly only if nothing is before it, neither in the list nor with
            # the task.
            lease = self._link.usable
            if lease is not None and not lease.mux.channel.congested:
                self._send(lease.mux, item)
                return
        fault = self._full_for(item)
        if fault is None:
            self._waiting.append(item)
            self._size += _size(item)
            self._account.charge(_charged(item))
            if not self._moving:
                self._moving = True
                self._context.spawn(self._move)
        elif isinstance(item, Exchange):
            item.fail(fault)
        else:
            self._context.meters.count("shed_client_notification")

    def _full_for(self, item: Item) -> Fault | None:
        """Return the fault of an item that may not wait; None if it may."""
        if len(self._waiting) >= MAX_WAITING:
            return capacity("messages of one session waiting for the server", MAX_WAITING)
        most = self._context.queue_bytes
        # One message may be larger than all that may wait: `--max-request-bytes` bounds it.
        if self._waiting and self._size + _size(item) > most:
            return capacity("bytes of one session waiting for the server (--queue-bytes)", most)
        budget = self._context.budget
        # Calls were asked about the budget when they came: see `CallContext.over_load`.
        if budget.full and isinstance(item, Notification):
            return out_of_memory(budget.limit)
        return None

    def close(self) -> None:
        """Drop what waits; the exchanges in it must have their answer already."""
        self._keep([])

    def forget_initialized(self) -> None:
        """Forget a waiting `notifications/initialized`: the child is told in the bridge's name."""
        self._keep(
            item
            for item in self._waiting
            if isinstance(item, Exchange) or item.method != INITIALIZED
        )

    def _keep(self, items: Iterable[Item]) -> None:
        """Let these alone of the items wait."""
        before = sum(map(_charged, self._waiting))
        self._waiting = list(items)
        self._size = sum(map(_size, self._waiting))
        self._account.charge(sum(map(_charged, self._waiting)) - before)

    def seek(self) -> None:
        """Get a child before there is anything to send: its notifications have a reader."""
        if not self._moving:
            self._moving = True
            self._context.spawn(self._move, True)

    async def _move(self, seeking: bool = False) -> None:
        try:
            if seeking:
                await self._ready_mux()
            while self._waiting:
                # Asked again after each pause: another child may serve by now, or the pipe may be
                # full again.
                mux = await self._ready_mux()
                # `_send` never waits, so no message can overtake the one taken from the list here.
                while self._waiting and not mux.channel.congested and not mux.shut:
                    item = self._waiting.pop(0)
                    self._size -= _size(item)
                    self._account.charge(-_charged(item))
                    self._send(mux, item)
        except Unavailable as error:
            self._fail_waiting(error.fault)
        finally:
            self._moving = False

    async def _ready_mux(self) -> Mux:
        lease = self._link.usable or await self._link.find()
        # Bounded by `--child-stall-timeout`, which ends a child that does not read.
        await lease.mux.channel.writable()
        return lease.mux

    def _send(self, mux: Mux, item: Item) -> None:
        if isinstance(item, Notification):
            if not (mux.shared and stops_at_the_bridge(item.method)):
                mux.send(item)
            return
        item.submit(mux)

    def _fail_waiting(self, fault: Fault) -> None:
        waiting = self._waiting
        self._keep([])
        for item in waiting:
            if isinstance(item, Exchange):
                item.unsent(fault)


def _size(item: Item) -> int:
    """Return the bytes of an item."""
    params = item.sent.params if isinstance(item, Exchange) else item.params
    return MESSAGE_BYTES + len(params or b"")


def _charged(item: Item) -> int:
    """Return the bytes that are charged for an item while it waits: a call charges its own."""
    return MESSAGE_BYTES if isinstance(item, Exchange) else _size(item)
