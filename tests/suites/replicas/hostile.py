"""The rows with ids and proofs that were made up, changed, or belong to others."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from unittest import mock

from mcpbridge.replicas import session_id
from mcpbridge.replicas.peer_proof import HEADER, SKEW_S, PeerProofs
from mcpbridge.replicas.session_id import MAX_AGE_S, Replica, SessionId, SessionIds
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.access.state_keys import FOR_ID, FOR_PEER, state_keys
from tests.suites.replicas.lab import KEY, lab
from tests.suites.replicas.lab import Replica as LabReplica
from tests.suites.replicas.rows import Figure, Size, at_least, detail, equal
from tests.suites.wire import Connection, Response, echo_call, open_session

SEED = 7
AT_ONCE = 8
UNKNOWN = {404, 503}
"""What a client with a wrong id is answered."""
OTHER_KEY = "another-key-of-other-replicas-elsewhere"
ALPHABET = string.ascii_lowercase + string.digits
ABILITIES: tuple[dict[str, object], ...] = ({}, {"elicitation": {}})
MORE = string.ascii_letters + string.digits + "-_=.~+/%"


def ids_of(own: Replica, *, key: str = KEY, age_s: float = 0) -> SessionIds:
    """Return a writer of ids of a replica, with a key that may be another and a clock that lags."""
    keys = state_keys(key).derived(FOR_ID)
    return SessionIds(own, lambda: keys, lambda: time.time() - age_s)


def read_id(text: str) -> SessionId:
    """Return what an id of a replica of the lab says."""
    found = ids_of(Replica("127.0.0.1", 1, 1)).open(text, ANONYMOUS.key)
    assert isinstance(found, SessionId), found
    return found


def newer_id(own: Replica) -> str:
    """Return an id of a replica whose release writes another format."""
    with mock.patch.object(session_id, "VERSION", session_id.VERSION + 1):
        return ids_of(own).new(ANONYMOUS.key, b"{}")


def wrong_ids(real: Sequence[str], count: int) -> Iterator[str]:
    """Yield `count` ids, none of which a replica may accept."""
    own = read_id(real[0]).owner
    params = b'{"protocolVersion":"2025-11-25","capabilities":{}}'
    yield ids_of(own, key=OTHER_KEY).new(ANONYMOUS.key, params)
    yield ids_of(own).new(b"another principal", params)
    yield ids_of(own, age_s=MAX_AGE_S + 60).new(ANONYMOUS.key, params)
    yield newer_id(own)
    chance = random.Random(SEED)
    for _ in range(count - 4):
        text = _changed(chance.choice(real), chance)
        if text not in real:
            yield text


def _changed(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text))
    letters = chance.choice((ALPHABET, MORE))
    match chance.randrange(6):
        case 0:
            return text[:place] or "m"
        case 1:
            return text[:place] + chance.choice(letters) + text[place + 1 :]
        case 2:
            return text[:place] + chance.choice(letters) + text[place:]
        case 3:
            return text[:place] + text[place + 1 :]
        case 4:
            return "m" + "".join(chance.choices(letters, k=chance.randrange(1, 300)))
        case _:
            return text.upper() if chance.random() < 0.1 else text + text[place:]


@asynccontextmanager
async def counting(host: str, port: int) -> AsyncIterator[list[int]]:
    """Listen in the place of a replica; the list gets an entry for each connection."""
    dialled: list[int] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(1)
        writer.close()

    server = await asyncio.start_server(accept, host, port)
    try:
        yield dialled
    finally:
        server.close()
        await server.wait_closed()


async def row_13(size: Size) -> list[Figure]:
    """Wrong ids are unknown at once: no other replica is dialled."""
    statuses: Counter[int] = Counter()
    told: list[str] = []
    async with lab() as made:
        asked, owner = made.replicas[:2]
        real = [await _opened(owner.url, able) for able in ABILITIES]
        wrong = wrong_ids(real, size.fuzzed)
        await owner.kill()
        async with counting(owner.ip, made.peer_port) as dialled:

            async def send() -> None:
                connection = Connection(asked.url)
                for text in wrong:
                    response = await _call(connection, text)
                    statuses[response.status] += 1
                    if response.status not in UNKNOWN and not told:
                        told.append(text)
                        detail("answered otherwise", {"id": text, "response": response})
                connection.close()

            before = await _dials(asked)
            await asyncio.gather(*(send() for _ in range(AT_ONCE)))
            newer = await _call(Connection(asked.url), newer_id(read_id(real[0]).owner))
            found, counted = len(dialled), await _dials(asked) - before
            # The same place is dialled for an id that was not changed: what counts can count.
            await _call(Connection(asked.url), real[0])
            dialled_for_real = len(dialled) - found
            counted_for_real = await _dials(asked) - before - counted
    others = sum(count for status, count in statuses.items() if status not in UNKNOWN)
    return [
        at_least("ids", sum(statuses.values()), size.fuzzed * 0.9),
        equal("neither 404 nor 503", others, 0),
        equal("status of a newer release's id", newer.status, 503),
        equal("dialled", found, 0),
        equal("forwarded or asked about by its counters", counted, 0),
        at_least("dialled for a good one", dialled_for_real, 1),
        at_least("the same by its counters", counted_for_real, 1),
    ]


async def _dials(replica: LabReplica) -> float:
    """Return how often a replica has forwarded a request or asked another one, or tried to."""
    forwards = await replica.counted("mcpbridge_forwards_total")
    asks = await replica.counted("mcpbridge_asks_total")
    # Ids that it refuses are counted beside what it forwards.
    tried = [count for outcome, count in forwards.items() if not outcome.startswith("refused_")]
    return sum(tried) + sum(asks.values())


async def _opened(url: str, able: Mapping[str, object]) -> str:
    connection = Connection(url)
    headers = await open_session(connection, capabilities=able)
    connection.close()
    return headers["mcp-session-id"]


async def _call(connection: Connection, text: str, **more: str) -> Response:
    """Call `echo` in the session with this id, on a connection to any port."""
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-session-id": text,
        "mcp-protocol-version": "2025-11-25",
        **more,
    }
    return await connection.request("POST", headers, echo_call("1", f"wrong-{text[:12]}"))


async def row_14(_size: Size) -> list[Figure]:
    """The peer port serves replicas only, and never forwards."""
    async with lab() as made:
        first, second, third = made.replicas
        at_second, at_third = [await _opened(each.url, {}) for each in (second, third)]
        own, other = read_id(at_second).owner, read_id(at_third).owner
        sender = read_id(await _opened(first.url, {})).owner
        refused = {
            "no proof": {},
            "a stale proof": _proof(sender, own, age_s=2 * SKEW_S),
            "a proof for another replica": _proof(sender, other),
            "a proof for an earlier start": _proof(sender, Replica(own.host, own.port, 1)),
            "a proof of other keys": _proof(sender, own, key=OTHER_KEY),
        }
        url = f"http://{second.ip}:{made.peer_port}"
        statuses = {
            name: (await _call(Connection(url), at_second, **header)).status
            for name, header in refused.items()
        }
        if set(statuses.values()) != {403}:
            detail("statuses", statuses)
        good = await _call(Connection(url), at_second, **_proof(sender, own))
        executed = made.executed().total()
        forwarded = await _call(Connection(url), at_third, **_proof(sender, own))
        more = made.executed().total() - executed
    return [
        equal("refused with 403", list(statuses.values()).count(403), len(refused)),
        equal("status with a proof", good.status, 200),
        equal("calls forwarded by a peer port", more, 0),
        equal("200 for another replica's session", forwarded.status == 200, False),
    ]


def _proof(sender: Replica, target: Replica, *, age_s: float = 0, key: str = KEY) -> dict[str, str]:
    keys = state_keys(key).derived(FOR_PEER)
    proofs = PeerProofs(sender, lambda: keys, lambda: time.time() - age_s)
    return {HEADER.decode(): proofs.header_for(target, ANONYMOUS).decode()}
