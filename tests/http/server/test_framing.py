"""A request head has one reading, or it is refused."""

from __future__ import annotations

import pytest

from mcpbridge.http.server.framing import ambiguity

HOST = (b"host", b"127.0.0.1")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_plain_head_has_one_reading(version: str) -> None:
    """Headers that are lists may be repeated."""
    headers = [HOST, (b"accept", b"a/b"), (b"accept", b"c/d"), (b"origin", b"http://a")]
    assert ambiguity(b"POST", b"/mcp?a=b", version, headers) is None
    assert ambiguity(b"GET", b"/", "1.0", []) is None
    assert ambiguity(b"GET", b"HTTP://Localhost:80/a", "1.1", [(b"host", b"localhost:80")]) is None


@pytest.mark.parametrize(
    "name", ["host", "origin", "content-type", "content-length", "mcp-session-id"]
)
def test_what_decides_who_calls_what_stands_once(name: str) -> None:
    """Equal values are two readings too: the next program may join them."""
    twice = [(name.encode(), b"1"), (name.encode(), b"1")]
    headers = twice if name == "host" else [HOST, *twice]
    assert ambiguity(b"POST", b"/", "1.1", headers) == f"the header {name} is repeated"


def test_a_body_in_chunks_has_one_reading() -> None:
    """The coding's name is read without case and the spaces around it."""
    assert ambiguity(b"POST", b"/", "1.1", [HOST, (b"transfer-encoding", b" Chunked")]) is None


@pytest.mark.parametrize(
    ("method", "target", "version", "headers", "word"),
    [
        (b"POST", b"/", "1.1", [], "host is missing"),
        (b"POST", b"/", "1.1", [HOST, (b"host", b"evil.example")], "host is repeated"),
        (b"POST", b"/", "1.1", [HOST, (b"origin", b"a"), (b"origin", b"a")], "origin is repeated"),
        (b"POST", b"/", "2.0", [HOST], "HTTP/2.0 is not served"),
        (b"POST", b"/", "0.9", [HOST], "HTTP/0.9 is not served"),
        (b"POST", b"http://evil.example/", "1.1", [HOST], "neither a path"),
        (b"POST", b"http://127.0.0.1", "1.1", [HOST], "neither a path"),
        (b"POST", b"http://127.0.0.1@evil.example/", "1.1", [HOST], "neither a path"),
        (b"POST", b"http://evil.example/", "1.0", [], "neither a path"),
        (b"OPTIONS", b"*", "1.1", [HOST], "neither a path"),
        (b"CONNECT", b"/mcp", "1.1", [HOST], "neither a path"),
        (b"POST", b"/", "1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], "transfer-"),
        (b"POST", b"/", "1.1", [HOST, *[(b"transfer-encoding", b"chunked")] * 2], "transfer-"),
        (b"POST", b"/", "1.0", [HOST, (b"transfer-encoding", b"chunked")], "transfer-"),
    ],
)
def test_two_readings_are_named(
    method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]], word: str
) -> None:
    """The text says what is wrong with the head."""
    assert word in str(ambiguity(method, target, version, headers))
