"""What a token of an authorization server must be, before and after its signature is checked.

A token is a signed text (JWS, compact form): a header, claims and a signature. Three things about
it are decided here; the signature itself is checked by somebody who has the keys.

1. Its form (`parsed_token`). Everything is refused that some reader could take in two ways, or that
   asks us to fetch or to trust what comes with the token: the key is chosen by us, from the keys
   of the configured server, and the algorithm must be in a list that knows no shared secrets.
2. Its claims (`granted`): who issued it, for whom, from when until when.
3. Whether it was issued for enough (`ScopeRules`).

`joserfc.jwt.decode` with a `JWTClaimsRegistry` was tried in place of the first two. Of the 130
broken tokens in `tests/support/broken_tokens.py` it takes 23, with a JSON decoder that refuses
members named twice: a header with `alg` twice, in UTF-16, with a type for something else or a
certificate's address; claims behind a byte order mark, an `exp` of 400 digits. It reads the header
before a caller can look at it, raises RecursionError at claims nested 3000 deep, and refuses good
tokens with a header member that it does not know or with a header over 512 bytes. So every check
here would stay; what the library does is the signature (`http.auth.jwk`).

Texts in here reach the client as `error_description` and people as a log line, so they hold
nothing of the token.

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
"""What may be allowed: signatures by a private key that only the server has."""
LEEWAY_S = 60.0
"""How far the clocks of two well kept machines may be apart."""
MAX_TOKEN_CHARACTERS = 16 << 10
"""Some servers list a user's groups in a token, which makes a few KiB."""
MAX_TEXT_CHARACTERS = 512
"""Of a subject, a client's id or a key's name; servers write some dozens."""

_TYPES = frozenset(("jwt", "at+jwt", "application/at+jwt"))
"""In lower case. Others mark tokens for something else: logout, DPoP proofs, security events."""
_FORBIDDEN = ("crit", "b64", "zip", "enc", "epk", "cty", "jku", "jwk", "x5u", "x5c")
"""What changes how the rest is to be read, or brings a key or the address of one."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+\Z")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}\Z")
"""RFC 6749, 3.3; bounded."""


class ParsedToken(msgspec.Struct, frozen=True):
    """A token of good form whose signature nobody has checked yet."""

    algorithm: str
    key_id: str | None
    """Which key is said to have signed it."""
    signed: bytes
    """What the signature is over."""
    signature: bytes
    payload: bytes
    """The claims; not to be read before the signature is checked."""


class Requirements(msgspec.Struct, frozen=True):
    """What every token must have been issued by and for."""

    issuer: str
    audiences: frozenset[str]
    """The names of this resource; a token for one of them is for us."""
    leeway_s: float = LEEWAY_S


class Claims(msgspec.Struct, frozen=True):
    """What a good token says."""

    subject: str
    client_id: str
    """Empty where it does not say."""
    scopes: frozenset[str]
    ends_at: float
    """Until when we take it, in seconds since the epoch: its own end and the leeway."""


def parsed_token(token: str, algorithms: Sequence[str]) -> ParsedToken:
    """The parts of a token.

    Args:
        token: As it was sent.
        algorithms: Which ones it may be signed with, of `ALGORITHMS`.

    Raises:
        BadToken: It is none that may be looked at further.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise BadToken(f"the token has more than {MAX_TOKEN_CHARACTERS} characters")
    segments = token.split(".")
    if len(segments) != 3:
        raise BadToken("the token is no signed JWT of three parts")
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
    """What the claims of a token say, its signature having been checked.

    Args:
        payload: The claims.
        demands: What they must say.
        now: Seconds since the epoch.

    Raises:
        BadToken: They say something else.
    """
    claims = _object(payload, "claims")
    if claims.get("iss") != demands.issuer:
        raise BadToken("the token is from another issuer")
    if demands.audiences.isdisjoint(_audiences(claims)):
        raise BadToken("the token is for another audience")
    ends_at = _times(claims, now, demands.leeway_s)
    if "cnf" in claims:
        # It is worth nothing without a proof that its sender holds a key; we check none, and to
        # take it from anybody would undo what it was bound for (RFC 7800, 3.1).
        raise BadToken("the token is bound to a key, and only bearer tokens are taken here")
    client_id = _text(claims, "client_id") or _text(claims, "azp")
    subject = _text(claims, "sub")
    if not subject and not client_id:
        raise BadToken("the token names neither a subject nor a client")
    return Claims(subject, client_id, _scopes(claims), ends_at)


class ScopeRules(msgspec.Struct, frozen=True):
    """Which scopes a call needs."""

    always: tuple[str, ...] = ()
    """Every call."""
    methods: Mapping[str, tuple[str, ...]] = {}
    """Calls of these methods, besides."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every scope there is a rule for, each once."""
        found = [*self.always, *(scope for several in self.methods.values() for scope in several)]
        return tuple(dict.fromkeys(found))

    def needed(self, method: str) -> tuple[str, ...]:
        """All that a call of this method needs: a client that logs in anew asks for them at once.

        Source: MCP 2026-07-28, Authorization, Runtime Insufficient Scope Errors.
        """
        return tuple(dict.fromkeys((*self.always, *self.methods.get(method, ()))))


def scope_name(text: str) -> str:
    """A scope as an operator writes it.

    Raises:
        ValueError: It cannot be one; the text completes a sentence that begins with the value.
    """
    if _SCOPE.match(text) is None:
        raise ValueError(
            "is no scope; write visible ASCII without blanks and quotes, like mcp:read"
        )
    return text


def fetchable(url: str) -> str:
    """An address that keys may be fetched from.

    Whoever can change what is fetched can issue tokens. So it is `https`, or a name that leads no
    further than this machine, its pod or its cluster.

    Raises:
        ValueError: They may not; the text completes a sentence that begins with the value.
    """
    try:
        parts = urlsplit(url)
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if (
        parts.scheme not in ("http", "https")
        or not name
        or not (url.isascii() and url.isprintable())
    ):
        raise ValueError("is no URL of http or https")
    if "@" in parts.netloc or parts.fragment or " " in url:
        raise ValueError("is no plain URL: it holds a user, a fragment or a blank")
    if parts.scheme == "http" and not (name in LOOPBACK_NAMES or is_cluster_name(name)):
        raise ValueError("is not https, and names neither this machine nor its cluster")
    return url


def bearer_challenge(
    metadata_url: str, scopes: Sequence[str], error: str = "", description: str = ""
) -> str:
    """The value of `WWW-Authenticate`.

    Args:
        metadata_url: Where a client learns which authorization server to go to.
        scopes: What it should ask for there.
        error: `invalid_token` or `insufficient_scope`; empty where no token was sent.
        description: For people; no quotes, no backslashes.

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
    """A segment's bytes; what is not exactly what an encoder makes has two readings."""
    if _SEGMENT.match(segment) is None:
        raise BadToken(f"the token's {what} is no base64url text")
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise BadToken(f"the token's {what} is no base64url text") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode("ascii"):
        raise BadToken(f"the token's {what} is no base64url text")
    return data


def _object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object that names nothing twice, and holds numbers that JSON has."""
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number
        )
    except (ValueError, RecursionError):  # broken UTF-8 and numbers of endless digits as well
        raise BadToken(f"the token's {what} is no plain JSON object") from None
    if not isinstance(found, dict):
        raise BadToken(f"the token's {what} is no plain JSON object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check_header(header: Mapping[str, Any]) -> None:
    if any(name in header for name in _FORBIDDEN):
        raise BadToken("the token's header has a member that is not served here")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadToken("the token is no access token: its type is neither JWT nor at+jwt")
    if "kid" in header:
        key_id = header["kid"]
        if not isinstance(key_id, str) or not key_id or not _is_plain(key_id):
            raise BadToken("the token's kid is no name of a key")


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise BadToken("the token's aud is no text and no list of texts")
    return listed


def _times(claims: Mapping[str, Any], now: float, leeway_s: float) -> float:
    """When the token ends; checks that it has begun and has not ended."""
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
        raise BadToken(f"the token's {name} is no time")
    try:
        seconds = float(found)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise BadToken(f"the token's {name} is no time")
    return seconds


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = claims.get(name, "")
    if not isinstance(found, str) or not _is_plain(found):
        raise BadToken(f"the token's {name} is no text of up to {MAX_TEXT_CHARACTERS} characters")
    return found


def _is_plain(text: str) -> bool:
    """Whether it can be hashed and logged: no halves of characters, no control characters."""
    return len(text) <= MAX_TEXT_CHARACTERS and text.isprintable()


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """What it was issued for: `scope` (RFC 8693, 4.2), or `scp` of some servers, maybe a list."""
    found = claims.get("scope", claims.get("scp", ""))
    listed = found.split(" ") if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise BadToken("the token's scope is no text and no list of texts")
    return frozenset(listed) - {""}
