"""The HTTP server behind the proxy; requests and responses pass byte for byte.

Nothing is decoded, redirected, retried or cached: a proxy that repeats a request may run a tool
twice. A stream may last without limit, so only connecting has a time limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import httpx
import msgspec

Headers = Iterable[tuple[bytes, bytes]]

CONNECT_S = 5.0
_IDLE_S = 30.0
"""Seconds; less than servers keep idle connections, so that none is closed while being reused."""
_IDLE_CONNECTIONS = 64


class UpstreamUnreachable(Exception):
    """A server that does not accept connections."""


class UpstreamBroken(Exception):
    """A connection that ended before the response did."""


class UpstreamAnswer(msgspec.Struct, frozen=True):
    """A response whose body is still to come."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: AsyncIterator[bytes]
    """The body as it arrives, not decoded; raises UpstreamBroken if it ends early."""


class Upstream:
    """The server at one address; works within `open`."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._client: httpx.AsyncClient

    @property
    def url(self) -> str:
        """The server's URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Pool connections until the block ends."""
        limits = httpx.Limits(
            max_connections=None,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_S,
        )
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        # Proxies and certificates of the environment do not apply to the pod's own server.
        async with httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as client:
            self._client = client
            yield

    async def reachable(self, within_s: float = 1.0) -> bool:
        """Return whether the server accepts a connection; send nothing, so that nothing starts."""
        try:
            with anyio.fail_after(within_s):
                await (await anyio.connect_tcp(self.host, self.port)).aclose()
        except OSError:
            return False
        return True

    @asynccontextmanager
    async def asked(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> AsyncIterator[UpstreamAnswer]:
        """Send a request and yield the response; its body can be read within the block.

        Args:
            method: The HTTP method.
            target: Path and query, unchanged.
            headers: All headers except Host.
            body: The body; None if there is none.

        Raises:
            UpstreamUnreachable: No connection could be made.
            UpstreamBroken: The connection ended before the head of the response.
        """
        request = httpx.Request(method, self.url, headers=list(headers), content=body)
        request.url = request.url.copy_with(raw_path=target)
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UpstreamUnreachable(str(error)) from error
        except httpx.TransportError as error:
            raise UpstreamBroken(str(error)) from error
        try:
            yield UpstreamAnswer(
                response.status_code, tuple(response.headers.raw), _pieces(response)
            )
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.TransportError as error:
        raise UpstreamBroken(str(error)) from error
