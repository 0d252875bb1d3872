"""What one replica asks of the store about homes: claims, heartbeats and the fence.

A claim names the home of a session that was adopted; the first one wins, and only that of a home
that is lost is replaced. Whether a home that cannot be reached is lost its heartbeat says. After a
lapse in its heartbeat a replica may itself be taken for lost: it serves a session with an own
child once it has found that no other replica has claimed it.

While the store is away a replica that reaches a peer goes on: what the store would tell it the
peers tell, since a replica claims the sessions only of homes that it cannot reach. One that reaches
neither is isolated. Its sessions may have another home, so those with an own child wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import anyio

from mcpbridge.replicas.claims.changes import ChangedSessions, SessionChanges
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.rules.faults import Unavailable, store_away
from mcpbridge.rules.homes.adoption import REVIVABLE_S, SKEW_S, StoreView, is_isolated
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.fence import Fence
from mcpbridge.stores.heartbeat import BEAT_EVERY_S, Heartbeat
from mcpbridge.stores.store import ENDED, Store, StoreAway

_GRAVE_S = REVIVABLE_S + 2 * SKEW_S
"""Seconds for which a deleted session must not be revived: as long as its id would allow it."""
_MOST_GRAVES = 4096
"""Deleted sessions that wait for a store that is away."""
_VOUCHED_S = BEAT_EVERY_S
"""Seconds for which the word of peers counts while the store is away."""
_AT_ONCE = 500
"""Sessions that are looked at in one turn of the loop, so that calls go on between the turns."""
_LAST_S = 0.3
"""Seconds for the last words to the store."""


class ClaimableSessions(ChangedSessions, Protocol):
    """The sessions of this replica, as the store knows them."""

    def is_here(self, session_id: str) -> bool:
        """Return whether there is such a session."""

    def has_own_child(self, session_id: str) -> bool:
        """Return whether a session is here and has a child for itself."""

    def own_child_sessions(self) -> Iterable[str]:
        """Return the sessions with a child for themselves."""

    def end_copy(self, session_id: str) -> None:
        """End this replica's copy of a session that has another home."""


class Claims:
    """The claims and the heartbeat of one replica."""

    def __init__(
        self,
        store: Store,
        home: str,
        keep_s: float,
        fence: Fence,
        changes: SessionChanges,
        sessions: ClaimableSessions,
        clock: Callable[[], float],
    ) -> None:
        """Make them; `run` begins.

        Args:
            store: Has the claims of all replicas.
            home: This replica, as its claims name it.
            keep_s: Seconds for which its claims are kept.
            fence: Says which sessions must be checked.
            changes: Writes what changed in sessions.
            sessions: Those of this replica.
            clock: Returns monotonic seconds.
        """
        self._store = store
        self._home = home
        self._keep_s = keep_s
        self._fence = fence
        self._changes = changes
        self._sessions = sessions
        self._clock = clock
        self._heartbeat = Heartbeat(store, home, keep_s, fence, clock, self._doubt)
        self._claimed: set[str] = set()
        """Sessions here that this replica has claimed."""
        self._doubted: set[str] = set()
        """Those whose claim was found to be another replica's, or gone."""
        self._vouched: dict[str, float] = {}
        """Until when a session may be served by the word of peers alone."""
        self._graves: dict[str, None] = {}
        self._renew_at = clock() + keep_s / 3

    @property
    def up(self) -> bool:
        """Whether the store took the last heartbeat."""
        return self._heartbeat.up

    async def home(self, session_id: str) -> Replica | None:
        """Return the home that has claimed a session; None if none has, or that is not known.

        Raises:
            LookupError: The session has ended for good.
        """
        if session_id in self._graves:
            raise LookupError(session_id)
        try:
            return _home_named(session_id, await self._store.home(session_id))
        except StoreAway:
            return None

    async def view(self, home: str) -> StoreView:
        """Return what the store says of another replica."""
        try:
            return StoreView.BEATS if await self._store.beats(home) else StoreView.LAPSED
        except StoreAway:
            return StoreView.AWAY

    async def take(self, session_id: str, lost: str) -> Replica | None:
        """Claim a session in place of a home that is lost; return the home that has the claim.

        Returns:
            None if the store is away.

        Raises:
            LookupError: The session has ended for good.
        """
        try:
            holder = await self._store.replace(session_id, lost, self._home, self._keep_s)
        except StoreAway:
            return None
        if holder == self._home:
            self._claimed.add(session_id)
            self._heartbeat.claimed((session_id,))
            self._fence.begun(session_id)
        return _home_named(session_id, holder)

    async def give_up(self, session_id: str) -> None:
        """Give up the claim on a session that could not be opened here."""
        self._forget(session_id)
        try:
            await self._store.release(session_id, self._home)
        except StoreAway:
            # It ends by itself, or is replaced once this replica has ended.
            return

    async def bury(self, session_id: str) -> None:
        """End a session for good, since its client has deleted it."""
        self._graves[session_id] = None
        if len(self._graves) > _MOST_GRAVES:
            del self._graves[next(iter(self._graves))]
        await self._dig()

    async def record(self, session_id: str) -> SessionRecord | None:
        """Return what changed in a session; None if the store has nothing, or is away."""
        try:
            return await self._store.load(session_id)
        except StoreAway:
            return None

    async def params(self, session_id: str) -> bytes | None:
        """Return the params of a session whose id does not carry them; None if there are none.

        Raises:
            Unavailable: The store is away.
        """
        try:
            return await self._store.params(session_id)
        except StoreAway:
            raise Unavailable(store_away()) from None

    def adopted(self, session_id: str, *, record: bool, params: bool) -> None:
        """Keep what the store has of an adopted session: see `SessionChanges.adopted`."""
        self._changes.adopted(session_id, record=record, params=params)

    def must_check(self, session_id: str) -> bool:
        """Return whether a session that is here may be served only after `holds`."""
        if not self._fence.must_check(session_id):
            return False
        if not self._sessions.has_own_child(session_id):
            # Two homes of these do no harm.
            return False
        return self._vouched.get(session_id, 0.0) <= self._clock()

    async def holds(self, session_id: str) -> bool | None:
        """Return whether a session may be served here: no other replica has claimed it.

        Returns:
            None if the store is away; see `vouch`.
        """
        try:
            held = await self._fence.holds(session_id)
        except StoreAway:
            return None
        if not held:
            self._forget(session_id)
            return False
        if self._sessions.is_here(session_id):
            self._claimed.add(session_id)
            self._heartbeat.claimed((session_id,))
        return True

    def vouch(self, session_id: str) -> None:
        """Serve a session for some seconds, since peers say that they do not have it."""
        self._vouched[session_id] = self._clock() + _VOUCHED_S

    async def run(
        self,
        reach: Callable[[], Awaitable[tuple[int, int]]],
        isolated: Callable[[bool], None],
    ) -> None:
        """Keep heartbeat and claims, and write what changed, until cancelled.

        Args:
            reach: Asks all peers; returns how many there are and how many have answered.
            isolated: Called with whether this replica reaches neither the store nor a peer.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._changes.run, self._sessions)
                while True:
                    isolated(await self.beat(reach))
                    await anyio.sleep(BEAT_EVERY_S)
        finally:
            with anyio.move_on_after(_LAST_S, shield=True):
                await self._heartbeat.silence()
            with anyio.move_on_after(_LAST_S, shield=True):
                await self._store.close()

    async def beat(self, reach: Callable[[], Awaitable[tuple[int, int]]] | None = None) -> bool:
        """Write the heartbeat once, and do what is due.

        Args:
            reach: Asks all peers: see `run`; None: there are none.

        Returns:
            Whether this replica reaches neither the store nor a peer.
        """
        await self._heartbeat.beat()
        if self.up:
            await self._keep()
            return False
        return reach is not None and is_isolated(StoreView.AWAY, *await reach())

    async def _keep(self) -> None:
        """Do what waited for the store, and what is due from time to time."""
        await self._dig()
        self._changes.go_on()
        if self._clock() >= self._renew_at:
            self._changes.renew()
            self._renew_at = self._clock() + self._keep_s / 3
        for number, session_id in enumerate(
            {*self._claimed, *self._vouched, *self._fence.checked}, 1
        ):
            if not self._sessions.is_here(session_id):
                self._forget(session_id)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for session_id in list(self._doubted):
            await self._settle(session_id)
        # After a lapse: a copy that no client asks for must end too.
        for number, session_id in enumerate(self._sessions.own_child_sessions(), 1):
            if self._fence.must_check(session_id):
                await self._settle(session_id)
            elif number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _settle(self, session_id: str) -> None:
        """End a session here if another replica has claimed it."""
        self._doubted.discard(session_id)
        if self._sessions.is_here(session_id):
            held = await self.holds(session_id)
            if held is None:
                self._doubted.add(session_id)
            elif not held:
                self._sessions.end_copy(session_id)

    async def _dig(self) -> None:
        while self._graves:
            session_id = next(iter(self._graves))
            try:
                await self._store.bury(session_id, _GRAVE_S)
            except StoreAway:
                return
            self._graves.pop(session_id, None)

    def _doubt(self, session_id: str) -> None:
        self._doubted.add(session_id)

    def _forget(self, session_id: str) -> None:
        self._claimed.discard(session_id)
        self._vouched.pop(session_id, None)
        self._heartbeat.released(session_id)
        self._fence.forget(session_id)


def _home_named(session_id: str, text: str | None) -> Replica | None:
    """Return the replica that a claim names; None if there is no claim, or it names none."""
    if text == ENDED:
        raise LookupError(session_id)
    return replica_named(text) if text is not None else None
