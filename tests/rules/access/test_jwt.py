"""What a token must be before and after its signature is checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.errors import BadToken
from mcpbridge.rules.access.jwt import (
    ALGORITHMS,
    LEEWAY_S,
    Claims,
    Requirements,
    ScopeRules,
    bearer_challenge,
    fetchable,
    granted,
    parsed_token,
    scope_name,
)
from tests.support.proofs import proves
from tests.support.token_issuer import encoded

ISSUER, AUDIENCE = "https://issuer.example", "https://mcp.example/mcp"
DEMANDS = Requirements(ISSUER, frozenset({AUDIENCE, "api://mcp"}))
NOW = 1_000_000.0
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 600}


def judged(**claims: Any) -> Claims:
    """What good claims say with some of them changed; None leaves one out."""
    said = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return granted(json.dumps(said).encode(), DEMANDS, NOW)


def token(header: Any, payload: bytes = b"{}", signature: bytes = b"sig") -> str:
    """A token without a signature."""
    return ".".join(encoded(part) for part in (json.dumps(header).encode(), payload, signature))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
def test_a_token_of_good_form_is_taken_apart(algorithm: str, kind: str | None) -> None:
    """All that checks its signature needs, and the claims as they came."""
    header = {"alg": algorithm, "kid": "k1", **({"typ": kind} if kind else {})}
    text = token(header, b'{"a": 1}', b"\x00\xff")
    found = parsed_token(text, ALGORITHMS)
    assert (found.algorithm, found.key_id) == (algorithm, "k1")
    assert (found.payload, found.signature) == (b'{"a": 1}', b"\x00\xff")
    assert found.signed == text.rpartition(".")[0].encode()


def test_a_token_need_not_name_its_key() -> None:
    """Servers with one key leave the name out."""
    assert parsed_token(token({"alg": "RS256"}), ALGORITHMS).key_id is None


def test_an_algorithm_that_is_not_listed_is_refused() -> None:
    """However good it is."""
    with pytest.raises(BadToken, match="algorithm"):
        parsed_token(token({"alg": "RS512"}), ("RS256", "ES256"))


def test_no_algorithm_uses_a_shared_secret() -> None:
    """No setting allows what would make a public key a password."""
    assert not [name for name in ALGORITHMS if name.startswith("HS") or name.lower() == "none"]


@given(st.text(max_size=200))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    """No text raises anything else."""
    with pytest.raises(BadToken):
        parsed_token(text, ALGORITHMS)


@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers() | st.none()),
    st.binary(min_size=1, max_size=60),
    st.binary(min_size=1, max_size=60),
)
def test_any_header_is_taken_or_refused(header: Any, payload: bytes, signature: bytes) -> None:
    """What is taken apart is what was put together."""
    text = token({"alg": "ES256", **header}, payload, signature)
    try:
        found = parsed_token(text, ALGORITHMS)
    except BadToken:
        return
    assert (found.payload, found.signature) == (payload, signature)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ),
    st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "client_id", "azp", "scope", "scp"]),
)
def test_any_value_of_any_claim_is_taken_or_refused(value: Any, name: str) -> None:
    """What is granted always has a subject or a client, and an end in the future."""
    payload = json.dumps({**CLAIMS, name: value}).encode()
    try:
        grant = granted(payload, DEMANDS, NOW)
    except BadToken:
        return
    assert grant.subject or grant.client_id
    assert grant.ends_at > NOW


def test_a_grant_says_who_may_do_what_until_when() -> None:
    """Its end is that of the token and the leeway."""
    found = judged(client_id="laptop", scope="a b  c")
    assert found == Claims("alice", "laptop", frozenset("abc"), NOW + 600 + LEEWAY_S)


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["x", AUDIENCE], "api://mcp"])
def test_a_token_for_us_and_others_is_for_us(audience: Any) -> None:
    """The audience is one text, or a list of them."""
    assert judged(aud=audience).subject == "alice"


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": ["a", "b"]}, {"a", "b"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": "a", "scp": "b"}, {"a"}),
        ({"scope": ""}, set()),
        ({}, set()),
    ],
)
def test_scopes_are_read_in_the_forms_that_servers_write(claims: Any, scopes: set[str]) -> None:
    """A text or a list, under either name."""
    assert judged(**claims).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "client_id"),
    [({"client_id": "c"}, "c"), ({"azp": "z"}, "z"), ({"client_id": "c", "azp": "z"}, "c")],
)
def test_a_client_is_named_in_either_way(claims: Any, client_id: str) -> None:
    """And one that acts for itself needs no subject."""
    assert judged(**claims).client_id == client_id
    assert judged(**claims, sub=None).client_id == client_id


@proves("fault 107")
@pytest.mark.parametrize("past_s", [0.0, 1.0, LEEWAY_S - 0.5])
def test_clocks_may_differ_by_the_leeway(past_s: float) -> None:
    """Just expired and not quite valid are valid still, and already."""
    assert judged(exp=NOW - past_s).ends_at == NOW - past_s + LEEWAY_S
    assert judged(nbf=NOW + past_s, iat=NOW + past_s).subject == "alice"


@proves("fault 107")
@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_a_year_off_takes_no_token(years: int) -> None:
    """It is early or late by the wall clock, which is the one that tokens go by."""
    payload = json.dumps({**CLAIMS, "nbf": NOW}).encode()
    with pytest.raises(BadToken, match="future" if years < 0 else "expired"):
        granted(payload, DEMANDS, NOW + years * 365 * 86400)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": NOW - LEEWAY_S}, "expired"),
        ({"exp": None}, "exp is missing"),
        ({"nbf": NOW + LEEWAY_S + 1}, "nbf is in the future"),
        ({"iat": NOW + LEEWAY_S + 1}, "iat is in the future"),
        ({"iss": ISSUER + "/"}, "another issuer"),
        ({"aud": AUDIENCE + "/"}, "another audience"),
        ({"sub": None}, "neither a subject nor a client"),
        ({"cnf": {}}, "bound to a key"),
    ],
)
def test_each_claim_is_refused_with_its_own_words(claims: Any, said: str) -> None:
    """And without a word of the token."""
    with pytest.raises(BadToken, match=said) as caught:
        judged(**claims)
    assert "alice" not in str(caught.value)
    assert AUDIENCE not in str(caught.value)


def test_a_method_needs_its_own_scopes_and_those_of_every_call() -> None:
    """All of them in one challenge, each once."""
    rules = ScopeRules(("use",), {"tools/call": ("call", "use"), "tools/list": ("list",)})
    assert rules.needed("tools/call") == ("use", "call")
    assert rules.needed("ping") == ("use",)
    assert rules.all == ("use", "call", "list")
    assert ScopeRules().all == ()


def test_a_challenge_names_what_is_wrong_and_where_to_go() -> None:
    """Without an error where no token was sent (RFC 6750)."""
    url = "https://mcp.example/.well-known/oauth-protected-resource/mcp"
    assert bearer_challenge(url, ()) == f'Bearer resource_metadata="{url}"'
    assert bearer_challenge(url, ("a", "b"), "invalid_token", "it has expired") == (
        'Bearer error="invalid_token", error_description="it has expired", scope="a b", '
        f'resource_metadata="{url}"'
    )


@pytest.mark.parametrize("text", ["mcp:read", "a", "https://x.example/scope.read", "!#[]~"])
def test_a_scope_is_visible_ascii(text: str) -> None:
    """RFC 6749, 3.3."""
    assert scope_name(text) == text


@pytest.mark.parametrize("text", ["", "a b", 'a"b', "a\\b", "é", "a\n", "a" * 129])
def test_what_is_no_scope_is_refused(text: str) -> None:
    """It stands in quotes in a header."""
    with pytest.raises(ValueError, match="is not a scope"):
        scope_name(text)


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/keys?v=2",
        "https://10.0.0.1:8443/keys",
        "http://127.0.0.1:9000/keys",
        "http://[::1]/keys",
        "http://localhost/keys",
        "http://keycloak:8080/keys",
        "http://keycloak.auth.svc/keys",
        "http://keycloak.auth.svc.cluster.local/keys",
    ],
)
def test_keys_are_fetched_by_https_or_from_near(url: str) -> None:
    """Who can change what is fetched can issue tokens."""
    assert fetchable(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://10.0.0.1/keys",
        "http://169.254.169.254/latest",
        "http://[fd00::1]/keys",
        "http://evil.example/.svc",
        "file:///etc/passwd",
        "ftp://issuer.example/keys",
        "issuer.example/keys",
        "https://",
        "https:///keys",
        "https://user:secret@issuer.example/keys",
        "https://issuer.example/keys#x",
        "https://issuer.example/a b",
        "https://issuer.example:port/",
        "https://[::1/",
        "",
    ],
)
def test_keys_are_fetched_from_nowhere_else(url: str) -> None:
    """No file, no far address in plain text, no secrets in an address."""
    with pytest.raises(ValueError, match=r"^(is|.*plain)"):
        fetchable(url)
