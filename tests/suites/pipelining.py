"""Well-formed requests on one connection, however framed and cut, and what must come back.

The answers are those of the requests, in their order, each with its own id: whatever protocol a
request offers, whether its body comes by length or in chunks, and in however many segments.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import NamedTuple

from tests.suites.wire import Response, read_response

MOST_REQUESTS = 8
_HEAD = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
_OFFERS = ("h2c", "websocket", "foo", "TLS/1.0, h2c")
_PLAIN = ("accept: application/json\r\n", "x-a: " + "a" * 300 + "\r\n", "")


class Sent(NamedTuple):
    """A request as bytes, and what its answer must hold."""

    data: bytes
    request_id: str | None
    """None for a notification, which is answered with 202."""


def requests(chance: random.Random) -> list[Sent]:
    """Requests for one connection; the last one ends it.

    Some repeat the head of the one before, byte by byte, as the fast path wants it; half of the
    connections do so all the time, with plain heads and bodies of a length.
    """
    found = []
    steady = chance.random() < 0.5
    extra = chance.choice(_PLAIN) if steady else _extra(chance)
    count = chance.randint(1, MOST_REQUESTS)
    for number in range(count):
        if not steady and chance.random() < 0.5:
            extra = _extra(chance)
        last = number == count - 1
        request_id = None if chance.random() < 0.1 else f"{chance.randrange(10**8):08d}"
        message = {"jsonrpc": "2.0", "id": request_id, "method": "ping"}
        if request_id is None:
            message = {"jsonrpc": "2.0", "method": "notifications/x"}
        body = json.dumps(message).encode()
        head = _HEAD + ("connection: close\r\n" if last else "") + extra
        found.append(Sent(_framed(head, body, chance, steady), request_id))
    return found


def segments(sent: list[Sent], chance: random.Random) -> list[list[bytes]]:
    """The bytes of requests in segments, and those in groups that are answered one by one.

    One group of all, cut anywhere; or one of each request, as clients send them that wait for the
    answer: such a request may take the fast path, cut anywhere or, as is usual, behind its head.
    """
    if chance.random() < 0.5:
        return [cut(b"".join(each.data for each in sent), chance)]
    found = []
    for data, _ in sent:
        head = data.index(b"\r\n\r\n") + 4
        body = cut(data[head:], chance) if chance.random() < 0.5 else [data[head:]]
        found.append(chance.choice(([data], [data[:head], *body], cut(data, chance))))
    return found


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """The same bytes in one, two or many segments."""
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.choice((0, 1, 1, 2, 8))))
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


async def answers(port: int, groups: list[list[bytes]]) -> list[Response]:
    """Send segments, each after a turn of another connection, and read until the end.

    Args:
        port: The bridge's.
        groups: As `segments` makes them; before the next group the answer to the last one is read.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[Response] = []
    try:
        for number, group in enumerate(groups):
            while sum(each.status != 100 for each in found) < number:
                if (response := await read_response(reader)) is None:
                    return found
                found.append(response)
            for segment in group:
                writer.write(segment)
                await writer.drain()
                # Another connection's answer: the segment before has been read by then.
                await _round_trip(port)
        while (response := await read_response(reader)) is not None:
            found.append(response)
        return found
    finally:
        writer.close()


def check(sent: list[Sent], received: list[Response]) -> None:
    """Raises AssertionError unless these are the answers, in order."""
    said = [
        json.loads(each.body)["id"] if each.status == 200 else None
        for each in received
        if each.status != 100
    ]
    statuses = {each.status for each in received} - {100, 200, 202}
    assert not statuses, (statuses, sent, received)
    assert said == [each.request_id for each in sent], (sent, received)


def _extra(chance: random.Random) -> str:
    lines = chance.choice(_PLAIN)
    if chance.random() < 0.5:
        lines += f"upgrade: {chance.choice(_OFFERS)}\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        lines += "http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    if chance.random() < 0.1:
        lines += "expect: 100-continue\r\n"
    return lines


def _framed(head: str, body: bytes, chance: random.Random, by_length: bool) -> bytes:
    if by_length or chance.random() < 0.7:
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in cut(body, chance))
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


async def _round_trip(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    await reader.read()
    writer.close()
