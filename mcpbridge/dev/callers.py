"""Tells the tape which client sends each request: on a pipe all have ids of the bridge."""

from __future__ import annotations

import msgspec

from mcpbridge.bridge.children.listeners import CallSink, Interceptor
from mcpbridge.channels.channel import Channel
from mcpbridge.tape.tapped_channel import TappedChannel
from mcpbridge.wire.messages import Request


class Callers(Interceptor):
    """The interceptor of one child; it changes nothing."""

    def __init__(self, channel: TappedChannel) -> None:
        self._channel = channel

    def outbound(
        self, request: Request, sink: CallSink, number: int, *, own: bool
    ) -> tuple[Request, CallSink]:
        """Note the client and its id, or that the bridge itself asks: see `Interceptor`."""
        asker = sink.asker
        facts: dict[str, object] = {"own": True}
        if asker is not None:
            facts = {"client": asker.client, "client_id": msgspec.Raw(asker.id)}
        self._channel.note(b"%d" % number, facts)
        return request, sink


def callers_of(channel: Channel) -> Interceptor:
    """Return the interceptor of a child; one that does nothing if its channel is not tapped."""
    return Callers(channel) if isinstance(channel, TappedChannel) else Interceptor()
