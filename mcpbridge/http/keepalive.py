"""Keepalive comments on every open stream, from one timer.

Proxies cut a connection that is silent for a minute or less, and a client that vanished is noticed
only by writing to it.

The streams are spread over the parts of a round: writing to thousands of them at once would delay
every call by a tenth of a second.

Source: the WHATWG HTML standard, Server-sent events, 9.2.7: a comment line every 15 seconds or so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio

from mcpbridge.bridge.calls.stream import Reader
from mcpbridge.rules.access.principals import Principal
from mcpbridge.settings import SettingsSection, Unit, setting

PARTS = 50
"""Number of parts in a round."""
AT_ONCE = 2
"""Streams of a part that are written to in one turn of the loop; the others follow soon."""


class KeepAliveSettings(SettingsSection, frozen=True):
    """Settings of how open streams are kept alive."""

    every_s: float = setting(
        15.0,
        "--sse-keep-alive",
        "Longest silence on an event stream: then a comment is sent, so that no proxy cuts it.",
        group="Listening",
        unit=Unit.SECONDS,
        minimum=1,
    )


class KeepAlive:
    """A timer that nudges each registered reader once in a round, while `run` runs."""

    def __init__(self, every_s: float, still: Callable[[Principal], bool] | None = None) -> None:
        """Make a keepalive without readers.

        Args:
            every_s: Seconds of a round.
            still: Returns whether a principal may still read; if not, its streams end soon after.
        """
        self.every_s = every_s
        """Seconds of a round: the longest silence on an open stream."""
        self._still = still
        self._parts: list[dict[Reader, Principal | None]] = [{} for _ in range(PARTS)]
        self._at = 0
        """Index of the part that was nudged last."""
        self._offsets = itertools.cycle(range(PARTS // 2))

    @property
    def open(self) -> int:
        """Number of registered readers."""
        return sum(map(len, self._parts))

    def watching(self, reader: Reader, principal: Principal | None = None) -> Watching:
        """Nudge this reader in a `with` block; end it once its principal may not read any more.

        The first nudge comes after half a round at least, since most streams of calls have ended
        by then, and after a whole round at most.
        """
        return Watching(reader, principal, self._parts[self._at - next(self._offsets)])

    async def run(self) -> None:
        """Nudge readers until cancelled."""
        due = anyio.current_time()
        while True:
            self._at = (self._at + 1) % PARTS
            # A copy: readers come and go during the pauses.
            readers = list(self._parts[self._at])
            starts = range(0, len(readers) or 1, AT_ONCE)
            for start in starts:
                for reader in readers[start : start + AT_ONCE]:
                    reader.nudge()
                # Spread over the part's time: thousands of writes in one turn would hold up calls.
                # By the clock: what each of thousands of pauses is too long would add up. But what
                # was missed, as in a machine that slept, is not made up for.
                due = max(due + self.every_s / PARTS / len(starts), anyio.current_time())
                await anyio.sleep_until(due)
            # Each part of a round, not each round: a stream must end soon after its token.
            if self._still is not None:
                self._end_streams(self._still)

    def _end_streams(self, still: Callable[[Principal], bool]) -> None:
        for part in self._parts:
            for reader, principal in list(part.items()):
                if principal is not None and not still(principal):
                    reader.leave()


class Watching:
    """A context in which one reader is registered; made by `KeepAlive.watching`."""

    __slots__ = ("_part", "_principal", "_reader")

    def __init__(
        self,
        reader: Reader,
        principal: Principal | None,
        part: dict[Reader, Principal | None],
    ) -> None:
        self._reader = reader
        self._principal = principal
        self._part = part

    def __enter__(self) -> None:
        self._part[self._reader] = self._principal

    def __exit__(self, *_: object) -> None:
        self._part.pop(self._reader, None)
