"""uvicorn's HTTP protocol with two habits changed.

What one turn of the loop writes is sent as one: uvicorn writes the head and the body of a response
on their own, and each write is a system call that wakes the client. And a client that sends its
request too slowly is cut: uvicorn would wait for ever, and a thousand such clients would hold all
descriptors.

Source: RFC 9110, 15.5.9 (408).
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mcpbridge.http.responses import refusal_body
from mcpbridge.rules.admission import refuse
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.settings import Unit, setting


@dataclasses.dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How long a request may take to arrive."""

    header_s: float = setting(
        10.0,
        "--header-timeout",
        "Longest time from the connection, or from a request's first byte, to the end of its head.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    body_s: float = setting(
        30.0,
        "--body-timeout",
        "Longest time from the end of a request's head to the end of its body.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )


class _Awaited(enum.Enum):
    HEAD = "--header-timeout"
    BODY = "--body-timeout"
    NOTHING = ""


class CorkedTransport:
    """A transport that sends what is written in one turn of the loop at the end of that turn."""

    __slots__ = ("_loop", "_pieces", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send with whatever else is written before the loop comes round."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Send what is left, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BridgeProtocol(HttpToolsProtocol):
    """The protocol behind every connection of the bridge."""

    def __init__(self, *args: Any, limits: ArrivalLimits, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._awaited = _Awaited.HEAD
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and owes a request."""
        corked = CorkedTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, corked))
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._await(_Awaited.NOTHING)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of one request or several; most requests come whole, and need no timer."""
        super().data_received(data)
        if self._awaited is not _Awaited.NOTHING and self._timer is None:
            self._set_timer()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._await(_Awaited.HEAD)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._await(_Awaited.BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._await(_Awaited.NOTHING)
        super().on_message_complete()

    def _await(self, what: _Awaited) -> None:
        self._awaited = what
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        head = self._awaited is _Awaited.HEAD
        limit_s = self._limits.header_s if head else self._limits.body_s
        self._timer = self.loop.call_later(limit_s, self._cut, limit_s)

    def _cut(self, limit_s: float) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        in_body = self._awaited is _Awaited.BODY
        begun = in_body or self.headers is not None
        if begun and not (in_body and self.cycle.response_started):
            problem = f"the request has not arrived within {self._awaited.value} {limit_s:g} s"
            body = refusal_body(refuse(408, INVALID_REQUEST, problem))
            self.transport.write(
                STATUS_LINE[408]
                + b"content-type: application/json\r\nconnection: close\r\n"
                + b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
        self.transport.close()


def protocol_with(limits: ArrivalLimits) -> Callable[..., asyncio.Protocol]:
    """What uvicorn makes a protocol of for each connection."""
    return functools.partial(BridgeProtocol, limits=limits)
