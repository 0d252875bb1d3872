"""HTTP requests to one remote server, with the operator's headers and token.

A 401 asks for another token once, and a redirect is followed within one origin only: the
headers are secrets for that origin.
"""

from __future__ import annotations

import dataclasses
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx

from mcpbridge import __version__
from mcpbridge.client.http_client import LineTooLong, bounded_events, cause_of
from mcpbridge.errors import WireError
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.tokens import Tokens
from mcpbridge.wire.buffer import Gathered
from mcpbridge.wire.headers import EVENT_STREAM, JSON
from mcpbridge.wire.messages import Failure, decode

log = logging.getLogger("mcpbridge.reverse")

BOTH = f"{JSON}, {EVENT_STREAM}"
_WRITE_S = 30.0
_ERROR_BYTES = 1 << 16
_ERROR_S = 2.0
_MOST_REDIRECTS = 3
_REDIRECTS = (307, 308)
_IDLE_CONNECTIONS = 8
_GATEWAY = (502, 503, 504)


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """A remote server: its address, and what each request to it carries."""

    url: httpx.URL
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    token_file: Path | None
    connect_timeout_s: float
    max_response_bytes: int
    sse: bool = False
    """Whether it speaks only HTTP+SSE, the transport of 2024-11-05."""
    size_setting: str = "--max-response-bytes"
    """The setting behind `max_response_bytes`."""
    refused_hint: str = (
        "give a valid token: mcpbridge login URL, --token-file FILE, or --header 'Authorization: …'"
    )
    """What to do if the server answers 401."""

    @property
    def name(self) -> str:
        """The address for logs and errors; a query may hold a secret and is left out."""
        return str(self.url.copy_with(query=None, fragment=None))


class Event(NamedTuple):
    """One event of a stream: its data as bytes, its name, its id and the wait it asks for."""

    data: bytes
    name: str
    id: str
    retry_ms: int | None


def authorities_for(url: httpx.URL) -> ssl.SSLContext:
    """Return what verifies certificates; to read the system's authorities takes milliseconds."""
    # The proxies of the environment are for other hosts than this one; one of them may need TLS
    # even if the server does not.
    near = _is_loopback(url.host) and url.scheme == "http"
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if near else ssl.create_default_context()


def _nothing(problem: str) -> None:
    """Do nothing: no `noticed` was given."""


class RemoteHttp:
    """The connections to one remote server; works within `open`."""

    def __init__(
        self,
        remote: Remote,
        tokens: Tokens | None,
        authorities: ssl.SSLContext | None = None,
        noticed: Callable[[str], None] = _nothing,
    ) -> None:
        """Make it without a connection.

        Args:
            remote: The server.
            tokens: Bearer tokens for it; None: none is sent.
            authorities: Verifies certificates; None: `authorities_for` the server's address.
            noticed: Called at each response and each failed attempt to connect, with the reason why
                the server is away; the reason is empty if it is there.
        """
        self.remote = remote
        self._url = remote.url
        self._tokens = tokens
        self._noticed = noticed
        timeout = httpx.Timeout(None, connect=remote.connect_timeout_s, write=_WRITE_S)
        self._client = httpx.AsyncClient(
            timeout=timeout,
            trust_env=not _is_loopback(remote.url.host),
            verify=authorities or authorities_for(remote.url),
            limits=httpx.Limits(max_keepalive_connections=_IDLE_CONNECTIONS),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Close all connections at the end of the block."""
        async with self._client:
            yield

    @property
    def url(self) -> httpx.URL:
        """The address, after redirects within the origin."""
        return self._url

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        url: httpx.URL | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; yield the response with its head read and its body still to come.

        Raises:
            Unavailable: No connection, or it broke, also while the block reads the body.
        """
        async with AsyncExitStack() as stack:
            try:
                response = await self._answered(method, headers, body, url)
                stack.push_async_callback(response.aclose)
                self._noticed(absence_in(response))
                yield response
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                problem = cause_of(error) or "no connection in time (--connect-timeout)"
                self._noticed(problem)
                raise faults.unreachable(self.remote.name, problem) from error
            except (httpx.TransportError, httpx.StreamError) as error:
                raise faults.broken(self.remote.name, cause_of(error) or "no more data") from error

    async def _answered(
        self, method: str, headers: Mapping[str, str], body: bytes, url: httpx.URL | None
    ) -> httpx.Response:
        redirects, renews = 0, self._tokens
        while True:
            token = self._tokens.token if self._tokens is not None else None
            request = self._client.build_request(
                method, url or self._url, headers=self._fields(headers, token), content=body
            )
            response = await self._client.send(request, stream=True)
            if response.status_code == 401 and renews is not None:
                if await renews.renew(token):
                    renews = None
                    await response.aclose()
                    continue
                renews = None
            if response.status_code in _REDIRECTS and redirects < _MOST_REDIRECTS:
                redirects += 1
                place = await self._redirected(response)
                self._url, url = (self._url, place) if url is not None else (place, None)
                continue
            return response

    def _fields(self, headers: Mapping[str, str], token: str | None) -> dict[str, str]:
        fields = {
            "user-agent": f"mcpbridge/{__version__}",
            "accept-encoding": "identity",
            **self.remote.headers,
            **headers,
        }
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        return fields

    async def _redirected(self, response: httpx.Response) -> httpx.URL:
        await response.aclose()
        try:
            place = response.url.join(response.headers.get("location", ""))
        except httpx.InvalidURL as error:
            raise faults.malformed(self.remote.name, f"its redirect: {error}") from error
        if not same_origin(place, self.remote.url):
            hint = f"it redirects to {place.copy_with(query=None)}: use that address"
            raise faults.refused(self.remote.name, response.status_code, "", hint)
        return place

    async def events(self, response: httpx.Response) -> AsyncIterator[Event]:
        """Yield the events of a response; raise Unavailable if one is too large."""
        try:
            async for event in bounded_events(response, self.remote.max_response_bytes):
                data = event.data.encode("utf-8", "replace")
                yield Event(data, event.event, event.id, event.retry)
        except LineTooLong as error:
            raise faults.response_too_large(error.limit, self.remote.size_setting) from error

    async def whole(self, response: httpx.Response) -> bytes:
        """Return the body of a response; raise Unavailable if it is too large."""
        limit = self.remote.max_response_bytes
        body = Gathered()
        async for chunk in response.aiter_raw():
            body.add(chunk)
            if body.size > limit:
                raise faults.response_too_large(limit, self.remote.size_setting)
        return body.take()

    async def error_in(self, response: httpx.Response) -> tuple[bytes, Failure | None]:
        """Return the beginning of an HTTP error's body, and the JSON-RPC error that it is."""
        body = b""
        with anyio.move_on_after(_ERROR_S):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _ERROR_BYTES:
                    return body, None
        try:
            message = decode(body)
        except WireError:
            return body, None
        return body, message if isinstance(message, Failure) else None


def absence_in(response: httpx.Response) -> str:
    """Return why a server is away, by the answer of a gateway before it; else empty."""
    code = response.status_code
    return f"a gateway answers {code} {response.reason_phrase}" if code in _GATEWAY else ""


def media_type(response: httpx.Response) -> str:
    """Return the media type of a response, without parameters."""
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def is_exposed(remote: Remote) -> bool:
    """Return whether secrets for a server would cross the network in clear text."""
    has_secret = bool(remote.headers) or remote.token_file is not None
    return has_secret and remote.url.scheme == "http" and not _is_loopback(remote.url.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
