"""Defines the frame: one message, line or event that passed between a bridge and a child."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Message, pieces

FRAME_BYTES = 200
"""What a frame is counted with beside its message and text."""


class Direction(enum.Enum):
    """Where a frame comes from."""

    TO_SERVER = "c2s"
    FROM_SERVER = "s2c"
    STDERR = "stderr"
    META = "meta"
    """An event: the recording, or a child, begins or ends."""


class Frame(msgspec.Struct, frozen=True):
    """One thing that passed, with what is needed to order and to find it."""

    session_id: str
    """The conversation with one child; empty for what belongs to none."""
    server_label: str
    seq: int
    """Orders all frames of a tape."""
    ts_ns: int
    """Time of day in ns since the epoch."""
    direction: Direction
    message: Message | None = None
    text: str | None = None
    """A line that is not a message, or the name of an event."""
    size: int | None = None
    """The bytes of the message, if `text` holds only its beginning."""
    facts: Mapping[str, object] = {}
    """What else is known, as JSON: of a request its client, of a line why it is not a message."""


def bytes_of(frame: Frame) -> int:
    """Return about how many bytes of memory a frame holds."""
    held = FRAME_BYTES + len(frame.text or "")
    if frame.facts:
        held += sum(len(name) + len(str(value)) for name, value in frame.facts.items())
    return held if frame.message is None else held + message_bytes(frame.message)


def message_bytes(message: Message) -> int:
    """Return the length of a message's text; copies nothing of it."""
    return sum(map(len, pieces(message)))


def shortened(frame: Frame, most: int, head: int) -> Frame:
    """Return a frame whose message has at most `most` bytes, else its first `head` and its size."""
    if frame.message is None:
        return frame
    parts = pieces(frame.message)
    size = sum(map(len, parts))
    if size <= most:
        return frame
    text = b"".join(part[:head] for part in parts)[:head].decode("utf-8", "replace")
    return msgspec.structs.replace(frame, message=None, text=text, size=size)


def value_at(payload: bytes | None, *path: str) -> bytes | None:
    """Return the raw value at a path of members; None if there is none that can be read."""
    try:
        return member(payload, *path) if payload is not None else None
    except WireError:
        return None
