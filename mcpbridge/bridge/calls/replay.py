"""The streams of one session: the standalone one, and those of requests, kept for resuming.

A client whose connection broke comes back with the id of the last event that it saw, and gets
exactly that stream from there on. A finished stream is kept for a while, since the answer itself
may be what was lost. Once the client has all of it, 405 is the only status that stops deployed
clients from asking again without end.

The streams of a session whose replica was lost are gone with it. Its next home does not know their
tag, but their event ids name their calls: so the client is told that the call was lost, and does
not wait until its own time limit. A replica that ends hands finished streams over with the session.

Source: MCP 2025-11-25, Transports, Resumability and Redelivery.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Iterable

import msgspec

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.errors import CursorLost
from mcpbridge.rules.event_log import STANDALONE, START, EventId, Window, read_event_id
from mcpbridge.rules.faults import replica_lost
from mcpbridge.rules.homes.record import StreamRecord
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Text, encode


class StreamLimits(SettingsSection, frozen=True):
    """How many streams a session may have, and how much each keeps for a client that lags."""

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
        "What each event stream keeps of notifications for a client that lags or reconnects; the"
        " oldest go first. Answers are kept beside them.",
        group="Limits",
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
    buffer_events: int = setting(
        1000,
        "--stream-events",
        "Messages that each event stream keeps for a client that lags or reconnects.",
        group="Limits",
        unit=Unit.INTEGER,
        minimum=1,
    )

    @property
    def window(self) -> Window:
        """The bounds of what each stream keeps."""
        return Window(self.buffer_events, self.buffer_bytes)


class Retention(msgspec.Struct, frozen=True):
    """How many finished streams are kept, of what size in all, and for how long."""

    streams: int = 64
    max_bytes: int = 4 << 20
    age_s: float = 300.0


class _Finished(msgspec.Struct, frozen=True):
    """A finished stream: when it was found to have ended, and the bytes that it keeps."""

    at: float
    size: int


class _Handed(msgspec.Struct, frozen=True):
    """The finished streams of an earlier home of the session, by their tag and number."""

    at: float
    streams: dict[tuple[str, int], Stream]


class ResumeResult(enum.Enum):
    """Why no stream is resumed."""

    FRESH = "the id is unknown: the client gets the standalone stream from now on"
    OVER = "nothing is left to deliver on the stream it names"
    FOREIGN = "the id is one of another session"


class ReplayStore:
    """A maker and keeper of the streams of one session."""

    __slots__ = (
        "_begun",
        "_charge",
        "_clock",
        "_finished",
        "_finished_bytes",
        "_handed",
        "_kept",
        "_last",
        "_meters",
        "_names_calls",
        "_retention",
        "_tag",
        "_window",
        "open",
        "standalone",
    )

    def __init__(
        self,
        window: Window,
        meters: Meters,
        clock: Callable[[], float],
        *,
        resumable: bool,
        standalone: Stream | None = None,
        charge: Callable[[int], None] | None = None,
        names_calls: bool = False,
        revived: bool = False,
    ) -> None:
        """Begin with the standalone stream alone.

        Args:
            window: How many events and bytes of each stream are kept.
            meters: Count the notifications that are dropped.
            clock: Returns monotonic seconds.
            resumable: Whether events have ids.
            standalone: Takes messages that belong to no request; None: one is made here.
            charge: See `EventLog`.
            names_calls: Whether the ids of a call's events name the call.
            revived: Whether another replica had the session before.
        """
        self.open = 0
        """Number of connections that carry one of its streams now."""
        self._window = window
        self._meters = meters
        self._clock = clock
        self._charge = charge
        self._names_calls = names_calls
        self._handed = _Handed(clock(), {}) if revived else None
        """None if no other replica had the session before."""
        self._tag = secrets.token_hex(4) if resumable else None
        self._last = STANDALONE
        self._kept: dict[int, Stream] = {}
        self._begun: list[int] = []
        """Numbers of the kept streams that were not found to have ended."""
        self._finished: dict[int, _Finished] = {}
        """The kept streams that have ended, by number; oldest first."""
        self._finished_bytes = 0
        self._retention = Retention()
        self.standalone = standalone or Stream(
            window, meters, first_id=self._id(STANDALONE), charge=charge
        )
        """Carries messages of the child that belong to no request."""

    def connected(self, change: int) -> None:
        """Add `change` to the number of open connections."""
        self.open += change

    def begin(self, answers_due: int, call_id: bytes | None = None) -> Stream:
        """Return a new stream for the answers of one POST.

        Args:
            answers_due: Number of answers after which it ends.
            call_id: The JSON-RPC id of the call that it answers; None: there are several.
        """
        self._last += 1
        named = call_id if self._names_calls else None
        stream = Stream(
            self._window,
            self._meters,
            answers_due=answers_due,
            first_id=self._id(self._last, named),
            charge=self._charge,
        )
        # Events without ids cannot be asked for again: such a stream ends with its connection.
        if self._tag is not None:
            self._prune()
            self._kept[self._last] = stream
            self._begun.append(self._last)
        return stream

    def find(self, last_event_id: str) -> Stream | ResumeResult:
        """Return the stream that a `Last-Event-ID` names, its read position behind that event."""
        event = read_event_id(last_event_id)
        if event is None or self._tag is None:
            return ResumeResult.FRESH
        if event.tag != self._tag:
            return ResumeResult.FOREIGN if self._handed is None else self._earlier(event)
        self._prune()
        standalone = event.stream == STANDALONE
        stream = self.standalone if standalone else self._kept.get(event.stream)
        if stream is None:
            return ResumeResult.OVER
        try:
            stream.seek(event.number)
        except CursorLost:
            # A gap on the standalone stream costs notifications, but a call's stream cannot be
            # resumed without its missing messages.
            self._meters.count("cursor_lost")
            return ResumeResult.FRESH if standalone else ResumeResult.OVER
        if not stream.log.closed or event.number < stream.log.last:
            return stream
        if event.stream in self._finished and not stream.attached:
            # Its client has had all of it.
            self._drop(event.stream)
        return ResumeResult.OVER

    def tell(self, payload: Text, *, key: str | None = None) -> None:
        """Put a message on the standalone stream, unless it has ended; see `Stream.append`."""
        if not self.standalone.log.closed:
            self.standalone.append(payload, sheddable=True, key=key)

    def shed(self) -> int:
        """Let go what is kept only in case that the client asks again; return the bytes freed.

        That is finished streams, and events of the standalone stream that were delivered.
        """
        self._prune()
        freed = self.standalone.shed_delivered()
        # A stream with a reader has ended but its client has not taken all of it.
        for number in [each for each in self._finished if not self._kept[each].attached]:
            freed += self._drop(number).log.held
        if self._handed is not None:
            freed += sum(stream.log.held for stream in self._handed.streams.values())
            self._handed.streams.clear()
        return freed

    def records(self, most_bytes: int) -> tuple[StreamRecord, ...]:
        """Return the finished streams that another replica must know, within a number of bytes.

        Those that were not delivered come before the others, whose last bytes may be lost.
        """
        self._prune()
        finished = [self._kept[number] for number in reversed(self._finished)]
        if self._handed is not None:
            finished += self._handed.streams.values()
        found: list[StreamRecord] = []
        for stream in sorted(finished, key=lambda each: each.delivered == each.log.last):
            record = stream.record if stream.log.held <= most_bytes else None
            if record is not None:
                most_bytes -= stream.log.held
                found.append(record)
        return tuple(found)

    def resume(self, records: Iterable[StreamRecord]) -> None:
        """Keep the finished streams of the session's last home."""
        assert self._handed is not None
        for record in records:
            first_id = EventId(record.tag, record.stream, START, record.call)
            parts = (self._window, self._meters)
            stream = Stream(*parts, first_id=first_id, charge=self._charge, after=record.after)
            for payload in record.payloads:
                stream.append(payload, sheddable=False)
            stream.close()
            self._handed.streams[record.tag, record.stream] = stream

    def cut(self) -> None:
        """End every stream with what is on it; see `Stream.cut`."""
        for stream in (self.standalone, *self._kept.values()):
            stream.cut()

    def close(self) -> None:
        """End every stream."""
        for stream in (self.standalone, *self._kept.values()):
            stream.close()

    def _earlier(self, event: EventId) -> Stream | ResumeResult:
        """Return what a client gets that resumes a stream of an earlier home of the session."""
        self._prune()
        if event.stream == STANDALONE:
            return ResumeResult.FRESH
        assert self._handed is not None
        stream = self._handed.streams.get((event.tag, event.stream))
        if stream is None:
            return self._lost(event)
        try:
            stream.seek(event.number)
        except CursorLost:
            self._meters.count("cursor_lost")
            return ResumeResult.OVER
        return stream if event.number < stream.log.last else ResumeResult.OVER

    def _lost(self, event: EventId) -> Stream | ResumeResult:
        """Return the failure of a call whose stream is gone; `OVER` if its id is not known."""
        if event.call is None:
            return ResumeResult.OVER
        self._meters.count("lost_call")
        stream = self.begin(1, event.call)
        stream.answer(encode(Failure(event.call, replica_lost().error())))
        return stream

    def _id(self, stream: int, call: bytes | None = None) -> EventId | None:
        return EventId(self._tag, stream, START, call) if self._tag is not None else None

    def _prune(self) -> None:
        # Each streamed call runs this: its cost grows with the streams in flight, not those kept.
        now, bounds = self._clock(), self._retention
        if self._handed is not None and now - self._handed.at > bounds.age_s:
            self._handed.streams.clear()
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
            self._drop(number)

    def _drop(self, number: int) -> Stream:
        """Forget a finished stream; return it."""
        self._finished_bytes -= self._finished.pop(number).size
        return self._kept.pop(number)
