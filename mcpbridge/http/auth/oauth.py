"""OAuth: the bridge as a resource server, which accepts tokens of one authorization server.

A client without a token learns where to get one: the 401 names a document of the bridge, which
names the authorization server (RFC 9728). Its token is then checked here, with the published keys
and without a request to the authorization server. Tokens are not passed on: calls carry a
`Principal`, and children see no header.

Source: MCP 2025-06-18 to 2026-07-28, Authorization; RFC 6750; RFC 9728; RFC 8707.
"""

from __future__ import annotations

import hashlib
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
from mcpbridge.settings import SettingsSection, setting

WELL_KNOWN = "/.well-known/oauth-protected-resource"
MAX_JUDGED = 1024
"""Most checked tokens that are remembered, about 1 KiB each; others are checked again."""
_GROUP = "OAuth"


def algorithm_list(text: str) -> str:
    """Check names of signature algorithms; return them separated by commas.

    Raises:
        ValueError: A name is unknown; the text completes a sentence that begins with the value.
    """
    names = text.replace(",", " ").split()
    if not names or not set(names) <= set(ALGORITHMS):
        raise ValueError(f"is not a list of {', '.join(ALGORITHMS)}")
    return ",".join(dict.fromkeys(names))


def method_scope(text: str) -> tuple[str, str]:
    """Split a text like `tools/call=mcp:tools` into method and scope.

    Raises:
        ValueError: The text is invalid; as for `algorithm_list`.
    """
    method, equals, scope = text.partition("=")
    if not equals:
        raise ValueError("is not of the form METHOD=SCOPE, like tools/call=mcp:tools")
    if method not in KNOWN_REQUESTS:
        raise ValueError("does not begin with a method of MCP")
    try:
        return method, scope_name(scope)
    except ValueError as error:
        raise ValueError(f"has a scope that {error}") from None


class OAuthSettings(SettingsSection, frozen=True):
    """Settings of which tokens are accepted, and for which calls."""

    issuer: str | None = setting(
        None,
        "--oauth-issuer",
        "Accept access tokens of this authorization server; exactly its `iss`. Needs the extra"
        " `oauth`.",
        group=_GROUP,
        metavar="URL",
    )
    audiences: tuple[str, ...] = setting(
        (),
        "--oauth-audience",
        "Accept tokens issued for this resource: the URL at which clients reach the MCP endpoint."
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
        f"Algorithms with which tokens may be signed, of {', '.join(ALGORITHMS)}.",
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
        "A further scope that calls of one method need (`tools/call=mcp:tools`); may be repeated.",
        group=_GROUP,
        metavar="METHOD=SCOPE",
        repeatable=True,
        parse=method_scope,
    )

    @property
    def rules(self) -> ScopeRules:
        """The scopes that each call needs, and those of single methods."""
        methods: dict[str, tuple[str, ...]] = {}
        for method, scope in self.method_scopes:
            methods[method] = (*methods.get(method, ()), scope)
        return ScopeRules(self.scopes, methods)


class Keys(Protocol):
    """A source of the keys that the authorization server publishes."""

    async def signer(self, token: ParsedToken, peer: str) -> bytes | None:
        """Return the thumbprint of the key that signed a token; None if none of them did.

        Args:
            token: A token of valid form.
            peer: The address that it came from.

        Raises:
            KeysUnavailable: Its signature may be valid, but the newest keys cannot be fetched now.
        """

    async def run(self) -> None:
        """Keep the keys up to date while they are used; runs as long as the process."""

    def holds(self, thumbprint: bytes) -> bool:
        """Return whether a key was published when the keys were fetched last."""

    @property
    def fresh(self) -> bool:
        """Whether the keys are recent enough; if not, call `signer`, which fetches them."""


class OAuth:
    """An `Authenticator` by the tokens of an authorization server."""

    def __init__(
        self,
        settings: OAuthSettings,
        keys: Keys,
        served_at: tuple[str, ...],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make an authenticator; it fetches nothing before a token comes.

        Args:
            settings: The settings, with an issuer and at least one audience, the first a URL.
            keys: Check signatures.
            served_at: The paths of the MCP endpoints, for which clients may look up metadata.
            now: Returns seconds since the epoch.
        """
        assert settings.issuer is not None
        self._issuer = settings.issuer
        self._keys = keys
        self._now = now
        self._judged: dict[bytes, Principal] = {}
        """Principals of valid tokens by hash, oldest first: a signature takes 0.05 to 0.2 ms."""
        self._algorithms = tuple(settings.algorithms.split(","))
        self._demands = Requirements(settings.issuer, frozenset(settings.audiences))
        self._rules = settings.rules
        resource = settings.audiences[0]
        self._metadata_url = metadata_url(resource)
        self.documents: Mapping[str, bytes] = _documents(
            resource, settings.issuer, self._rules, served_at
        )

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Return the principal that a token stands for, or the refusal."""
        token = bearer_token(head)
        if token is None:
            message = "a bearer token is needed in the Authorization header"
            return challenged(401, message, self._challenge(self._rules.always))
        # By hash, so that no valid token lies in memory after its request.
        shown = hashlib.sha256(token.encode("latin-1")).digest()
        known = self._judged.get(shown)
        # Keys that are not fresh may have been withdrawn: then the signature is checked again.
        if known is not None and self._keys.fresh and self.still(known):
            return known
        try:
            found = await self._judge(token, head.peer)
        except BadToken as bad:
            challenge = self._challenge(self._rules.always, "invalid_token", bad.problem)
            return challenged(401, bad.problem, challenge)
        except KeysUnavailable as missing:
            message = "tokens cannot be checked now: no keys from the authorization server"
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
        """Return whether its token has not expired and its signer is still published."""
        ends_at = principal.expires_at
        if ends_at is None or not self._keys.holds(principal.credential):
            return False
        return self._now() < ends_at

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """Return the refusal if its token lacks a scope that calls of a method need."""
        if method not in self._rules.methods:
            return None
        needed = self._rules.needed(method)
        return None if principal.scopes.issuperset(needed) else self._insufficient(needed)

    async def _judge(self, token: str, peer: str) -> Principal:
        """Return the principal behind a token; raise BadToken or KeysUnavailable."""
        found = parsed_token(token, self._algorithms)
        signer = await self._keys.signer(found, peer)
        if signer is None:
            raise BadToken("the token is not signed with a key that its issuer publishes")
        return self._principal(granted(found.payload, self._demands, self._now()), signer)

    def _remember(self, shown: bytes, principal: Principal) -> None:
        # Popped first, so that a token that is judged again counts as the newest.
        self._judged.pop(shown, None)
        if len(self._judged) >= MAX_JUDGED:
            del self._judged[next(iter(self._judged))]
        self._judged[shown] = principal

    def _principal(self, grant: Claims, signer: bytes) -> Principal:
        # With the client's id: two programs of one user must not see each other's sessions.
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
    """Return the URL of a resource's metadata: the resource's path follows the well-known one.

    Source: RFC 9728, 3.1.
    """
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"


def _documents(
    resource: str, issuer: str, rules: ScopeRules, served_at: tuple[str, ...]
) -> dict[str, bytes]:
    """Return the metadata by each path at which a client may look for them.

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
