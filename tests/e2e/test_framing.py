"""What has two readings is refused, and answers come in the order of their requests."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.support.bridge_process import RunningBridge, bridge
from tests.support.proofs import proves

HEAD = b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
PING = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}'
SLOW = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
    b'{"name":"countdown","arguments":{"seconds":0.3}}}'
)
LAST = b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"


def request(body: bytes, *lines: bytes, chunked: bool = False) -> bytes:
    """A POST with these further header lines."""
    head = HEAD + b"".join(line + b"\r\n" for line in lines)
    if chunked:
        half = len(body) // 2
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]))
        return head + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def heard(running: RunningBridge, *segments: bytes) -> bytes:
    """All that the bridge writes until it closes the connection."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            # Later segments must be read on their own; another connection's answer is that event.
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", running.port)
            other_writer.write(LAST)
            await other_reader.read()
            other_writer.close()
        said = await reader.read()
    writer.close()
    return said


def statuses(said: bytes) -> list[int]:
    """The statuses of the answers, in order."""
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


@proves("fault 121")
@pytest.mark.slow
async def test_an_upgrade_that_is_not_taken_is_ignored() -> None:
    """The body is read whole and what follows it is the next request (RFC 9110)."""
    async with bridge() as running:
        for offer in (b"h2c", b"websocket", b"foo"):
            lines = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: " + offer)
            for chunked in (False, True):
                first = request(PING % 1, *lines, chunked=chunked)
                cut = first.index(b"\r\n\r\n") + 4
                whole = first + request(PING % 2) + LAST
                for segments in (
                    (whole,),
                    (first[:cut], first[cut:] + request(PING % 2) + LAST),
                    (first[: cut + 7], first[cut + 7 :], request(PING % 2), LAST),
                    (first, request(PING % 2, *lines, chunked=chunked), LAST),
                ):
                    said = await heard(running, *segments)
                    assert statuses(said) == [200, 200, 200], (offer, chunked, segments, said)
                    assert re.findall(rb'"id":(\d)', said) == [b"1", b"2"]
    # Nothing is missing here: uvicorn would advise to install a library for WebSocket.
    assert "websocket" not in f"{running.log} {running.noise}".lower()


@proves("fault 121")
@pytest.mark.slow
async def test_no_byte_of_an_offered_body_becomes_a_request() -> None:
    """A request inside the body of a request with an offer is data."""
    async with bridge() as running:
        planted = request(PING % 66)
        lines = (b"connection: upgrade", b"upgrade: h2c")
        first = request(planted, *lines)
        cut = first.index(b"\r\n\r\n") + 4
        said = await heard(running, first[:cut], first[cut:] + LAST)
        assert statuses(said) == [400, 200]
        assert b"66" not in said


@proves("fault 87")
@pytest.mark.slow
async def test_what_has_two_readings_is_refused_and_ends_the_connection() -> None:
    """Whatever follows such a head is not read as a request (RFC 9112, 11.2)."""
    body = PING % 7
    length = b"content-length: %d\r\n\r\n%b" % (len(body), body)
    async with bridge() as running:
        for said in [
            await heard(running, strange + request(PING % 8))
            for strange in (
                request(body, b"host: evil.example"),
                request(body, b"origin: http://a", b"origin: http://b"),
                request(body, b"content-type: text/plain"),
                request(body, b"mcp-session-id: a", b"mcp-session-id: b"),
                request(body).replace(b"host: 127.0.0.1\r\n", b""),
                request(body).replace(b"/mcp", b"http://evil.example/mcp"),
                request(body).replace(b"/mcp", b"http://127.0.0.1@evil.example/mcp"),
                request(body).replace(b"HTTP/1.1", b"HTTP/2.0"),
                request(body, chunked=True).replace(b": chunked", b": gzip, chunked"),
                b"CONNECT /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\n" + length,
                b"CONNECT evil.example:443 HTTP/1.1\r\nhost: 127.0.0.1\r\n" + length,
            )
        ]:
            assert statuses(said) == [400], said
            assert b'"id":7' not in said
            assert b'"id":8' not in said


@pytest.mark.slow
async def test_an_absolute_target_that_names_the_host_is_served() -> None:
    """A server must accept that form (RFC 9112, 3.2.2)."""
    async with bridge() as running:
        said = await heard(
            running, request(PING % 7).replace(b"/mcp", b"http://127.0.0.1/mcp"), LAST
        )
        assert statuses(said) == [200, 200]
        assert b'"id":7' in said


@proves("fault 86")
@pytest.mark.slow
async def test_garbage_behind_a_call_is_not_its_answer() -> None:
    """The call gets its own answer, and then the connection ends."""
    async with bridge() as running:
        for behind in (b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            for segments in ((request(SLOW) + behind,), (request(SLOW), behind)):
                said = await heard(running, *segments)
                assert statuses(said) == [200], said
                assert b"liftoff" in said


@pytest.mark.slow
async def test_a_cut_head_behind_a_large_request_is_not_charged_for_it() -> None:
    """Both of two legal requests are answered, wherever the second one's head is cut."""
    large = PING.replace(b"}", b',"params":{"pad":"' + b"x" * 30_000 + b'"}}') % 1
    second = request(PING % 2)
    async with bridge("--max-header-bytes", "1024") as running:
        said = await heard(running, request(large) + second[:30], second[30:] + LAST)
        assert statuses(said) == [200, 200, 200], said


@pytest.mark.slow
async def test_connections_told_408_before_their_first_head_leave_their_places() -> None:
    """At the limit newcomers are served again as soon as half heads have timed out."""
    words = ("--max-connections", "4", "--header-timeout", "200ms")
    async with bridge(*words) as running:
        for _ in range(3):
            halves = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(4)]
            for _, writer in halves:
                writer.write(HEAD[:40])
            told = await asyncio.gather(*(reader.read(64) for reader, _ in halves))
            assert all(each.startswith(b"HTTP/1.1 ") for each in told)
            # They were told and stay half open: the newcomer must be taken all the same.
            assert statuses(await heard(running, LAST)) == [200]
            for _, writer in halves:
                writer.close()


@proves("fault 122")
@pytest.mark.slow
async def test_requests_that_wait_for_no_answer_are_counted() -> None:
    """A hundred of one segment are served in order, offers of another protocol among them."""
    offer = request(PING % 1, b"connection: Upgrade", b"upgrade: foo")
    async with bridge() as running:
        said = await heard(running, request(SLOW) + request(PING % 1) * 150)
        assert statuses(said) == [200] * 100
        said = await heard(running, offer * 150)
        assert statuses(said) == [200] * 100
        said = await heard(running, request(SLOW) + request(PING % 1) * 98 + LAST)
        assert statuses(said) == [200] * 100


@pytest.mark.slow
async def test_a_refused_body_behind_a_call_leaves_the_call_its_answer() -> None:
    """The body does not arrive in time; the answers that are due come before the end."""
    unfinished = HEAD + b"content-length: 10\r\n\r\n{"
    async with bridge("--body-timeout", "0.1") as running:
        said = await heard(running, request(SLOW) + request(PING % 2) + unfinished)
    assert statuses(said) == [200, 200]


@proves("fault 121")
@pytest.mark.slow
async def test_an_offer_that_expects_to_be_asked_for_its_body() -> None:
    """`Expect: 100-continue` beside `Upgrade` is answered 100, and the body is read whole."""
    lines = (b"connection: Upgrade", b"upgrade: h2c", b"expect: 100-continue")
    first = request(PING % 1, *lines)
    cut = first.index(b"\r\n\r\n") + 4
    async with bridge() as running:
        said = await heard(running, first[:cut], first[cut:], LAST)
    assert statuses(said) == [100, 200, 200]
