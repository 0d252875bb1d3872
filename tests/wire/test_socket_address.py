"""Addresses of sockets, as people write them."""

from __future__ import annotations

import pytest

from mcpbridge.wire.socket_address import Address, TcpAddress, UnixAddress, address_of


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("unix:/run/mcp.sock", UnixAddress("/run/mcp.sock")),
        ("unix:mcp.sock", UnixAddress("mcp.sock")),
        ("unix:@mcp", UnixAddress("@mcp")),
        ("tcp:127.0.0.1:80", TcpAddress("127.0.0.1", 80)),
        ("tcp:localhost:0", TcpAddress("localhost", 0)),
        ("tcp:[::1]:65535", TcpAddress("::1", 65535)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, wanted: Address) -> None:
    """What is shown can be given again."""
    assert address_of(f" {text} ") == wanted
    assert str(wanted) == text


def test_an_abstract_name_begins_with_a_nul_for_the_system() -> None:
    """And a path is a path."""
    assert (UnixAddress("@a").raw, UnixAddress("@a").is_abstract) == ("\0a", True)
    assert (UnixAddress("/a").raw, UnixAddress("/a").is_abstract) == ("/a", False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("unix:", "names no socket"),
        ("unix:@", "names no socket"),
        ("unix:a\0b", "names no socket"),
        ("tcp:80", "names no host and port"),
        ("tcp::80", "names no host and port"),
        ("tcp:a:b", "names no host and port"),
        ("tcp:a:65536", "names no host and port"),
        ("tcp:::1:80", "names no host and port"),
        ("/run/mcp.sock", "is not a socket address"),
        ("http://a:80", "is not a socket address"),
        ("", "is not a socket address"),
    ],
)
def test_what_is_none_is_refused_with_what_would_be_one(text: str, problem: str) -> None:
    """The text completes a sentence that begins with the value."""
    with pytest.raises(ValueError, match=f"^{problem}.*; write unix:PATH, unix:@NAME or tcp:HOST"):
        address_of(text)
