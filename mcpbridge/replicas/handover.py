"""Hands the sessions of a replica over to others when it ends.

From the middle of the lame duck on each session without a call in flight is offered to the other
replicas, in an order that differs from session to session; the others follow as soon as they have
none. What arrives for a session is held until the answer has come, since between two copies it
could miss the other. The end waits for sessions that were not refused several times, and until the
others know where those are that have moved: they ask this replica for none of them any more.

With `--hold-sessions` those that have a process alone stay for a time, since what the process knows
would be lost. The others forward to this replica, and the end waits. A session whose process has
ended has no reason to stay.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mcpbridge.bridge.drain import Drain
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import MAX_HANDOVER_BYTES, HomeAnswer, OfferedSession
from mcpbridge.replicas.peers import home_in
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.homes.states import HAND_OVER_AT
from mcpbridge.telemetry.metrics import Meters

log = logging.getLogger("mcpbridge.replicas")

_AT_ONCE = 32
"""Sessions that are offered at the same time."""
_LOOK_EVERY_S = 0.05
"""Between two looks for sessions whose call has ended."""
_PART_OF_TIME = 4
"""With very many sessions a look is followed by a pause that is longer by this factor."""
_TRIES = 3
"""The end waits for a session until the others have refused it so often: one may be busy."""
_AGAIN_S = 1.0
"""After this time a session is offered again, and a silent replica asked."""
_SESSIONS_PER_TURN = 100
_RESOLVED_WITHIN_S = 2.0
"""Then those that were seen before are asked."""

Offer = Callable[[str, bytes, Principal], Awaitable[HomeAnswer | None]]
"""Offers a session to the peer at an address, for its client; returns None if it is silent."""


class LeavingHost(Protocol):
    """What holds the sessions of the replica that ends."""

    def leavers(self) -> Iterator[tuple[str, Principal, bool]]:
        """Yield the sessions that may be handed over, each with whether no call is in flight."""

    def content(self, session_id: str, principal: Principal) -> tuple[bytes, SessionRecord] | None:
        """Return what another replica must know of a session; None if it has ended."""

    def moved(self, session_id: str, principal: Principal) -> bool:
        """End a session that another replica has; return whether it was still here."""

    def with_own_child(self) -> Collection[str]:
        """Return the sessions that have a child for themselves which serves them."""


class HandOver:
    """The hand-over of one replica at its end."""

    def __init__(
        self,
        homes: Homes,
        host: LeavingHost,
        offer: Offer,
        drain: Drain,
        meters: Meters,
        clock: Callable[[], float],
    ) -> None:
        """Make it; nothing happens before `begin`.

        Args:
            homes: Knows the other replicas, and where sessions have gone.
            host: Has the sessions.
            offer: Offers one to a peer.
            drain: The end of this replica, which waits for it.
            meters: Count what becomes of sessions.
            clock: Returns monotonic seconds.
        """
        self._homes = homes
        self._host = host
        self._offer = offer
        self._drain = drain
        self._meters = meters
        self._clock = clock
        self._begun = anyio.Event()
        self._after_s = 0.0
        self._held_until = -math.inf
        self._postpones = False
        self._offered: set[str] = set()
        """Sessions that are offered now."""
        self._refused: dict[str, float] = {}
        """When each session was refused by all last."""
        self._refusals: Counter[str] = Counter()
        """How often each was, if there was another replica."""
        self._untold: dict[str, Replica] = {}
        """Sessions that have moved, of which the others were not told yet."""
        self._telling = False
        self._silent: dict[str, float] = {}
        """When each peer did not answer last."""
        self._told = False
        """Whether the peers were told which sessions clients have deleted."""
        self._moved = 0
        self._news = asyncio.Event()

    def begin(self, lame_duck_s: float, hold_s: float = 0.0) -> None:
        """Begin after the first part of the lame duck; the cutoff waits from now on.

        Args:
            lame_duck_s: The seconds of the lame duck.
            hold_s: The seconds for which sessions with an own child stay.
        """
        self._after_s = lame_duck_s * HAND_OVER_AT
        if hold_s:
            self._held_until = self._clock() + hold_s
        # In this turn: streams of these sessions may be opened again as soon as they have ended.
        held = self._hold()
        if held:
            log.info("handover.held", extra={"sessions": held, "hold_s": hold_s})
        self._postpone(True)
        self._begun.set()

    async def run(self) -> None:
        """Wait for the end of the replica, and hand its sessions over until the cutoff."""
        await self._begun.wait()
        try:
            await anyio.sleep(self._after_s)
            with anyio.move_on_after(_RESOLVED_WITHIN_S):
                await self._homes.peers.look()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tell_deleted)
                while not self._drain.cut_off:
                    await self._round(tasks)
                tasks.cancel_scope.cancel()
        finally:
            self._postpone(False)
        log.info("handover.ended", extra={"moved": self._moved, "left": len(self._refused)})

    async def _round(self, tasks: TaskGroup) -> None:
        """Offer the sessions without a call, and wait until it is time for another look."""
        began_at = self._clock()
        self._news.clear()
        held = self._hold()
        left = await self._offer_quiet(tasks)
        if self._untold and not self._telling:
            self._telling = True
            tasks.start_soon(self._tell_moved)
        waits = bool(held or self._offered)
        self._postpone(left or waits or self._telling or not self._told)
        pause_s = max(_LOOK_EVERY_S, _PART_OF_TIME * (self._clock() - began_at))
        with anyio.move_on_after(pause_s):
            await self._news.wait()

    def _hold(self) -> int:
        """Decide which sessions stay here for now; return how many."""
        held: Collection[str] = ()
        if self._clock() < self._held_until:
            held = self._host.with_own_child()
        self._homes.leaving.hold(held)
        return len(held)

    async def _tell_deleted(self) -> None:
        await self._homes.notices.tell_deleted()
        self._told = True
        self._news.set()

    async def _tell_moved(self) -> None:
        homes, self._untold = self._untold, {}
        try:
            await self._homes.notices.tell_moved(homes)
        finally:
            self._telling = False
            self._news.set()

    async def _offer_quiet(self, tasks: TaskGroup) -> bool:
        """Offer sessions; return whether one is left that the others have not refused."""
        left, now = False, self._clock()
        for number, (session_id, principal, quiet) in enumerate(self._host.leavers(), 1):
            refused_at = self._refused.get(session_id)
            left = left or refused_at is None or 0 < self._refusals[session_id] < _TRIES
            due = refused_at is None or now - refused_at >= _AGAIN_S
            if len(self._offered) >= _AT_ONCE:
                return True
            held = self._homes.leaving.holds(session_id)
            if quiet and due and not held and session_id not in self._offered:
                # In the turn in which no call is in flight: what arrives from now on is held.
                self._offered.add(session_id)
                self._homes.leaving.begin(session_id)
                tasks.start_soon(self._leave, session_id, principal)
            if number % _SESSIONS_PER_TURN == 0:
                await checkpoint()
        return left

    async def _leave(self, session_id: str, principal: Principal) -> None:
        outcome, home = "refused", None
        try:
            outcome, home = await self._taker(session_id, principal)
        finally:
            self._over(session_id, principal, home)
            self._meters.tally("handovers", outcome)

    def _over(self, session_id: str, principal: Principal, home: Replica | None) -> None:
        """Go on with a session that a replica has taken, or that none takes."""
        self._offered.discard(session_id)
        self._news.set()
        leaving = self._homes.leaving
        if home is None:
            self._refused[session_id] = self._clock()
            self._refusals[session_id] += bool(self._homes.peers.takers(session_id))
            leaving.refused(session_id)
            return
        self._refused.pop(session_id, None)
        # First, so that what its end wakes finds the new home.
        leaving.accepted(session_id, home)
        if self._host.moved(session_id, principal) or self._drain.cut_off:
            self._moved += 1
            self._untold[session_id] = home
            return
        # It has ended while it was offered, as by `--session-idle-timeout`.
        leaving.ended(session_id)
        self._homes.notices.end_copy(session_id, home, principal)

    async def _taker(self, session_id: str, principal: Principal) -> tuple[str, Replica | None]:
        """Return what became of a session, and the replica that has taken it."""
        content = self._host.content(session_id, principal)
        body = None if content is None else self._written(session_id, *content)
        if body is None:
            return "too_large" if content is not None else "refused", None
        outcome = "refused"
        for address in self._homes.peers.takers(session_id):
            if self._clock() - self._silent.get(address, -_AGAIN_S) < _AGAIN_S:
                continue
            answer = await self._offer(address, body, principal)
            if answer is None:
                # It may have taken the session, and the answer was lost.
                answer = await self._homes.peers.asked(address, session_id, principal)
            if answer is None:
                self._silent[address] = self._clock()
                outcome = "silent"
                continue
            home = home_in(answer)
            if home is not None and home != self._homes.own:
                return "moved", home
        return outcome, None

    def _written(self, session_id: str, params: bytes, record: SessionRecord) -> bytes | None:
        """Return an offer as bytes; None if it is too large even without answers."""
        for each in (record, msgspec.structs.replace(record, answers=())):
            offered = OfferedSession(session_id, self._homes.address, params, each)
            body = msgspec.json.encode(offered)
            if len(body) <= MAX_HANDOVER_BYTES:
                return body
        return None

    def _postpone(self, postpones: bool) -> None:
        if postpones and not self._postpones:
            self._drain.postpone()
        elif self._postpones and not postpones:
            self._drain.resume()
        self._postpones = postpones
