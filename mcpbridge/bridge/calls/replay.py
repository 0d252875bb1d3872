"""The streams of one session: the standalone one, and those of requests, kept for resuming.

A client whose connection broke comes back with the id of the last event it saw. It gets exactly
that stream from there on. A finished stream is kept for a while, because the answer itself may be
what was lost; once a client has all of it, 405 is the only answer that stops deployed clients from
asking again for ever.

Source: MCP 2025-11-25, Transports, Resumability and Redelivery.
"""

from __future__ import annotations

import dataclasses
import enum
import secrets
from collections.abc import Callable

import msgspec

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.errors import CursorLost
from mcpbridge.rules.event_log import STANDALONE, START, EventId, Window, read_event_id
from mcpbridge.settings import Unit, setting
from mcpbridge.telemetry.metrics import Meters


@dataclasses.dataclass(frozen=True, slots=True)
class StreamLimits:
    """How many streams a session may have, and how much each keeps for a reader who lags."""

    max_streams: int = setting(
        256,
        "--max-streams",
        "Event streams that one session may have open at once.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )
    buffer_bytes: int = setting(
        1 << 20,
        "--stream-buffer",
        "What each event stream keeps for a client that lags, or comes back for it; the oldest"
        " notifications go first.",
        group="Limits",
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
    buffer_events: int = setting(
        1000,
        "--stream-events",
        "Messages that each event stream keeps so.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )

    @property
    def window(self) -> Window:
        """What each stream keeps."""
        return Window(self.buffer_events, self.buffer_bytes)


class Retention(msgspec.Struct, frozen=True):
    """How long and how many streams of finished requests are kept."""

    streams: int = 64
    max_bytes: int = 4 << 20
    age_s: float = 300.0


class _Finished(msgspec.Struct, frozen=True):
    """When a finished stream was seen to be so, and what it keeps."""

    at: float
    size: int


class ResumeResult(enum.Enum):
    """Why no stream is resumed."""

    FRESH = "the id is none of ours: a standalone stream from now on"
    OVER = "nothing is left to deliver on the stream it names"
    FOREIGN = "the id belongs to another session"


class ReplayStore:
    """Makes, numbers and keeps the streams of one session."""

    def __init__(
        self,
        window: Window,
        meters: Meters,
        clock: Callable[[], float],
        *,
        resumable: bool,
        standalone: Stream | None = None,
    ) -> None:
        """Begin with the standalone stream alone.

        Args:
            window: How much of each stream is kept.
            meters: Counts what is shed.
            clock: Seconds, monotonic.
            resumable: Events have ids.
            standalone: Takes what belongs to no request; None: one that is made here.
        """
        self.open = 0
        """Connections that carry one of them now."""
        self._window = window
        self._meters = meters
        self._clock = clock
        self._tag = secrets.token_hex(4) if resumable else None
        self._last = STANDALONE
        self._kept: dict[int, Stream] = {}
        self._begun: list[int] = []
        """Those of them that were not seen to be finished yet."""
        self._finished: dict[int, _Finished] = {}
        """The others, oldest first."""
        self._finished_bytes = 0
        self._retention = Retention()
        self.standalone = standalone or Stream(window, meters, first_id=self._id(STANDALONE))
        """What the child says that belongs to no request."""

    def connected(self, change: int) -> None:
        """Count event streams that clients read, or have left."""
        self.open += change

    def begin(self, answers_due: int) -> Stream:
        """A stream for the answers of one POST."""
        self._last += 1
        stream = Stream(
            self._window, self._meters, answers_due=answers_due, first_id=self._id(self._last)
        )
        if self._tag is not None:
            self._prune()
            self._kept[self._last] = stream
            self._begun.append(self._last)
        return stream

    def find(self, last_event_id: str) -> Stream | ResumeResult:
        """The stream that a `Last-Event-ID` names, set to continue after that event."""
        event = read_event_id(last_event_id)
        if event is None or self._tag is None:
            return ResumeResult.FRESH
        if event.tag != self._tag:
            return ResumeResult.FOREIGN
        self._prune()
        standalone = event.stream == STANDALONE
        stream = self.standalone if standalone else self._kept.get(event.stream)
        if stream is None:
            return ResumeResult.OVER
        try:
            stream.seek(event.number)
        except CursorLost:
            self._meters.count("cursor_lost")
            return ResumeResult.FRESH if standalone else ResumeResult.OVER
        over = stream.log.closed and event.number >= stream.log.last
        return ResumeResult.OVER if over else stream

    def tell(self, payload: bytes, *, key: str | None = None) -> None:
        """Put something on the standalone stream, unless that has ended; see `Stream.append`."""
        if not self.standalone.log.closed:
            self.standalone.append(payload, sheddable=True, key=key)

    def close(self) -> None:
        """End every stream."""
        for stream in (self.standalone, *self._kept.values()):
            stream.close()

    def _id(self, stream: int) -> EventId | None:
        return EventId(self._tag, stream, START) if self._tag is not None else None

    def _prune(self) -> None:
        # Every streamed call comes here: what it costs depends on those in flight, not on what is
        # kept.
        now, bounds = self._clock(), self._retention
        for number in [each for each in self._begun if self._kept[each].log.closed]:
            self._begun.remove(number)
            finished = _Finished(now, self._kept[number].log.size)
            self._finished[number] = finished
            self._finished_bytes += finished.size
        while self._finished:
            number, oldest = next(iter(self._finished.items()))
            few = len(self._finished) <= bounds.streams and self._finished_bytes <= bounds.max_bytes
            if few and now - oldest.at <= bounds.age_s:
                break
            self._finished_bytes -= oldest.size
            del self._kept[number], self._finished[number]
