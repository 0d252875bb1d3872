"""The keys of an authorization server: few fetches, whatever is sent, and trouble outlived."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from mcpbridge.errors import KeysUnavailable
from mcpbridge.http.auth.jwks import (
    FETCHES_PER_MINUTE,
    FETCHES_PER_PEER,
    MAX_DOCUMENT_BYTES,
    MAX_STALE_S,
    REFRESH_S,
    KeyServer,
    RemoteKeys,
    UnreadableDocument,
    descriptions_of,
)
from mcpbridge.rules.access.jwt import ALGORITHMS, ParsedToken, parsed_token
from tests.support.proofs import proves
from tests.support.token_issuer import Issuer, KeyHost, forged, hosted


class Publisher:
    """Publishes an issuer's keys in memory, at a time of the test's choice."""

    def __init__(self) -> None:
        self.issuer = Issuer(rsa=False)
        self.now = 1000.0
        self.fetches = 0
        self.fails = False
        self.readiness: anyio.Event | None = None
        self.keys = RemoteKeys(self.read, lambda: self.now)

    async def read(self) -> bytes:
        """One fetch."""
        self.fetches += 1
        if self.readiness is not None:
            await self.readiness.wait()
        if self.fails:
            raise UnreadableDocument("https://issuer.example/keys", "no route to host")
        return json.dumps(self.issuer.key_set()).encode()

    def token(self, **header: Any) -> ParsedToken:
        """A token signed with the newest key."""
        payload = json.dumps(self.issuer.claims()).encode()
        text = forged(self.issuer.header(**header), payload, self.issuer.signer())
        return parsed_token(text, ALGORITHMS)

    async def signed(self, token: ParsedToken | None = None, peer: str = "192.0.2.1") -> bool:
        """Whether a token is found to be signed well."""
        return await self.keys.signer(token or self.token(), peer) is not None

    async def refused_for_now(self, token: ParsedToken, peer: str = "192.0.2.1") -> float:
        """When the sender of a token that cannot be judged may come back, in seconds."""
        with pytest.raises(KeysUnavailable) as caught:
            await self.signed(token, peer)
        return caught.value.retry_after_s


async def test_keys_are_fetched_once_when_the_first_token_comes() -> None:
    """And serve all tokens from then on."""
    at = Publisher()
    assert at.fetches == 0
    assert [await at.signed() for _ in range(50)] == [True] * 50
    assert at.fetches == 1


async def test_a_new_key_is_fetched_with_the_first_token_that_names_it() -> None:
    """The old one serves on until it is withdrawn, which the next regular fetch finds."""
    at = Publisher()
    old = at.token()
    thumbprint = await at.keys.signer(old, "")
    assert thumbprint is not None
    at.issuer.renew("second")
    assert await at.signed()
    assert await at.signed(old)
    assert at.fetches == 2
    at.issuer.withdraw("first")
    assert at.keys.holds(thumbprint)
    at.now += REFRESH_S
    assert await at.signed()
    assert not await at.signed(old)
    assert not at.keys.holds(thumbprint)


async def test_a_token_without_a_key_name_is_tried_with_all_keys_of_its_kind() -> None:
    """Also while a server changes its keys."""
    at = Publisher()
    at.issuer.renew("second")
    assert await at.signed(at.token(kid=None))
    assert not await at.signed(parsed_token(Issuer(rsa=False).token(), ALGORITHMS))


async def test_a_new_key_behind_an_old_name_or_none_is_fetched_too() -> None:
    """Servers that name no keys change them, and some make new ones whenever they start."""
    for name in (None, "first-p256"):
        at = Publisher()
        assert await at.signed()
        at.issuer.renew("second")
        at.issuer.keys["first-p256"] = at.issuer.keys["second-p256"]
        assert await at.signed(at.token(kid=name))
        assert at.fetches == 2


async def test_invented_names_of_keys_cost_few_fetches() -> None:
    """A thousand of them within a minute; a new key of another issuer is found all the same."""
    at = Publisher()
    assert await at.signed()
    for number in range(1000):
        invented = at.token(kid=f"invented-{number}")
        if number < FETCHES_PER_PEER:
            assert not await at.signed(invented)
        else:
            assert 1 <= await at.refused_for_now(invented) <= 60
        at.now += 0.05
    assert at.fetches == 1 + FETCHES_PER_PEER
    at.issuer.renew("second")
    assert await at.signed(peer="192.0.2.2")
    assert await at.signed()
    assert at.fetches == 2 + FETCHES_PER_PEER


async def test_a_token_that_cannot_be_judged_for_want_of_fetches_is_no_bad_one() -> None:
    """Many addresses use all of them up: who comes then is told when to come back."""
    at = Publisher()
    assert await at.signed()
    for number in range(1, FETCHES_PER_MINUTE):
        assert not await at.signed(at.token(kid=f"invented-{number}"), f"192.0.2.{number}")
        at.now += 1
    old = at.token()
    at.issuer.renew("second")
    wait_s = await at.refused_for_now(at.token(), "198.51.100.1")
    assert wait_s == 60 - (FETCHES_PER_MINUTE - 1)
    assert await at.signed(old, "198.51.100.1")
    forged = parsed_token(Issuer(rsa=False).token(kid="first-p256"), ALGORITHMS)
    assert not await at.signed(forged, "198.51.100.1")
    at.now += wait_s
    assert await at.signed(peer="198.51.100.1")


async def test_new_keys_cost_the_one_who_brings_them_no_share() -> None:
    """All clients may come through one proxy, and a server may change its keys often."""
    at = Publisher()
    for generation in ("second", "third", "fourth", "fifth"):
        assert await at.signed()
        at.issuer.renew(generation)
    assert await at.signed()
    assert at.fetches == FETCHES_PER_MINUTE


async def test_a_withdrawn_key_is_noticed_though_no_new_request_comes() -> None:
    """What is asked of a busy connection and of an open stream makes the regular fetch."""
    at = Publisher()
    async with anyio.create_task_group() as group:
        group.start_soon(at.keys.run)
        thumbprint = await at.keys.signer(at.token(), "")
        assert thumbprint is not None
        at.issuer.renew("second")
        at.issuer.withdraw("first")
        at.now += REFRESH_S - 1
        assert at.keys.holds(thumbprint)
        await anyio.wait_all_tasks_blocked()
        assert at.keys.holds(thumbprint)
        assert at.fetches == 1
        at.now += 1
        at.keys.holds(thumbprint)
        await anyio.wait_all_tasks_blocked()
        assert not at.keys.holds(thumbprint)
        assert at.fetches == 2
        at.now += REFRESH_S
        await anyio.wait_all_tasks_blocked()
        assert at.fetches == 2  # whose answer is not awaited
        group.cancel_scope.cancel()


async def test_no_key_is_held_longer_than_it_may_be_relied_on() -> None:
    """A busy connection is not a way around the day that keys serve without their server."""
    at = Publisher()
    thumbprint = await at.keys.signer(at.token(), "")
    assert thumbprint is not None
    at.fails = True
    at.now += MAX_STALE_S - 1
    assert at.keys.holds(thumbprint)
    at.now += 1
    assert not at.keys.holds(thumbprint)


async def test_all_who_wait_share_one_fetch() -> None:
    """A hundred clients come at once to a bridge that has just started."""
    at = Publisher()
    at.readiness = anyio.Event()
    found: list[bool] = []

    async def ask() -> None:
        found.append(await at.signed())

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        at.readiness.set()
    assert found == [True] * 100
    assert at.fetches == 1


async def test_who_waits_is_served_when_the_one_who_fetches_is_gone() -> None:
    """A client that leaves in the middle of a fetch costs no other client its answer."""
    at = Publisher()
    at.readiness = anyio.Event()
    found: list[bool] = []

    async def ask() -> None:
        found.append(await at.signed())

    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as first:
            first.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            others.start_soon(ask)
            others.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        at.readiness.set()
    assert found == [True] * 2
    assert at.fetches == 2


@proves("fault 116")
async def test_keys_that_were_had_serve_a_day_without_their_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Then it is unknown, and the client is not told to log in again."""
    at = Publisher()
    assert await at.signed()
    began, at.fails = at.now, True
    for hour in range(1, 24):
        at.now = began + hour * 3600
        assert await at.signed(), hour
    assert [record.message for record in caplog.records] == ["oauth.keys_unavailable"] * 23
    at.now = began + MAX_STALE_S
    with pytest.raises(KeysUnavailable, match="no route to host") as caught:
        await at.signed()
    assert caught.value.retry_after_s >= 1
    at.fails = False
    at.now += 60
    assert await at.signed()


@proves("fault 116")
async def test_without_keys_nobody_can_say_whether_a_token_is_good() -> None:
    """The server was down when the bridge started; its return is noticed."""
    at = Publisher()
    at.fails = True
    for number in range(20):
        with pytest.raises(KeysUnavailable):
            await at.signed(peer=f"192.0.2.{number}")
    assert at.fetches == FETCHES_PER_MINUTE
    with pytest.raises(KeysUnavailable) as caught:
        await at.signed()
    assert caught.value.retry_after_s == pytest.approx(60)
    at.fails = False
    at.now += 60
    assert await at.signed()


@proves("fault 116")
async def test_a_new_key_that_cannot_be_fetched_is_no_bad_token() -> None:
    """With the server away, a token by an unknown key may be as good as any."""
    at = Publisher()
    assert await at.signed()
    at.fails = True
    old = at.token()
    at.issuer.renew("second")
    with pytest.raises(KeysUnavailable):
        await at.signed()
    assert await at.signed(old)


async def test_a_server_that_fails_is_not_asked_at_every_request() -> None:
    """Each request would wait for the end of its patience."""
    at = Publisher()
    assert await at.signed()
    at.fails = True
    at.now += REFRESH_S
    for _ in range(100):
        assert await at.signed()
        at.now += 0.1
    assert at.fetches == 2


@pytest.fixture
def host() -> Iterator[KeyHost]:
    """A server of metadata and keys."""
    with hosted(KeyHost(Issuer(rsa=False))) as running:
        yield running


async def test_the_keys_are_found_by_the_description_of_the_issuer(host: KeyHost) -> None:
    """Once; later fetches go to the keys at once."""
    server = KeyServer(host.url, None)
    assert json.loads(await server.read()) == host.issuer.key_set()
    assert json.loads(await server.read()) == host.issuer.key_set()
    assert host.asked == {"/.well-known/oauth-authorization-server": 1, "/keys": 2}
    assert all(head["accept-encoding"] == "identity" for head in host.heads)
    assert not any("authorization" in head for head in host.heads)


async def test_a_configured_address_needs_no_description(host: KeyHost) -> None:
    """And none is asked for."""
    await KeyServer("https://issuer.example/realm", host.jwks_url).read()
    assert host.asked == {"/keys": 1}


def test_an_issuer_with_a_path_may_describe_itself_in_three_places() -> None:
    """RFC 8414 puts the path behind the well-known one, OpenID before it."""
    assert descriptions_of("https://x.example/realms/a/") == (
        "https://x.example/.well-known/oauth-authorization-server/realms/a",
        "https://x.example/.well-known/openid-configuration/realms/a",
        "https://x.example/realms/a/.well-known/openid-configuration",
    )
    assert descriptions_of("https://x.example") == (
        "https://x.example/.well-known/oauth-authorization-server",
        "https://x.example/.well-known/openid-configuration",
    )


@pytest.mark.parametrize("place", range(3))
async def test_an_issuer_is_found_in_each_of_the_three_places(host: KeyHost, place: int) -> None:
    """Whichever it uses."""
    issuer = f"{host.url}/realms/a"
    path = descriptions_of(issuer)[place].removeprefix(host.url)
    described = {"issuer": issuer, "jwks_uri": host.jwks_url}
    host.answers[path] = (200, {}, json.dumps(described).encode())
    assert json.loads(await KeyServer(issuer, None).read()) == host.issuer.key_set()


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://elsewhere.example", "jwks_uri": "KEYS"},
        {"issuer": "ISSUER/", "jwks_uri": "KEYS"},
        {"jwks_uri": "KEYS"},
        {"issuer": "ISSUER"},
        {"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "ISSUER", "jwks_uri": "http://169.254.169.254/latest"},
        {"issuer": "ISSUER", "jwks_uri": 7},
        ["ISSUER"],
        None,
    ],
)
async def test_a_description_of_another_or_to_elsewhere_is_not_believed(
    host: KeyHost, described: Any
) -> None:
    """Its keys are not asked for."""
    text = json.dumps(described) if described else "<html>"
    text = text.replace("ISSUER", host.url).replace("KEYS", host.jwks_url)
    host.answers["/.well-known/oauth-authorization-server"] = (200, {}, text.encode())
    with pytest.raises(UnreadableDocument):
        await KeyServer(host.url, None).read()
    assert host.asked["/keys"] == 0


@pytest.mark.slow
async def test_redirects_stay_within_an_origin(host: KeyHost) -> None:
    """Within it they are followed; another host's keys are never taken."""
    with hosted(KeyHost(Issuer(rsa=False))) as other:
        host.answers["/moved"] = (302, {"location": "/keys"}, b"")
        host.answers["/away"] = (302, {"location": other.jwks_url}, b"")
        host.answers["/file"] = (302, {"location": "file:///etc/passwd"}, b"")
        host.answers["/round"] = (302, {"location": "/round"}, b"")
        assert await KeyServer("https://x.example", f"{host.url}/moved").read()
        for path, said in (("away", "origin"), ("file", "origin"), ("round", "times")):
            with pytest.raises(UnreadableDocument) as caught:
                await KeyServer("https://x.example", f"{host.url}/{path}").read()
            assert said in caught.value.problem
        assert not other.asked


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {}, b"{}"), "answers 500"),
        ((404, {}, b"{}"), "answers 404"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"{}"), "not a JWK set"),
        ((200, {}, b'{"keys": []}'), "no key"),
        ((200, {}, b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'), "no key"),
        ((200, {}, b" " * (MAX_DOCUMENT_BYTES + 1)), "more than"),
        ((200, {"content-encoding": "gzip"}, b"\x1f\x8b"), "encodes"),
    ],
)
async def test_an_answer_that_is_no_set_of_keys_is_refused(
    host: KeyHost, answer: tuple[int, dict[str, str], bytes], said: str
) -> None:
    """The keys that were had before are kept; see `RemoteKeys`."""
    host.answers["/keys"] = answer
    with pytest.raises(UnreadableDocument) as caught:
        await KeyServer("https://x.example", host.jwks_url).read()
    assert said in caught.value.problem


@pytest.mark.slow
async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    """Neither one that says nothing, nor one that says a byte at a time."""

    gone = asyncio.Event()

    async def leave(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.01)
        await leave(writer)

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        await leave(writer)

    for serve in (drip, keep):
        gone.clear()
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            keys = KeyServer("https://x.example", f"http://127.0.0.1:{port}/keys", within_s=0.1)
            with pytest.raises(UnreadableDocument):
                await keys.read()
            await asyncio.wait_for(gone.wait(), 10)


@proves("fault 116")
async def test_nobody_at_an_address_is_an_answer_too() -> None:
    """A refused connection, and a name that is not known."""
    for url in ("http://127.0.0.1:1/keys", "http://no-such-name-here/keys"):
        with pytest.raises(UnreadableDocument):
            await KeyServer("https://x.example", url).read()
