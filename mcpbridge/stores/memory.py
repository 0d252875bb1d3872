"""A store in this process: for tests, and for several bridges in one process."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from mcpbridge.rules.homes.record import SessionRecord, read_record, write_record
from mcpbridge.stores.store import BEAT_FOR_S, ENDED, MAX_VALUE_BYTES

_MAX_ENTRIES = 100_000
"""The entries that end soonest go first beyond this number, as those of a full server do."""


class MemoryStore:
    """A store that ends with its process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin empty; `clock` returns monotonic seconds."""
        self._clock = clock
        self._values: dict[str, tuple[float, bytes]] = {}
        """Each value with the time at which it ends."""
        self._ends: list[tuple[float, str]] = []
        """A heap of the times at which values end; times that were changed stay in it too."""

    def __len__(self) -> int:
        self._forget()
        return len(self._values)

    async def claim(self, session_id: str, home: str, keep_s: float) -> str:
        """See `Store`."""
        return await self.replace(session_id, "", home, keep_s)

    async def replace(self, session_id: str, lost: str, home: str, keep_s: float) -> str:
        """See `Store`."""
        claimed = await self.home(session_id)
        if claimed is not None and claimed != lost:
            return claimed
        self._set(f"home:{session_id}", home.encode(), keep_s)
        return home

    async def home(self, session_id: str) -> str | None:
        """See `Store`."""
        found = self._get(f"home:{session_id}")
        return found.decode() if found is not None else None

    async def renew(self, session_ids: Sequence[str], home: str, keep_s: float) -> list[str]:
        """See `Store`."""
        others = []
        for session_id in session_ids:
            if await self.home(session_id) == home:
                self._set(f"home:{session_id}", home.encode(), keep_s)
            else:
                others.append(session_id)
        return others

    async def release(self, session_id: str, home: str) -> None:
        """See `Store`."""
        if await self.home(session_id) == home:
            del self._values[f"home:{session_id}"]

    async def bury(self, session_id: str, keep_s: float) -> str | None:
        """See `Store`."""
        before = await self.home(session_id)
        self._set(f"home:{session_id}", ENDED.encode(), keep_s)
        for kind in ("state", "params"):
            self._values.pop(f"{kind}:{session_id}", None)
        return before

    async def beat(self, home: str) -> None:
        """See `Store`."""
        self._set(f"beat:{home}", b"1", BEAT_FOR_S)

    async def beats(self, home: str) -> bool:
        """See `Store`."""
        return self._get(f"beat:{home}") is not None

    async def silence(self, home: str) -> None:
        """See `Store`."""
        self._values.pop(f"beat:{home}", None)

    async def save(self, session_id: str, record: SessionRecord, keep_s: float) -> bool:
        """See `Store`."""
        return self._keep(f"state:{session_id}", write_record(record), keep_s)

    async def load(self, session_id: str) -> SessionRecord | None:
        """See `Store`."""
        found = self._get(f"state:{session_id}")
        return read_record(found) if found is not None else None

    async def keep_params(self, session_id: str, params: bytes, keep_s: float) -> bool:
        """See `Store`."""
        return self._keep(f"params:{session_id}", params, keep_s)

    async def params(self, session_id: str) -> bytes | None:
        """See `Store`."""
        return self._get(f"params:{session_id}")

    async def close(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._ends.clear()

    def _keep(self, key: str, value: bytes, keep_s: float) -> bool:
        if len(value) > MAX_VALUE_BYTES:
            return False
        self._set(key, value, keep_s)
        return True

    def _set(self, key: str, value: bytes, keep_s: float) -> None:
        self._forget()
        ends_at = self._clock() + keep_s
        self._values[key] = (ends_at, value)
        heapq.heappush(self._ends, (ends_at, key))
        while len(self._values) > _MAX_ENTRIES:
            self._drop_soonest()

    def _get(self, key: str) -> bytes | None:
        self._forget()
        found = self._values.get(key)
        return found[1] if found is not None else None

    def _forget(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            self._drop_soonest()

    def _drop_soonest(self) -> None:
        ends_at, key = heapq.heappop(self._ends)
        found = self._values.get(key)
        # A value that was set again ends at another time.
        if found is not None and found[0] == ends_at:
            del self._values[key]
