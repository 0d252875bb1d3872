"""`make drain`: replicas end under load and no client notices.

Two replicas behind `tests.suites.balancer`, under calls of clients of both eras and clients that
listen. RUNS (100) times one of them gets SIGTERM at a random moment (SEED repeats the choices, not
the machine's scheduling), must end with 0 within its grace with nothing left of it, and is started
again. The clients honour `Connection: close`, and they try again, after the time it names, what
was answered with 503 and `executed: no`; a client of the legacy revisions whose session is
unknown to the other replica (404) opens another, as the specification wants. Nothing else is
forgiven: a connection that ends without an answer is a lost call, and every call must have been
executed exactly once, which the children write down.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from tests.suites.balancer import Balancer, balancing
from tests.suites.figures import Figures, percentile
from tests.suites.wire import Connection, Response, echo_call, open_session
from tests.support.bridge_process import RunningBridge, bridge
from tests.support.modern_client import headers_of, meta

LEGACY, MODERN, LISTENERS = 6, 6, 3
REPLICAS = 2
GRACE_S = 8
WORDS = ("--grace", str(GRACE_S), "--lame-duck", "0.5", "--give-up-after", "0")
REST_S = (0.0, 0.03)
"""Between two calls of one client."""
SIGNAL_AFTER_S = (0.0, 0.4)
CALL_WITHIN_S = 20.0
CHILD = Path(__file__).with_name("chaos_child.py")


class Clients:
    """All clients, and what they saw."""

    def __init__(self, url: str, seed: int) -> None:
        self.seen: Counter[str] = Counter()
        self.texts: list[str] = []
        """Of every call that was answered."""
        self.complaints: list[str] = []
        self._url = url
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Call until `stop`."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(LEGACY):
                clients.create_task(self._legacy())
            for _ in range(MODERN):
                clients.create_task(self._modern())
            listening = [clients.create_task(self._listen()) for _ in range(LISTENERS)]
            await self._over.wait()
            for task in listening:
                task.cancel()

    def stop(self) -> None:
        """No further calls."""
        self._over.set()

    async def _legacy(self) -> None:
        connection = Connection(self._url)
        headers: Mapping[str, str] | None = None
        while not self._over.is_set():
            text = f"n{next(self._numbers)}"
            while True:
                if headers is None:
                    headers = await self._open(connection)
                    continue
                response = await self._send(connection, headers, echo_call("7", text))
                if response is not None and response.status == 404:
                    self.seen["reinitialised"] += 1
                    headers = None
                elif not await self._again(connection, response):
                    break
            self._judge(response, text)
            await asyncio.sleep(self._chance.uniform(*REST_S))
        connection.close()

    async def _modern(self) -> None:
        connection = Connection(self._url)
        while not self._over.is_set():
            text = f"n{next(self._numbers)}"
            arguments = {"name": "echo", "arguments": {"text": text}, "_meta": meta()}
            message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": arguments}
            body, headers = json.dumps(message).encode(), headers_of(message)
            response = await self._send(connection, headers, body)
            while await self._again(connection, response):
                response = await self._send(connection, headers, body)
            self._judge(response, text)
            await asyncio.sleep(self._chance.uniform(*REST_S))
        connection.close()

    async def _listen(self) -> None:
        """Keep a standalone stream open: a replica that ends must end it and not cut it."""
        connection = Connection(self._url)
        headers: Mapping[str, str] | None = None
        while True:
            headers = headers or await self._open(connection)
            try:
                response = await connection.request("GET", headers)
            except (OSError, EOFError) as error:
                self.seen["streams_cut"] += 1
                self.complaints.append(f"stream: {error!r}")
                continue
            if response.status == 404:
                headers = None
            elif response.status == 200:
                self.seen["streams_ended"] += 1
            else:
                await self._again(connection, response)

    async def _open(self, connection: Connection) -> Mapping[str, str]:
        """A session on a replica that takes one."""
        while True:
            try:
                return await open_session(connection)
            except AssertionError as refused:
                # The first request of two is answered 503, or the second meets another replica.
                response = refused.args[0]
                if response.status != 404 and not await self._again(connection, response):
                    raise

    async def _send(
        self, connection: Connection, headers: Mapping[str, str], body: bytes
    ) -> Response | None:
        """One request and its answer; None for one that was lost."""
        try:
            async with asyncio.timeout(CALL_WITHIN_S):
                return await connection.request("POST", headers, body)
        except (OSError, EOFError, TimeoutError) as error:
            connection.close()
            self.complaints.append(repr(error))
            return None

    async def _again(self, connection: Connection, response: Response | None) -> bool:
        """Whether to send it once more; waits as long as the answer asks."""
        if response is None or response.status != 503:
            return False
        if _own(response).get("executed") != "no" or "retry-after" not in response.headers:
            return False
        self.seen["retried"] += 1
        connection.close()
        await asyncio.sleep(float(response.headers["retry-after"]))
        return True

    def _judge(self, response: Response | None, text: str) -> None:
        if response is None:
            self.seen["lost"] += 1
            return
        result = (response.messages() or [{}])[-1].get("result")
        if response.status == 200 and result and result["content"][0]["text"] == text:
            self.seen["ok"] += 1
            self.texts.append(text)
        else:
            self.seen["failed"] += 1
            self.complaints.append(str(response))


def _own(response: Response) -> Mapping[str, Any]:
    """What the bridge's own error says of itself."""
    error = (response.messages() or [{}])[-1].get("error", {})
    data = error.get("data") or {}
    found: Mapping[str, Any] = data.get("mcpbridge", {})
    return found


class Replica:
    """One place behind the balancer, and the bridge that runs in it."""

    def __init__(self, balancer: Balancer, call_log: Path) -> None:
        self._balancer = balancer
        self._command = (sys.executable, "-I", "-S", str(CHILD), str(call_log))
        self._stack = AsyncExitStack()
        self._running: RunningBridge

    async def start(self) -> None:
        """Start a bridge and wait until it is ready."""
        self._stack = AsyncExitStack()
        running = await self._stack.enter_async_context(bridge(*WORDS, "--", *self._command))
        self._running = running
        self._balancer.ports.add(running.port)

    async def end(self) -> tuple[int, float, int]:
        """SIGTERM; the exit status, the seconds it took, and how many processes were left."""
        began = monotonic()
        status = await self._running.terminate()
        took_s, left = monotonic() - began, len(self._running.processes())
        self._balancer.ports.discard(self._running.port)
        # Asserts as well that its log has no unhandled error.
        await self._stack.aclose()
        return status, took_s, left

    async def close(self) -> None:
        """The suite is over."""
        await self._stack.aclose()


async def play(runs: int, seed: int, call_log: Path) -> tuple[Clients, Counter[str], list[float]]:
    """All runs; what clients saw, how replicas ended, and how long each took to."""
    chance = random.Random(seed)
    ends: Counter[str] = Counter()
    took_s: list[float] = []
    async with balancing() as balancer:
        replicas = [Replica(balancer, call_log) for _ in range(REPLICAS)]
        await asyncio.gather(*(replica.start() for replica in replicas))
        clients = Clients(balancer.url, seed)
        load = asyncio.create_task(clients.run())
        for _ in range(runs):
            if load.done():
                break
            await asyncio.sleep(chance.uniform(*SIGNAL_AFTER_S))
            replica = chance.choice(replicas)
            status, seconds, left = await replica.end()
            ends[f"status_{status}"] += 1
            ends["left"] += left
            took_s.append(seconds)
            await replica.start()
        clients.stop()
        await load
        for replica in replicas:
            await replica.close()
    return clients, ends, took_s


async def main() -> int:
    """The exit status."""
    runs = int(os.environ.get("RUNS") or 100)
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    figures = Figures("drain")
    figures.show("seed", seed, runs=runs)
    began = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        call_log = Path(folder) / "ledger"
        clients, ends, took_s = await play(runs, seed, call_log)
        executed = Counter(call_log.read_text().split())
    figures.show("seconds", round(monotonic() - began, 1))
    for complaint in clients.complaints[:5]:
        figures.show("complaint", complaint)
    for name in ("ok", "retried", "reinitialised", "streams_ended"):
        figures.show(name, clients.seen[name])
    figures.equal("lost", clients.seen["lost"], 0)
    figures.equal("failed", clients.seen["failed"], 0)
    figures.equal("streams_cut", clients.seen["streams_cut"], 0)
    figures.equal(
        "executed_once", sum(executed[text] == 1 for text in clients.texts), len(clients.texts)
    )
    figures.equal("executed", sum(executed.values()), clients.seen["ok"])
    figures.equal("exit_status_0", ends["status_0"], runs)
    figures.equal("processes_left", ends["left"], 0)
    median_s = round(percentile(took_s, 0.5), 2)
    figures.at_most("longest_end_s", round(max(took_s), 2), GRACE_S, median_s=median_s)
    return figures.end()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
