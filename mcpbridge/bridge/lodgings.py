"""Which quarters are whose, and when quarters end."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator

import anyio

from mcpbridge.bridge.allotment import Allotment, Supply
from mcpbridge.bridge.eras import Eras
from mcpbridge.bridge.outbox import Spawn
from mcpbridge.bridge.placement import Placement
from mcpbridge.bridge.quarters import IDLE_S, SETTLED_S, Quarters
from mcpbridge.process.child import AnyChild
from mcpbridge.rules.access.principals import ANONYMOUS, Hidden, Principal
from mcpbridge.rules.faults import session_closed

log = logging.getLogger("mcpbridge.bridge")

Dress = Callable[[Hidden], AnyChild]
"""A child that has not been started, with these variables in its environment besides."""


class Lodgings:
    """The quarters of all principals, by their keys; owned by the bridge."""

    def __init__(
        self,
        placement: Placement,
        first: Quarters | None,
        make: Callable[[Eras, Supply], Quarters],
        eras: Eras,
        dress: Dress | None,
        spawn: Spawn,
    ) -> None:
        """Make them.

        Args:
            placement: Has the children of all.
            first: Quarters that are nobody's yet, where some run already.
            make: Makes further ones.
            eras: Those of the first, by whose example others are made.
            dress: Makes children with further variables.
            spawn: Runs work in the bridge's own time.
        """
        self._placement = placement
        self._unclaimed = first
        self._make = make
        self._eras = eras
        self._dress = dress
        self._spawn = spawn
        self._by_key: dict[bytes, Quarters] = {}
        self._allotments: dict[Quarters, Allotment] = {}
        placement.make_room = self._make_room

    def __iter__(self) -> Iterator[Quarters]:
        if self._unclaimed is not None:
            yield self._unclaimed
        yield from list(self._by_key.values())

    def find(self, principal: Principal) -> Quarters | None:
        """The quarters of a principal, where it has some."""
        return self._by_key.get(principal.key)

    def give(self, principal: Principal) -> Quarters:
        """Quarters for a principal that has none: those that are nobody's yet, or new ones."""
        if self._unclaimed is not None and not principal.env.pairs:
            found, self._unclaimed = self._unclaimed, None
        else:
            found = self._further(principal)
        self._by_key[principal.key] = found
        found.modern.private = principal.key != ANONYMOUS.key
        found.seal.owner = principal.key
        return found

    def sweep(self, now: float) -> list[Quarters]:
        """Leave those that nobody has used for long.

        Returns:
            Those whose child has kept failing; to be left when their sessions have ended.
        """
        failed = []
        for quarters in list(self._allotments):
            if quarters.eras.gave_up.is_set():
                failed.append(quarters)
            elif quarters.idle_s(now) > IDLE_S:
                self.leave(quarters)
        return failed

    def leave(self, quarters: Quarters) -> None:
        """End quarters that are not the first; their principal finds new ones."""
        self._spawn(self._forgotten(quarters).close)

    def _further(self, principal: Principal) -> Quarters:
        make_child = None
        if principal.env.pairs:
            assert self._dress is not None
            make_child = functools.partial(self._dress, principal.env)
        allotment = Allotment(self._placement, make_child, principal.env)
        # What program it is, one of them may have found out.
        known = (each.eras for each in self if each.eras.verdict is not None)
        quarters = self._make(next(known, self._eras).another(allotment), allotment)
        self._allotments[quarters] = allotment
        self._spawn(quarters.run)
        log.info("principal.arrived", extra={"principal": principal.name})
        return quarters

    def _forgotten(self, quarters: Quarters) -> Allotment:
        self._by_key = {key: each for key, each in self._by_key.items() if each is not quarters}
        quarters.leave(session_closed())
        return self._allotments.pop(quarters)

    async def _make_room(self) -> bool:
        """End children of a principal that has none of them in use; see `Placement.make_room`."""
        now = anyio.current_time()
        idle = [(quarters.idle_s(now), quarters) for quarters in self._allotments]
        idle_s, longest = max(idle, key=lambda each: each[0], default=(0.0, None))
        if longest is None or idle_s < SETTLED_S:
            return False
        log.info("principal.rested", extra={"idle_s": round(idle_s, 1)})
        await self._forgotten(longest).close()
        return True
