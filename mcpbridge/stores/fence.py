"""The fence: a replica whose heartbeat was missing asks before it serves a session again.

While its heartbeat is there no other replica claims its sessions. Once it has lapsed one may have,
though this replica noticed nothing: its process was stopped, or its way to the store was cut. So
it checks each session with an own child once after each lapse, by claiming it: if another replica
has the claim, this one yields. The claim, and not a look, since another could claim in between.

A heartbeat counts from the moment at which it was sent, not from its answer: the store's clock
began no later.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpbridge.stores.store import BEAT_FOR_S, Store


class Fence:
    """The fence of one replica."""

    def __init__(self, store: Store, home: str, keep_s: float, clock: Callable[[], float]) -> None:
        """Make the fence of a replica that has no sessions yet.

        Args:
            store: Has the claims.
            home: The replica, as its claims name it.
            keep_s: Seconds for which its claims are kept.
            clock: Returns monotonic seconds, also of the time in which the machine slept.
        """
        self._store = store
        self._home = home
        self._keep_s = keep_s
        self._clock = clock
        self._valid_until: float | None = None
        """When the last heartbeat ends; None before the first."""
        self._lapses = 0
        self._checked: dict[str, int] = {}
        """The number of lapses before the last check of each session."""

    @property
    def lapses(self) -> int:
        """How often the heartbeat was missing, now included."""
        now_too = self._valid_until is not None and self._clock() >= self._valid_until
        return self._lapses + now_too

    @property
    def checked(self) -> list[str]:
        """The sessions of which it has taken note."""
        return list(self._checked)

    def beaten(self, sent_at: float) -> None:
        """Take note of a heartbeat that the store has taken.

        Args:
            sent_at: The clock's time before it was sent.
        """
        if self._valid_until is not None and sent_at >= self._valid_until:
            self._lapses += 1
        self._valid_until = sent_at + BEAT_FOR_S

    def must_check(self, session_id: str) -> bool:
        """Return whether a session with an own child must be checked before it is served."""
        lapses = self.lapses
        return lapses > 0 and self._checked.get(session_id, 0) < lapses

    def begun(self, session_id: str) -> None:
        """Take note of a session that was opened, or claimed, here and now."""
        # A lapse that goes on does not count: another replica may claim the session in it.
        if self._lapses:
            self._checked[session_id] = self._lapses

    async def holds(self, session_id: str) -> bool:
        """Check a session; return whether it may be served here.

        False: another replica has it, or it has ended. The caller closes its copy.

        Raises:
            StoreAway: That cannot be known now.
        """
        # A lapse during the check, or one that goes on, needs another one.
        lapses = self._lapses
        if await self._store.claim(session_id, self._home, self._keep_s) != self._home:
            return False
        self._checked[session_id] = lapses
        return True

    def forget(self, session_id: str) -> None:
        """Take note of a session that has ended."""
        self._checked.pop(session_id, None)
