"""Who a client is: the principal that its sessions, its calls and its children belong to.

Whoever tells clients apart, by a token of a file or of an authorization server, ends with a
`Principal`; from there on nobody asks how it was known. What belongs to one principal does not
exist for another: a session of somebody else is answered like one that never was.

Without authentication everybody is the same principal, `ANONYMOUS`.
"""

from __future__ import annotations

import hashlib

import msgspec


class Secrets(msgspec.Struct, frozen=True):
    """Values for the environment of children, which no log and no error may show."""

    pairs: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return "Hidden(***)"

    def redact(self, text: str) -> str:
        """A text for the log, with none of the values in it."""
        for _, value in sorted(self.pairs, key=lambda pair: -len(pair[1])):
            text = text.replace(value, "***")
        return text


NOTHING = Secrets()


class Principal(msgspec.Struct, frozen=True):
    """One client, as far as its credentials tell it from others.

    Two of them with the same `key` are the same client, though one may hold a newer token.
    """

    key: bytes
    """By which sessions, parked calls and children belong to it; made with `key_of`, so that it
    never holds a token."""
    name: str
    """For logs: the name beside a token, or the subject and client id of one that was issued.
    Never a token or a part of one."""
    scopes: frozenset[str] = frozenset()
    """What its token was issued for, where that is said."""
    expires_at: float | None = None
    """When its token ends, in seconds since the epoch; None: it does not end by itself."""
    credential: bytes = b""
    """A hash of what it showed, by which its authenticator knows it again: one client may hold two
    tokens, of which one is withdrawn."""
    env: Secrets = NOTHING
    """What it brings for the environment of its children (`--header-env`)."""
    account: bytes | None = None
    """By which quotas count it, where that is not the key; see `quota_key`."""

    @property
    def quota_key(self) -> bytes:
        """By which quotas count it: values that it chooses itself make it nobody else."""
        return self.key if self.account is None else self.account


ANONYMOUS = Principal(b"", "anonymous")
"""Everybody, where nobody is asked who they are."""


def key_of(*parts: str | bytes) -> bytes:
    """A key from what tells a client from others: issuer and subject, or a token.

    The parts cannot be read from it, and no two lists of parts give the same.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:%b" % (len(data), data))
    return digest.digest()
