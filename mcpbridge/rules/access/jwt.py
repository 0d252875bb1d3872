"""Checks a token of an authorization server, before and after its signature is verified.

A token is a signed text (JWS, compact form): a header, claims and a signature. Three things about
it are checked here; `http.auth` has the keys and verifies the signature itself.

1. Its form (`parsed_token`). A token is refused if two readers could understand it differently, or
if it asks us to fetch or trust a key that comes with it: the bridge chooses the key, from the keys
of the configured server, and accepts no algorithm with a shared secret.
2. Its claims (`granted`): issuer, audience, and period of validity.
3. Its scopes (`ScopeRules`).

`joserfc.jwt.decode` with a `JWTClaimsRegistry` was tried in place of the first two. With a JSON
decoder that refuses repeated members it still accepts 23 of the 130 broken tokens in
`tests/support/broken_tokens.py`: a header with `alg` twice, in UTF-16, with a type for another
purpose or with the address of a certificate; claims after a byte order mark, an `exp` of 400
digits. It reads the header before a caller can inspect it, raises RecursionError for claims nested
3000 deep, and refuses valid tokens with an unknown header member or a header over 512 bytes. So
every check here would stay; the library verifies the signature (`http.auth.jwk`).

The error texts reach the client as `error_description` and operators as a log line, so they contain
no part of the token.

Source: RFC 7515; RFC 7519; RFC 8725 (best practices); RFC 9068; MCP 2025-11-25, Authorization.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mcpbridge.errors import BadToken
from mcpbridge.rules.access.hosts import LOOPBACK_NAMES, is_cluster_name

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Algorithms that may be allowed: signatures by a private key that only the server has."""
LEEWAY_S = 60.0
"""Largest difference between the clocks of two well-kept machines."""
MAX_TOKEN_CHARACTERS = 16 << 10
"""Some servers list a user's groups in a token, which takes a few KiB."""
MAX_TEXT_CHARACTERS = 512
"""Limit for a subject, a client id or a key id; servers write some dozens."""

_TYPES = frozenset(("jwt", "at+jwt", "application/at+jwt"))
"""In lower case. Other types have other purposes: logout, DPoP proofs, security events."""
_FORBIDDEN = ("crit", "b64", "zip", "enc", "epk", "cty", "jku", "jwk", "x5u", "x5c")
"""Members that change how the rest is read, or that bring a key or the address of one."""
_SEGMENT = r"[A-Za-z0-9_-]+\Z"
_SCOPE = r"[\x21\x23-\x5b\x5d-\x7e]{1,128}\Z"
"""RFC 6749, 3.3, with a bound on the length."""


class ParsedToken(msgspec.Struct, frozen=True):
    """A token of valid form whose signature has not been verified yet."""

    algorithm: str
    key_id: str | None
    """Id of the key that the token claims to be signed with."""
    signed: bytes
    """The bytes that the signature covers."""
    signature: bytes
    payload: bytes
    """The claims; must not be read before the signature is verified."""


class Requirements(msgspec.Struct, frozen=True):
    """The issuer and audience that every token must have."""

    issuer: str
    audiences: frozenset[str]
    """The names of this resource; a token for any of them is accepted."""
    leeway_s: float = LEEWAY_S


class Claims(msgspec.Struct, frozen=True):
    """The content of a valid token."""

    subject: str
    client_id: str
    """Empty if the token has none."""
    scopes: frozenset[str]
    ends_at: float
    """Seconds since the epoch until which it is accepted: its own end plus the leeway."""


def parsed_token(token: str, algorithms: Sequence[str]) -> ParsedToken:
    """Split a token into its parts and check its header.

    Args:
        token: The text as it was sent.
        algorithms: The allowed ones of `ALGORITHMS`.

    Raises:
        BadToken: The token's form is invalid.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise BadToken(f"the token has more than {MAX_TOKEN_CHARACTERS} characters")
    segments = token.split(".")
    if len(segments) != 3:
        raise BadToken("the token is not a signed JWT of three parts")
    header = _object(_bytes(segments[0], "header"), "header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise BadToken("the token's algorithm is not allowed here")
    _check_header(header)
    return ParsedToken(
        algorithm,
        header.get("kid"),
        f"{segments[0]}.{segments[1]}".encode("ascii"),
        _bytes(segments[2], "signature"),
        _bytes(segments[1], "payload"),
    )


def granted(payload: bytes, demands: Requirements, now: float) -> Claims:
    """Check the claims of a token whose signature has been verified, and return them.

    Args:
        payload: The claims as JSON.
        demands: The values that they must have.
        now: Seconds since the epoch.

    Raises:
        BadToken: A claim is missing or has another value.
    """
    claims = _object(payload, "claims")
    if claims.get("iss") != demands.issuer:
        raise BadToken("the token is from another issuer")
    if demands.audiences.isdisjoint(_audiences(claims)):
        raise BadToken("the token is for another audience")
    ends_at = _times(claims, now, demands.leeway_s)
    if "cnf" in claims:
        # Such a token needs a proof that its sender holds the key (RFC 7800, 3.1). The bridge does
        # not check one, and accepting the token without it would undo the binding.
        raise BadToken("the token is bound to a key, and only bearer tokens are accepted here")
    client_id = _text(claims, "client_id") or _text(claims, "azp")
    subject = _text(claims, "sub")
    if not subject and not client_id:
        raise BadToken("the token names neither a subject nor a client")
    return Claims(subject, client_id, _scopes(claims), ends_at)


class ScopeRules(msgspec.Struct, frozen=True):
    """The scopes that a call needs."""

    always: tuple[str, ...] = ()
    """Scopes for every call."""
    methods: Mapping[str, tuple[str, ...]] = {}
    """Additional scopes for calls of these methods."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every scope that has a rule, each once."""
        found = [*self.always, *(scope for several in self.methods.values() for scope in several)]
        return tuple(dict.fromkeys(found))

    def needed(self, method: str) -> tuple[str, ...]:
        """Return all scopes that a call of this method needs.

        All at once, since a client that authorizes again asks for exactly these.

        Source: MCP 2026-07-28, Authorization, Runtime Insufficient Scope Errors.
        """
        return tuple(dict.fromkeys((*self.always, *self.methods.get(method, ()))))


def scope_name(text: str) -> str:
    """Return a scope as an operator writes it, or raise.

    Raises:
        ValueError: Not a scope; the text completes a sentence that begins with the value.
    """
    if re.match(_SCOPE, text) is None:
        raise ValueError(
            "is not a scope; write visible ASCII without blanks and quotes, like mcp:read"
        )
    return text


def fetchable(url: str) -> str:
    """Return a URL that keys may be fetched from, or raise.

    An attacker who can change the response can issue tokens. So the URL must use `https`, or a name
    that resolves to this machine, its pod or its cluster.

    Raises:
        ValueError: Not such a URL; the text completes a sentence that begins with the value.
    """
    try:
        parts = urlsplit(url)
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if (
        parts.scheme not in ("http", "https")
        or not name
        or not (url.isascii() and url.isprintable())
    ):
        raise ValueError("is not an http or https URL")
    if "@" in parts.netloc or parts.fragment or " " in url:
        raise ValueError("is not a plain URL: it contains a user, a fragment or a space")
    if parts.scheme == "http" and not (name in LOOPBACK_NAMES or is_cluster_name(name)):
        raise ValueError("is not https, and names neither this machine nor its cluster")
    return url


def bearer_challenge(
    metadata_url: str, scopes: Sequence[str], error: str = "", description: str = ""
) -> str:
    """Return the value of `WWW-Authenticate`.

    Args:
        metadata_url: URL at which a client finds the authorization server.
        scopes: The scopes to ask for there.
        error: `invalid_token` or `insufficient_scope`; empty if no token was sent.
        description: Text for people; no quotes, no backslashes.

    Source: RFC 6750, 3; RFC 9728, 5.1; MCP 2025-11-25, Authorization, Scope Challenge Handling.
    """
    said = {
        "error": error,
        "error_description": description,
        "scope": " ".join(scopes),
        "resource_metadata": metadata_url,
    }
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in said.items() if value)


def _bytes(segment: str, what: str) -> bytes:
    """Decode a segment; refuse any spelling that an encoder would not produce."""
    if re.match(_SEGMENT, segment) is None:
        raise BadToken(f"the token's {what} is not base64url text")
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise BadToken(f"the token's {what} is not base64url text") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode("ascii"):
        raise BadToken(f"the token's {what} is not base64url text")
    return data


def _object(data: bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object; refuse repeated members and numbers that are not JSON."""
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number
        )
    except (ValueError, RecursionError):  # includes invalid UTF-8 and numbers of too many digits
        raise BadToken(f"the token's {what} is not a plain JSON object") from None
    if not isinstance(found, dict):
        raise BadToken(f"the token's {what} is not a plain JSON object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _check_header(header: Mapping[str, Any]) -> None:
    if any(name in header for name in _FORBIDDEN):
        raise BadToken("the token's header has a member that is not supported here")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadToken("the token is not an access token: its type is neither JWT nor at+jwt")
    if "kid" in header:
        key_id = header["kid"]
        if not isinstance(key_id, str) or not key_id or not _is_plain(key_id):
            raise BadToken("the token's kid is not a key id")


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise BadToken("the token's aud is neither a text nor a list of texts")
    return listed


def _times(claims: Mapping[str, Any], now: float, leeway_s: float) -> float:
    """Return when the token ends; raise BadToken unless it is valid now."""
    ends = _time(claims, "exp")
    if ends is None:
        raise BadToken("the token has no end: exp is missing")
    if now >= ends + leeway_s:
        raise BadToken("the token has expired")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and now < begins - leeway_s:
            raise BadToken(f"the token is not valid yet: {name} is in the future")
    return ends + leeway_s


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    found = claims[name]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BadToken(f"the token's {name} is not a time")
    try:
        seconds = float(found)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise BadToken(f"the token's {name} is not a time")
    return seconds


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = claims.get(name, "")
    if not isinstance(found, str) or not _is_plain(found):
        raise BadToken(f"the token's {name} is not text of up to {MAX_TEXT_CHARACTERS} characters")
    return found


def _is_plain(text: str) -> bool:
    """Return whether a text can be hashed and logged: no surrogates or control characters."""
    return len(text) <= MAX_TEXT_CHARACTERS and text.isprintable()


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes: `scope` (RFC 8693, 4.2), or `scp` of some servers, perhaps a list."""
    found = claims.get("scope", claims.get("scp", ""))
    listed = found.split(" ") if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise BadToken("the token's scope is neither a text nor a list of texts")
    return frozenset(listed) - {""}
