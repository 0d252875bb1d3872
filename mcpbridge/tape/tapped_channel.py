"""Decorates the channels of children, so that what passes is kept; without a tape there is none."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Protocol

from mcpbridge.channels.channel import Consumer, InvalidLine, Received
from mcpbridge.channels.decorated import DecoratedChannel
from mcpbridge.process.subprocess_child import ChildChannel, MakeEnds
from mcpbridge.rules.access.principals import NOTHING, Secrets
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.redaction import Redactor
from mcpbridge.telemetry.logs import hearing
from mcpbridge.wire.messages import Message, Request

_LOGGERS = ("mcpbridge.child", "mcpbridge.process", "mcpbridge.fault")
"""What logs the lines on stderr, starts and ends, and faults on purpose."""
_ENDS = ("child.exited", "child.stopped")
NO_FACTS: Mapping[str, object] = MappingProxyType({})
_MOST_NOTED = 4096


class Sink(Protocol):
    """Takes frames, in any thread."""

    def put(self, frame: Frame, redactor: Redactor | None) -> None:
        """Take a frame without waiting; `redactor` knows the secrets of its child."""


class Tape:
    """Makes frames of what passes through the channels that it decorates."""

    def __init__(
        self,
        label: str,
        sinks: Iterable[Sink],
        secrets: Iterable[str] = (),
        numbers: Iterator[int] | None = None,
    ) -> None:
        """Make a tape.

        Args:
            label: The server's name in each frame.
            sinks: Take each frame.
            secrets: Values to remove from what is written.
            numbers: Gives each frame its number; None: they are counted from 1.
        """
        self._label = label
        self._sinks = list(sinks)
        self._secrets = frozenset(secrets)
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._sessions = itertools.count(1)
        self._run = uuid.uuid4().hex[:8]
        self._redactor = Redactor(self._secrets)

    def tapped(self, make_ends: MakeEnds, hidden: Secrets = NOTHING) -> MakeEnds:
        """Return a factory of decorated channels, for children with these further secrets."""
        redactor = self._redactor
        if hidden.pairs:
            redactor = Redactor(self._secrets | {value for _, value in hidden.pairs})

        def make(stdout_fd: int, stdin_fd: int) -> ChildChannel:
            session_id = f"{self._run}-{next(self._sessions)}"
            tap = Tap(self, session_id, redactor)
            return TappedChannel(make_ends(stdout_fd, stdin_fd), tap)

        return make

    def take(
        self,
        session_id: str,
        redactor: Redactor,
        direction: Direction,
        message: Message | None = None,
        text: str | None = None,
        size: int | None = None,
        facts: Mapping[str, object] = NO_FACTS,
    ) -> None:
        """Make a frame and hand it to all sinks."""
        seq, ts_ns = next(self._numbers), time.time_ns()
        what = (direction, message, text, size, facts)
        frame = Frame(session_id, self._label, seq, ts_ns, *what)
        for sink in self._sinks:
            sink.put(frame, redactor)


class Tap:
    """The part of a tape that belongs to one channel."""

    def __init__(self, tape: Tape, session_id: str, redactor: Redactor) -> None:
        """Make a tap."""
        self._tape = tape
        self._session_id = session_id
        self._redactor = redactor

    def message(
        self, direction: Direction, message: Message, facts: Mapping[str, object] = NO_FACTS
    ) -> None:
        """Take a message, with what is known of it."""
        where = (self._session_id, self._redactor, direction)
        self._tape.take(*where, message, facts=facts)

    def text(
        self,
        direction: Direction,
        text: str,
        size: int | None = None,
        facts: Mapping[str, object] = NO_FACTS,
    ) -> None:
        """Take a line or an event, with what is known of it."""
        self._tape.take(self._session_id, self._redactor, direction, None, text, size, facts)


class _ChildLog(logging.Handler):
    """Takes what is logged of one child: its stderr, its start, its end, its faults on purpose."""

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self._tap = tap
        self._pid: int | None = None
        self._looks = True

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record if it is about this child."""
        facts = vars(record)
        if self._looks and record.msg in ("child.started", "child.connected"):
            # Logged in the same turn of the loop in which the channel was opened. A server that is
            # reached by HTTP has no process, and those that start later are not its own.
            self._looks = False
            self._pid = facts.get("pid")
        if self._pid is None or facts.get("pid") != self._pid:
            return
        if record.msg == "child.stderr":
            self._tap.text(Direction.STDERR, facts["line"])
        elif record.msg == "child.started":
            self._tap.text(Direction.META, f"child.started pid={self._pid}")
        elif record.msg in _ENDS:
            self._tap.text(Direction.META, f"{record.msg} {facts['how']}")
        elif record.msg == "fault.injected":
            text = f"fault.injected id={facts['request_id']} {facts['rule']}"
            self._tap.text(Direction.META, text)


class TappedChannel(DecoratedChannel):
    """A channel that is another one, and shows a tap what passes."""

    def __init__(self, inner: ChildChannel, tap: Tap) -> None:
        """Decorate a channel."""
        super().__init__(inner)
        self._inner = inner
        self._tap = tap
        self._over = False
        self.ended: asyncio.Event = inner.ended
        """Set when no more will be read."""
        self._log_tap = _ChildLog(tap)
        self._noted: dict[bytes, Mapping[str, object]] = {}
        """What is known of requests that have not been sent yet, by their ids."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Read and write until the block ends: see `Ends.open`."""
        self._tap.text(Direction.META, "channel.opened")
        with hearing(self._log_tap, *_LOGGERS), self._inner.open():
            yield

    async def receive(self) -> Sequence[Received]:
        """Wait for messages: see `Channel.receive`."""
        received = await self._inner.receive()
        self._heard(received)
        if not received:
            self._note_end()
        return received

    async def forward(self, take: Consumer) -> None:
        """Call `take` with what is received: see `Channel.forward`."""

        def taken(received: Sequence[Received]) -> None:
            self._heard(received)
            take(received)

        await self._inner.forward(taken)
        self._note_end()

    def _heard(self, received: Sequence[Received]) -> None:
        for each in received:
            if isinstance(each, InvalidLine):
                text = each.sample.decode("utf-8", "replace")
                self._tap.text(Direction.FROM_SERVER, text, each.size, {"reason": each.reason})
            else:
                self._tap.message(Direction.FROM_SERVER, each)

    def _note_end(self) -> None:
        if not self._over:
            self._over = True
            self._tap.text(Direction.META, "channel.ended")

    def send(self, message: Message) -> None:
        """Queue a message: see `Channel.send`."""
        self._inner.send(message)
        facts = self._noted.pop(message.id, NO_FACTS) if isinstance(message, Request) else NO_FACTS
        self._tap.message(Direction.TO_SERVER, message, facts)

    def note(self, request_id: bytes, facts: Mapping[str, object]) -> None:
        """Remember what is known of a request, for the moment when it is sent."""
        if len(self._noted) >= _MOST_NOTED:
            # A request that was taken back while it waited for its turn is not sent.
            del self._noted[next(iter(self._noted))]
        self._noted[request_id] = facts

    def close_input(self) -> None:
        """Close the child's stdin: see `Ends.close_input`."""
        self._inner.close_input()

    def end(self) -> None:
        """Stop reading: see `Ends.end`."""
        self._inner.end()
