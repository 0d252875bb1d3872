"""Defines the principal: the client that sessions, calls and children belong to.

Every authenticator, for static tokens or for an authorization server, produces a `Principal`; no
other code depends on how the client was identified. One principal cannot see what belongs to
another: a session of another client is answered like one that never existed.

Without authentication every client is the same principal, `ANONYMOUS`; only what is scarce is
divided between their addresses.
"""

from __future__ import annotations

import functools
import hashlib

import msgspec


class Secrets(msgspec.Struct, frozen=True):
    """Values for the environment of children; no log or error may show them."""

    pairs: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return "Secrets(***)"

    def redact(self, text: str) -> str:
        """Return a text for the log with each of the values replaced by `***`."""
        for _, value in sorted(self.pairs, key=lambda pair: -len(pair[1])):
            text = text.replace(value, "***")
        return text


NOTHING = Secrets()


class Principal(msgspec.Struct, frozen=True):
    """One client, identified by its credentials.

    Two principals with the same `key` are the same client, though one may hold a newer token.
    """

    key: bytes
    """Identifies the owner of sessions, parked calls and children; made with `key_of`, so that it
    never contains a token."""
    name: str
    """For logs: the name beside a static token, or subject and client id of an issued one.
    Never a token or a part of one."""
    scopes: frozenset[str] = frozenset()
    """Scopes that its token was issued for, if known."""
    expires_at: float | None = None
    """When its token ends, in seconds since the epoch; None if it has no end."""
    credential: bytes = b""
    """Hash of the credential that the client sent. The authenticator recognizes it by this hash:
    one client may hold two tokens, one of which is withdrawn."""
    env: Secrets = NOTHING
    """Values that it sends for the environment of its children (`--header-env`)."""
    account: bytes | None = None
    """The key for quotas if it differs from `key`; see `quota_key`."""
    peer_key: bytes = b""
    """Without authentication: stands for the address that the client has; see `share_key`."""

    @property
    def quota_key(self) -> bytes:
        """The key that quotas count by; values that a client chooses itself do not change it."""
        return self.key if self.account is None else self.account

    @property
    def share_key(self) -> bytes:
        """The key by which scarce things are divided: the client, or its address if unknown."""
        quota_key = self.key if self.account is None else self.account
        return quota_key or self.peer_key


ANONYMOUS = Principal(b"", "anonymous")
"""The principal of every client if authentication is off."""


@functools.lru_cache(maxsize=1024)
def anonymous_at(peer: str) -> Principal:
    """Return the principal of a client that is not authenticated.

    Args:
        peer: The share of its address: see `hosts.share_of`.
    """
    return Principal(ANONYMOUS.key, ANONYMOUS.name, peer_key=peer_key(peer))


_PEER = b"peer "


def peer_key(peer: str) -> bytes:
    """Return the share key of a client that is known by its address alone."""
    return _PEER + peer.encode("utf-8", "replace")


def share_name(share_key: bytes) -> str:
    """Return the name of a `Principal.share_key` for the log: an address, or a part of a digest."""
    if share_key.startswith(_PEER):
        return share_key.removeprefix(_PEER).decode("utf-8", "replace")
    return share_key.hex()[:12]


def key_of(*parts: str | bytes) -> bytes:
    """Return a key made of what identifies a client: issuer and subject, or a token.

    The parts cannot be recovered from it, and no two lists of parts give the same key.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:%b" % (len(data), data))
    return digest.digest()
