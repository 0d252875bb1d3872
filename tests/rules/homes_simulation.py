"""Replicas that come, go and crash, with views of each other that lag: who has which session?

Time is simulated. Each message and each start of a child takes a while, so that requests for one
session meet at several replicas while it has no home; everything is drawn from one seed.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections.abc import Iterator

from mcpbridge.rules.homes.adoption import PeerAnswer, adopters, yields
from mcpbridge.rules.homes.peer_view import KnownPeer, PeerView
from mcpbridge.rules.homes.rendezvous import rendezvous_order
from mcpbridge.rules.homes.states import HOME, HomeEvent, HomeState

STALE = 0.2
"""The part of answers of the name server that are of an earlier time."""
STALE_S = 10.0
RESOLVE_EVERY_S = 10.0
LAME_DUCK_S = 5.0

Task = Iterator[float]
"""Yields the seconds until it goes on."""


@dataclasses.dataclass
class Replica:
    """One process: its view of the others, and the sessions that it has or is about to."""

    address: str
    boot: int
    since: float
    view: PeerView
    alive: bool = True
    ending: bool = False
    homes: dict[str, HomeState] = dataclasses.field(default_factory=dict)
    moved_to: dict[str, str] = dataclasses.field(default_factory=dict)
    gives_way: set[str] = dataclasses.field(default_factory=set)
    """Sessions that it is adopting, and that another adopter has asked about."""

    def may_adopt(self, now: float) -> bool:
        """Return whether it takes sessions."""
        return not self.ending and KnownPeer(self.address, now - self.since).settled

    def on_question(self, session: str, asker: str, now: float, *, adopts: bool) -> PeerAnswer:
        """Answer a peer, and get to know it."""
        self.view.met(asker, now)
        state = self.homes.get(session, HomeState.GONE)
        if state is HomeState.OPENING:
            if adopts and yields(session, self.address, asker, PeerAnswer.ADOPTING):
                self.gives_way.add(session)
            return PeerAnswer.ADOPTING
        has = state in (HomeState.HERE, HomeState.LEAVING)
        return PeerAnswer.HAS if has else PeerAnswer.HAS_NOT


class Simulation:
    """A run of one seed."""

    def __init__(self, seed: int, *, asked: int | None, replicas: int = 5, sessions: int = 25):
        """Begin with settled replicas.

        Args:
            seed: Of everything that is drawn.
            asked: How many peers a replica asks about a session; None: all of them.
            replicas: How many there should be.
            sessions: How many are opened.
        """
        self.dice = random.Random(seed)
        self.now = 0.0
        self.asked = asked
        self.wanted = replicas
        self.doubles = 0
        """Times that a session had a second home."""
        self.adoptions = 0
        self._queue: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()
        self._names: list[tuple[float, frozenset[str]]] = []
        """What the name server said from which time on."""
        self.replicas: dict[str, Replica] = {}
        for _ in range(replicas):
            self._start(f"10.0.0.{next(self._numbers)}:8001", since=-60.0)
        self._names.append((-60.0, frozenset(self.replicas)))
        for each in self.replicas.values():
            each.view.resolved(self.replicas, -60.0)
            each.view.resolved(self.replicas, 0.0)
        self.owners: dict[str, tuple[str, int]] = {}
        for number in range(sessions):
            owner = self.dice.choice(list(self.replicas.values()))
            session = f"m{seed}x{number}"
            owner.homes[session] = HomeState.HERE
            self.owners[session] = (owner.address, owner.boot)

    def run(self, seconds: float, calm_s: float = 0.0) -> None:
        """Let clients ask, replicas resolve, and replicas come and go.

        Args:
            seconds: How long.
            calm_s: How long clients still ask after that, while no replica comes or goes.
        """
        for task in (self._operator(seconds), *(self._client(each) for each in self.owners)):
            self._spawn(task)
        while self._queue and self._queue[0][0] <= seconds + calm_s:
            self.now, _, task = heapq.heappop(self._queue)
            for pause in task:
                self._push(pause, task)
                break

    def _spawn(self, task: Task) -> None:
        self._push(0.0, task)

    def _push(self, pause: float, task: Task) -> None:
        heapq.heappush(self._queue, (self.now + pause, next(self._numbers), task))

    # Replicas and names.

    def _start(self, address: str, since: float) -> Replica:
        view = PeerView(address, since)
        replica = Replica(address, next(self._numbers), since, view)
        self.replicas[address] = replica
        self._spawn(self._resolves(replica))
        return replica

    def _resolves(self, replica: Replica) -> Task:
        yield self.dice.uniform(0.0, 0.5)
        while replica.alive:
            self._resolve(replica)
            yield RESOLVE_EVERY_S

    def _resolve(self, replica: Replica) -> None:
        at = self.now - (self.dice.uniform(0, STALE_S) if self.dice.random() < STALE else 0)
        known = [names for since, names in self._names if since <= at]
        replica.view.resolved(known[-1] if known else self._names[0][1], self.now)

    def _publish(self) -> Task:
        """The name server learns of pods after a while."""
        yield self.dice.uniform(0.2, 4.0)
        self._names.append((self.now, frozenset(self.replicas)))

    def _operator(self, until: float) -> Task:
        """Roll out, scale and crash."""
        while self.now < until:
            yield self.dice.uniform(1.0, 14.0)
            happens = self.dice.choice(("rollout", "rollout", "crash", "restart", "scale"))
            living = [each for each in self.replicas.values() if each.alive and not each.ending]
            if happens == "scale":
                self.wanted = self.dice.randint(3, 7)
            elif len(living) > 2:
                one = self.dice.choice(living)
                if happens == "rollout":
                    self._spawn(self._ends(one))
                else:
                    one.alive = False
                    if happens == "restart":
                        self._spawn(self._restarts(one.address))
                    else:
                        del self.replicas[one.address]
            while len(self.replicas) < self.wanted:
                self._start(f"10.0.0.{next(self._numbers)}:8001", since=self.now)
            self._spawn(self._publish())

    def _restarts(self, address: str) -> Task:
        """The container begins again under its address, and knows nothing."""
        yield self.dice.uniform(0.5, 3.0)
        self._start(address, since=self.now)

    def _ends(self, one: Replica) -> Task:
        """A pod ends: its sessions are handed over, then its process is gone."""
        one.ending = True
        yield LAME_DUCK_S / 2
        for session, state in list(one.homes.items()):
            if state is HomeState.HERE and one.alive:
                yield from self._hands_over(one, session)
        yield LAME_DUCK_S / 2
        one.alive = False
        if self.replicas.get(one.address) is one:
            del self.replicas[one.address]
        self._spawn(self._publish())

    def _hands_over(self, one: Replica, session: str) -> Task:
        self._step(one, session, HomeEvent.LEAVE)
        for address in adopters(session, one.view.peers(self.now), one.address):
            yield self._flight()
            peer = self._reached(address)
            if not one.alive:
                return
            if peer is None or not peer.may_adopt(self.now) or session in peer.homes:
                continue
            self._step(one, session, HomeEvent.ACCEPTED)
            one.moved_to[session] = address
            self._is_home(peer, session)
            return
        self._step(one, session, HomeEvent.REFUSED)

    # Requests.

    def _client(self, session: str) -> Task:
        while True:
            yield self.dice.expovariate(1.0)
            # Some clients have several requests on the way at once.
            for _ in range(self.dice.choice((1, 1, 3))):
                living = [each for each in self.replicas.values() if each.alive]
                if living:
                    self._spawn(self._request(self.dice.choice(living), session))

    def _request(self, at: Replica, session: str) -> Task:
        if self._serves(at, session):
            return
        address, boot = self.owners[session]
        yield self._flight()
        owner = self._reached(address)
        if owner is not None and owner.boot == boot and session in owner.homes:
            moved = owner.moved_to.get(session)
            if moved is None:
                return
            yield self._flight()
            peer = self._reached(moved)
            if peer is not None and self._serves(peer, session):
                return
        yield from self._asks(at, session, address)

    def _asks(self, at: Replica, session: str, dead: str) -> Task:
        self._resolve(at)
        for address in self._questioned(at, session):
            yield self._flight()
            peer = self._reached(address)
            if peer is None or not at.alive:
                continue
            answer = peer.on_question(session, at.address, self.now, adopts=False)
            if answer is PeerAnswer.HAS:
                return
        for address in adopters(session, at.view.peers(self.now), dead):
            yield self._flight()
            peer = self._reached(address)
            if peer is not None and peer.may_adopt(self.now):
                yield from self._adopts(peer, session)
                return

    def _adopts(self, at: Replica, session: str) -> Task:
        if session in at.homes and at.homes[session] is not HomeState.GONE:
            return
        at.homes[session] = HomeState.OPENING
        at.gives_way.discard(session)
        self._resolve(at)
        for address in self._questioned(at, session):
            yield self._flight()
            peer = self._reached(address)
            if peer is None or not at.alive:
                continue
            answer = peer.on_question(session, at.address, self.now, adopts=True)
            if yields(session, at.address, address, answer):
                at.gives_way.add(session)
        yield self.dice.uniform(0.05, 0.5)
        if not at.alive:
            return
        if session in at.gives_way:
            self._step(at, session, HomeEvent.END)
            return
        self.adoptions += 1
        self._step(at, session, HomeEvent.OPENED)
        self._is_home(at, session)

    def _questioned(self, at: Replica, session: str) -> list[str]:
        known = (each.address for each in at.view.peers(self.now) if each.address != at.address)
        return rendezvous_order(session, known)[: self.asked]

    def _serves(self, at: Replica, session: str) -> bool:
        return at.homes.get(session) in (HomeState.HERE, HomeState.OPENING, HomeState.LEAVING)

    def _reached(self, address: str) -> Replica | None:
        found = self.replicas.get(address)
        return found if found is not None and found.alive else None

    def _flight(self) -> float:
        return self.dice.uniform(0.0005, 0.02)

    def _step(self, at: Replica, session: str, event: HomeEvent) -> None:
        at.homes[session] = HOME[at.homes[session], event]

    def _is_home(self, at: Replica, session: str) -> None:
        at.homes[session] = HomeState.HERE
        at.moved_to.pop(session, None)
        self.doubles += self.living_homes(session) > 1

    def living_homes(self, session: str) -> int:
        """Return how many replicas are a session's home now."""
        return sum(
            each.alive and each.homes.get(session) in (HomeState.HERE, HomeState.LEAVING)
            for each in self.replicas.values()
        )
