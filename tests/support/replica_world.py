"""Several replicas in one process that ask each other, with or without a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mcpbridge.replicas.claims.changes import SessionChanges
from mcpbridge.replicas.claims.claims import Claims
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import EndedSessions, HomeAnswer, HomeQuestion, MovedSessions
from mcpbridge.replicas.peers import Peers, address_of
from mcpbridge.replicas.session_id import Replica, SessionId
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.faults import Unavailable, draining
from mcpbridge.rules.homes.adoption import REVIVABLE_S
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.fence import Fence
from mcpbridge.stores.memory import MemoryStore
from mcpbridge.stores.store import StoreAway

NOW_S = 1_900_000_000.0
LOST = Replica("10.0.0.99", 8001, 99)
KEEP_S = 1800.0
CHANGED = SessionRecord(initialized=True, level="error", subscriptions=("a://b",))
NOT_REVIVABLE = [
    None,
    SessionId(LOST, int(NOW_S)),
    SessionId(LOST, int(NOW_S), one_stream=True, params=b"{}"),
    SessionId(LOST, int(NOW_S - REVIVABLE_S - 1), params=b"{}"),
    SessionId(LOST, int(NOW_S + 100), params=b"{}"),
]
"""What ids may say of sessions that no replica revives without a store."""


class Host:
    """The sessions of one replica, and what becomes of those that it is to revive."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions: set[str] = set()
        self.ending = False
        self.full = False
        self.fails = False
        self.records: dict[str, SessionRecord] = {}
        self.owns = False

    def has(self, session_id: str, principal: Principal) -> bool:
        """Whether it is here."""
        return session_id in self.sessions

    def opened_id(self, session_id: str, principal: Principal) -> SessionId | None:
        """What the id says."""
        return self.world.ids.get(session_id)

    def needs_own_child(self, params: bytes) -> bool:
        """What the test says."""
        return self.owns

    def may_adopt(self) -> bool:
        """Not at the end."""
        return not self.ending

    def may_take(self, principal: Principal) -> bool:
        """Not at the end, and not if it is full."""
        return not self.ending and not self.full

    def end(self, session_id: str, principal: Principal) -> None:
        """It is not here any more."""
        self.sessions.discard(session_id)

    def is_here(self, session_id: str) -> bool:
        """Whether it is here."""
        return session_id in self.sessions

    def has_own_child(self, session_id: str) -> bool:
        """What the test says."""
        return self.owns and session_id in self.sessions

    def own_child_sessions(self) -> list[str]:
        """What the test says."""
        return sorted(self.sessions) if self.owns else []

    def record(self, session_id: str) -> SessionRecord | None:
        """What a client has asked for."""
        return self.records.get(session_id) if session_id in self.sessions else None

    def params(self, session_id: str) -> bytes | None:
        """The same of all clients."""
        return b"{}" if session_id in self.sessions else None

    def end_copy(self, session_id: str) -> None:
        """It is not here any more."""
        self.sessions.remove(session_id)

    async def revive(
        self,
        session_id: str,
        params: bytes,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        """It takes a few turns of the loop."""
        assert params == b"{}"
        for _ in range(3):
            await asyncio.sleep(0)
        if self.fails:
            raise Unavailable(draining())
        assert session_id not in self.sessions
        self.sessions.add(session_id)
        self.records[session_id] = record or SessionRecord(initialized=True)


class World:
    """Replicas that ask each other, at a time that the test sets."""

    def __init__(self, count: int = 4) -> None:
        self.now = 0.0
        self.ids = {"m1": SessionId(LOST, int(NOW_S), params=b"{}")}
        self.asked: list[tuple[str, HomeQuestion]] = []
        self.replicas: dict[str, Homes] = {}
        self.hosts: dict[str, Host] = {}
        self.unresolved = False
        self.cut: set[str] = set()
        """Those that cannot be reached, and reach no other."""
        for number in range(count):
            self.start(Replica(f"10.0.0.{number}", 8001, number))

    def start(self, replica: Replica, choice: OnOwnerLost = OnOwnerLost.RESTART) -> Homes:
        """Start another one."""
        address, host = address_of(replica), Host(self)
        clock, wall_clock = (lambda: self.now), (lambda: NOW_S)
        claims = self.claims_of(replica, host)
        ways = (self.ask, self.tell, self.resolve)
        homes = Homes(replica, host, *ways, clock, wall_clock, choice, claims)
        self.replicas[address], self.hosts[address] = homes, host
        return homes

    def claims_of(self, replica: Replica, host: Host) -> Claims | None:
        """Without a store there are none."""
        return None

    def kill(self, address: str) -> None:
        """It does not answer any more."""
        del self.replicas[address], self.hosts[address]

    async def ask(
        self, address: str, question: HomeQuestion, principal: Principal
    ) -> HomeAnswer | None:
        """Ask one, which takes a turn of the loop."""
        self.asked.append((address, question))
        await asyncio.sleep(0)
        if question.asker != address and self.cut & {question.asker, address}:
            return None
        peer = self.replicas.get(address)
        return await peer.answer(question, principal) if peer is not None else None

    async def tell(
        self, address: str, said: EndedSessions | MovedSessions, principal: Principal
    ) -> None:
        """Tell one, which takes a turn of the loop."""
        await asyncio.sleep(0)
        if address in self.replicas:
            self.replicas[address].notices.told(said, principal)

    async def resolve(self) -> Iterable[str] | None:
        """What the name server says."""
        return None if self.unresolved else list(self.replicas)

    async def settle(self) -> None:
        """Let all have seen all others for long enough."""
        for _ in range(2):
            for each in self.replicas.values():
                await each.peers.look()
            self.now += SETTLED_AFTER_S

    @property
    def homes(self) -> list[str]:
        """Where the session is."""
        return [address for address, host in self.hosts.items() if "m1" in host.sessions]


async def told_after(world: World, address: str, turns: int) -> None:
    """Tell a replica to adopt, some turns of the loop from now."""
    for _ in range(turns):
        await asyncio.sleep(0)
    await world.ask(address, HomeQuestion("m1", "10.0.0.50:8001", adopt=True), ANONYMOUS)


class Network:
    """What one replica reaches: the names of all, and peers that answer as the test says."""

    def __init__(self, own: Replica, names: Iterable[str]) -> None:
        self.now = 100.0
        self.names: list[str] | None = list(names)
        self.answers: dict[str, HomeAnswer | None] = {}
        self.asked: list[tuple[str, HomeQuestion]] = []
        self.told: list[tuple[str, EndedSessions | MovedSessions]] = []
        self.peers = Peers(own, self.ask, self.tell, self.resolve, lambda: self.now)

    async def ask(
        self, address: str, question: HomeQuestion, principal: Principal
    ) -> HomeAnswer | None:
        """Answer as the test says."""
        self.asked.append((address, question))
        return self.answers.get(address)

    async def tell(
        self, address: str, said: EndedSessions | MovedSessions, principal: Principal
    ) -> None:
        """Remember it."""
        self.told.append((address, said))

    async def resolve(self) -> Iterable[str] | None:
        """What the name server says."""
        return self.names


class SwitchedStore(MemoryStore):
    """A store that is away at times."""

    away = False

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.was_claimed = asyncio.Event()

    def _get(self, key: str) -> bytes | None:
        self._check()
        return super()._get(key)

    def _set(self, key: str, value: bytes, keep_s: float) -> None:
        self._check()
        super()._set(key, value, keep_s)
        if key.startswith("home:"):
            self.was_claimed.set()

    def _check(self) -> None:
        if self.away:
            raise StoreAway("no answer")


class StoredWorld(World):
    """Replicas with a store."""

    def __init__(self, count: int = 3, *, owns: bool = True) -> None:
        self.store = SwitchedStore(lambda: self.now)
        self.fences: dict[str, Fence] = {}
        self.changes: dict[str, SessionChanges] = {}
        self.claims: dict[str, Claims] = {}
        super().__init__(count)
        for host in self.hosts.values():
            host.owns = owns

    def claims_of(self, replica: Replica, host: Host) -> Claims:
        """Of the one store."""
        address, home, clock = address_of(replica), str(replica), (lambda: self.now)
        self.fences[address] = Fence(self.store, home, KEEP_S, clock)
        self.changes[address] = SessionChanges(self.store, KEEP_S)
        parts = (self.fences[address], self.changes[address], host, clock)
        self.claims[address] = Claims(self.store, home, KEEP_S, *parts)
        return self.claims[address]

    async def beat(self, *homes: Homes) -> None:
        """Let replicas write their heartbeats, and do what is due then."""
        for each in homes or self.replicas.values():
            await self.claims[each.address].beat()

    def homes_of(self, *replicas: Homes) -> list[Homes]:
        """Those of some replicas that have the session."""
        return [each for each in replicas if "m1" in self.hosts[each.address].sessions]


def three(world: StoredWorld) -> tuple[Homes, Homes, Homes]:
    """The replicas of a world."""
    first, second, third = world.replicas.values()
    return first, second, third
