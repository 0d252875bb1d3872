"""The calls that one child works on at once, and those that wait for their turn.

A child that gets more calls than it can work on becomes slower for all clients and keeps the calls
in its memory. So each child has a number of places; a call holds one until the child has answered
it. A call that finds none waits. Clients get a free place in turns, so that no client waits behind
all calls of another. The queue is bounded in number and bytes; if it is full, the client with most
calls in it gives way to one with fewer. The wait ends with the time that the call may take
(`Exchange.queued`), or sooner with `--queue-timeout`. Below the limit a call costs one comparison
and touches no queue.

A call that was cancelled keeps its place for a while: the child may go on working on it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from mcpbridge.rules.access.shares import ranked
from mcpbridge.rules.faults import Fault, capacity, queue_full, queued_too_long
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.wire.messages import Request

LINGER_S = 5.0
"""How long a cancelled call keeps its place, if the child does not answer it sooner."""

GROUP = "Limits"


class LoadLimits(SettingsSection, frozen=True):
    """How many calls may be in flight at once."""

    max_calls: int = setting(
        1024,
        "--max-calls",
        "Calls in flight at once, over all clients; those that wait for their turn count. The last"
        " sixteenth is for clients that have fewer than their share.",
        group=GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    max_memory_bytes: int | None = setting(
        None,
        "--max-memory",
        "Bytes that may be kept in all: requests in arrival, calls in flight, sessions, what waits"
        " for a client or a server that does not read, and events kept for resumption. By default"
        " what the container, or the machine, allows less a reserve: half of it, at least 128 MiB.",
        group=GROUP,
        unit=Unit.BYTES,
        minimum=1 << 20,
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
        "Total size of the calls that may wait for their turn on one server process, and of the"
        " messages of one session that wait for a process that starts or does not read.",
        group=GROUP,
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
    queue_timeout_s: float | None = setting(
        None,
        "--queue-timeout",
        "Longest time that a call waits for its turn; by default as long as it may take"
        " (`--request-timeout`). Also how long it waits for a process at `--max-children`; by"
        " default 5 s.",
        group=GROUP,
        unit=Unit.SECONDS,
        minimum=0.01,
    )


class _Waiting(msgspec.Struct, frozen=True):
    """A call that waits for a place."""

    request: Request
    """The request, as the child will get it."""
    until: float
    caller: bytes

    @property
    def size(self) -> int:
        return len(self.request.params or b"") + len(self.request.extra)


class CallLimiter:
    """A counter of the places of one child, and a queue for them; owned by its mux.

    A call is identified by its number on the pipe, which is never used twice. So a call that is
    answered, cancelled and forgotten in any order gives its place back once.
    """

    def __init__(
        self,
        limits: LoadLimits,
        send: Callable[[int, Request], None],
        refuse: Callable[[int, Fault], None],
    ) -> None:
        """Make a limiter with all places free.

        Args:
            limits: How many places there are, how many calls may wait, and for how long.
            send: Sends a call that has waited to the child.
            refuse: Fails a call that got no place.
        """
        self._limits = limits
        self.most = limits.max_calls_per_child
        """Calls that the child works on at once."""
        self._send = send
        self._refuse = refuse
        self._taken: set[int] = set()
        self._waiting: dict[int, _Waiting] = {}
        """The calls that wait, in order of arrival."""
        self._turns: dict[bytes, dict[int, None]] = {}
        """The same by client; the first client is the next one that gets a place."""
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def taken(self) -> int:
        """Number of calls that the child works on, or may still work on after a cancellation."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """Number of calls that wait for their turn."""
        return len(self._waiting)

    def take(self, number: int) -> bool:
        """Take a place for a call; return whether one was free."""
        if len(self._taken) >= self.most:
            return False
        self._taken.add(number)
        return True

    def wait(self, number: int, request: Request, caller: bytes = b"") -> None:
        """Let a call wait for its turn; refuse it at once if the queue is full.

        Args:
            number: Its number on the pipe.
            request: The request, as the child will get it.
            caller: The client, by its `Principal.share_key`.
        """
        loop = asyncio.get_running_loop()
        within_s = self._limits.queue_timeout_s
        until = math.inf if within_s is None else loop.time() + within_s
        entry = _Waiting(request, until, caller)
        fault = self._make_room(entry)
        if fault is not None:
            self._refuse(number, fault)
            return
        self._waiting[number] = entry
        self._turns.setdefault(caller, {})[number] = None
        self._size += entry.size
        if self._timer is None and within_s is not None:
            self._timer = loop.call_at(until, self._expire)

    def _make_room(self, entry: _Waiting) -> Fault | None:
        """Refuse calls of heavier clients until there is room; return the fault if there is not."""
        limits = self._limits
        if not limits.queue_length:
            return capacity("--max-calls-per-child", self.most)
        # Length and size apart: a client may be the heaviest by one and not by the other.
        while len(self._waiting) >= limits.queue_length:
            fault = queue_full("--queue-length", limits.queue_length, self.most)
            counts = {caller: len(numbers) for caller, numbers in self._turns.items()}
            if not self._yields(counts, entry.caller, 1, fault):
                return fault
        while self._waiting and self._size + entry.size > limits.queue_bytes:
            fault = queue_full("--queue-bytes", limits.queue_bytes, self.most)
            sizes = {
                caller: sum(self._waiting[number].size for number in numbers)
                for caller, numbers in self._turns.items()
            }
            if not self._yields(sizes, entry.caller, entry.size, fault):
                return fault
        return None

    def _yields(self, held: dict[bytes, int], newcomer: bytes, more: int, fault: Fault) -> bool:
        """Refuse the newest call of the heaviest client, if that has more than the newcomer will.

        Returns:
            Whether there was one.
        """
        held[newcomer] = held.get(newcomer, 0) + more
        heaviest = ranked(held, newcomer)[0]
        if heaviest == newcomer:
            return False
        # The newest, which has waited least.
        number = next(reversed(self._turns[heaviest]))
        self._leave(number)
        self._refuse(number, fault)
        return True

    def release(self, number: int) -> None:
        """Free the place of a call; the next client in turn gets it for its oldest call."""
        self._taken.discard(number)
        if self._waiting:
            # A child may answer a number that it guessed, of a call that still waits.
            self._leave(number)
            self._advance()

    def linger(self, number: int) -> None:
        """Free the place of a cancelled call after `LINGER_S`: the child may still work on it."""
        if number in self._taken:
            asyncio.get_running_loop().call_later(LINGER_S, self.release, number)

    def holds(self, number: int) -> bool:
        """Return whether a call waits for its turn."""
        return number in self._waiting

    def withdraw(self, number: int) -> bool:
        """Take a call out of the queue; return whether it was there."""
        return self._leave(number) is not None

    def close(self) -> list[int]:
        """Stop, as the child is gone; return the calls that still waited, in order of arrival."""
        numbers = list(self._waiting)
        self._waiting.clear()
        self._turns.clear()
        self._size = 0
        # Else this object and its mux reference each other until the garbage collector runs.
        self._send = self._refuse = _forget
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return numbers

    def _leave(self, number: int) -> _Waiting | None:
        entry = self._waiting.pop(number, None)
        if entry is not None:
            self._size -= entry.size
            numbers = self._turns[entry.caller]
            del numbers[number]
            if not numbers:
                del self._turns[entry.caller]
        return entry

    def _advance(self) -> None:
        while self._waiting and len(self._taken) < self.most:
            caller, numbers = next(iter(self._turns.items()))
            number = next(iter(numbers))
            entry = self._leave(number)
            assert entry is not None
            if numbers:
                # It has had its turn: the others come first now.
                self._turns[caller] = self._turns.pop(caller)
            self._taken.add(number)
            self._send(number, entry.request)

    def _expire(self) -> None:
        # All calls wait equally long, so the first in the queue expires first.
        self._timer = None
        loop = asyncio.get_running_loop()
        limits = self._limits
        while self._waiting:
            number, entry = next(iter(self._waiting.items()))
            if entry.until > loop.time():
                self._timer = loop.call_at(entry.until, self._expire)
                return
            self._leave(number)
            self._refuse(number, queued_too_long(self.most, limits.queue_timeout_s or 0.0))


def _forget(number: int, what: object) -> None:
    """Do nothing: the mux is closed."""
