"""`requestState`: the state of a parked call, in a form that only this bridge can write.

The client keeps it, so it is encrypted and authenticated; a changed, foreign or expired one is
invalid.

Source: MCP 2026-07-28, Multi Round-Trip Requests, Security.
"""

from __future__ import annotations

import base64
import binascii
import secrets

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


_decoder = msgspec.json.Decoder(RequestState)


class RequestStateCodec:
    """A codec that encrypts and decrypts states with one key."""

    def __init__(self, key: bytes | None) -> None:
        """Make a codec for no owner; see `claim`.

        Args:
            key: 32 bytes; None: a random one, valid in this process only.
        """
        self._key = key or secrets.token_bytes(32)
        self._owner = b""
        """The key of the principal; a state that was encrypted for another cannot be decrypted."""

    def another(self) -> RequestStateCodec:
        """Return a codec with the same key, for another owner."""
        return RequestStateCodec(self._key)

    def claim(self, owner: bytes) -> None:
        """Set the owner of the states from now on."""
        self._owner = owner

    def encode(self, content: RequestState) -> str:
        """Return the `requestState` for the client."""
        # Imported at first use, since it takes time and memory: most bridges never park a call.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._key).encrypt(nonce, msgspec.json.encode(content), self._owner)
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def decode(self, text: str, now: float) -> RequestState | None:
        """Return the state; None if it is invalid, of another owner, or expired at `now`."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.urlsafe_b64decode(text.encode())
            if base64.urlsafe_b64encode(raw).decode() != text:
                # The decoder ignores text after the padding, and unused bits: one state, one text.
                return None
            plain = AESGCM(self._key).decrypt(raw[:12], raw[12:], self._owner)
            content = _decoder.decode(plain)
        except (ValueError, binascii.Error, InvalidTag, msgspec.MsgspecError):
            return None
        return content if now < content.expires_at else None
