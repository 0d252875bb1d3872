"""Header values that decide how a request is served, read leniently.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Streamable HTTP; RFC 9110, 12.5.1 (Accept).
"""

from __future__ import annotations

import base64
import binascii
import functools
import re

import msgspec

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

MAX_SESSION_ID = 1024
"""Most characters of a session id: one that carries what its client says of itself is long."""
_SESSION_ID = re.compile(rf"[\x21-\x7e]{{1,{MAX_SESSION_ID}}}\Z")


class Acceptable(msgspec.Struct, frozen=True):
    """The forms of an answer that a client accepts."""

    json: bool
    stream: bool
    names_stream: bool
    """The client names `text/event-stream` itself, so it can read event streams."""

    @property
    def streams(self) -> bool:
        """Whether an event stream may answer a call.

        Only a client that names the type in Accept is known to read one: curl and other simple
        clients send a bare `*/*` and expect JSON.
        """
        return self.names_stream or not self.json


@functools.lru_cache(maxsize=128)
def acceptable(accept: str | None) -> Acceptable:
    """Return what an Accept header allows.

    A missing header and wildcards allow both. Weights order nothing here, but `q=0` refuses; the
    most specific range decides.
    """
    if accept is None or not accept.strip():
        return Acceptable(json=True, stream=True, names_stream=False)
    ranges: dict[str, bool] = {}
    for media, _, parameters in (part.partition(";") for part in accept.split(",")):
        name = media.strip().lower()
        ranges[name] = ranges.get(name, False) or not _refused(parameters)
    return Acceptable(
        json=_allows(ranges, JSON, "application/*", "*/*"),
        stream=_allows(ranges, EVENT_STREAM, "text/*", "*/*"),
        names_stream=_allows(ranges, EVENT_STREAM),
    )


@functools.lru_cache(maxsize=128)
def is_json(content_type: str | None) -> bool:
    """Return whether a Content-Type is JSON; parameters such as a charset are ignored."""
    return content_type is not None and content_type.partition(";")[0].strip().lower() == JSON


def is_session_id(value: str) -> bool:
    """Return whether a value obeys the grammar of `Mcp-Session-Id` and `MAX_SESSION_ID`."""
    return _SESSION_ID.match(value) is not None


def _allows(ranges: dict[str, bool], *specific_first: str) -> bool:
    return next((ranges[name] for name in specific_first if name in ranges), False)


def _refused(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value) == 0
            except ValueError:
                return False
    return False


_PLAIN = re.compile(r"[\x20-\x7e\t]*\Z")
_MARKED = re.compile(r"=\?base64\?(?P<text>[A-Za-z0-9+/=]*)\?=\Z")
MAX_VALUE_BYTES = 8192


def decoded_value(raw: str) -> str | None:
    """Return the text that a header value encodes; None if the value is invalid."""
    value = raw.strip(" \t")
    if value.isascii() and value.isprintable() and not value.startswith("=?"):
        return value if len(value) <= MAX_VALUE_BYTES else None
    if len(value) > MAX_VALUE_BYTES or _PLAIN.match(value) is None:
        return None
    marked = _MARKED.match(value)
    if marked is None:
        # A value with both markers that is not well formed must not pass as plain text.
        return None if value.startswith("=?base64?") and value.endswith("?=") else value
    try:
        text = base64.b64decode(marked["text"], validate=True)
        canonical = base64.b64encode(text).decode() == marked["text"]
        return text.decode("utf-8") if canonical else None
    except (binascii.Error, UnicodeDecodeError):
        return None
