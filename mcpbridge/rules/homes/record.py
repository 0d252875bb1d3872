"""What a session's next home must know of it that its id does not say."""

from __future__ import annotations

import msgspec

from mcpbridge.rules.mcp.methods import LOG_LEVELS


class StreamRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A finished stream of a session, which its client may resume at the next home."""

    tag: str
    """As in the ids of its events, and so are the next ones."""
    stream: int
    after: int
    """The number of the event before the first one of these."""
    payloads: tuple[bytes, ...]
    call: bytes | None = None


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
    used: bool = False
    """Whether the client has sent a request after `initialize`."""
    answers: tuple[StreamRecord, ...] = ()
    """Streams of answered calls. They travel when the session is handed over, and else stay in
    memory."""

    @property
    def changes(self) -> bool:
        """Whether it says more than that the client has initialized, which is assumed anyway."""
        return not self.initialized or self.level is not None or bool(self.subscriptions)


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
    return record if is_sound(record) else None


def is_sound(record: SessionRecord) -> bool:
    """Return whether a record can be one of a session, which its types alone do not say."""
    known = record.level is None or record.level in LOG_LEVELS
    return known and all(each.stream > 0 and each.after >= 0 for each in record.answers)
