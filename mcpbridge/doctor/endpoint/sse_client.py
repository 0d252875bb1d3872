"""A client of the transport of 2024-11-05 with time limits: one stream down, POSTs up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx
import msgspec
from httpx_sse import ServerSentEvent

from mcpbridge.client.http_client import LineTooLong, at, events, requested
from mcpbridge.doctor.endpoint.mcp_client import ClientOptions, post
from mcpbridge.wire.headers import EVENT_STREAM

ENDPOINT_S = 1.0
REPLY_S = 2.0
T = TypeVar("T")

_POSTED = ClientOptions(head_s=2.0, whole_s=2.0)


class SseClient:
    """One event stream and the path for messages that it names; works within `open`."""

    def __init__(self, place: httpx.URL, line_bytes: int | None) -> None:
        self._place = place
        self._line_bytes = line_bytes
        self._events: AsyncIterator[ServerSentEvent]
        self.endpoint = ""
        """The path for messages, as the stream spelled it."""
        self.size = 0
        """Bytes of the last answer."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Connect and read the `endpoint` event; yield the content type.

        With a content type other than an event stream's, nothing is read.

        Raises:
            OSError: No connection, no stream, or a response was not in time; the text says which.
        """
        async with AsyncExitStack() as stack:
            asking = requested(self._place, "GET", {"accept": EVENT_STREAM})
            response = await _within(stack.enter_async_context(asking), REPLY_S, "no head")
            if response.status_code != 200:
                raise OSError(f"answered {response.status_code}")
            kind: str = response.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() == EVENT_STREAM:
                found = events(response, self._line_bytes)
                self._events = await stack.enter_async_context(aclosing(found))
                event = await self._next(ENDPOINT_S, "no endpoint event")
                if event.event != "endpoint":
                    raise OSError(f"the first event is {event.event!r} and not 'endpoint'")
                self.endpoint = event.data
            yield kind

    async def tell(self, message: Any) -> None:
        """POST a message; raise OSError unless it is accepted."""
        try:
            place = at(self._place, self.endpoint)
        except ValueError as error:
            raise OSError(f"the endpoint event names {self.endpoint!r}") from error
        answer = await post(place, message, _POSTED)
        if not answer.accepted:
            raise OSError(f"POST {self.endpoint}: {answer.problem or answer.status}")

    async def call(self, message: Any) -> tuple[Any, ...]:
        """POST a request and return its answer, empty if not JSON; OSError if none comes."""
        await self.tell(message)
        return await _within(self._answer(), REPLY_S, f"no answer to {message['method']}")

    async def _answer(self) -> tuple[Any, ...]:
        """Return the next message that is neither a notification nor a request."""
        while True:
            event = await self._next(REPLY_S, "no further event")
            self.size = len(event.data)
            try:
                message = msgspec.json.decode(event.data)
            except msgspec.DecodeError:
                return ()
            if not isinstance(message, dict) or "method" not in message:
                return (message,)

    async def _next(self, within_s: float, missing: str) -> ServerSentEvent:
        try:
            return await _within(anext(self._events), within_s, missing)
        except StopAsyncIteration:
            raise OSError(f"{missing}: the stream has ended") from None
        except LineTooLong as error:
            raise OSError(str(error)) from error


async def _within(waited: Awaitable[T], within_s: float, missing: str) -> T:
    try:
        with anyio.fail_after(within_s):
            return await waited
    except TimeoutError:
        raise OSError(f"{missing} within {within_s:g} s") from None
