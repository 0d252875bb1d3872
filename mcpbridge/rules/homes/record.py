"""What a session's next home must know of it that its id does not say."""

from __future__ import annotations

import msgspec

from mcpbridge.rules.mcp.methods import LOG_LEVELS


class SessionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client has asked of its session since `initialize`.

    Members that a later release adds are ignored by an earlier one; both may serve at once.
    """

    initialized: bool = False
    """Whether the client has sent `notifications/initialized`."""
    level: str | None = None
    """The log level that it asked for."""
    subscriptions: tuple[str, ...] = ()
    """The resources that it is subscribed to, by URI."""


_decoder = msgspec.json.Decoder(SessionRecord)


def write_record(record: SessionRecord) -> bytes:
    """Return a record as bytes."""
    return msgspec.json.encode(record)


def read_record(data: bytes) -> SessionRecord | None:
    """Parse a record; None if it cannot be one: the session is then revived without it."""
    try:
        record = _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return record if record.level is None or record.level in LOG_LEVELS else None
