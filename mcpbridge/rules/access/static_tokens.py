"""Parses static tokens and finds the principal that a token belongs to.

Only hashes are kept. A token that a client sends is hashed and compared with each of them in
constant time, so that neither the answer nor its time reveals how close a guess was.

Source: RFC 6750, 2.1 (the characters of a token).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

import msgspec

from mcpbridge.rules.access.principals import Principal, key_of

MIN_CHARACTERS = 16
"""A shorter token can be guessed over the network."""
MAX_CHARACTERS = 4096
_FORM = r"[A-Za-z0-9._~+/-]+=*\Z"
_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}\Z"


class TokenTable(msgspec.Struct, frozen=True):
    """The valid tokens, by their hashes."""

    by_digest: Mapping[bytes, Principal]

    def __repr__(self) -> str:
        return f"TokenTable({len(self.by_digest)})"

    def find(self, token: str) -> Principal | None:
        """Return the token's principal, or None; takes the same time in every case."""
        digest = digest_of(token)
        found = None
        for known, principal in self.by_digest.items():
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def digest_of(token: str) -> bytes:
    """Return the hash by which a token is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def named(name: str, token: str) -> tuple[bytes, Principal]:
    """Return a token's hash and principal; two tokens with one name belong to one client.

    Raises:
        ValueError: Not a token; the text says why and contains no part of it.
    """
    if len(token) < MIN_CHARACTERS:
        raise ValueError(
            f"a token of {len(token)} characters can be guessed: use {MIN_CHARACTERS} or more"
        )
    if len(token) > MAX_CHARACTERS:
        raise ValueError(f"a token has {MAX_CHARACTERS} characters at most")
    if re.match(_FORM, token) is None:
        raise ValueError("a token has letters, digits and any of . _ ~ + / - only, = at its end")
    digest = digest_of(token)
    key = key_of("name", name) if name else key_of("token", digest)
    who = name or "token"
    return digest, Principal(key, who, credential=key_of("credential", digest))


def tokens_in(text: str) -> TokenTable:
    """Parse a file of tokens, one per line, alone or as `name: token`; `#` begins a comment.

    Raises:
        ValueError: A line is invalid, or there is no token; the text names the line and problem.
    """
    found: dict[bytes, Principal] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        name, colon, token = words.rpartition(":")
        name = name.strip()
        if colon and re.match(_NAME, name) is None:
            raise ValueError(f"line {number} is neither a token nor name: token")
        try:
            digest, principal = named(name, token.strip())
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if digest in found and found[digest].key != principal.key:
            raise ValueError(f"line {number} repeats a token of another line")
        found[digest] = principal
    if not found:
        raise ValueError("it contains no token")
    return TokenTable(found)


def together(tables: Iterable[TokenTable]) -> TokenTable:
    """Merge several tables of tokens."""
    return TokenTable({digest: p for table in tables for digest, p in table.by_digest.items()})
