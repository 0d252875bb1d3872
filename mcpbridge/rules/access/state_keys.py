"""The operator's secret keys for what clients keep: parsed, and derived for each use.

The first key writes and all of them read, so that keys can be rotated: add the new one as the
second everywhere, swap them everywhere, drop the old one once nothing is left that it has written.

Source: RFC 5869 (HKDF with SHA-256; one block of output is as long as a key).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import msgspec

MIN_CHARACTERS = 32
"""Shortest key: 32 hexadecimal digits are 128 random bits."""
MAX_KEYS = 4
"""Most keys at once: each that does not fit costs another try for a forged text."""

FOR_STATE = b"state"
"""Label of the keys for `requestState`."""
FOR_ID = b"id"
"""Label of the keys for session ids."""
FOR_PEER = b"peer"
"""Label of the keys with which replicas prove themselves to each other."""

_SALT = b"mcpbridge"
_FIRST_BLOCK = b"\x01"


class StateKeys(msgspec.Struct, frozen=True):
    """The keys of the operator, the one that writes first."""

    roots: tuple[bytes, ...]
    """Pseudorandom keys, from which those for each use are derived."""

    def __repr__(self) -> str:
        return f"StateKeys({len(self.roots)} keys)"

    def derived(self, label: bytes) -> Sequence[bytes]:
        """Return the keys of 32 bytes for one use, in the same order."""
        return [_hmac(root, label + _FIRST_BLOCK) for root in self.roots]

    def of_server(self, name: str) -> StateKeys:
        """Return the keys for one of several servers: its clients' state is of no use at others."""
        label = b"server " + name.encode() + _FIRST_BLOCK
        return StateKeys(tuple(_hmac(root, label) for root in self.roots))


def state_keys(text: str) -> StateKeys:
    """Return the keys in a text, separated by white space.

    Raises:
        ValueError: There is none, one is too short, or there are too many; the text completes a
            sentence that begins with the setting's name, and contains no key.
    """
    words = text.split()
    if not words:
        raise ValueError(f"holds no key; write at least {MIN_CHARACTERS} random characters")
    if len(words) > MAX_KEYS:
        raise ValueError(f"holds {len(words)} keys; at most {MAX_KEYS} are read")
    shortest = min(map(len, words))
    if shortest < MIN_CHARACTERS:
        raise ValueError(
            f"a key of {shortest} characters can be guessed; use at least {MIN_CHARACTERS}, and"
            " separate two keys by a blank"
        )
    return StateKeys(tuple(_hmac(_SALT, word.encode()) for word in words))


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
