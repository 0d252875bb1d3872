"""A balancer of connections, as Kubernetes or a cloud has one in front of several replicas.

It knows nothing of HTTP but `GET /readyz`, which it asks every replica every tenth of a second; a
new connection goes to one that answered 200 last, in turns, and stays there. A connection that
no replica is ready for waits. Connections that are open are never cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHECK_EVERY_S = 0.1
CHECK_WITHIN_S = 1.0
READ_BYTES = 1 << 16
PROBE = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class Balancer:
    """Made by `balancing`."""

    def __init__(self) -> None:
        self.url = ""
        self.ports: set[int] = set()
        """Of the replicas; the suite adds and removes them."""
        self._ready: list[int] = []
        self._news = asyncio.Condition()

    async def check(self) -> None:
        """Ask every replica again and again."""
        while True:
            ports = sorted(self.ports)
            good = await asyncio.gather(*map(_is_ready, ports))
            now = [port for port, ready in zip(ports, good, strict=True) if ready]
            if set(now) != set(self._ready):
                async with self._news:
                    self._ready = now
                    self._news.notify_all()
            await asyncio.sleep(CHECK_EVERY_S)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        try:
            there, to = await self._connect()
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry(reader, to))
                ways.create_task(_carry(there, writer))
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self._ready)
                self._ready.append(self._ready.pop(0))
                port = self._ready[-1]
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(CHECK_EVERY_S)  # it has ended since it was asked


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(CHECK_WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(PROBE)
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(READ_BYTES):
            writer.write(piece)
            await writer.drain()
    # One side has ended: so does the other, after what it has still been given.
    writer.close()


@asynccontextmanager
async def balancing() -> AsyncIterator[Balancer]:
    """A balancer on its own port, until the block ends."""
    balancer = Balancer()
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    balancer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    checking = asyncio.create_task(balancer.check())
    try:
        yield balancer
    finally:
        checking.cancel()
        server.close()
