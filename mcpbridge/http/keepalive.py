"""Signs of life on every open stream, from one timer.

Proxies cut a connection that says nothing for a minute or less, and a client whose peer vanished
is found out only by writing to it.

The streams are spread over the parts of a round: to write to thousands of them at once would hold
up every call for a tenth of a second.

Source: the WHATWG HTML standard, Server-sent events, 9.2.7: a comment line every 15 seconds or so.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import anyio

from mcpbridge.bridge.calls.stream import Reader
from mcpbridge.rules.access.principals import Principal
from mcpbridge.settings import Unit, setting

PARTS = 50
"""Of a round."""
AT_ONCE = 8
"""So many streams of a part are written to at the same time; the others of it soon after."""


@dataclasses.dataclass(frozen=True, slots=True)
class KeepAliveSettings:
    """How open streams are kept alive."""

    every_s: float = setting(
        15.0,
        "--sse-keep-alive",
        "Longest silence on an event stream: then a comment is sent, so that no proxy cuts it.",
        group="Listening",
        unit=Unit.SECONDS,
        minimum=1,
    )


class KeepAlive:
    """Nudges each registered reader every so often; alive while `run` runs."""

    def __init__(self, every_s: float, still: Callable[[Principal], bool] | None = None) -> None:
        """Make it.

        Args:
            every_s: Time of a round.
            still: Whether a principal may still read; its streams end soon after it may not.
        """
        self._every_s = every_s
        self._still = still
        self._parts: list[dict[Reader, Principal | None]] = [{} for _ in range(PARTS)]
        self._at = 0
        """The part that was nudged last."""
        self._offsets = itertools.cycle(range(PARTS // 2))

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return sum(map(len, self._parts))

    def watching(self, reader: Reader, principal: Principal | None = None) -> Watching:
        """Nudge this reader while a `with` block lasts, and while this principal may read.

        For the first time after half a round at the least, since most streams of calls are over
        by then, and after a whole one at the most.
        """
        return Watching(reader, principal, self._parts[self._at - next(self._offsets)])

    async def run(self) -> None:
        """Nudge for ever."""
        while True:
            self._at = (self._at + 1) % PARTS
            readers = list(self._parts[self._at])
            starts = range(0, len(readers) or 1, AT_ONCE)
            for start in starts:
                for reader in readers[start : start + AT_ONCE]:
                    reader.nudge()
                await anyio.sleep(self._every_s / PARTS / len(starts))
            if self._still is not None:
                self._end_streams(self._still)

    def _end_streams(self, still: Callable[[Principal], bool]) -> None:
        for part in self._parts:
            for reader, principal in list(part.items()):
                if principal is not None and not still(principal):
                    reader.leave()


class Watching:
    """One reader's place in the round; made by `KeepAlive.watching`."""

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
