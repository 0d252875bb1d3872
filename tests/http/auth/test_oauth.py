"""OAuth as an authenticator: good tokens become principals, all others the right challenge."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest

from mcpbridge.errors import KeysUnavailable
from mcpbridge.http.auth.jwks import RemoteKeys
from mcpbridge.http.auth.oauth import (
    MAX_JUDGED,
    WELL_KNOWN,
    OAuth,
    OAuthSettings,
    algorithm_list,
    metadata_url,
    method_scope,
)
from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.jwt import ALGORITHMS, LEEWAY_S, ParsedToken
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.mcp.admission import Refusal
from tests.support.broken_tokens import Broken, broken_tokens
from tests.support.proofs import proves
from tests.support.token_issuer import AUDIENCE, Issuer, encoded

METADATA = "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"
ISSUER = Issuer()
BROKEN: Broken = broken_tokens(ISSUER)


def oauth(**settings: Any) -> OAuth:
    """The authenticator for the tokens of the issuer."""

    async def read() -> bytes:
        return json.dumps(ISSUER.key_set()).encode()

    given = {
        "issuer": ISSUER.url,
        "audiences": (AUDIENCE, "api://mcp"),
        "algorithms": ",".join(ALGORITHMS),
        **settings,
    }
    return OAuth(OAuthSettings(**given), RemoteKeys(read), ("/mcp", "/sse"))


def head(*authorizations: str) -> RequestHead:
    """The head of a request with these Authorization headers."""
    raw = [(b"authorization", value.encode("latin-1")) for value in authorizations]
    return RequestHead.in_scope({"type": "http", "method": "POST", "path": "/mcp", "headers": raw})


async def judged(access: OAuth, token: str) -> Principal | Refusal:
    """What becomes of a bearer token."""
    return await access.authenticate(head(f"Bearer {token}"))


async def admitted(access: OAuth, token: str) -> Principal:
    """The principal behind a good one."""
    found = await judged(access, token)
    assert isinstance(found, Principal), found
    return found


def assert_challenges(refusal: Principal | Refusal, status: int, error: str, said: str) -> None:
    """It tells what is wrong and where to go, and a client does not take its text for another."""
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert refusal.challenge is not None
    assert refusal.challenge.startswith("Bearer ")
    assert f'resource_metadata="{METADATA}"' in refusal.challenge
    assert (f'error="{error}"' if error else "error") in refusal.challenge + (
        "" if error else "error"
    )
    assert said in refusal.error.decode()
    assert not re.search(r"40[13]", refusal.error.decode() + refusal.challenge)
    assert refusal.challenge.isprintable()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_good_token_of_every_algorithm_is_taken(algorithm: str) -> None:
    """With its key named and unnamed."""
    found = await admitted(oauth(), ISSUER.token(algorithm))
    assert found.name == "alice/laptop"
    assert found.scopes == {"mcp:use"}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_token_is_refused_for_what_is_broken(name: str) -> None:
    """Each of them with a challenge that says what, and nothing of the token."""
    token, said = BROKEN[name]
    refusal = await judged(oauth(), token)
    assert_challenges(refusal, 401, "invalid_token", said)
    assert isinstance(refusal, Refusal)
    for part in token.split("."):
        assert len(part) < 8 or part not in f"{refusal.challenge}{refusal.error!r}"


def test_the_corpus_is_as_large_as_was_asked_for() -> None:
    """At least forty, no two the same."""
    assert len({token for token, _ in BROKEN.values()}) == len(BROKEN) >= 40


async def test_without_a_token_the_client_is_told_where_to_get_one() -> None:
    """And of no error, since it made none (RFC 6750)."""
    access = oauth(scopes=("mcp:use", "mcp:more"))
    for other in ((), ("Basic YTpi",), ("Token x",)):
        refusal = await access.authenticate(head(*other))
        assert_challenges(refusal, 401, "", "token")
        assert isinstance(refusal, Refusal)
        expected = f'Bearer scope="mcp:use mcp:more", resource_metadata="{METADATA}"'
        assert refusal.challenge == expected


@pytest.mark.parametrize("values", [("Bearer",), ("Bearer ",), ("Bearer GOOD", "Bearer GOOD")])
async def test_a_header_that_two_readers_read_in_two_ways_is_refused(values: Any) -> None:
    """Even where one of the readings is a good token."""
    good = ISSUER.token()
    refusal = await oauth().authenticate(head(*(each.replace("GOOD", good) for each in values)))
    assert_challenges(refusal, 401, "invalid_token", "")


async def test_the_scheme_is_read_in_any_case() -> None:
    """RFC 9110, 11.1."""
    for scheme in ("bearer", "BEARER"):
        found = await oauth().authenticate(head(f"{scheme} {ISSUER.token()}"))
        assert isinstance(found, Principal)


async def test_a_token_without_the_scope_of_every_call_is_not_enough() -> None:
    """The challenge lists all that are needed, for one more log-in."""
    access = oauth(scopes=("mcp:use", "mcp:more"))
    refusal = await judged(access, ISSUER.token(scope="mcp:use"))
    assert_challenges(refusal, 403, "insufficient_scope", "mcp:more")
    assert isinstance(refusal, Refusal)
    assert 'scope="mcp:use mcp:more"' in (refusal.challenge or "")
    await admitted(access, ISSUER.token(scope="mcp:more x mcp:use"))


async def test_a_method_may_need_a_scope_of_its_own() -> None:
    """Other methods go on without it."""
    access = oauth(
        scopes=("mcp:use",), method_scopes=(("tools/call", "mcp:call"), ("tools/call", "mcp:run"))
    )
    plain = await admitted(access, ISSUER.token())
    assert access.allows(plain, "tools/list") is None
    refusal = access.allows(plain, "tools/call")
    assert refusal is not None
    assert_challenges(refusal, 403, "insufficient_scope", "mcp:call")
    assert 'scope="mcp:use mcp:call mcp:run"' in (refusal.challenge or "")
    able = await admitted(access, ISSUER.token(scope="mcp:use mcp:call mcp:run"))
    assert access.allows(able, "tools/call") is None


async def test_two_tokens_of_one_user_and_program_are_one_client() -> None:
    """Another user's, another program's and another issuer's are others."""
    access = oauth()
    first = await admitted(access, ISSUER.token())
    assert (await admitted(access, ISSUER.token("RS256", jti="2", scope="x"))).key == first.key
    others: list[dict[str, Any]] = [
        {"sub": "bob"},
        {"client_id": "phone"},
        {"client_id": None},
        {"sub": None},
        {"sub": "alicelaptop", "client_id": None},
    ]
    keys = [(await admitted(access, ISSUER.token(**other))).key for other in others]
    assert len({first.key, ANONYMOUS.key, *keys}) == len(keys) + 2


async def test_a_principal_ends_with_its_token_and_with_its_key() -> None:
    """With the leeway that a new request would be given, lest a client come back at once."""
    issuer, now = Issuer(ISSUER.url, rsa=False), time.time()
    clock = [now]
    sets = [issuer.key_set()]

    async def read() -> bytes:
        return json.dumps(sets[-1]).encode()

    keys = RemoteKeys(read)
    access = OAuth(
        OAuthSettings(issuer=issuer.url, audiences=(AUDIENCE,)), keys, (), lambda: clock[0]
    )
    found = await admitted(access, issuer.token(exp=int(now) + 100))
    assert found.expires_at == int(now) + 100 + LEEWAY_S
    assert access.still(found)
    clock[0] = found.expires_at - 0.1
    assert access.still(found)
    assert isinstance(await judged(access, issuer.token(exp=int(now) + 100)), Principal)
    clock[0] = found.expires_at
    assert not access.still(found)
    assert_challenges(
        await judged(access, issuer.token(exp=int(now) + 100)), 401, "invalid_token", "expired"
    )
    clock[0] = now
    issuer.renew("second")
    issuer.withdraw("first")
    sets.append(issuer.key_set())
    assert access.still(found)
    await admitted(access, issuer.token())
    assert not access.still(found)


class Counted:
    """Keys that count the signatures they check."""

    def __init__(self) -> None:
        self.checked = 0
        self.fresh = True
        self.held = {b"key"}

    async def signer(self, token: ParsedToken, peer: str) -> bytes | None:
        """Every token is signed well."""
        self.checked += 1
        return b"key"

    async def run(self) -> None:
        """They are as the test says."""

    def holds(self, thumbprint: bytes) -> bool:
        """As the test says."""
        return thumbprint in self.held


async def test_a_token_that_comes_again_is_not_checked_again() -> None:
    """Unless something may have changed: its key, its end, or what is known of the keys."""
    keys, clock = Counted(), [time.time()]
    settings = OAuthSettings(issuer=ISSUER.url, audiences=(AUDIENCE,), scopes=("mcp:use",))
    access = OAuth(settings, keys, (), lambda: clock[0])
    token = ISSUER.token(exp=int(clock[0]) + 100)
    first = await admitted(access, token)
    assert [await admitted(access, token) for _ in range(50)] == [first] * 50
    assert keys.checked == 1
    keys.fresh = False
    assert await admitted(access, token) == first
    keys.fresh, keys.held = True, set()
    assert await admitted(access, token) == first
    assert keys.checked == 3
    keys.held = {b"key"}
    clock[0] += 100 + LEEWAY_S
    assert isinstance(await judged(access, token), Refusal)
    # What is refused is not remembered as good, nor does it take another's place.
    without_scope = ISSUER.token(scope="x", exp=int(clock[0]) + 100)
    assert isinstance(await judged(access, without_scope), Refusal)
    assert isinstance(await judged(access, without_scope), Refusal)


async def test_no_more_tokens_are_remembered_than_fit() -> None:
    """The oldest goes first, and is only judged again."""
    keys = Counted()
    access = OAuth(OAuthSettings(issuer=ISSUER.url, audiences=(AUDIENCE,)), keys, ())
    header, payload, _ = ISSUER.token().split(".")
    tokens = [f"{header}.{payload}.{encoded(b'%d' % number)}" for number in range(MAX_JUDGED + 1)]
    for token in tokens:
        await admitted(access, token)
    checked = keys.checked
    await admitted(access, tokens[-1])
    assert keys.checked == checked
    await admitted(access, tokens[0])
    assert keys.checked == checked + 1


def test_who_another_has_found_is_nobody_here() -> None:
    """Static tokens and OAuth may stand side by side."""
    access = oauth()
    assert not access.still(ANONYMOUS)
    assert not access.still(Principal(b"k", "n", credential=b"c", expires_at=time.time() + 60))


@proves("fault 116")
async def test_who_cannot_be_judged_is_told_to_come_back() -> None:
    """A login would be of no use: 503, when to try again, and no challenge."""

    class Away:
        async def signer(self, token: ParsedToken, peer: str) -> bytes | None:
            raise KeysUnavailable("https://x.example", "no route", 11.2)

        async def run(self) -> None:
            pass

        def holds(self, thumbprint: bytes) -> bool:
            return False

        @property
        def fresh(self) -> bool:
            return False

    access = OAuth(OAuthSettings(issuer=ISSUER.url, audiences=(AUDIENCE,)), Away(), ())
    refusal = await judged(access, ISSUER.token())
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.retry_after_s, refusal.challenge) == (503, 12, None)
    assert "x.example" not in refusal.error.decode()


def test_the_metadata_stand_at_the_root_and_behind_the_path() -> None:
    """The same text at each place that a client may look at (RFC 9728, 3)."""
    access = oauth(scopes=("mcp:use",), method_scopes=(("tools/call", "mcp:call"),))
    places = {WELL_KNOWN, f"{WELL_KNOWN}/mcp", f"{WELL_KNOWN}/sse"}
    assert set(access.documents) == places
    (text,) = set(access.documents.values())
    assert json.loads(text) == {
        "resource": AUDIENCE,
        "authorization_servers": [ISSUER.url],
        "scopes_supported": ["mcp:use", "mcp:call"],
        "bearer_methods_supported": ["header"],
    }
    elsewhere = oauth(audiences=("https://x.example/tools/mcp/",))
    assert f"{WELL_KNOWN}/tools/mcp" in elsewhere.documents
    assert "scopes_supported" not in json.loads(elsewhere.documents[WELL_KNOWN])


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://x.example/mcp", f"https://x.example{WELL_KNOWN}/mcp"),
        ("https://x.example/a/b/", f"https://x.example{WELL_KNOWN}/a/b"),
        ("https://x.example:8443", f"https://x.example:8443{WELL_KNOWN}"),
        ("https://x.example/", f"https://x.example{WELL_KNOWN}"),
    ],
)
def test_the_path_of_a_resource_follows_the_well_known_one(resource: str, url: str) -> None:
    """RFC 9728, 3.1."""
    assert metadata_url(resource) == url


def test_algorithms_are_a_list_of_those_with_private_keys() -> None:
    """Shared secrets and none at all cannot be asked for."""
    assert algorithm_list("RS256, ES256 RS256") == "RS256,ES256"
    for text in ("", "HS256", "none", "RS256,none", "rs256", "ES256K"):
        with pytest.raises(ValueError, match="is not a list of RS256"):
            algorithm_list(text)


def test_a_scope_belongs_to_a_method_of_mcp() -> None:
    """A misspelt one would protect nothing."""
    assert method_scope("tools/call=mcp:tools") == ("tools/call", "mcp:tools")
    for text in ("tools/call", "tool/call=x", "=x", "tools/call=", "tools/call=a b"):
        with pytest.raises(ValueError, match=r"(form|method|scope)"):
            method_scope(text)


async def test_a_hundred_tokens_at_once_are_judged_each_by_itself() -> None:
    """Also while another issuer's keys are fetched."""
    access = oauth()
    tokens = [ISSUER.token(sub=f"user-{number}") for number in range(100)]
    found = await asyncio.gather(*(admitted(access, token) for token in tokens))
    assert [each.name for each in found] == [f"user-{number}/laptop" for number in range(100)]
