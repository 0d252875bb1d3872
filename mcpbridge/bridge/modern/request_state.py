"""`requestState`: the state of a parked call, in a form that only this bridge can write.

The client keeps it, so it is encrypted and authenticated; a changed, foreign or expired one is
invalid.

Source: MCP 2026-07-28, Multi Round-Trip Requests, Security.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence

import msgspec


class RequestState(msgspec.Struct, frozen=True):
    """A `requestState`, decrypted."""

    parked_call: str
    """The key of the parked call; empty if the retry starts the call again."""
    round: int
    method: str
    digest: str
    """A digest of the parameters that must not change."""
    expires_at: float
    """Seconds on the wall clock, so that it stays valid after a restart with the same key."""
    count: int = 0
    """Number of answers that a retry must carry, if it starts the call again."""
    home: str = ""
    """The replica that has the parked call; empty if there is only one, or none has it."""


_decoder = msgspec.json.Decoder(RequestState)


Keys = Callable[[], Sequence[bytes]]
"""Returns keys of 32 bytes: the first writes, all read."""


class RequestStateCodec:
    """A codec that encrypts and decrypts states with the keys of one use."""

    def __init__(self, keys: Keys | None, home: str = "", owner: bytes = b"") -> None:
        """Make a codec; see `claim` for its owner.

        Args:
            keys: The keys; None: a random one, valid in this process only.
            home: This replica, named in the states of calls that it parks; empty: there is one.
            owner: The key of the principal that the states belong to.
        """
        self._keys = keys or _random_key()
        self._home = home
        self._owner = owner
        """The key of the principal; a state that was encrypted for another cannot be decrypted."""

    def another(self, owner: bytes = b"") -> RequestStateCodec:
        """Return a codec with the same keys, for another owner."""
        return RequestStateCodec(self._keys, self._home, owner)

    def claim(self, owner: bytes) -> None:
        """Set the owner of the states from now on."""
        self._owner = owner

    def encode(self, content: RequestState) -> str:
        """Return the `requestState` for the client."""
        # Imported at first use, since it takes time and memory: most bridges never park a call.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if content.parked_call:
            content = msgspec.structs.replace(content, home=self._home)
        nonce = secrets.token_bytes(12)
        cipher = AESGCM(self._keys()[0])
        encrypted = cipher.encrypt(nonce, msgspec.json.encode(content), self._owner)
        return base64.urlsafe_b64encode(nonce + encrypted).decode()

    def decode(self, text: str, now: float) -> RequestState | None:
        """Return the state; None if it is invalid, of another owner, or expired at `now`."""
        try:
            raw = base64.urlsafe_b64decode(text.encode())
            if base64.urlsafe_b64encode(raw).decode() != text:
                # The decoder ignores text after the padding, and unused bits: one state, one text.
                return None
            plain = self._decrypted(raw)
            content = _decoder.decode(plain) if plain is not None else None
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            return None
        return content if content is not None and now < content.expires_at else None

    def _decrypted(self, raw: bytes) -> bytes | None:
        """Return the text under the key that fits; None if none does.

        Raises:
            ValueError: It is shorter than any that was encrypted.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        for key in self._keys():
            try:
                return AESGCM(key).decrypt(raw[:12], raw[12:], self._owner)
            except InvalidTag:
                continue
        return None


def _random_key() -> Keys:
    key = secrets.token_bytes(32)
    return lambda: (key,)
