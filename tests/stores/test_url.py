"""The value of `--store`: what it may say."""

from __future__ import annotations

import pytest

from mcpbridge.stores.url import StoreUrl, parse_store_url


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("redis://cache", StoreUrl("cache")),
        ("valkey://cache:6380/2", StoreUrl("cache", 6380, 2)),
        ("REDIS://cache/", StoreUrl("cache")),
        ("redis://[::1]:6379", StoreUrl("::1")),
        ("rediss://:s%40crt@cache", StoreUrl("cache", tls=True, password="s@crt")),
        ("valkeys://me:pw@h/0", StoreUrl("h", tls=True, username="me", password="pw")),
        (
            "rediss://h?ssl_ca_certs=/etc/ca.pem",
            StoreUrl("h", tls=True, options=(("ssl_ca_certs", "/etc/ca.pem"),)),
        ),
    ],
)
def test_what_it_may_say(text: str, wanted: StoreUrl) -> None:
    """Host, port, database, a user, TLS."""
    assert parse_store_url(text) == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected redis://HOST"),
        ("cache:6379", "expected redis://HOST"),
        ("http://cache", "expected redis://HOST"),
        ("unix:///run/redis.sock", "expected redis://HOST"),
        ("redis://", "the host is missing"),
        ("redis://:secret@", "the host is missing"),
        ("redis://a b", "the host is missing or invalid"),
        ("redis://h:0", "invalid port 0"),
        ("redis://h:secret", "invalid host or port"),
        ("redis://h:99999", "invalid host or port"),
        ("redis://[::1", "invalid host or port"),
        ("redis://h/secret", "invalid database"),
        ("redis://h/1/2", "invalid database"),
        ("redis://h/-1", "invalid database"),
        ("redis://h/" + "9" * 5000, "invalid database"),
        ("redis://:sec#ret@h", "invalid host or port"),
        ("redis://h#x", "a fragment"),
        ("redis://h?socket_timeout=9", "unknown option 'socket_timeout'"),
        ("redis://h?ssl_ca_certs=x", "has no effect without TLS"),
    ],
)
def test_what_it_may_not_say(text: str, problem: str) -> None:
    """The sentence says what is wrong, and never the password."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_store_url(text)
    assert "secret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    """Neither in a log nor in a traceback."""
    url = parse_store_url("rediss://me:hidden@[::1]:7000/3")
    assert str(url) == "rediss://[::1]:7000/3"
    assert repr(url) == "StoreUrl(rediss://[::1]:7000/3)"
