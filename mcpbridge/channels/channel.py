"""What a channel is: a duplex stream of messages with one peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from mcpbridge.wire.messages import Message


class InvalidLine(msgspec.Struct, frozen=True):
    """A line of the peer that is no message."""

    reason: str
    """`noise`, `bad_json`, `bad_message`, `too_deep` or `message_too_large`."""
    size: int
    sample: bytes
    """Its first bytes, for the log."""
    answers: int | None
    """The id it answers, where that is certain."""


Received = Message | InvalidLine


class Channel(Protocol):
    """A duplex stream of messages with one peer; has one reader, and any number of senders."""

    async def receive(self) -> Sequence[Received]:
        """What has come since, at least one; empty at the end of the stream, then always."""

    def send(self, message: Message) -> None:
        """Put a message on its way, in the order of the calls; does not wait.

        Raises:
            ChannelClosed: The peer is gone.
        """

    @property
    def taken(self) -> int:
        """How many bytes the peer's end has taken so far: whether it takes any is what counts."""

    @property
    def congested(self) -> bool:
        """So much is on its way that a sender should wait for `writable`."""

    async def writable(self) -> None:
        """Wait until the channel is not congested or closed; the caller bounds the wait."""
