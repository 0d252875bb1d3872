"""A channel to a remote server, over the client that survives the server's restarts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus

from mcpbridge.channels.channel import Consumer, Received
from mcpbridge.errors import ChannelClosed, WireError
from mcpbridge.reverse.client_calls import ClientCalls
from mcpbridge.reverse.remote_client import RemoteClient
from mcpbridge.reverse.session.remote_http import RemoteHttp
from mcpbridge.rules.access.shares import Account
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Failure, Message, Notification, Request, Result, text_of

_CONGESTED_BYTES = 1 << 20
_CONGESTED_MESSAGES = 1 << 12
_MESSAGE_BYTES = 256
"""What a message is charged for itself."""


class RemoteChannel:
    """A channel whose peer is a server elsewhere; `run` moves the messages."""

    def __init__(self, http: RemoteHttp, account: Account) -> None:
        """Make a channel.

        Args:
            http: The connections to the server.
            account: Charged for what waits to be sent.
        """
        # The bridge bounds the time of each call.
        client = RemoteClient(http, self._deliver, float("inf"))
        self._calls = ClientCalls(client, self._deliver)
        self._account = account
        self._received: list[Received] = []
        self._outgoing: deque[Message] = deque()
        self._pending = 0
        self._news = asyncio.Event()
        self._due = asyncio.Event()
        self._sent = asyncio.Event()
        self._input_open = True
        self.ended = asyncio.Event()
        """Set when no more will be received."""
        self.taken = 0
        """Number of bytes that were handed to the HTTP client: see `Channel.taken`."""
        self.problem = ""
        """The last error with which mcpbridge answered a request in the server's place."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Send and receive until cancelled; then the session at the server has ended."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._calls.run)
            task_status.started()
            while True:
                while self._outgoing:
                    message = self._outgoing.popleft()
                    self._charge(-_size(message))
                    self.taken += _size(message)
                    await self._calls.take(message)
                self._due.clear()
                await self._due.wait()

    async def _deliver(self, message: Message) -> None:
        if isinstance(message, Failure) and b'"mcpbridge"' in message.error:
            self.problem = _text_in(message.error)
        self._received.append(message)
        self._news.set()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Receive until the block ends."""
        try:
            yield
        finally:
            self.close_input()
            self.end()

    async def receive(self) -> Sequence[Received]:
        """Wait for messages: see `Channel.receive`."""
        while not self._received and not self.ended.is_set():
            self._news.clear()
            await self._news.wait()
        received, self._received = self._received, []
        return received

    async def forward(self, take: Consumer) -> None:
        """Call `take` with what is received: see `Channel.forward`."""
        while received := await self.receive():
            take(received)

    def send(self, message: Message) -> None:
        """Queue a message: see `Channel.send`."""
        if not self._input_open:
            raise ChannelClosed
        self._outgoing.append(message)
        self._charge(_size(message))
        self._due.set()

    def _charge(self, change: int) -> None:
        self._pending += change
        self._account.charge(change)
        if not self.congested:
            self._sent.set()

    @property
    def held(self) -> int:
        """Bytes that wait to be sent."""
        return self._pending

    @property
    def unread(self) -> int | None:
        """None: what the server has read is not known."""
        return None

    @property
    def congested(self) -> bool:
        """Whether more waits to be sent than the limit."""
        return self._pending > _CONGESTED_BYTES or len(self._outgoing) > _CONGESTED_MESSAGES

    async def writable(self) -> None:
        """Wait until the channel is not congested or closed."""
        while self.congested and self._input_open:
            self._sent.clear()
            await self._sent.wait()

    def close_input(self) -> None:
        """Send nothing more; what waits to be sent is lost."""
        if self._input_open:
            self._input_open = False
            self._outgoing.clear()
            self._charge(-self._pending)
            self._sent.set()

    def end(self) -> None:
        """Receive no more; what was received is still delivered."""
        self.ended.set()
        self._news.set()


def _size(message: Message) -> int:
    match message:
        case Result(result=payload) | Failure(error=payload):
            return _MESSAGE_BYTES + len(payload)
        case Request(params=params) | Notification(params=params):
            return _MESSAGE_BYTES + len(params or b"")


def _text_in(error: bytes) -> str:
    try:
        return text_of(member(error, "message")) or ""
    except WireError:
        return ""
