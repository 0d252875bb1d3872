"""Who calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mcpbridge.http.auth.access import AccessControl, HeaderEnv
from mcpbridge.http.auth.authenticator import (
    Authenticator,
    FirstOf,
    NoAuth,
    bearer_token,
    challenged,
)
from mcpbridge.http.auth.static_tokens import (
    LOOK_EVERY_S,
    StaticTokens,
    read_tokens,
)
from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.header_env import header_env
from mcpbridge.rules.access.principals import ANONYMOUS, Principal, key_of
from mcpbridge.rules.access.rate_limit import rate_limit
from mcpbridge.rules.access.static_tokens import tokens_in
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.runtime.small_file import MAX_FILE_BYTES
from mcpbridge.wire.messages import Notification, Request
from tests.support.proofs import proves

ONE, TWO, THREE = "one-token-0123456789", "two-token-0123456789", "three-token-0123456789"


def head(*headers: tuple[bytes, bytes]) -> RequestHead:
    """A request's head."""
    scope: dict[str, Any] = {"method": "POST", "path": "/mcp", "headers": list(headers)}
    return RequestHead.in_scope(scope)


def bearing(token: str) -> RequestHead:
    """A head with a token."""
    return head((b"authorization", b"Bearer " + token.encode()))


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def of_file(path: Path, clock: Clock) -> StaticTokens:
    """The tokens of a file, as the program begins."""
    return StaticTokens(str(path), read_tokens(str(path)), None, clock)


async def who(authenticator: Authenticator, token: str) -> str:
    """The name of the client with a token, or the status that it gets."""
    found = await authenticator.authenticate(bearing(token))
    return found.name if isinstance(found, Principal) else str(found.status)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([b"Bearer abc"], "abc"),
        ([b"bEARER  abc "], "abc"),
        ([b"Basic abc"], None),
        ([b"Bearer"], ""),
        ([b"Bearer a b"], "a b"),
        ([b"Bearer abc", b"Bearer abc"], ""),
        ([b"Basic abc", b"Bearer abc"], ""),
    ],
)
def test_a_token_is_read_from_one_header(headers: list[bytes], token: str | None) -> None:
    """Two headers are two clients to two readers, so that is not one."""
    assert bearer_token(head(*((b"authorization", value) for value in headers))) == token


@proves("C95", "O15")
async def test_a_token_is_good_or_challenged(tmp_path: Path) -> None:
    """Without one the client is told what is needed, with a wrong one that it is."""
    tokens = StaticTokens(None, None, tokens_in(f"alice: {ONE}"), Clock())
    assert await who(tokens, ONE) == "alice"
    nothing, wrong = await tokens.authenticate(head()), await tokens.authenticate(bearing(TWO))
    assert isinstance(nothing, Refusal)
    assert isinstance(wrong, Refusal)
    assert (nothing.status, nothing.challenge) == (401, 'Bearer realm="mcpbridge"')
    assert (wrong.status, wrong.challenge) == (
        401,
        'Bearer realm="mcpbridge", error="invalid_token"',
    )
    for refusal in (nothing, wrong):
        assert not any(digits in refusal.error for digits in (b"401", b"403", b"two-"))
    tokens.reload()
    assert await who(tokens, ONE) == "alice"


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Looked at once a second at most; who is withdrawn is not `still` good either."""
    clock, file = Clock(), tmp_path / "tokens"
    file.write_text(f"alice: {ONE}\nbob: {TWO}\n")
    tokens = of_file(file, clock)
    alice, bob = [await tokens.authenticate(bearing(token)) for token in (ONE, TWO)]
    assert isinstance(alice, Principal)
    assert isinstance(bob, Principal)

    (fresh := tmp_path / "fresh").write_text(f"alice: {ONE}\ncarol: {THREE}\n")
    os.replace(fresh, file)
    assert await who(tokens, THREE) == "401"
    assert tokens.still(bob)

    clock.now += LOOK_EVERY_S
    assert not tokens.still(bob)
    assert tokens.still(alice)
    assert await who(tokens, THREE) == "carol"
    assert await who(tokens, TWO) == "401"


@pytest.mark.parametrize("after", ["gone", "empty", "bad", "folder"])
async def test_a_file_that_went_bad_changes_nothing(tmp_path: Path, after: str) -> None:
    """It may be half written; the next good one counts."""
    clock, file = Clock(), tmp_path / "tokens"
    file.write_text(f"alice: {ONE}\n")
    tokens = of_file(file, clock)
    file.unlink()
    match after:
        case "empty":
            file.touch()
        case "bad":
            file.write_text("x y z\n")
        case "folder":
            file.mkdir()
    for _ in range(2):
        tokens.reload()
        assert await who(tokens, ONE) == "alice"
    (fresh := tmp_path / "fresh").write_text(f"bob: {TWO}\n")
    if after == "folder":
        file.rmdir()
    os.replace(fresh, file)
    tokens.reload()
    assert (await who(tokens, ONE), await who(tokens, TWO)) == ("401", "bob")


async def test_a_token_of_the_environment_stays(tmp_path: Path) -> None:
    """Whatever becomes of the file beside it."""
    file = tmp_path / "tokens"
    file.write_text(ONE)
    tokens = StaticTokens(str(file), read_tokens(str(file)), tokens_in(f"env: {TWO}"), Clock())
    file.write_text(f"carol: {THREE}")
    tokens.reload()
    assert [await who(tokens, token) for token in (ONE, TWO, THREE)] == ["401", "env", "carol"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"\xff\xfe" + ONE.encode(), "not text in UTF-8"),
        (b"", "no token"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """In words that hold nothing of it."""
    file = tmp_path / "tokens"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        read_tokens(str(file))


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe without a writer would never be read to its end."""
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is not a regular file"):
        read_tokens(str(pipe))


class Picky:
    """Knows one name, and lets it list and no more."""

    documents = {"/where": b"{}"}  # noqa: RUF012

    async def run(self) -> None:
        """Nothing changes."""

    async def authenticate(self, head: RequestHead) -> Principal | Refusal:
        """Whichever says so."""
        if bearer_token(head) == "picky":
            return Principal(key_of("picky"), "picky", credential=b"p")
        return challenged(401, "not picky", "Picky")

    def still(self, principal: Principal) -> bool:
        """Only its own."""
        return principal.credential == b"p"

    def allows(self, principal: Principal, method: str) -> Refusal | None:
        """Lists."""
        return None if method == "tools/list" else challenged(403, "only lists", "Picky")


async def test_the_first_that_knows_a_client_answers_for_it() -> None:
    """Who is known to none gets the last one's challenge."""
    static = StaticTokens(None, None, tokens_in(f"alice: {ONE}"), Clock())
    both = FirstOf([static, Picky()])
    assert [await who(both, token) for token in (ONE, "picky", "x")] == ["alice", "picky", "401"]
    refused = await both.authenticate(bearing("x"))
    assert isinstance(refused, Refusal)
    assert refused.challenge == "Picky"
    assert both.documents == {"/where": b"{}"}
    alice, picky = [await both.authenticate(bearing(token)) for token in (ONE, "picky")]
    assert isinstance(alice, Principal)
    assert isinstance(picky, Principal)
    assert both.still(alice)
    assert both.still(picky)
    assert not both.still(ANONYMOUS)
    assert both.allows(alice, "tools/call") is None
    assert both.allows(picky, "tools/list") is None
    assert both.allows(picky, "tools/call") is not None
    assert both.allows(ANONYMOUS, "tools/call") is None


async def test_nobody_is_asked_without_an_authenticator() -> None:
    """All clients are the same, at all times."""
    nobody = NoAuth()
    found = await nobody.authenticate(head())
    assert isinstance(found, Principal)
    assert (found.key, found.name) == (ANONYMOUS.key, ANONYMOUS.name)
    assert nobody.still(ANONYMOUS)
    assert nobody.allows(ANONYMOUS, "tools/call") is None
    assert not AccessControl().asks


async def test_access_control_says_whose_request_it_is() -> None:
    """What the authenticator finds stays with the head; before that it belongs to no principal."""
    access = AccessControl(StaticTokens(None, None, tokens_in(f"alice: {ONE}"), Clock()))
    good, bad = bearing(ONE), bearing(TWO)
    with pytest.raises(AttributeError):
        _ = good.principal
    assert await access.enter(good) is None
    assert good.principal.name == "alice"
    assert access.still(good.principal)
    refusal = await access.enter(bad)
    assert refusal is not None
    assert refusal.status == 401
    with pytest.raises(AttributeError):
        _ = bad.principal


async def test_access_control_asks_for_each_method() -> None:
    """A notification asks for nothing."""
    access, own = AccessControl(Picky()), bearing("picky")
    assert await access.enter(own) is None
    call, listing = Request(b"1", "tools/call", None), Request(b"1", "tools/list", None)
    told = Notification("notifications/initialized", None)
    assert access.admits(own.principal, listing) is None
    assert access.admits(own.principal, told) is None
    refusal = access.admits(own.principal, [listing, call])
    assert refusal is not None
    assert refusal.status == 403


@proves("fault 84")
async def test_access_control_counts_messages() -> None:
    """The refusal says how long to wait, and by which flag."""
    clock = Clock()
    access, anyone = AccessControl(rate=rate_limit("1/s:3"), clock=clock), head()
    assert await access.enter(anyone) is None
    call = Request(b"1", "tools/call", None)
    assert access.admits(anyone.principal, [call, call]) is None
    assert access.admits(anyone.principal, call) is None
    refusal = access.charges(anyone.principal)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (429, 1)
    assert b"--rate-limit 1/s:3" in refusal.error
    clock.now += 1
    assert access.admits(anyone.principal, call) is None


async def test_access_control_takes_values_from_headers() -> None:
    """A head without them is refused before anything is asked of a child."""
    access = AccessControl(header_env=HeaderEnv([header_env("X-Api-Key=API_KEY")]))
    with_key = head((b"x-api-key", b"sk-1"))
    assert await access.enter(with_key) is None
    assert with_key.principal.env.pairs == (("API_KEY", "sk-1"),)
    refusal = await access.enter(head())
    assert refusal is not None
    assert refusal.status == 400
