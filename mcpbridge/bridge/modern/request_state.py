"""`requestState`: what a parked call must remember, in a form that only this bridge can write.

It travels through the client, so it is encrypted and authenticated; a changed, foreign or expired
one is no different from none.

Source: MCP 2026-07-28, Multi Round-Trip Requests, Security.
"""

from __future__ import annotations

import base64
import binascii
import secrets

import msgspec


class RequestState(msgspec.Struct, frozen=True):
    """The content of a `requestState`."""

    parked_call: str
    """The parked call; empty where the retry begins anew."""
    round: int
    method: str
    digest: str
    """Of the parameters that must not change."""
    expires_at: float
    """On the wall clock, so that it means the same after a restart with the same key."""
    count: int = 0
    """How many answers a retry that begins anew must carry."""


_decoder = msgspec.json.Decoder(RequestState)


class RequestStateCodec:
    """Writes and reads sealed states with one key."""

    def __init__(self, key: bytes | None) -> None:
        """Make a seal.

        Args:
            key: 32 bytes; None for a random one, good for this process only.
        """
        self._key = key or secrets.token_bytes(32)
        self._owner = b""
        """Whose the contents are: what was sealed for another cannot be opened."""

    def another(self) -> RequestStateCodec:
        """One with the same key, for an owner of its own."""
        return RequestStateCodec(self._key)

    def claim(self, owner: bytes) -> None:
        """Say whose the contents are from now on."""
        self._owner = owner

    def encode(self, content: RequestState) -> str:
        """The text for the client."""
        # Imported when first needed: most bridges never park a call.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._key).encrypt(nonce, msgspec.json.encode(content), self._owner)
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def decode(self, text: str, now: float) -> RequestState | None:
        """The content, or None where this seal did not write it or it has expired."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.urlsafe_b64decode(text.encode())
            if base64.urlsafe_b64encode(raw).decode() != text:
                # Decoding forgives what stands after the padding, and bits that mean nothing.
                return None
            plain = AESGCM(self._key).decrypt(raw[:12], raw[12:], self._owner)
            content = _decoder.decode(plain)
        except (ValueError, binascii.Error, InvalidTag, msgspec.MsgspecError):
            return None
        return content if now < content.expires_at else None
