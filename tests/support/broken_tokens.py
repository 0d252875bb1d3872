"""Tokens that must be refused, each broken in one way, and the word its refusal says.

Every one of them is made from a good token of a real issuer, so that nothing else is wrong with it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.support.token_issuer import AUDIENCE, Issuer, encoded, forged, signed_by

Broken = Mapping[str, tuple[str, str]]
"""By the name of the fault: the token, and a part of what is said of it."""

_FORM = "three parts"
_HEADER = "header"
_ALGORITHM = "algorithm"
_SIGNATURE = "not signed with a key"


def broken_tokens(issuer: Issuer) -> Broken:
    """All of them."""
    return {
        **_without_signature(issuer),
        **_by_shared_secret(issuer),
        **_by_other_keys(issuer),
        **_with_header(issuer),
        **_with_claims(issuer),
        **_with_payload(issuer),
        **_mangled(issuer),
    }


def _payload(issuer: Issuer, **claims: Any) -> bytes:
    return json.dumps(issuer.claims(**claims)).encode()


def _without_signature(issuer: Issuer) -> Broken:
    def unsigned(algorithm: object) -> str:
        return forged({"alg": algorithm, "typ": "JWT"}, _payload(issuer), lambda _: b"")

    found = {
        f"alg {name}": (unsigned(name), _ALGORITHM)
        for name in ("none", "None", "NONE", "nOnE", "", None, 0, True, ["ES256"], {"a": 1})
    }
    header = issuer.header("ES256")
    return {
        **found,
        "no alg": (
            forged({"typ": "JWT"}, _payload(issuer), issuer.signer()),
            _ALGORITHM,
        ),
        "zero signature": (forged(header, _payload(issuer), lambda _: bytes(64)), _SIGNATURE),
        "signature in DER": (
            forged(header, _payload(issuer), lambda _: bytes.fromhex("3006020101020101")),
            _SIGNATURE,
        ),
    }


def _by_shared_secret(issuer: Issuer) -> Broken:
    """A public key is public: who signs with it as a secret signs nothing."""
    public: RSAKey = issuer.keys[issuer.key_name("RS256")]  # type: ignore[assignment]
    secrets = {
        "PEM": public.as_pem(private=False),
        "DER": public.as_der(private=False),
        "JWK": json.dumps(public.as_dict(private=False)).encode(),
        "nothing": b"",
    }

    def with_secret(secret: bytes, algorithm: str, digest: str) -> str:
        header = issuer.header("RS256", alg=algorithm)
        return forged(
            header,
            _payload(issuer),
            lambda text: hmac.new(secret, text.encode(), digest).digest(),
        )

    found = {
        f"HS256 with the {name} of the public key": (
            with_secret(secret, "HS256", "sha256"),
            _ALGORITHM,
        )
        for name, secret in secrets.items()
    }
    return {
        **found,
        "HS512": (with_secret(secrets["PEM"], "HS512", "sha512"), _ALGORITHM),
        "HS256 called RS256": (with_secret(secrets["PEM"], "RS256", "sha256"), _SIGNATURE),
    }


def _by_other_keys(issuer: Issuer) -> Broken:
    unknown_key, rsa = ECKey.generate_key("P-256"), RSAKey.generate_key(2048)
    oct_key = OctKey.generate_key(256)
    own = issuer.signer("ES256")

    def with_key(algorithm: str, sign: Callable[[str], bytes], **header: Any) -> str:
        return forged(issuer.header(algorithm, **header), _payload(issuer), sign)

    foreign = lambda text: signed_by(unknown_key, "ES256", text)  # noqa: E731 - a table of signers
    p384 = issuer.signer("ES384")
    return {
        "a unknown_key's EC key": (with_key("ES256", foreign), _SIGNATURE),
        "a unknown_key's EC key, unnamed": (with_key("ES256", foreign, kid=None), _SIGNATURE),
        "a unknown_key's RSA key": (
            with_key("RS256", lambda text: signed_by(rsa, "RS256", text)),
            _SIGNATURE,
        ),
        "another curve's key": (
            with_key("ES256", p384, kid=issuer.key_name("ES384")),
            _SIGNATURE,
        ),
        "another curve's signature": (with_key("ES256", p384), _SIGNATURE),
        "RS256 signed as PS256": (with_key("RS256", issuer.signer("PS256")), _SIGNATURE),
        "ES256 that names an RSA key": (
            with_key("ES256", own, kid=issuer.key_name("RS256")),
            _SIGNATURE,
        ),
        "an unknown kid": (with_key("ES256", own, kid="nobody"), _SIGNATURE),
        "a kid that is a path": (with_key("ES256", own, kid="../../../dev/null"), _SIGNATURE),
        "a kid that is a statement": (with_key("ES256", own, kid="' OR 1=1 --"), _SIGNATURE),
        "a kid that is an address": (
            with_key("ES256", own, kid=f"{issuer.url}/elsewhere"),
            _SIGNATURE,
        ),
        "a kid with a line end": (with_key("ES256", own, kid="first\r\nx: y"), "kid"),
        "a kid that is a number": (with_key("ES256", own, kid=7), "kid"),
        "a kid that is a list": (with_key("ES256", own, kid=["first-p256"]), "kid"),
        "an empty kid": (with_key("ES256", own, kid=""), "kid"),
        "a very long kid": (with_key("ES256", own, kid="k" * 600), "kid"),
        "a key in the header": (
            with_key("ES256", foreign, jwk=unknown_key.as_dict(private=False)),
            _HEADER,
        ),
        "a shared key in the header": (
            with_key("ES256", foreign, jwk=oct_key.as_dict()),
            _HEADER,
        ),
        "a key's address in the header": (
            with_key("ES256", foreign, jku=f"{issuer.url}/elsewhere"),
            _HEADER,
        ),
        "our own key's address in the header": (
            with_key("ES256", own, jku=f"{issuer.url}/keys"),
            _HEADER,
        ),
        "a certificate's address": (with_key("ES256", own, x5u=f"{issuer.url}/elsewhere"), _HEADER),
        "a certificate": (with_key("ES256", foreign, x5c=["MIIB"]), _HEADER),
    }


def _with_header(issuer: Issuer) -> Broken:
    def with_header(**members: Any) -> str:
        return forged(issuer.header(**members), _payload(issuer), issuer.signer())

    kinds: list[object] = ["id_token+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", ""]
    other_types = {f"typ {kind!r}": (with_header(typ=kind), "type") for kind in [*kinds, 7, []]}
    good = json.dumps(issuer.header())
    twice = (good[:-1] + ', "alg": "ES256"}').encode()
    return {
        **other_types,
        "crit of something": (with_header(crit=["exp"], exp=1), _HEADER),
        "crit of nothing": (with_header(crit=[]), _HEADER),
        "b64 false": (with_header(b64=False, crit=["b64"]), _HEADER),
        "b64 false, not critical": (with_header(b64=False), _HEADER),
        "zip": (with_header(zip="DEF"), _HEADER),
        "a nested token": (with_header(cty="JWT"), _HEADER),
        "alg twice": (forged(twice, _payload(issuer), issuer.signer()), _HEADER),
        "a header that is a list": (forged(b"[]", _payload(issuer), issuer.signer()), _HEADER),
        "a header that is not JSON": (forged(b"{", _payload(issuer), issuer.signer()), _HEADER),
        "a header in UTF-16": (
            forged(good.encode("utf-16"), _payload(issuer), issuer.signer()),
            _HEADER,
        ),
        "a header nested deeply": (
            forged(b'{"alg":' + b"[" * 5000, _payload(issuer), issuer.signer()),
            _HEADER,
        ),
    }


def _with_claims(issuer: Issuer) -> Broken:
    now = int(time.time())
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "another issuer": ({"iss": "https://elsewhere.example"}, "issuer"),
        "the issuer with a slash": ({"iss": f"{issuer.url}/"}, "issuer"),
        "the issuer in capitals": ({"iss": issuer.url.upper()}, "issuer"),
        "no issuer": ({"iss": None}, "issuer"),
        "a list of issuers": ({"iss": [issuer.url]}, "issuer"),
        "another audience": ({"aud": "https://elsewhere.example/mcp"}, "audience"),
        "other audiences": ({"aud": ["https://a.example", "https://b.example"]}, "audience"),
        "a part of the audience": ({"aud": AUDIENCE[:-4]}, "audience"),
        "more than the audience": ({"aud": f"{AUDIENCE}/x"}, "audience"),
        "an audience within a text": ({"aud": f"x {AUDIENCE}"}, "audience"),
        "an empty list of audiences": ({"aud": []}, "audience"),
        "no audience": ({"aud": None}, "aud"),
        "an audience that is an object": ({"aud": {AUDIENCE: True}}, "aud"),
        "a list with an object": ({"aud": [AUDIENCE, {}]}, "aud"),
        "expired": ({"exp": now - 61}, "expired"),
        "expired long ago": ({"exp": 1}, "expired"),
        "expired before the epoch": ({"exp": -1e9}, "expired"),
        "no end": ({"exp": None}, "exp"),
        "an end that is a text": ({"exp": str(now + 600)}, "exp"),
        "an end that is true": ({"exp": True}, "exp"),
        "an end that is an object": ({"exp": {}}, "exp"),
        "not yet valid": ({"nbf": now + 86_400}, "nbf"),
        "a beginning that is a text": ({"nbf": "0"}, "nbf"),
        "issued in the future": ({"iat": now + 86_400}, "iat"),
        "issued at a list": ({"iat": []}, "iat"),
        "neither subject nor client": ({"sub": None, "client_id": None}, "subject"),
        "a subject that is a number": ({"sub": 7}, "sub"),
        "a subject with a line end": ({"sub": "alice\r\nx: y"}, "sub"),
        "a subject that is half a character": ({"sub": "\ud83e"}, "sub"),
        "a very long subject": ({"sub": "a" * 600}, "sub"),
        "a client that is a list": ({"client_id": ["laptop"]}, "client_id"),
        "a scope that is a number": ({"scope": 7}, "scope"),
        "a scope that is a list of numbers": ({"scope": [7]}, "scope"),
        "a token bound to a key": ({"cnf": {"jkt": "x"}}, "bound"),
    }
    return {name: (issuer.token(**claims), said) for name, (claims, said) in faults.items()}


def _with_payload(issuer: Issuer) -> Broken:
    def with_payload(payload: bytes) -> str:
        return forged(issuer.header(), payload, issuer.signer())

    good = _payload(issuer)
    claims = "claims"
    return {
        "aud twice": (with_payload(good[:-1] + b', "aud": "https://x.example"}'), claims),
        "iss twice": (
            with_payload(b'{"iss": "https://x.example", ' + good[1:]),
            claims,
        ),
        "an end at infinity": (
            with_payload(good.replace(b'"exp": ', b'"exp": 1e999, "x": ')),
            "exp",
        ),
        "an end that is Infinity": (
            with_payload(good.replace(b'"exp": ', b'"exp": Infinity, "x": ')),
            claims,
        ),
        "an end that is NaN": (
            with_payload(good.replace(b'"exp": ', b'"exp": NaN, "x": ')),
            claims,
        ),
        "an end of many digits": (
            with_payload(good.replace(b'"exp": ', b'"exp": 1' + b"0" * 400 + b', "x": ')),
            "exp",
        ),
        "an end of endless digits": (
            with_payload(good.replace(b'"exp": ', b'"exp": 1' + b"0" * 5000 + b', "x": ')),
            claims,
        ),
        "claims that are a list": (with_payload(b"[" + good + b"]"), claims),
        "claims that are a text": (with_payload(b'"alice"'), claims),
        "claims that are not JSON": (with_payload(b"alice"), claims),
        "claims with a mark before": (with_payload(b"\xef\xbb\xbf" + good), claims),
        "claims with something after": (with_payload(good + b"{}"), claims),
        "claims in broken UTF-8": (with_payload(good.replace(b"alice", b"\xff\xfe")), claims),
        "claims nested deeply": (
            with_payload(good[:-1] + b', "x": ' + b"[" * 3000 + b"]" * 3000 + b"}"),
            claims,
        ),
        "no claims": (with_payload(b"{}"), "issuer"),
    }


def _mangled(issuer: Issuer) -> Broken:
    good = issuer.token()
    header, payload, signature = good.split(".")
    changed = encoded(_payload(issuer, sub="mallory"))
    last = "A" if signature[-1] != "A" else "E"
    return {
        "other claims under the same signature": (f"{header}.{changed}.{signature}", _SIGNATURE),
        "two parts": (f"{header}.{payload}", _FORM),
        "one part": (header, _FORM),
        "four parts": (f"{good}.{signature}", _FORM),
        "five parts, as if encrypted": (f"{header}..{payload}.{signature}.{signature}", _FORM),
        "a dot before": (f".{good}", _FORM),
        "a dot after": (f"{good}.", _FORM),
        "only dots": ("..", _HEADER),
        "no header": (f".{payload}.{signature}", _HEADER),
        "no payload": (f"{header}..{signature}", "payload"),
        "no signature": (f"{header}.{payload}.", "signature"),
        "a truncated payload": (f"{header}.{payload[:-9]}.{signature}", ""),
        "a truncated signature": (f"{header}.{payload}.{signature[:-8]}", "sign"),
        "a longer signature": (f"{header}.{payload}.{signature}AAAA", _SIGNATURE),
        "another last character": (f"{header}.{payload}.{signature[:-1]}{last}", ""),
        "padding": (f"{header}.{payload}.{signature}==", "signature"),
        "the other alphabet": (f"{header}.{payload}.{'+/' + signature[2:]}", "signature"),
        "a blank within": (f"{header}.{payload}.{signature[:9]} {signature[9:]}", "signature"),
        "a huge token": (issuer.token(groups=["g" * 100] * 150), "characters"),
        "a huge unsigned text": ("A" * 40_000, "characters"),
        "a text that is not a token": ("hunter2", _FORM),
        "a hash": (hashlib.sha256(b"").hexdigest(), _FORM),
    }
