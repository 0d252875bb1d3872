"""The rows with load: clients of both languages call while replicas live, end or are killed."""

from __future__ import annotations

import asyncio
import io
import random
import signal
import tarfile
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple

from mcpbridge.replicas.session_id import Replica as Home
from mcpbridge.replicas.session_id import SessionId, SessionIds
from mcpbridge.rules.access.state_keys import FOR_ID, state_keys
from tests.suites.replicas.lab import KEY, Clients, Execution, Lab, Load, Replica, lab
from tests.suites.replicas.rows import Figure, Size, at_least, at_most, detail, equal
from tests.suites.wire import Connection, echo_call, open_session
from tests.support.bridge_process import asked_until
from tests.support.sdk_servers import ROOT

PLAIN, ASKED = 3, 3
"""Sessions of each language that cannot be asked, and that can be."""
REST_S, WAIT_S = 0.02, 0.05
"""Between two calls of a session, and the work of each."""
ROLLING = ("--lame-duck", "2", "--grace", "20")
SEED = 11
KILL_EVERY_S = 5.0
HUNG_S = 10.0
LARGE, SMALL = 6, 2
"""Replicas at most and at least, in the row that begins with three."""
MOST_SESSIONS = 8
"""Of each replica in that row: two have room for the sessions of all clients."""
NOTICED_S = 0.5
"""After a kill the balancer may still send requests there: it checks every tenth of a second."""
SAID = tuple(
    f"mcpbridge/{name}.py"
    for name in (
        "replicas/peer_messages",
        "replicas/peer_proof",
        "replicas/session_id",
        "rules/homes/record",
    )
)
"""The modules that define what replicas say to each other and write into ids."""
FORWARDED = 50
"""Calls that replicas of two releases forward to each other at least."""
GATEWAY_ID = 128
"""Characters that gateways accept in a session id."""


class Kill(NamedTuple):
    """A kill of the replica at an address."""

    at: float
    """Monotonic seconds."""
    ip: str


def common(load: Load, lab_: Lab) -> list[Figure]:
    """Return what holds whatever happens: no crossed answer, no call executed twice."""
    executed = lab_.executed()
    if load.errors:
        detail("first errors", load.errors[:5])
    if load.crossed:
        detail("crossed", load.crossed[:5])
    return [
        equal("crossed", len(load.crossed), 0),
        equal("executed twice", sum(count > 1 for count in executed.values()), 0),
        equal("answered, not executed", sum(executed[text] != 1 for text in load.texts), 0),
    ]


async def calm_calls(
    calls: int, *, count: int = 3, peers: bool = True, asked: int = ASKED
) -> list[Figure]:
    """Make calls through the balancer and disturb nothing."""
    sessions = 2 * (PLAIN + asked)
    each = -(-calls // sessions)
    async with (
        lab(count=count, peers=peers) as made,
        made.clients("calm", plain=PLAIN, asked=asked, calls=each) as clients,
    ):
        load = await clients.reports(60 + calls / 20)
        figures = [
            equal("errors", len(load.errors), 0),
            equal("right answers", load.right, each * sessions),
            *common(load, made),
            at_least("questions", load.questions, 2 * asked * (each // 4)),
        ]
    return [*figures, at_most("longest id", max(load.id_lengths, default=0), GATEWAY_ID)]


def busy(made: Lab, marker: str) -> AbstractAsyncContextManager[Clients]:
    """Clients that call until they are told to stop, with a call in flight most of the time."""
    return made.clients(marker, plain=PLAIN, asked=ASKED, rest_s=REST_S, wait_s=WAIT_S)


async def row_1(size: Size) -> list[Figure]:
    """Calls without faults: no error, nothing crossed, ids that gateways accept."""
    return await calm_calls(size.calls)


async def rolled(made: Lab, restarts: int) -> list[Figure]:
    """Restart all replicas in turn, `restarts` times: every session and call survives that."""
    statuses: Counter[int] = Counter()
    async with busy(made, "rolling") as clients:
        await clients.ready()
        for _ in range(restarts):
            for replica in tuple(made.replicas):
                statuses[await made.roll(replica)] += 1
        load = await clients.stop()
        figures = common(load, made)
    return [
        equal("errors", len(load.errors), 0),
        equal("sessions lost", load.sessions - load.kept, 0),
        equal("exit statuses", dict(statuses), {0: 3 * restarts}),
        *figures,
        at_least("right answers", load.right, 3 * restarts),
    ]


async def row_3(size: Size) -> list[Figure]:
    """Replicas are killed, and others take their places at other addresses."""
    return await _killed(size, same_address=False)


async def row_4(size: Size) -> list[Figure]:
    """Replicas are killed, and start again at the same address, as a container does."""
    return await _killed(size, same_address=True)


async def _killed(size: Size, *, same_address: bool) -> list[Figure]:
    chance = random.Random(SEED)
    kills: list[Kill] = []
    async with lab(bodies_logged=True) as made, busy(made, "killed") as clients:
        await clients.ready()
        await made.settled()
        until = monotonic() + size.seconds
        while monotonic() < until:
            replica = chance.choice(made.replicas)
            kills.append(Kill(monotonic(), replica.ip))
            await replica.kill()
            await (made.start(replica) if same_address else made.replace(replica))
            await asyncio.sleep(max(0.0, kills[-1].at + KILL_EVERY_S - monotonic()))
        load = await clients.stop()
        figures = common(load, made)
        executions, relays = made.executions(), made.relays()
    others = [each for each in load.errors if not excused(each, kills, executions, relays)]
    if others:
        detail("errors of calls that no killed replica had", others[:5])
    return [
        equal("errors of calls not in flight on or through a killed replica", len(others), 0),
        at_least("calls whose way is known", len(relays), load.right),
        at_most("errors", len(load.errors), len(kills) * load.sessions),
        equal("404", sum(map(_is_unknown, load.errors)), 0),
        at_most("longest call in s", round(load.longest_s, 1), HUNG_S),
        *figures,
        at_least("kills", len(kills), 2),
        at_least("right answers", load.right, len(kills) * load.sessions),
    ]


def excused(
    error: Mapping[str, Any],
    kills: Sequence[Kill],
    executions: Sequence[Execution],
    relays: Mapping[str, Collection[str]],
) -> bool:
    """Return whether a replica that had a failed call was killed while the call was in flight.

    Args:
        error: What the client saw.
        kills: All kills.
        executions: All calls that were executed, in that order.
        relays: By the text of a call, the replicas that the client's requests for it went to.
    """
    hits = [each for each in kills if error["began"] - NOTICED_S <= each.at <= error["ended"]]
    text = error["text"]
    if text not in relays:
        # A session that was to open; a call that the SDK did not send since its connection had
        # broken; or one that a replica was lost with: the balancer writes nothing down then.
        return bool(hits)
    session, _, number = text.rpartition("-")
    past = [each for each in executions if _is_of(each.text, session, int(number))]
    if not past:
        return bool(hits)
    home = past[-1]
    having = {home.ip, *relays[text]}
    # Until the next call is executed it is not known which replica has adopted the session.
    moves = any(each.ip == home.ip and home.at <= each.at <= error["ended"] for each in kills)
    return bool(hits) if moves else any(each.ip in having for each in hits)


def _is_of(text: str, session: str, most: int) -> bool:
    """Return whether a call is one of a session up to this number."""
    its, _, number = text.rpartition("-")
    return its == session and int(number) <= most


def _is_unknown(error: Mapping[str, Any]) -> bool:
    """Return whether a client was told that its session is unknown."""
    why = str(error["error"])
    return "Session terminated" in why or "404" in why or "session not found" in why


async def row_15(size: Size) -> list[Figure]:
    """Keys are rotated, and versions mixed, under load."""
    return [*await _keys_rotated(size), *await _versions_mixed()]


async def _keys_rotated(size: Size) -> list[Figure]:
    """Add a key as the second, make it the first, and drop the old one."""
    new = "the-key-that-comes-after-the-first-one"
    with tempfile.TemporaryDirectory(prefix="replicas-keys-") as folder:
        keys = Path(folder) / "keys"
        keys.write_text(KEY, "utf-8")
        async with lab(key_file=keys) as made:
            async with busy(made, "before") as before:
                await before.ready()
                for text in (f"{KEY} {new}", f"{new} {KEY}"):
                    await _write_keys(made, keys, text)
                async with busy(made, "after") as after:
                    await after.ready()
                    first = await before.stop()
                    await _write_keys(made, keys, new)
                    await asyncio.sleep(min(size.seconds, 5))  # calls with the new key alone
                    second = await after.stop()
            figures = [*common(first, made), *common(second, made)]
    return [
        equal("errors", len(first.errors) + len(second.errors), 0),
        equal("sessions lost", sum(load.sessions - load.kept for load in (first, second)), 0),
        *figures,
    ]


async def _write_keys(made: Lab, file: Path, text: str) -> None:
    """Write keys as Kubernetes does, and have all replicas read them."""
    written = file.with_suffix(".new")
    written.write_text(text, "utf-8")
    written.replace(file)
    for replica in made.replicas:
        seen = len(replica.running.events("keys.file_read"))
        replica.running.signal(signal.SIGHUP)
        await replica.running.logged("keys.file_read", count=seen + 1)


async def _versions_mixed() -> list[Figure]:
    """Replace this release by an earlier one and that by this one, with both at once between."""
    if await _git("rev-parse", "--is-shallow-repository") == b"true\n":
        # Of a clone without history, from which `git fetch --unshallow` could not get any.
        return [
            Figure("versions mixed", "no earlier one in this clone", "a whole clone", good=True)
        ]
    with tempfile.TemporaryDirectory(prefix="replicas-earlier-") as name:
        earlier = await _earlier(Path(name))
        async with lab(count=1, words=ROLLING) as made:
            (first,) = made.replicas
            older = await made.join(under=earlier)
            async with busy(made, "mixed") as clients:
                await clients.ready()
                # Each of the two can forward to the other one only.
                await asyncio.gather(*map(_forwards, (first, older)))
                statuses = [await made.part(first)]
                newer = await made.join()
                await _forwards(newer)
                statuses.append(await made.part(older))
                taken = await newer.counted("mcpbridge_handovers_total")
                load = await clients.stop()
            figures = common(load, made)
    return [
        equal("errors, versions mixed", len(load.errors), 0),
        equal("sessions lost, versions mixed", load.sessions - load.kept, 0),
        equal("exit statuses", statuses, [0, 0]),
        *figures,
        at_least("right answers", load.right, 3 * FORWARDED),
        equal("sessions taken from the earlier release", taken.get("taken", 0), load.sessions),
    ]


async def _forwards(replica: Replica) -> None:
    """Wait until a replica has forwarded calls, which it has from the balancer."""

    async def has() -> bool:
        counted = await replica.counted("mcpbridge_forwards_total")
        return counted.get("answered", 0) >= FORWARDED

    await asked_until(has, f"{replica.url} has forwarded {FORWARDED} requests")


async def _earlier(folder: Path) -> tuple[str, ...]:
    """Unpack the last commit whose replicas said something else to each other.

    Returns:
        The program that runs its bridge.
    """
    newest = (await _git("log", "-1", "--format=%H", "--", *SAID)).decode().strip()
    packed = await _git("archive", "--format=tar", f"{newest}^", "mcpbridge")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return ("env", "-C", str(folder), f"PYTHONPATH={folder}")


async def _git(*words: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "git", *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, f"git {words[0]} failed"
    return out


async def row_16(size: Size) -> list[Figure]:
    """Replicas are added and taken away under load; a full one stays ready."""
    statuses: Counter[int] = Counter()
    words = (*ROLLING, "--max-sessions", str(MOST_SESSIONS))
    rounds = max(1, size.restarts // 10)
    async with lab(words=words) as made, busy(made, "scaled") as clients:
        await clients.ready()
        for _ in range(rounds):
            while len(made.replicas) < LARGE:
                await made.join()
            await made.settled()
            while len(made.replicas) > SMALL:
                statuses[await made.part(made.replicas[0])] += 1
        load = await clients.stop()
        figures = common(load, made)
    return [
        equal("errors", len(load.errors), 0),
        equal("sessions lost", load.sessions - load.kept, 0),
        equal("exit statuses", dict(statuses), {0: rounds * (LARGE - SMALL)}),
        *figures,
        at_least("right answers", load.right, rounds * LARGE),
        *await _full_replica(),
    ]


async def _full_replica() -> list[Figure]:
    """Open at one replica as many sessions as all have room for."""
    async with lab(words=("--max-sessions", str(MOST_SESSIONS))) as made:
        await made.settled()
        wanted = MOST_SESSIONS * len(made.replicas)
        full = made.replicas[0]
        connection = Connection(full.url)
        opened = [await open_session(connection) for _ in range(wanted)]
        ready = await connection.request("GET", {}, path="/readyz")
        kept = 0
        for number, headers in enumerate(opened):
            answer = await connection.request("POST", headers, echo_call(str(number), "still"))
            kept += answer.status == 200
        connection.close()
    here = sum(_home_of(headers) == full.ip for headers in opened)
    return [
        equal("sessions at the full replica", here, MOST_SESSIONS),
        equal("sessions that all have", kept, wanted),
        equal("/readyz of the full replica", ready.status, 200),
    ]


def _home_of(headers: Mapping[str, str]) -> str:
    """Return the address of the replica that a session id names."""
    keys = state_keys(KEY).derived(FOR_ID)
    ids = SessionIds(Home("127.0.0.1", 1, 1), lambda: keys, time)
    found = ids.open(headers["mcp-session-id"], b"")
    assert isinstance(found, SessionId)
    return found.owner.host


async def control(_size: Size) -> list[Figure]:
    """Row 1 is missed by replicas that do not know each other, or it would prove nothing."""
    # Without questions: the answer to one would be unknown elsewhere, and its call would time out.
    figures = await calm_calls(24, peers=False, asked=0)
    errors = next(figure for figure in figures if figure.name == "errors")
    assert isinstance(errors.value, int)
    return [at_least("errors", errors.value, 1)]
