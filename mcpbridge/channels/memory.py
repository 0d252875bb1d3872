"""A connected pair of channels in memory: what one sends, the other receives."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from mcpbridge.channels.channel import Consumer, Received
from mcpbridge.errors import ChannelClosed
from mcpbridge.wire.messages import Message


class MemoryChannel:
    """One end of a pair; made by `memory_pair`."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._news = anyio.Event()
        self._closed = False
        self._peer: MemoryChannel = self

    async def receive(self) -> Sequence[Received]:
        """Wait for what the other end has sent; empty once the channel is closed."""
        while not self._received and not self._closed:
            self._news = anyio.Event()
            await self._news.wait()
        received, self._received = self._received, []
        return received

    async def forward(self, take: Consumer) -> None:
        """Call `take` with what the other end has sent: see `Channel.forward`."""
        while received := await self.receive():
            take(received)

    def send(self, message: Message) -> None:
        """Hand a message to the other end; raise ChannelClosed after `close`."""
        if self._closed:
            raise ChannelClosed
        self._peer.put(message)

    def put(self, item: Received) -> None:
        """Let this end receive an item, which may be an invalid line."""
        self._received.append(item)
        self._news.set()

    @property
    def held(self) -> int:
        """Always 0: see `Channel.held`."""
        return 0

    @property
    def unread(self) -> int | None:
        """Not known: see `Channel.unread`."""
        return None

    @property
    def taken(self) -> int:
        """Always 0, since nothing is ever in transit."""
        return 0

    @property
    def congested(self) -> bool:
        """Always false, since memory takes everything."""
        return False

    async def writable(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """End the stream for both ends."""
        for end in (self, self._peer):
            end.end()

    def end(self) -> None:
        """End the stream for this end."""
        self._closed = True
        self._news.set()

    def join(self, peer: MemoryChannel) -> None:
        """Send to this channel from now on."""
        self._peer = peer


def memory_pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Return two connected channels."""
    one, other = MemoryChannel(), MemoryChannel()
    one.join(other)
    other.join(one)
    return one, other
