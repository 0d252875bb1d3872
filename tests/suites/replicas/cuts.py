"""The row of cut networks: replicas and the store in network namespaces, joined by a bridge.

Run by itself it is the program in those namespaces: `python -m tests.suites.replicas.cuts`, under
`unshare --net --mount`, prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import httpx

from mcpbridge.rules.homes.adoption import HELD_BACK_S
from mcpbridge.stores.store import BEAT_FOR_S
from tests.suites.replicas.conversation import Client, http_client, tool_call
from tests.suites.replicas.lab import CHILD, KEY, MOUNT, NAME
from tests.suites.replicas.rows import Figure, Size, at_least, at_most, detail, equal
from tests.suites.replicas.stored import OWN_CHILD, Answer, asked, doubles
from tests.support.bridge_process import RunningBridge, started
from tests.support.redis_server import PROGRAMS
from tests.support.sdk_servers import ROOT

NET = "10.99.0."
TESTER, STORE = f"{NET}254", f"{NET}100"
REPLICAS = ("a", "b", "c")
IPS = {name: f"{NET}{number}" for number, name in enumerate(REPLICAS, 1)}
PORT, PEER_PORT, STORE_PORT = 8000, 8001, 6379
SETTLED_S = 21.0
"""After this time each replica takes all others for settled."""
WITH_STORE_S = 2 * BEAT_FOR_S + 5
WITHOUT_STORE_S = HELD_BACK_S + 24
LEAST_ROUNDS = 5
HEALED_S = 5.0
TOLD_S = 10.0
UNSERVED_S = BEAT_FOR_S + 10
UNSERVED_ALONE_S = HELD_BACK_S + 18
"""Until another replica may serve the session, and then some rounds, which take 4 s each: while the
network is still cut."""
LONG_S = 600
ASK_S = 3.0
"""What a replica has for an answer to the question who serves; a cut takes its time."""
WITH_STORE = ("a-b", "a-store", "a-all", "cable")
ALONE = ("a-b", "a-all", "cable")
"""What is cut, with a store and without one."""
TOUCHED = {"a-b", "a-all", "cable"}
"""Those that cut the way from b to a, which the call in flight takes."""


async def run(*words: str, check: bool = True) -> None:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0 or not check, words


async def _join(name: str, ip: str) -> None:
    """Make a namespace with an address, joined to the bridge."""
    await run("ip", "netns", "add", name)
    await run("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "eth0", "netns", name)
    await run("ip", "link", "set", f"v-{name}", "master", "br0", "up")
    inside = ("ip", "-n", name)
    await run(*inside, "addr", "add", f"{ip}/24", "dev", "eth0")
    await run(*inside, "link", "set", "eth0", "up")
    await run(*inside, "link", "set", "lo", "up")


async def _network() -> None:
    await run("mount", "-t", "tmpfs", "tmpfs", "/run")
    await run("ip", "link", "set", "lo", "up")
    await run("ip", "link", "add", "br0", "type", "bridge")
    await run("ip", "addr", "add", f"{TESTER}/24", "dev", "br0")
    await run("ip", "link", "set", "br0", "up")
    await _join("store", STORE)
    for name, ip in IPS.items():
        await _join(name, ip)


async def _cut(kind: str, *, heal: bool = False) -> None:
    """Cut a part of the network of replica a, or heal it."""
    if kind == "cable":
        await run("ip", "link", "set", "v-a", "up" if heal else "down")
        return
    others = {"a-b": (IPS["b"],), "a-store": (STORE,), "a-all": (IPS["b"], IPS["c"], STORE)}
    for ip in others[kind]:
        for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
            rule = (chain, side, ip, "-j", "DROP")
            verb = "-D" if heal else "-I"
            await run("ip", "netns", "exec", "a", "iptables", "-w", verb, *rule)


@asynccontextmanager
async def _replicas(folder: Path, *, store: bool) -> AsyncIterator[dict[str, RunningBridge]]:
    """Three replicas, each in its namespace."""
    hosts = folder / "hosts"
    lines = ["127.0.0.1 localhost", *(f"{ip} {NAME}" for ip in IPS.values())]
    hosts.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    words = ("--store", f"redis://{STORE}:{STORE_PORT}") if store else ()
    child = (sys.executable, "-I", "-S", str(CHILD), str(folder / "ledger"))
    async with AsyncExitStack() as stack:
        found = {}
        for name, ip in IPS.items():
            where = ("--host", ip, "--port", str(PORT), "--peers", f"{NAME}:{PEER_PORT}")
            under = ("ip", "netns", "exec", name, "unshare", "--mount", "sh", "-c", MOUNT)
            env = {"MCPBRIDGE_STATE_KEY": KEY, "POD_IP": ip}
            given = ("--allowed-host", "*", *where, *words, "--", *child)
            one = started(*given, env=env, under=(*under, str(hosts)))
            found[name] = await stack.enter_async_context(one)
        for each in found.values():
            await each.logged("child.ready")
        yield found


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[None]:
    words = ("--bind", STORE, "--port", str(STORE_PORT), "--protected-mode", "no", "--save", "")
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", "store", PROGRAMS[0], *words, "--dir", str(folder),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def _url(name: str) -> str:
    return f"http://{IPS[name]}:{PORT}"


async def _round(client: Client, mark: str) -> list[Answer]:
    async def one(name: str) -> Answer:
        try:
            async with asyncio.timeout(ASK_S):
                return await asked(client, _url(name), f"{mark}-{name}")
        except TimeoutError:
            return Answer(_url(name), 0, None)

    return list(await asyncio.gather(*map(one, REPLICAS)))


class Round(NamedTuple):
    """What all replicas answered at one time."""

    at_s: float
    """When the last of them had answered, in seconds from the cut."""
    answers: list[Answer]

    @property
    def served(self) -> bool:
        """Whether any of them served the session."""
        return any(each.process for each in self.answers)


async def _told_at(client: Client, mark: str, flying: asyncio.Event) -> float:
    """Make a call at a through b that does not end; return when the client learns of its end."""
    call = tool_call(mark, "steps", token=mark, text=mark, wait_s=LONG_S)
    async with client.streaming(_url("b"), call) as stream:
        assert await stream.next() is not None, "the call has not begun"
        flying.set()
        # A connection that ends is an answer, too.
        with suppress(httpx.TransportError):
            await stream.next()
        return monotonic()


async def _cut_for(kind: str, seconds: float, http: httpx.AsyncClient) -> dict[str, Any]:
    """Cut, ask all replicas each second, heal, and ask until they agree."""
    client, _ = await Client.opened(http, _url("a"), _url("b"), OWN_CHILD)
    other, _ = await Client.opened(http, _url("a"), _url("b"), OWN_CHILD)
    flying = asyncio.Event()
    in_flight = asyncio.create_task(_told_at(other, f"{kind}-long", flying))
    async with asyncio.timeout(TOLD_S):
        await flying.wait()
    rounds = [Round(0.0, await _round(client, f"{kind}-0"))]
    assert all(each.process for each in rounds[0].answers), rounds
    await _cut(kind)
    began = monotonic()
    while monotonic() - began < seconds:
        answers = await _round(client, f"{kind}-{len(rounds)}")
        rounds.append(Round(monotonic() - began, answers))
        await asyncio.sleep(1)  # the row's own rate
    await _cut(kind, heal=True)
    healed = monotonic()
    after: list[Round] = []
    while not after or not _agree(after[-1].answers):
        answers = await _round(client, f"{kind}-h{len(after)}")
        after.append(Round(monotonic() - began, answers))
        assert monotonic() - healed < 60, after[-3:]
    healed_s = monotonic() - healed
    told_s = in_flight.result() - began if in_flight.done() else None
    in_flight.cancel()
    early = [each.answers for each in rounds if each.at_s <= HELD_BACK_S]
    return {
        "kind": kind,
        "doubles": doubles([each.answers for each in (*rounds, *after)]),
        "early": len(early),
        "early_doubles": doubles(early),
        "unserved_s": _unserved_s((*rounds, *after)),
        "rounds": len(rounds),
        "healed_s": healed_s,
        "told_s": told_s,
        "last": after[-1].answers,
    }


def _unserved_s(rounds: Sequence[Round]) -> float:
    """Return the longest time between two rounds in which a replica served the session."""
    served = [each.at_s for each in rounds if each.served]
    return max((later - at for at, later in itertools.pairwise(served)), default=0.0)


def _agree(answers: Sequence[Answer]) -> bool:
    """Return whether one process served the session at all replicas."""
    found = {each.process for each in answers}
    return len(found) == 1 and None not in found


async def main() -> None:
    """Cut everything once with a store, and what can be cut without one."""
    await _network()
    found: dict[str, list[Any]] = {}
    for store in (True, False):
        kinds = WITH_STORE if store else ALONE
        seconds = WITH_STORE_S if store else WITHOUT_STORE_S
        with tempfile.TemporaryDirectory(prefix="replicas-cuts-") as name:
            folder = Path(name)
            async with _redis(folder), _replicas(folder, store=store), http_client() as http:
                await asyncio.sleep(SETTLED_S)  # no event says so
                each = [await _cut_for(kind, seconds, http) for kind in kinds]
        found["store" if store else "alone"] = each
    print(json.dumps(found), flush=True)


async def row_6(_size: Size) -> list[Figure]:
    """Cut the network, pull the cable, and heal both, with a store and without."""
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", "--mount", sys.executable, "-m", "tests.suites.replicas.cuts",
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, "the program in the namespaces has failed"
    found = json.loads(out)
    detail("cuts", found)
    stored, alone = found["store"], found["alone"]
    every = [*stored, *alone]
    touched = [each["told_s"] for each in every if each["kind"] in TOUCHED]
    told = [seconds for seconds in touched if seconds is not None and seconds >= 0]
    early = sum(each["early_doubles"] for each in alone)
    return [
        equal("two processes with a store", sum(each["doubles"] for each in stored), 0),
        equal(f"two processes without a store, first {HELD_BACK_S:.0f} s", early, 0),
        at_least("rounds of that time", min(each["early"] for each in alone), LEAST_ROUNDS),
        at_most("healed after s", max(each["healed_s"] for each in every), HEALED_S),
        at_most("call in flight told after s", max(told, default=0.0), TOLD_S),
        equal("calls in flight that were told", len(told), len(touched)),
        at_most("s that no replica served, with a store", _longest(stored), UNSERVED_S),
        at_most("the same without a store", _longest(alone), UNSERVED_ALONE_S),
        at_least("rounds", min(each["rounds"] for each in every), LEAST_ROUNDS),
    ]


def _longest(cuts: Sequence[Mapping[str, Any]]) -> float:
    return max(round(float(each["unserved_s"]), 1) for each in cuts)


if __name__ == "__main__":
    asyncio.run(main())
