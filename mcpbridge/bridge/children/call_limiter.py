"""The calls that one child works on at once, and those that wait for their turn.

A child that is given more than it can do gets slower for everybody, and keeps all of it in its
memory. So each has a number of places; a call takes one until the child has answered it. The call
that finds none waits behind those that came before it, for a bounded time. Who is under the bound
pays one comparison and touches no queue.

A call that was cancelled keeps its place for a while: the child may go on working on it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import msgspec

from mcpbridge.rules.faults import Fault, capacity, queued_too_long
from mcpbridge.settings import Unit, setting
from mcpbridge.wire.messages import Request

LINGER_S = 5.0
"""How long a cancelled call keeps its place, if the child does not answer it sooner."""

GROUP = "Limits"


@dataclasses.dataclass(frozen=True, slots=True)
class LoadLimits:
    """How many calls there may be at once."""

    max_calls: int = setting(
        1024,
        "--max-calls",
        "Calls at once in all, those that wait for their turn included.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    max_calls_per_child: int = setting(
        64,
        "--max-calls-per-child",
        "Calls that one server process works on at once; more of them wait for their turn.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    queue_length: int = setting(
        1024,
        "--queue-length",
        "Calls that may wait for their turn on one server process; 0: none waits.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=0,
    )
    queue_bytes: int = setting(
        16 << 20,
        "--queue-bytes",
        "Size of the calls that may wait for their turn on one server process.",
        group=GROUP,
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
    queue_timeout_s: float = setting(
        5.0,
        "--queue-timeout",
        "Longest time that a call waits for its turn; its client can try again sooner than it"
        " would give up.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0.01,
    )


class _Waiting(msgspec.Struct, frozen=True):
    """A call that has no place yet."""

    request: Request
    """As the child will get it."""
    until: float

    @property
    def size(self) -> int:
        return len(self.request.params or b"") + len(self.request.extra)


class CallLimiter:
    """The places of one child; owned by its mux.

    Calls are known by their numbers on the pipe, which are never used twice: so whatever is told
    twice of a call, that it was answered, cancelled and forgotten, gives its place back once.
    """

    def __init__(
        self,
        limits: LoadLimits,
        send: Callable[[int, Request], None],
        refuse: Callable[[int, Fault], None],
    ) -> None:
        """All places are free.

        Args:
            limits: How many there are, and how many may wait for how long.
            send: Gives a call that has waited to the child.
            refuse: Tells a call that it has waited in vain.
        """
        self._limits = limits
        self._most = limits.max_calls_per_child
        self._send = send
        self._refuse = refuse
        self._taken: set[int] = set()
        self._waiting: dict[int, _Waiting] = {}
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def taken(self) -> int:
        """Calls that the child works on, as far as can be known."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._waiting)

    def take(self, number: int) -> bool:
        """Take a place for a call; whether there was one."""
        if len(self._taken) >= self._most:
            return False
        self._taken.add(number)
        return True

    def wait(self, number: int, request: Request) -> None:
        """Let a call wait behind the others; it is refused at once where too many do."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        entry = _Waiting(request, loop.time() + limits.queue_timeout_s)
        if not limits.queue_length:
            self._refuse(number, capacity("--max-calls-per-child", self._most))
        elif len(self._waiting) >= limits.queue_length:
            self._refuse(number, capacity("--queue-length", limits.queue_length))
        elif self._waiting and self._size + entry.size > limits.queue_bytes:
            self._refuse(number, capacity("--queue-bytes", limits.queue_bytes))
        else:
            self._waiting[number] = entry
            self._size += entry.size
            if self._timer is None:
                self._timer = loop.call_at(entry.until, self._expire)

    def release(self, number: int) -> None:
        """The child is done with this call: whoever waits longest gets its place."""
        self._taken.discard(number)
        if self._waiting:
            # A child may answer what it has not been asked yet.
            self._leave(number)
            self._advance()

    def linger(self, number: int) -> None:
        """Nobody wants the answer any more, but the child may still work on it."""
        if number in self._taken:
            asyncio.get_running_loop().call_later(LINGER_S, self.release, number)

    def withdraw(self, number: int) -> bool:
        """Take a call out of the queue; whether it was there."""
        return self._leave(number) is not None

    def close(self) -> list[int]:
        """The child is gone; returns the calls that were still waiting, the longest first."""
        numbers = list(self._waiting)
        self._waiting.clear()
        self._size = 0
        # Or the places and their mux would hold each other until the garbage collector comes.
        self._send = self._refuse = _forget
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return numbers

    def _leave(self, number: int) -> _Waiting | None:
        entry = self._waiting.pop(number, None)
        if entry is not None:
            self._size -= entry.size
        return entry

    def _advance(self) -> None:
        while self._waiting and len(self._taken) < self._most:
            number = next(iter(self._waiting))
            entry = self._leave(number)
            assert entry is not None
            self._taken.add(number)
            self._send(number, entry.request)

    def _expire(self) -> None:
        # All wait equally long, so those who came first are over first.
        self._timer = None
        loop = asyncio.get_running_loop()
        limits = self._limits
        while self._waiting:
            number, entry = next(iter(self._waiting.items()))
            if entry.until > loop.time():
                self._timer = loop.call_at(entry.until, self._expire)
                return
            self._leave(number)
            self._refuse(number, queued_too_long(self._most, limits.queue_timeout_s))


def _forget(number: int, what: object) -> None:
    """Nobody is left to tell."""
