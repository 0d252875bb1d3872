"""Public keys of an authorization server, and the check of signatures with them.

Of a published set only keys that can check a signature are taken, and of each key only its public
members: so a symmetric key in the set is never used, whatever algorithm a token names.

Source: RFC 7517; RFC 7518, 6; RFC 8037; RFC 8725, 3.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key
from joserfc.jws import JWSRegistry

from mcpbridge.rules.access.jwt import ALGORITHMS, ParsedToken

MAX_KEYS = 64
"""Most keys in a set: servers publish two or three, the large ones about a dozen."""
_RSA_BITS = range(2048, 8193)
"""Bits of usable keys: shorter ones can be broken (RFC 7518, 3.3), longer ones take ms to check."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EDWARDS = ("EdDSA", "Ed25519")
_CURVES = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": _EDWARDS,
}
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
# The library warns at each use of the old name (RFC 9864); both names mean the same signature.
_LIBRARY_NAMES = {"EdDSA": "Ed25519"}
_REGISTRY = JWSRegistry(algorithms=[name for name in ALGORITHMS if name != "EdDSA"])


class PublicKey(msgspec.Struct, frozen=True):
    """A public key of an authorization server."""

    thumbprint: bytes
    """Identifies the key in later sets too (RFC 7638)."""
    key_id: str | None
    """The name that tokens have for it (`kid`); None if it has none."""
    algorithms: frozenset[str]
    """The algorithms whose signatures it may check, all of one key type."""
    key: Key

    def verifies(self, token: ParsedToken) -> bool:
        """Return whether this key made the token's signature."""
        if token.algorithm not in self.algorithms:
            return False
        algorithm = _REGISTRY.get_alg(_LIBRARY_NAMES.get(token.algorithm, token.algorithm))
        try:
            return algorithm.verify(token.signed, token.signature, self.key)
        except (JoseError, ValueError):
            return False  # the signature has a form that this type of key cannot make


def public_keys(document: bytes) -> list[PublicKey]:
    """Return the usable keys of a published set (JWK Set); other members are skipped.

    Raises:
        ValueError: The document is not a set of keys, or has more than `MAX_KEYS`.
    """
    try:
        found = msgspec.json.decode(document)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is not a JWK set: it has no list of keys")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    keys = [_public_key(each) for each in listed if isinstance(each, dict)]
    return [key for key in keys if key is not None]


def _public_key(found: Mapping[str, Any]) -> PublicKey | None:
    algorithms = _algorithms(found)
    if not algorithms:
        return None
    public = {name: found[name] for name in ("kty", *_MEMBERS[found["kty"]]) if name in found}
    key_id = found.get("kid")
    try:
        key = import_key(public)
        thumbprint = key.thumbprint().encode("ascii")
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return PublicKey(
        thumbprint, key_id if isinstance(key_id, str) else None, frozenset(algorithms), key
    )


def _algorithms(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the algorithms that a published key may check; empty if it has another use."""
    operations = found.get("key_ops", ["verify"])
    if found.get("use", "sig") != "sig" or not isinstance(operations, list):
        return ()
    if "verify" not in operations or not _well_formed(found):
        return ()
    able = _RSA if found["kty"] == "RSA" else _CURVES.get(found["crv"], ())
    named = found.get("alg")
    if named is None:
        return able
    # Both names of one algorithm: servers are changing from the old to the new one.
    meant = _EDWARDS if named in _EDWARDS else (named,)
    return tuple(name for name in able if name in meant)


def _well_formed(found: Mapping[str, Any]) -> bool:
    kind = found.get("kty")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        return False
    if not all(isinstance(found.get(name), str) for name in _MEMBERS[kind]):
        return False
    return kind != "RSA" or _bits(found["n"]) in _RSA_BITS


def _bits(number: str) -> int:
    try:
        data = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))
    except ValueError:
        return 0
    return int.from_bytes(data, "big").bit_length()
