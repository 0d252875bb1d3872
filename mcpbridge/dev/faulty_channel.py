"""Decorates the channels of a server's processes with faults on purpose: `--fault RULE`.

Each fault is logged as `fault.injected`, which a tape of the same process takes too. Without a rule
no channel is decorated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mcpbridge.channels.channel import Consumer, InvalidLine, Received
from mcpbridge.channels.decorated import DecoratedChannel
from mcpbridge.errors import WireError
from mcpbridge.process.spawn import KILL, signal_group
from mcpbridge.process.subprocess_child import ChildChannel, MakeEnds
from mcpbridge.rules.faults import injected
from mcpbridge.rules.injected_faults import Effect, FaultPlan, FaultRule
from mcpbridge.rules.mcp.methods import CANCELLED
from mcpbridge.telemetry.logs import hearing
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    Result,
    canonical_id,
    pieces,
    text_of,
)
from mcpbridge.wire.reply_id import answer_id

log = logging.getLogger("mcpbridge.fault")

_SAMPLE_BYTES = 200


class Faults:
    """The faults of one server, in all its processes."""

    def __init__(self, plan: FaultPlan) -> None:
        """Make it; `plan` counts the requests of all processes together."""
        self._plan = plan

    def injected(self, make_ends: MakeEnds) -> MakeEnds:
        """Return a factory of decorated channels."""

        def make(stdout_fd: int, stdin_fd: int) -> ChildChannel:
            return FaultyChannel(make_ends(stdout_fd, stdin_fd), self._plan)

        return make


class _OwnPid(logging.Handler):
    """Finds the pid of the process behind a channel: the first one that starts once it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.pid: int | None = None
        """None for a server that is reached by HTTP, too."""
        self._looks = True

    def emit(self, record: logging.LogRecord) -> None:
        """Take the pid; `child.started` is logged in the turn in which the channel was opened."""
        if self._looks and record.msg in ("child.started", "child.connected"):
            self._looks = False
            self.pid = vars(record).get("pid")


class FaultyChannel(DecoratedChannel):
    """A channel that is another one, and spoils what its rules hit.

    Answers are held back or made up while `forward` runs, which is how a bridge reads.
    """

    def __init__(self, inner: ChildChannel, plan: FaultPlan) -> None:
        """Decorate a channel."""
        super().__init__(inner)
        self._inner = inner
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._hit: dict[bytes, FaultRule] = {}
        """The rules for answers that are awaited, by the ids of their requests."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._take: Consumer | None = None
        self._process = _OwnPid()
        self.ended: asyncio.Event = inner.ended
        """Set when no more will be read."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Read and write until the block ends: see `Ends.open`."""
        try:
            with hearing(self._process, "mcpbridge.process"), self._inner.open():
                yield
        finally:
            for timer in self._timers:
                timer.cancel()

    def send(self, message: Message) -> None:
        """Queue a message, unless a rule answers it: see `Channel.send`."""
        if isinstance(message, Notification) and message.method == CANCELLED:
            self._hit.pop(_id_of(_member(message.params, "requestId")), None)
        rule, name = None, None
        if isinstance(message, Request):
            name = text_of(_member(message.params, "name"))
            rule = self._plan.next(message.method, name)
        if rule is None or not isinstance(message, Request):
            self._inner.send(message)
            return
        if rule.effect is not Effect.ERROR:
            # First: if the server is gone, the caller is told so, and no fault has been injected.
            self._inner.send(message)
        extra = {
            "rule": str(rule),
            "effect": rule.effect.value,
            "method": message.method,
            "request_id": message.id.decode("utf-8", "replace"),
            "pid": self._process.pid,
        }
        log.warning("fault.injected", extra=extra if name is None else {**extra, "tool": name})
        match rule.effect:
            case Effect.ERROR:
                made = Failure(message.id, injected(str(rule)).error())
                self._later(rule.delay_s, lambda: self._deliver([made]))
            case Effect.DIE:
                self._later(rule.delay_s, self._kill)
            case _:
                self._hit[canonical_id(message.id)] = rule

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Act after a delay; without one in the next turn, when the request has been written."""

        def acted() -> None:
            self._timers.discard(timer)
            act()

        timer = self._loop.call_later(delay_s, acted)
        self._timers.add(timer)

    def _kill(self) -> None:
        if self._process.pid is not None and not self.ended.is_set():
            # The whole group: a wrapper such as npx would leave the server running.
            signal_group(self._process.pid, KILL)

    async def receive(self) -> Sequence[Received]:
        """Wait for messages, without those that are held back: see `Channel.receive`."""
        while received := await self._inner.receive():
            passed = self._passed(received)
            if passed:
                return passed
        return received

    async def forward(self, take: Consumer) -> None:
        """Call `take` with what is received, and what is made up: see `Channel.forward`."""

        def taken(received: Sequence[Received]) -> None:
            passed = self._passed(received)
            if passed:
                take(passed)

        self._take = take
        try:
            await self._inner.forward(taken)
        finally:
            self._take = None

    def _passed(self, received: Sequence[Received]) -> Sequence[Received]:
        """Return what may be handed on now."""
        if not self._hit:
            return received
        passed: list[Received] = []
        for each in received:
            rule = self._hit.pop(_answers(each), None)
            if rule is None or not isinstance(each, Result | Failure):
                passed.append(each)
            elif rule.effect is not Effect.DROP:
                spoiled = _cut(each) if rule.effect is Effect.GARBAGE else each
                if rule.delay_s:
                    self._hold(rule.delay_s, spoiled)
                else:
                    passed.append(spoiled)
        return passed

    def _hold(self, delay_s: float, item: Received) -> None:
        self._later(delay_s, lambda: self._deliver([item]))

    def _deliver(self, received: Sequence[Received]) -> None:
        """Hand on what is not of the inner channel in this turn."""
        if self._take is None or self.ended.is_set():
            return
        delivered = False
        try:
            self._take(received)
            delivered = True
        finally:
            if not delivered:
                # A bug, which the loop reports; the end of the channel tells those who wait.
                self._inner.end()

    def close_input(self) -> None:
        """Close the child's stdin: see `Ends.close_input`."""
        self._inner.close_input()

    def end(self) -> None:
        """Stop reading: see `Ends.end`."""
        self._inner.end()


def _answers(item: Received) -> bytes:
    """Return the id of the request that a message answers; empty if it answers none."""
    return _id_of(item.id) if isinstance(item, Result | Failure) else b""


def _id_of(raw: bytes | None) -> bytes:
    return canonical_id(raw) if raw is not None else b""


def _member(params: bytes | None, name: str) -> bytes | None:
    try:
        return member(params, name) if params is not None else None
    except WireError:
        return None


def _cut(reply: Reply) -> InvalidLine:
    """Return an answer that ends in the middle, as a channel reports such a line."""
    head, payload, _ = pieces(reply)
    line = head + payload[: len(payload) // 2]
    return InvalidLine("bad_json", len(line), line[:_SAMPLE_BYTES], answer_id(line))
