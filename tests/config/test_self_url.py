"""Addresses as people write them, and where the bridge of this environment is."""

from __future__ import annotations

import pytest

from mcpbridge.config.self_url import own_url, split_address, split_socket
from tests.support.proofs import proves


@proves("fault 113")
@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("0.0.0.0:8000", "0.0.0.0", 8000),
        ("localhost:0", "localhost", 0),
        (":9000", "0.0.0.0", 9000),
        ("[::1]:0", "::1", 0),
        ("[::]:8000", "::", 8000),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    """Brackets keep the colons of IPv6 apart; no host is every IPv4 address."""
    assert split_address(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "8000", "localhost", "localhost:", "localhost:http", "::1:8000", "[::1]", "a:-1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """`::1:8000` could be read in two ways."""
    with pytest.raises(ValueError, match="is not of the form HOST:PORT"):
        split_address(text)


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"PORT": "9000", "MCPBRIDGE_PORT": "9001"}, "http://127.0.0.1:9001"),
        ({"MCPBRIDGE_PORT": "tcp://10.0.0.1:8000", "PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"MCPBRIDGE_HOST": "10.1.2.3"}, "http://10.1.2.3:8000"),
        ({"MCPBRIDGE_HOST": "::"}, "http://[::1]:8000"),
        ({"MCPBRIDGE_LISTEN": ":9002", "PORT": "9000"}, "http://127.0.0.1:9002"),
        ({"MCPBRIDGE_LISTEN": "[::1]:9002"}, "http://[::1]:9002"),
        ({"MCPBRIDGE_LISTEN": "nonsense"}, "http://127.0.0.1:8000"),
        ({"MCPBRIDGE_LISTEN": "unix:/run/mcp.sock,mode=0660"}, "http+unix:/run/mcp.sock"),
        ({"MCPBRIDGE_TLS_CERT": "/c", "PORT": "9000"}, "https://127.0.0.1:9000"),
        ({"MCPBRIDGE_TLS_CERT": "/c", "MCPBRIDGE_ADMIN_PORT": "9001"}, "https://127.0.0.1:8000"),
        (
            {
                "MCPBRIDGE_TLS_CERT": "/c",
                "MCPBRIDGE_TLS_CLIENT_CA": "/a",
                "MCPBRIDGE_ADMIN_PORT": "9001",
                "MCPBRIDGE_ADMIN_HOST": "::",
            },
            "http://[::1]:9001",
        ),
        (
            {"MCPBRIDGE_TLS_CERT": "/c", "MCPBRIDGE_TLS_CLIENT_CA": "/a"},
            "https://127.0.0.1:8000",
        ),
    ],
)
def test_the_own_bridge_is_where_the_environment_says(env: dict[str, str], url: str) -> None:
    """A health check of an image runs with the variables of the bridge beside it."""
    assert own_url(env) == url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unix:/run/mcp.sock", ("/run/mcp.sock", 0o600)),
        ("unix:/run/mcp.sock,mode=0660", ("/run/mcp.sock", 0o660)),
        ("unix:/run/mcp.sock,mode=666", ("/run/mcp.sock", 0o666)),
        ("unix:a,b", ("a,b", 0o600)),
        ("unix:@name", ("@name", 0o600)),
        ("127.0.0.1:8000", None),
        ("unix", None),
    ],
)
def test_a_socket_is_a_path_and_its_permissions(text: str, found: object) -> None:
    """Its owner's alone, where nothing is said of them."""
    assert split_socket(text) == found


@pytest.mark.parametrize(
    "text", ["unix:", "unix:@", "unix:a,mode=", "unix:a,mode=rw", "unix:a,mode=0999", "unix:a\0b"]
)
def test_what_is_no_socket_is_refused(text: str) -> None:
    """Wrong permissions are not part of a name."""
    with pytest.raises(ValueError, match=r"unix:PATH|mode="):
        split_socket(text)
