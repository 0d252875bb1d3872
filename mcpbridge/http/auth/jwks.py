"""The keys of one authorization server: fetched when needed, cached, and fetched again.

A server rotates its keys: it signs with a new one first, and withdraws the old one later. A token
that none of the cached keys signed may mean a new key and causes one fetch. A withdrawn key is
noticed at the next regular fetch, which is made while clients use tokens, with new requests or on
open streams. A client can send tokens that no key signed, so fetches are limited to
`FETCHES_PER_MINUTE`, and all requests that wait share one. One address causes at most
`FETCHES_PER_PEER` of them, so that it cannot use up those of others. A token whose key may be new,
but cannot be looked for now, is not refused as invalid.

If the server cannot be reached, its cached keys stay valid for `MAX_STALE_S`. After that tokens
cannot be checked, which is not the client's fault: it is told to come back, not to log in again.

Only the configured address is fetched, and the address that its own metadata name; never one that a
token names.

Source: RFC 7517, 5; RFC 8414, 3; OpenID Connect Discovery 1.0, 4.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin, urlsplit

import anyio
import httpx
import msgspec

from mcpbridge.errors import KeysUnavailable
from mcpbridge.http.auth.jwk import PublicKey, public_keys
from mcpbridge.rules.access.jwt import ParsedToken, fetchable

log = logging.getLogger("mcpbridge.remote")

FETCHES_PER_MINUTE = 5
FETCHES_PER_PEER = 2
"""Most fetches in a minute for tokens of unknown keys from one address."""
REFRESH_S = 15 * 60.0
"""Seconds between regular fetches, for which a withdrawn key may still be accepted."""
MAX_STALE_S = 24 * 3600.0
MAX_DOCUMENT_BYTES = 256 << 10
"""Enough for 64 keys with their certificates."""
FETCH_S = 5.0
"""Seconds for a whole fetch, its redirects and the server's metadata included."""
_AFTER_FAILURE_S = 60.0
"""Seconds between regular fetches that fail; requests wait for each."""
_MAX_REDIRECTS = 3
_MAX_TRIED = 8
"""Most keys that a token without a `kid` is tried with."""

Read = Callable[[], Awaitable[bytes]]
"""Returns the text of a key set; raises UnreadableDocument."""


class UnreadableDocument(Exception):
    """A document could not be fetched or is invalid; `problem` says why."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url = url
        self.problem = problem


class RemoteKeys:
    """A cache of the published keys; any number of requests may use it at once."""

    def __init__(self, read: Read, now: Callable[[], float] = anyio.current_time) -> None:
        """Make an empty cache.

        Args:
            read: Fetches the key set.
            now: Returns monotonic seconds.
        """
        self._read = read
        self._now = now
        self._keys: list[PublicKey] = []
        self._known: frozenset[bytes] = frozenset()
        self._stale_at = -math.inf
        """When the keys that were fetched last are too old to be used."""
        self._due_at = -math.inf
        self._tries: deque[tuple[float, str]] = deque(maxlen=FETCHES_PER_MINUTE)
        """When the latest fetches began, and the peer that caused each; empty if it was regular."""
        self._due = anyio.Event()
        """Set if keys are in use that are due for a regular fetch."""
        self._flight: anyio.Event | None = None
        self._failure: UnreadableDocument | None = UnreadableDocument(
            "", "nothing has been fetched yet"
        )
        self._outcomes = 0
        """Number of fetches that have ended, well or not."""

    def holds(self, thumbprint: bytes) -> bool:
        """Return whether a key was published when the keys were fetched last.

        If a regular fetch is due, `run` makes it now: calls on the fast path and open streams call
        only this method.
        """
        if thumbprint not in self._known:
            return False
        # The keys serve on while they are fetched again: callers of this method cannot wait.
        if not self.fresh:
            self._due.set()
        return self._now() < self._stale_at

    @property
    def fresh(self) -> bool:
        """Whether no regular fetch is due."""
        return self._now() < min(self._due_at, self._stale_at)

    async def run(self) -> None:
        """Make the regular fetches that no request waits for; runs as long as the process."""
        while True:
            await self._due.wait()
            self._due = anyio.Event()
            if not self.fresh:
                await self._fetch("")

    async def signer(self, token: ParsedToken, peer: str) -> bytes | None:
        """Return the thumbprint of the key that signed a token; None if none of them did.

        Args:
            token: A token of valid form.
            peer: The address that it came from; a fetch counts toward this peer's limit.

        Raises:
            KeysUnavailable: Its signature may be valid, but the newest keys cannot be fetched now.
        """
        due = not self.fresh
        # One fetch for a request: after a regular one the keys are the newest, and no other is
        # made.
        fetched = await self._fetch("") if due else False
        found = self._signed_by_known(token)
        if found is None and not due:
            # Even if its `kid` is known: some servers change the key behind it, or give none.
            fetched = await self._fetch(peer)
            found = self._signed_by_known(token)
            if found is not None and fetched:
                # There was a new key: the fetch does not count toward this peer's limit.
                tries = [(began, "" if whose == peer else whose) for began, whose in self._tries]
                self._tries = deque(tries, FETCHES_PER_MINUTE)
        self._check_relied_on(found)
        if found is None and not fetched and not self._knows_name(token):
            problem = "too many tokens by unknown keys came within a minute"
            raise KeysUnavailable("", problem, max(1.0, self._until_next_try_s(peer)))
        return found

    def _knows_name(self, token: ParsedToken) -> bool:
        return token.key_id is not None and any(key.key_id == token.key_id for key in self._keys)

    def _signed_by_known(self, token: ParsedToken) -> bytes | None:
        fitting = (
            key
            for key in self._keys
            if token.algorithm in key.algorithms and token.key_id in (None, key.key_id)
        )
        tried = itertools.islice(fitting, _MAX_TRIED)
        return next((key.thumbprint for key in tried if key.verifies(token)), None)

    def _check_relied_on(self, found: bytes | None) -> None:
        """Raise if the last fetch failed and the token has no key, or the keys are too old."""
        failure = self._failure
        if failure is not None and (found is None or self._now() >= self._stale_at):
            wait_s = max(1.0, self._until_next_try_s(""))
            raise KeysUnavailable(failure.url, failure.problem, wait_s)

    def _until_next_try_s(self, peer: str) -> float:
        """Return the seconds until a fetch may be made for a peer; 0 or less: now."""
        waits = [self._tries[0][0]] if len(self._tries) == FETCHES_PER_MINUTE else []
        own = [began for began, whose in self._tries if peer and whose == peer]
        waits += own[-FETCHES_PER_PEER:][:1] if len(own) >= FETCHES_PER_PEER else []
        return max(waits, default=-math.inf) + 60.0 - self._now()

    async def _fetch(self, peer: str) -> bool:
        """Fetch, or wait for a fetch that is under way.

        Args:
            peer: The address whose token caused it; empty if it is a regular one.

        Returns:
            Whether a fetch has ended; False if the limit on fetches allowed none.
        """
        outcomes = self._outcomes
        while self._flight is not None:
            await self._flight.wait()
            if self._outcomes != outcomes:
                return True
        # After the wait above: the fetch that has ended counts toward the limit.
        if self._until_next_try_s(peer) > 0:
            return False
        now = self._now()
        self._tries.append((now, peer))
        self._flight = flight = anyio.Event()
        try:
            await self._take(now)
        finally:
            # Even if this request is cancelled: one of those that wait fetches instead.
            self._flight = None
            flight.set()
        return True

    async def _take(self, now: float) -> None:
        try:
            document = await self._read()
        except UnreadableDocument as failure:
            self._outcomes += 1
            self._failure = failure
            self._due_at = now + _AFTER_FAILURE_S
            log.warning(
                "oauth.keys_unavailable",
                extra={"url": failure.url, "problem": failure.problem, "kept": len(self._keys)},
            )
            return
        self._outcomes += 1
        # Nothing waits from here on: no request sees new keys under old times.
        self._keys = public_keys(document)
        known = frozenset(key.thumbprint for key in self._keys)
        if known != self._known or self._failure is not None:
            log.info("oauth.keys_fetched", extra={"keys": len(self._keys)})
        self._known, self._failure = known, None
        self._due_at, self._stale_at = now + REFRESH_S, now + MAX_STALE_S


class KeyServer:
    """A reader of an issuer's key set, at a configured address or by the issuer's metadata."""

    def __init__(self, issuer: str, jwks_url: str | None, within_s: float = FETCH_S) -> None:
        self._issuer = issuer
        self._within_s = within_s
        self._configured = jwks_url
        self._discovered: str | None = None

    async def read(self) -> bytes:
        """Fetch the text of the key set, which has at least one usable key.

        Raises:
            UnreadableDocument: It cannot be fetched or is invalid.
        """
        url = self._configured or self._discovered or self._issuer
        try:
            with anyio.fail_after(self._within_s):
                # httpx takes proxies and certificates from the environment: the server may be far.
                async with httpx.AsyncClient(timeout=self._within_s) as client:
                    return await self._read(client)
        # The issuer may have moved its keys: the next fetch asks its metadata again.
        except TimeoutError:
            self._discovered = None
            raise UnreadableDocument(url, f"no answer within {self._within_s:g} s") from None
        except UnreadableDocument:
            self._discovered = None
            raise

    async def _read(self, client: httpx.AsyncClient) -> bytes:
        url = self._configured or self._discovered
        if url is None:
            url = self._discovered = await self._discover(client)
        document = await _fetched(client, url)
        try:
            keys = public_keys(document)
        except ValueError as error:
            raise UnreadableDocument(url, str(error)) from None
        if not keys:
            raise UnreadableDocument(url, "no key in it can check a signature")
        return document

    async def _discover(self, client: httpx.AsyncClient) -> str:
        """Return the address of the keys that the issuer's metadata name."""
        failure = UnreadableDocument(self._issuer, "it has no metadata")
        for url in descriptions_of(self._issuer):
            try:
                return _described(await _fetched(client, url), url, self._issuer)
            except UnreadableDocument as error:
                failure = error
        raise failure


def descriptions_of(issuer: str) -> tuple[str, ...]:
    """Return the URLs at which an issuer may have its metadata, in the order to try.

    Source: RFC 8414, 3.1 and 5; OpenID Connect Discovery 1.0, 4.1; MCP 2025-11-25, Authorization
    Server Metadata Discovery.
    """
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    found = [f"{origin}/.well-known/{name}{path}" for name in _DESCRIPTIONS]
    if path:
        found.append(f"{origin}{path}/.well-known/openid-configuration")
    return tuple(found)


_DESCRIPTIONS = ("oauth-authorization-server", "openid-configuration")


def _described(document: bytes, url: str, issuer: str) -> str:
    try:
        found = msgspec.json.decode(document)
    except (ValueError, RecursionError):
        raise UnreadableDocument(url, "it is not JSON") from None
    if not isinstance(found, dict) or found.get("issuer") != issuer:
        # Else a writer of this document could speak for another issuer (RFC 8414, 3.3).
        raise UnreadableDocument(url, "its issuer is not exactly --oauth-issuer")
    try:
        return fetchable(str(found.get("jwks_uri", "")))
    except ValueError as error:
        raise UnreadableDocument(url, f"its jwks_uri {error}") from None


async def _fetched(client: httpx.AsyncClient, url: str) -> bytes:
    """Return the body of the response to a GET; follow redirects within the same origin."""
    for _ in range(_MAX_REDIRECTS + 1):
        try:
            async with client.stream("GET", url, headers=_ACCEPT) as response:
                if not response.is_redirect:
                    return await _body(response, url)
                target = urljoin(url, response.headers.get("location", ""))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreadableDocument(url, str(error) or type(error).__name__) from error
        if _origin(target) != _origin(url):
            raise UnreadableDocument(
                url, "it redirects to another origin; configure --oauth-jwks-url"
            )
        url = target
    raise UnreadableDocument(url, f"it redirects more than {_MAX_REDIRECTS} times")


# Identity, since a compressed body could unpack to any size.
_ACCEPT = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity"}


async def _body(response: httpx.Response, url: str) -> bytes:
    if response.status_code != 200:
        raise UnreadableDocument(url, f"it answers {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnreadableDocument(url, "it encodes its answer, although asked not to")
    pieces = bytearray()
    async for piece in response.aiter_raw():
        pieces += piece
        if len(pieces) > MAX_DOCUMENT_BYTES:
            raise UnreadableDocument(url, f"it answers with more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(pieces)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()
