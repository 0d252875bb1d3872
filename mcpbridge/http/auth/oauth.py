"""OAuth: the bridge as a resource server, which takes the tokens of one authorization server.

A client that comes without a token is told where to get one: its 401 names a document of ours,
and that the authorization server (RFC 9728). The token it comes back with is judged here, by the
server's published keys and without asking the server. Nothing of it goes further: calls carry a
`Principal`, and children see no header at all.

Source: MCP 2025-06-18 to 2026-07-28, Authorization; RFC 6750; RFC 9728; RFC 8707.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from mcpbridge.errors import BadToken, KeysUnavailable
from mcpbridge.http.auth.authenticator import Challenge, bearer_token, challenged
from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.jwt import (
    ALGORITHMS,
    Claims,
    ParsedToken,
    Requirements,
    ScopeRules,
    bearer_challenge,
    fetchable,
    granted,
    parsed_token,
    scope_name,
)
from mcpbridge.rules.access.principals import Principal, key_of
from mcpbridge.rules.faults import INTERNAL_ERROR, error_object
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from mcpbridge.settings import setting

log = logging.getLogger("mcpbridge.http")

WELL_KNOWN = "/.well-known/oauth-protected-resource"
MAX_JUDGED = 1024
"""Tokens that are known to be good, about 1 KiB each; the others are judged again."""
_GROUP = "OAuth"


def algorithm_list(text: str) -> str:
    """Names of signature algorithms, separated by commas.

    Raises:
        ValueError: One is unknown; the text completes a sentence that begins with the value.
    """
    names = text.replace(",", " ").split()
    if not names or not set(names) <= set(ALGORITHMS):
        raise ValueError(f"is no list of {', '.join(ALGORITHMS)}")
    return ",".join(dict.fromkeys(names))


def method_scope(text: str) -> tuple[str, str]:
    """`tools/call=mcp:tools` as method and scope.

    Raises:
        ValueError: It is none; as for `algorithm_list`.
    """
    method, equals, scope = text.partition("=")
    if not equals:
        raise ValueError("is not of the form METHOD=SCOPE, like tools/call=mcp:tools")
    if method not in KNOWN_REQUESTS:
        raise ValueError("begins with no method of MCP")
    try:
        return method, scope_name(scope)
    except ValueError as error:
        raise ValueError(f"ends with what {error}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class OAuthSettings:
    """Whose tokens are taken, and for what."""

    issuer: str | None = setting(
        None,
        "--oauth-issuer",
        "Take access tokens of this authorization server; exactly its `iss`. Needs the extra"
        " `mcpbridge[oauth]`.",
        group=_GROUP,
        metavar="URL",
    )
    audiences: tuple[str, ...] = setting(
        (),
        "--oauth-audience",
        "Take tokens issued for this resource: the URL at which clients reach the MCP endpoint."
        " May be repeated for further values of `aud`.",
        group=_GROUP,
        metavar="URL",
        repeatable=True,
    )
    jwks_url: str | None = setting(
        None,
        "--oauth-jwks-url",
        "Where the authorization server publishes its keys; found in its metadata by default.",
        group=_GROUP,
        metavar="URL",
        parse=fetchable,
    )
    algorithms: str = setting(
        "RS256,PS256,ES256,EdDSA,Ed25519",
        "--oauth-algorithms",
        f"How tokens may be signed, of {', '.join(ALGORITHMS)}.",
        group=_GROUP,
        metavar="NAMES",
        parse=algorithm_list,
    )
    scopes: tuple[str, ...] = setting(
        (),
        "--oauth-scope",
        "A scope that every call needs; may be repeated.",
        group=_GROUP,
        metavar="SCOPE",
        repeatable=True,
        parse=scope_name,
    )
    method_scopes: tuple[tuple[str, str], ...] = setting(
        (),
        "--oauth-method-scope",
        "A scope that calls of one method need besides (`tools/call=mcp:tools`); may be repeated.",
        group=_GROUP,
        metavar="METHOD=SCOPE",
        repeatable=True,
        parse=method_scope,
    )

    @property
    def rules(self) -> ScopeRules:
        """Which scopes a call needs."""
        methods: dict[str, tuple[str, ...]] = {}
        for method, scope in self.method_scopes:
            methods[method] = (*methods.get(method, ()), scope)
        return ScopeRules(self.scopes, methods)


class Keys(Protocol):
    """The keys of the authorization server, as they are at present."""

    async def signer(self, token: ParsedToken, peer: str) -> bytes | None:
        """Return the name of the key that signed a token; None if none of them did.

        Args:
            token: Its form is good.
            peer: The address that it came from.

        Raises:
            KeysUnavailable: It may be signed well, and the keys that would say cannot be had now.
        """

    async def run(self) -> None:
        """Keep them up to date while they are used; runs as long as the process."""

    def holds(self, thumbprint: bytes) -> bool:
        """Whether a key is still one of them."""

    @property
    def fresh(self) -> bool:
        """Whether it is known well enough which ones there are; else it is time to ask `signer`."""


class OAuth:
    """An `Authenticator` by the tokens of an authorization server."""

    def __init__(
        self,
        settings: OAuthSettings,
        keys: Keys,
        served_at: tuple[str, ...],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is asked of the authorization server before a token comes.

        Args:
            settings: With an issuer and at least one audience, the first of them a URL.
            keys: What checks signatures.
            served_at: The paths at which clients may believe the endpoint to be.
            now: Seconds since the epoch.
        """
        assert settings.issuer is not None
        self._issuer = settings.issuer
        self._keys = keys
        self._now = now
        self._judged: dict[bytes, Principal] = {}
        """Good tokens by their hashes, the oldest first: a signature takes 0.05 to 0.2 ms."""
        self._algorithms = tuple(settings.algorithms.split(","))
        self._demands = Requirements(settings.issuer, frozenset(settings.audiences))
        self._rules = settings.rules
        resource = settings.audiences[0]
        self._metadata_url = metadata_url(resource)
        self.documents: Mapping[str, bytes] = _documents(
            resource, settings.issuer, self._rules, served_at
        )

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """The principal that a token stands for, or why there is none."""
        token = bearer_token(head)
        if token is None:
            message = "a bearer token is needed in the Authorization header"
            return challenged(401, message, self._challenge(self._rules.always))
        shown = hashlib.sha256(token.encode("latin-1")).digest()
        known = self._judged.get(shown)
        if known is not None and self._keys.fresh and self.still(known):
            return known
        try:
            found = await self._judge(token, head.peer)
        except BadToken as bad:
            log.debug("oauth.refused", extra={"problem": bad.problem})
            challenge = self._challenge(self._rules.always, "invalid_token", bad.problem)
            return challenged(401, bad.problem, challenge)
        except KeysUnavailable as missing:
            message = "tokens cannot be judged now: the authorization server's keys cannot be had"
            error = error_object(INTERNAL_ERROR, message)
            return Refusal(503, error, retry_after_s=math.ceil(missing.retry_after_s))
        if not found.scopes.issuperset(self._rules.always):
            return self._insufficient(self._rules.always)
        self._remember(shown, found)
        return found

    async def run(self) -> None:
        """Keep the keys up to date: see `Keys.run`."""
        await self._keys.run()

    def still(self, principal: Principal) -> bool:
        """Whether its token has not ended, and the key that signed it is still published."""
        ends_at = principal.expires_at
        if ends_at is None or not self._keys.holds(principal.credential):
            return False
        return self._now() < ends_at

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """None where its token has the scopes that calls of a method need."""
        if method not in self._rules.methods:
            return None
        needed = self._rules.needed(method)
        return None if principal.scopes.issuperset(needed) else self._insufficient(needed)

    async def _judge(self, token: str, peer: str) -> Principal:
        """The principal behind a token; raises BadToken, or KeysUnavailable."""
        found = parsed_token(token, self._algorithms)
        signer = await self._keys.signer(found, peer)
        if signer is None:
            raise BadToken("the token is signed by no key that its issuer publishes")
        return self._principal(granted(found.payload, self._demands, self._now()), signer)

    def _remember(self, shown: bytes, principal: Principal) -> None:
        self._judged.pop(shown, None)
        if len(self._judged) >= MAX_JUDGED:
            del self._judged[next(iter(self._judged))]
        self._judged[shown] = principal

    def _principal(self, grant: Claims, signer: bytes) -> Principal:
        # One user may use two programs, of which one must not see the sessions of the other.
        return Principal(
            key_of("oauth", self._issuer, grant.subject, grant.client_id),
            "/".join(part for part in (grant.subject, grant.client_id) if part),
            grant.scopes,
            grant.ends_at,
            signer,
        )

    def _insufficient(self, needed: tuple[str, ...]) -> Challenge:
        message = f"the token lacks a scope: {' '.join(needed)} needed"
        return challenged(403, message, self._challenge(needed, "insufficient_scope", message))

    def _challenge(self, scopes: tuple[str, ...], error: str = "", description: str = "") -> str:
        return bearer_challenge(self._metadata_url, scopes, error, description)


def metadata_url(resource: str) -> str:
    """Where the metadata of a resource are: its path follows the well-known one.

    Source: RFC 9728, 3.1.
    """
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"


def _documents(
    resource: str, issuer: str, rules: ScopeRules, served_at: tuple[str, ...]
) -> dict[str, bytes]:
    """The metadata, under every path that a client may look at.

    Source: RFC 9728, 2 and 3; MCP 2025-11-25, Authorization, Protected Resource Metadata Discovery.
    """
    text = msgspec.json.encode(
        {
            "resource": resource,
            "authorization_servers": [issuer],
            **({"scopes_supported": rules.all} if rules.all else {}),
            "bearer_methods_supported": ["header"],
        }
    )
    paths = {path.rstrip("/") for path in ("", urlsplit(resource).path, *served_at)}
    return {WELL_KNOWN + path: text for path in paths}
