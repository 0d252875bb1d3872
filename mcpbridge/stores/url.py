"""The URL of a store: what it may say, and what of it may be shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

PORT = 6379
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
"""The schemes, each with the one that redis-py knows."""
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_MAX_DATABASE = (1 << 31) - 1


class StoreUrl(msgspec.Struct, frozen=True):
    """A URL that names a Redis or Valkey server."""

    host: str
    port: int = PORT
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    """Files for TLS, by redis-py's name."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        # The password must not reach a log.
        return f"StoreUrl({self})"


def parse_store_url(text: str) -> StoreUrl:
    """Parse the value of `--store`.

    Raises:
        ValueError: It names no store; the text says why, without its password.
    """
    scheme, found, rest = text.partition("://")
    if not found or scheme.lower() not in _SCHEMES:
        raise ValueError("expected redis://HOST[:PORT][/DATABASE], or rediss:// for TLS")
    tls = _SCHEMES[scheme.lower()] == "rediss"
    try:
        parts = urlsplit(f"redis://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("invalid host or port (expected 1-65535)") from None
    if not host or not all(sign.isprintable() and not sign.isspace() for sign in host):
        raise ValueError("the host is missing or invalid")
    if port == 0:
        raise ValueError("invalid port 0 (expected 1-65535)")
    if parts.fragment:
        raise ValueError("a fragment (#) has no meaning here; write a # of the password as %23")
    return StoreUrl(
        host,
        port or PORT,
        _database_in(parts.path),
        tls,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        _options_in(parts.query, tls=tls),
    )


def _database_in(path: str) -> int:
    text = path.strip("/")
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= _MAX_DATABASE):
        raise ValueError("invalid database (expected a number, as in redis://HOST:6379/0)")
    return int(text)


def _options_in(query: str, *, tls: bool) -> tuple[tuple[str, str], ...]:
    options = tuple(parse_qsl(query, keep_blank_values=True))
    for name, _ in options:
        if name not in _TLS_OPTIONS:
            known = ", ".join(_TLS_OPTIONS)
            raise ValueError(f"unknown option {name[:40]!r} (known with rediss://: {known})")
        if not tls:
            raise ValueError(f"{name} has no effect without TLS; write rediss://")
    return options
