"""Which keys of a published set are used, and for what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey

from mcpbridge.http.auth.jwk import MAX_KEYS, public_keys
from mcpbridge.rules.access.jwt import ALGORITHMS, parsed_token
from tests.support.token_issuer import Issuer, encoded, forged

ISSUER = Issuer()
EC = ECKey.generate_key("P-256").as_dict(private=False)


def key_set(*keys: Any) -> bytes:
    """The text of a set."""
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_checked_by_its_kind_of_key_alone(algorithm: str) -> None:
    """A good signature is good by one key of the set."""
    keys = public_keys(json.dumps(ISSUER.key_set()).encode())
    token = parsed_token(ISSUER.token(algorithm), ALGORITHMS)
    assert [key.key_id for key in keys if key.verifies(token)] == [token.key_id]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_of_any_form_is_good_or_not(algorithm: str) -> None:
    """None of them makes a check fail in another way."""
    keys = public_keys(json.dumps(ISSUER.key_set()).encode())
    for signature in (
        b"\0",
        bytes(64),
        bytes(96),
        bytes(132),
        bytes(256),
        b"\xff" * 64,
        b"a" * 999,
    ):
        text = forged(ISSUER.header(algorithm), b"{}", lambda _: signature)  # noqa: B023 - now
        token = parsed_token(text, ALGORITHMS)
        assert not any(key.verifies(token) for key in keys)


def test_a_private_key_that_is_published_is_taken_for_its_public_half() -> None:
    """And is the same key as without its secret."""
    own = ECKey.generate_key("P-256")
    private, public = (
        public_keys(key_set({**own.as_dict(private=private), "kid": "x"}))
        for private in (True, False)
    )
    assert private[0].thumbprint == public[0].thumbprint
    assert not private[0].key.is_private


@pytest.mark.parametrize(
    "key",
    [
        OctKey.generate_key(256).as_dict(),
        {"kty": "RSA", "n": encoded(b"\xc1" * 128), "e": "AQAB"},
        ECKey.generate_key("secp256k1").as_dict(private=False),
        OKPKey.generate_key("X25519").as_dict(private=False),
        OKPKey.generate_key("Ed448").as_dict(private=False),
        {**EC, "use": "enc"},
        {**EC, "key_ops": ["encrypt"]},
        {**EC, "key_ops": "verify"},
        {**EC, "alg": "ES384"},
        {**EC, "alg": "HS256"},
        {**EC, "alg": 7},
        {**EC, "crv": "P-384"},
        {**EC, "crv": ["P-256"]},
        {**EC, "x": "AAAA"},
        {**EC, "x": 7},
        {**EC, "y": None},
        {"kty": "RSA", "n": "!!!", "e": "AQAB"},
        {"kty": "RSA", "n": "A" * 400, "e": ""},
        {"kty": "RSA", "n": "v" * 2000, "e": "AQAB"},
        {"kty": "RSA", "n": "A", "e": "AQAB"},
        {"kty": ["EC"]},
        {"kty": "EC"},
        {},
        7,
        None,
    ],
)
def test_what_checks_no_signature_is_passed_over(key: Any) -> None:
    """The good key beside it is used."""
    assert [found.key_id for found in public_keys(key_set(key, {**EC, "kid": "good"}))] == ["good"]


@pytest.mark.parametrize(
    ("members", "algorithms"),
    [
        ({}, {"ES256"}),
        ({"alg": "ES256", "use": "sig", "key_ops": ["verify", "sign"]}, {"ES256"}),
        ({"kid": 7}, {"ES256"}),
        ({"x5c": ["MIIB"], "x5u": "http://x.example"}, {"ES256"}),
    ],
)
def test_what_else_a_key_says_of_itself_does_no_harm(members: Any, algorithms: set[str]) -> None:
    """Certificates among it are not looked at."""
    (found,) = public_keys(key_set({**EC, **members}))
    assert found.algorithms == algorithms


@pytest.mark.parametrize(
    ("named", "able"),
    [
        (None, {"EdDSA", "Ed25519"}),
        ("EdDSA", {"EdDSA", "Ed25519"}),
        ("Ed25519", {"EdDSA", "Ed25519"}),
    ],
)
def test_both_names_of_edwards_signatures_are_one(named: str | None, able: set[str]) -> None:
    """RFC 9864 renamed it."""
    key = OKPKey.generate_key("Ed25519").as_dict(private=False)
    (found,) = public_keys(key_set({**key, **({"alg": named} if named else {})}))
    assert found.algorithms == able


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"{}", b"null", b'"keys"', b'{"keys": {}}', b'{"keys": null}', b"\xff",
        b"<html>", b"[" * 100_000, key_set(*[EC] * (MAX_KEYS + 1)),
    ],
)  # fmt: skip
def test_what_is_no_set_of_keys_is_refused(document: bytes) -> None:
    """With words for the log."""
    with pytest.raises(ValueError, match=r"^it (is no|has more)"):
        public_keys(document)
