"""What a channel that decorates another one passes on as it is."""

from __future__ import annotations

from mcpbridge.channels.channel import Channel


class DecoratedChannel:
    """The part of a decorated channel that says how much waits; that of the inner one."""

    def __init__(self, inner: Channel) -> None:
        """Decorate a channel."""
        self._decorated = inner

    @property
    def taken(self) -> int:
        """See `Channel.taken`."""
        return self._decorated.taken

    @property
    def held(self) -> int:
        """See `Channel.held`."""
        return self._decorated.held

    @property
    def unread(self) -> int | None:
        """See `Channel.unread`."""
        return self._decorated.unread

    @property
    def congested(self) -> bool:
        """See `Channel.congested`."""
        return self._decorated.congested

    async def writable(self) -> None:
        """Wait until the channel is not congested: see `Channel.writable`."""
        await self._decorated.writable()
