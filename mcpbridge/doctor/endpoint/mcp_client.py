"""JSON-RPC over HTTP, with the time limits and parsing of a certain client."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import anyio
import httpx
import msgspec

from mcpbridge import __version__
from mcpbridge.client.http_client import LineTooLong, NoConnection, events, requested
from mcpbridge.rules.mcp.era_probe import own_envelope
from mcpbridge.rules.mcp.methods import DISCOVER
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.wire.headers import EVENT_STREAM, JSON

BOTH = f"{JSON}, {EVENT_STREAM}"
_KEPT_CHARACTERS = 200


class ClientOptions(NamedTuple):
    """The time limits of a client, and how it parses."""

    head_s: float
    """Seconds to the end of the response's head, connecting included."""
    whole_s: float
    """Seconds to the end of the response."""
    line_bytes: int | None = None
    """The longest line of an event stream that the client accepts."""
    literal: bool = False
    """Whether it compares the content type of a stream by equality, and reads all `data:` lines of
    a stream as one JSON text."""


class Came(enum.Enum):
    """The part of an answer that arrived."""

    WHOLE = "whole"
    NO_CONNECTION = "no connection"
    NO_HEAD = "no head in time"
    NO_END = "no end in time"
    BROKEN = "the connection broke"
    TOO_LONG = "a line was too long"


class McpAnswer(NamedTuple):
    """The result of one request."""

    came: Came
    problem: str = ""
    """Text of the error if the answer is incomplete."""
    status: int = 0
    headers: Mapping[str, str] = {}
    text: str = ""
    """The body, or the `data:` lines of a stream without their ends."""
    messages: tuple[Any, ...] = ()
    """The JSON values in the body that could be parsed."""
    head_s: float = 0.0
    whole_s: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether it is complete and its status is 200 to 299."""
        return self.came is Came.WHOLE and 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """The Content-Type as it was spelled."""
        return self.headers.get("content-type", "")

    @property
    def shown(self) -> str:
        """The beginning of the text, on one line: it may be a page in HTML."""
        return " ".join(self.text[:_KEPT_CHARACTERS].split())

    def reply_to(self, request_id: int) -> dict[str, Any] | None:
        """Return the message that answers a request, its id of any type; None if there is none."""
        for message in self.messages:
            if not isinstance(message, dict) or "method" in message:
                continue
            if str(message.get("id")) == str(request_id):
                return message
        return None


def initialize(request_id: int, revision: str) -> dict[str, Any]:
    """Return an `initialize` request of a client without capabilities."""
    params = {
        "protocolVersion": revision,
        "capabilities": {},
        "clientInfo": {"name": "mcpbridge-doctor", "version": "1"},
    }
    return request(request_id, "initialize", params)


def request(request_id: int, method: str, params: Any = None) -> dict[str, Any]:
    """Return a request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}


def told(method: str) -> dict[str, Any]:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method}


async def post(
    place: httpx.URL, message: Any, options: ClientOptions, headers: Mapping[str, str] | None = None
) -> McpAnswer:
    """POST a message and read the answer as the options say; raise nothing."""
    fields = {"content-type": JSON, "accept": BOTH, **(headers or {})}
    return await asked(place, "POST", fields, options, msgspec.json.encode(message))


async def asked(
    place: httpx.URL,
    method: str,
    headers: Mapping[str, str],
    options: ClientOptions,
    body: bytes = b"",
) -> McpAnswer:
    """Send any request, like `post`."""
    began, head = anyio.current_time(), McpAnswer(Came.NO_HEAD)
    try:
        with anyio.fail_after(options.whole_s), anyio.fail_after(options.head_s) as until_head:
            async with requested(place, method, headers, body) as response:
                until_head.deadline = math.inf
                head = McpAnswer(
                    Came.NO_END,
                    status=response.status_code,
                    headers=response.headers,
                    head_s=anyio.current_time() - began,
                )
                texts = await _texts(response, options)
    except TimeoutError:
        limit_s = options.head_s if head.came is Came.NO_HEAD else options.whole_s
        return head._replace(problem=f"{head.came.value}: {limit_s:g} s")
    except LineTooLong as error:
        return head._replace(came=Came.TOO_LONG, problem=str(error))
    except OSError as error:
        came = Came.NO_CONNECTION if isinstance(error, NoConnection) else Came.BROKEN
        return head._replace(came=came, problem=error.strerror or str(error))
    messages = tuple(message for text in texts for message in _read(text))
    whole_s = anyio.current_time() - began
    return head._replace(came=Came.WHOLE, text="".join(texts), messages=messages, whole_s=whole_s)


async def _texts(response: httpx.Response, options: ClientOptions) -> list[str]:
    """Return the JSON texts of a response: its body, or the data of its events."""
    kind = response.headers.get("content-type", "")
    lenient = kind.partition(";")[0].strip().lower()
    if (kind if options.literal else lenient) != EVENT_STREAM:
        return [(await response.aread()).decode("utf-8", "replace")]
    found = events(response, options.line_bytes, cut_short=options.literal)
    data = [event.data async for event in found]
    return ["".join(data).replace("\n", "")] if options.literal else data


def _read(text: str) -> list[Any]:
    if not text.strip():
        return []
    try:
        read = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return []
    return read if isinstance(read, list) else [read]


async def discover(place: httpx.URL, options: ClientOptions) -> McpAnswer:
    """Send `server/discover` with id 1 and return the answer."""
    params = msgspec.json.decode(own_envelope(SUPPORTED[0], __version__))
    headers = {"mcp-protocol-version": SUPPORTED[0], "mcp-method": DISCOVER}
    return await post(place, request(1, DISCOVER, params), options, headers)
