"""Several bridges that serve together, each at another loopback address."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from mcpbridge.replicas.peer_proof import PeerProofs
from mcpbridge.replicas.session_id import Replica, SessionId, SessionIds
from mcpbridge.rules.access.state_keys import FOR_ID, FOR_PEER, state_keys
from tests.support.bridge_process import DEMO, RunningBridge, bridge
from tests.support.namespaces import OWN_MOUNTS

KEY = "replicas-" * 4
PEER_PORT = 8001
NAME = "replicas"
"""What resolves to all of them, in a separate mount namespace."""
_LOOPBACK = 127 << 24
_EACH = 4
"""Addresses for each set of replicas."""
_SETS = 32
"""Sets in one test process."""
_numbers = itertools.count()


class Addresses:
    """Loopback addresses that no other set of replicas uses, of this test process or another."""

    def __init__(self) -> None:
        self._first = (os.getpid() * _SETS + next(_numbers) % _SETS) * _EACH

    def __getitem__(self, number: int) -> str:
        """The address of a replica, which are counted from 1; that with number 0 is free."""
        assert number < _EACH
        value = _LOOPBACK | (self._first + number) & 0xFFFFFF
        return ".".join(str(byte) for byte in value.to_bytes(4, "big"))


class Replicas:
    """Bridges that serve together, each with an HTTP client."""

    def __init__(
        self,
        addresses: Addresses,
        running: Sequence[RunningBridge],
        clients: Sequence[httpx.AsyncClient],
    ) -> None:
        self.addresses = addresses
        self.running = running
        self.clients = clients

    def ids(self, key: str = KEY, own: Replica | None = None, age_s: float = 0.0) -> SessionIds:
        """A writer and reader of their ids; or of ids of another replica, key or age."""
        keys = state_keys(key).derived(FOR_ID)
        nobody = Replica(self.addresses[0], PEER_PORT, 1)
        return SessionIds(own or nobody, lambda: keys, lambda: time.time() - age_s)

    def home(self, headers: Mapping[str, str]) -> Replica:
        """The replica that has the session with these headers."""
        found = self.ids().open(headers["mcp-session-id"], b"")
        assert isinstance(found, SessionId)
        return found.owner


def proofs(own: Replica, key: str = KEY, age_s: float = 0.0) -> PeerProofs:
    """Makes the proofs of a replica that does not run."""
    keys = state_keys(key).derived(FOR_PEER)
    return PeerProofs(own, lambda: keys, lambda: time.time() - age_s)


@asynccontextmanager
async def replicas(
    count: int,
    *words: str,
    command: Sequence[str] = DEMO,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
    hosts: Path | None = None,
) -> AsyncIterator[Replicas]:
    """Run `count` replicas of a server, with their processes if `ready`.

    With a file for `hosts` they find each other by a name that only they can resolve.
    """
    common = {"MCPBRIDGE_STATE_KEY": KEY, **(env or {})}
    addresses = Addresses()
    under: tuple[str, ...] = ()
    if hosts is not None:
        lines = [f"{addresses[number + 1]} {NAME}\n" for number in range(count)]
        hosts.write_text("".join(["127.0.0.1 localhost\n", *lines]), "utf-8")
        under = (*OWN_MOUNTS, "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
    async with AsyncExitStack() as stack:

        async def started(number: int) -> RunningBridge:
            at = addresses[number]
            name = "localhost" if hosts is None else NAME
            given = ("--host", at, "--allowed-host", "*", "--peers", name, *words)
            env = {**common, "POD_IP": at}
            one = bridge(*given, "--", *command, env=env, ready=ready, under=under)
            return await stack.enter_async_context(one)

        running = await asyncio.gather(*(started(number + 1) for number in range(count)))
        limits = httpx.Limits(max_connections=None)
        clients = [await stack.enter_async_context(r.client(limits=limits)) for r in running]
        yield Replicas(addresses, running, clients)


@asynccontextmanager
async def listening_at(host: str, port: int = PEER_PORT) -> AsyncIterator[list[bytes]]:
    """Listen where no client may connect; yield what the first read of each connection brought."""
    seen: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1 << 16))
        writer.close()

    server = await asyncio.start_server(accept, host, port)
    try:
        yield seen
    finally:
        server.close()
        await server.wait_closed()
