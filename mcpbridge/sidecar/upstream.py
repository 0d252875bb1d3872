"""One HTTP server that requests are passed on to, byte for byte, in both directions.

Nothing is decoded, followed, retried or kept: a proxy that repeats a request may have a tool run
twice. A stream may last for ever, so only the connection has a time limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import httpx

Headers = Iterable[tuple[bytes, bytes]]

CONNECT_S = 5.0
_IDLE_S = 30.0
"""Shorter than servers keep idle connections, so that none is closed just when it is used."""
_IDLE_CONNECTIONS = 64


class UpstreamUnreachable(Exception):
    """Nobody accepts connections there."""


class UpstreamBroken(Exception):
    """The connection ended before the answer did."""


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A response whose body is still to come."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: AsyncIterator[bytes]
    """As it arrives, not decoded; raises Broken where it ends early."""


class Upstream:
    """The server at one address; alive within `open`."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._client: httpx.AsyncClient

    @property
    def url(self) -> str:
        """Without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep connections until the block ends."""
        limits = httpx.Limits(
            max_connections=None,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_S,
        )
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        # Proxies and certificates of the environment are for others: this is the pod's own server.
        async with httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as client:
            self._client = client
            yield

    async def reachable(self, within_s: float = 1.0) -> bool:
        """Whether it accepts a connection; nothing is said on it, so that nothing is started."""
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
        """The answer to a request; its body may be read while the block lasts.

        Args:
            method: Of HTTP.
            target: Path and query, as they came.
            headers: All there are, but Host.
            body: None for none.

        Raises:
            Unreachable: There is no connection.
            Broken: The connection ended before the head of the answer.
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
