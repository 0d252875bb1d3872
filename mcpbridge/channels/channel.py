"""Defines the channel: a duplex stream of messages with one peer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from mcpbridge.wire.messages import Message


class InvalidLine(msgspec.Struct, frozen=True):
    """A line of the peer that is not a message."""

    reason: str
    """`noise`, `bad_json`, `bad_message`, `too_deep` or `message_too_large`."""
    size: int
    sample: bytes
    """The first bytes of the line, for the log."""
    answers: int | None
    """The id that the line answers, if that is certain."""


Received = Message | InvalidLine
Consumer = Callable[[Sequence[Received]], None]
"""Takes messages and invalid lines, in the order in which they came, without waiting."""


class Channel(Protocol):
    """A duplex stream of messages with one peer, with one reader and any number of senders."""

    async def receive(self) -> Sequence[Received]:
        """Wait for messages and return those there are; none at the end of the stream."""

    async def forward(self, take: Consumer) -> None:
        """Call `take` with what is received until the end of the stream; raise what it raises.

        It takes the place of calls of `receive`. What is short is handed on in the very turn of the
        loop in which it was read, and not in this task.
        """

    def send(self, message: Message) -> None:
        """Queue a message, in the order of the calls, without waiting.

        Raises:
            ChannelClosed: The peer is gone.
        """

    @property
    def taken(self) -> int:
        """Number of bytes that the peer's end has taken; a change shows that the peer reads."""

    @property
    def held(self) -> int:
        """Bytes that wait because the peer does not read, as they are charged."""

    @property
    def unread(self) -> int | None:
        """How many bytes the peer has not read yet; None if that cannot be known."""

    @property
    def congested(self) -> bool:
        """Whether more is queued than the limit, so that a sender should wait for `writable`."""

    async def writable(self) -> None:
        """Wait until the channel is not congested or closed; the caller bounds the wait."""
