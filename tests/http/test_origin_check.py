"""What is read of a body: all of it, or no more than tells that it is too large."""

from __future__ import annotations

import pytest
from starlette.types import Message

from mcpbridge.http.origin_check import ClientGone, check_source, read_body
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.mcp.admission import Refusal
from tests.bridge.playbook import bounded
from tests.http.fakes import GONE, Wire, body, http_request
from tests.support.proofs import proves

LIMIT = 10
BODIES: list[tuple[list[Message], bytes]] = [
    ([body(b"")], b""),
    ([body(b"0123456789")], b"0123456789"),
    ([body(b"01234", more=True), body(b"56789")], b"0123456789"),
    ([body(b"", more=True), body(b"0", more=True), body(b"")], b"0"),
    ([body(b"%d" % n, more=True) for n in range(10)] + [body(b"")], b"0123456789"),
    ([{"type": "http.request"}], b""),
]


@pytest.mark.parametrize(("pieces", "whole"), BODIES)
@bounded
async def test_a_body_is_read_whole_however_it_comes(pieces: list[Message], whole: bytes) -> None:
    """In one piece or many, announced or not."""
    for headers in ([], [(b"content-length", b"%d" % len(whole))]):
        wire = Wire(*pieces)
        assert await read_body(http_request(wire, *headers), LIMIT) == whole
        assert wire.received == len(pieces)


@proves("fault 63")
@pytest.mark.parametrize("length", [b"11", b"4194305", b"99999999999999999999999"])
@bounded
async def test_a_body_announced_too_large_is_not_touched(length: bytes) -> None:
    """Nothing is received, so that the client is not invited to send it."""
    wire = Wire(body(b"01234567890"))
    refusal = await read_body(http_request(wire, (b"content-length", length)), LIMIT)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, wire.received) == (413, 0)
    assert b"--max-request-bytes 10" in refusal.error


@proves("fault 64")
@pytest.mark.parametrize(
    ("pieces", "taken"),
    [
        ([body(b"01234567890")], 1),
        ([body(b"0123456789", more=True), body(b"0")], 2),
        ([body(b"01234567890", more=True), body(b"endless", more=True)], 1),
        ([body(b"01234", more=True)] * 9, 3),
    ],
)
@bounded
async def test_a_body_that_grows_too_large_is_read_no_further(
    pieces: list[Message], taken: int
) -> None:
    """Not one piece after the one that exceeds the limit, whatever was announced."""
    for headers in ([], [(b"content-length", b"5")], [(b"content-length", b"x")]):
        wire = Wire(*pieces)
        refusal = await read_body(http_request(wire, *headers), LIMIT)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, wire.received) == (413, taken)


@proves("fault 52")
@pytest.mark.parametrize("pieces", [[GONE], [body(b"0", more=True), GONE]])
@bounded
async def test_a_client_that_leaves_before_its_body_ends_is_no_request(
    pieces: list[Message],
) -> None:
    """What came of it is not taken for the whole."""
    with pytest.raises(ClientGone):
        await read_body(http_request(Wire(*pieces)), LIMIT)


@proves("fault 90", "O15")
def test_host_comes_before_origin_and_neither_refusal_looks_like_a_login() -> None:
    """421 and 403 without those numbers in the text."""
    rules = HostRules(loopback=True)
    host, origin = (b"host", b"evil.example"), (b"origin", b"http://evil.example")
    good = (b"host", b"localhost:8000")
    for headers, status in (((host,), 421), ((host, origin), 421), ((good, origin), 403)):
        refusal = check_source(http_request(Wire(), *headers).head, rules)
        assert refusal is not None
        assert refusal.status == status
        assert not any(number in refusal.error for number in (b"401", b"403"))
    assert check_source(http_request(Wire(), good).head, rules) is None
    assert check_source(http_request(Wire()).head, rules) is None
