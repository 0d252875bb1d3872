"""The certificate that clients are shown, and the one that they may have to show.

The files are looked at when a connection comes, at most once a second, and at SIGHUP; whoever
renews certificates need tell nobody. What has changed serves connections from then on, and those
that stand keep what they began with. A pair that does not fit together, as in the moment between
the writing of the two files, changes nothing.

Source: RFC 9325, 3.1.1 (TLS 1.2 and later), 3.4 (no resumption across a change of who may in).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from mcpbridge.errors import ConfigError
from mcpbridge.settings import setting

log = logging.getLogger("mcpbridge.http")

_GROUP = "TLS"
_LOOK_EVERY_S = 1.0
_CLOSE_S = 2.0
"""How long a client has to say that it has seen the end; most never do."""


@dataclasses.dataclass(frozen=True, slots=True)
class TlsSettings:
    """With which files the MCP port speaks TLS; without a certificate it speaks plain HTTP."""

    cert: str | None = setting(
        None,
        "--tls-cert",
        "Serve HTTPS with this certificate chain (PEM), TLS 1.2 or later; read anew when it"
        " changes, and at SIGHUP. --admin-port stays plain HTTP.",
        group=_GROUP,
        metavar="FILE",
    )
    key: str | None = setting(
        None,
        "--tls-key",
        "Private key of --tls-cert (PEM, without a password); not needed where that file holds it"
        " too.",
        group=_GROUP,
        metavar="FILE",
    )
    client_ca: str | None = setting(
        None,
        "--tls-client-ca",
        "Serve only clients that show a certificate of one of these authorities (PEM).",
        group=_GROUP,
        metavar="FILE",
    )


def check_tls(settings: TlsSettings, origins: Mapping[str, str]) -> None:
    """Find out at the start what is wrong with the files.

    Args:
        settings: What was asked for.
        origins: Where each of the fields came from.

    Raises:
        ConfigError: A flag lacks its other half, or a file is missing or holds something else.
    """
    if settings.cert is None:
        for field, flag in (("key", "--tls-key"), ("client_ca", "--tls-client-ca")):
            if getattr(settings, field) is not None:
                problem = "is given without --tls-cert"
                raise ConfigError(flag, origins.get(field, ""), problem, "give both")
        return
    try:
        context_of(settings)
    except ConfigError as error:
        field = error.key.removeprefix("--tls-").replace("-", "_")
        raise ConfigError(error.key, origins.get(field, ""), error.problem) from None


class Certificates:
    """The files of now, for all listeners; lives as long as the process."""

    def __init__(self, settings: TlsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files.

        Args:
            settings: Names at least a certificate.
            clock: Seconds that only grow.

        Raises:
            ConfigError: One of the files is missing or holds something else.
        """
        self._settings = settings
        self._clock = clock
        self._seen = _signs(settings)
        self._newest = context_of(settings)
        self._look_at = clock() + _LOOK_EVERY_S
        self.context: ssl.SSLContext = _Newest(self.newest)
        """What a listener is given."""

    def newest(self) -> ssl.SSLContext:
        """What the files said when they were looked at last, which may be now."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            if _signs(self._settings) != self._seen:
                self.reread()
        return self._newest

    def reread(self) -> None:
        """Take what the files say now, if it can be used; say which."""
        self._seen = _signs(self._settings)
        try:
            self._newest = context_of(self._settings)
        except ConfigError as error:
            log.warning("tls.reload_failed", extra={"problem": str(error)})
        else:
            log.info("tls.reloaded", extra={"cert": self._settings.cert})


class _Newest(ssl.SSLContext):
    """Begins each connection with the newest context.

    Both event loops keep the context that a listener was made with, and ask nothing of it but
    `wrap_bio`, once for each connection. To load other files into the same context would leave it
    half changed where they do not fit, and would never take an authority away.
    """

    def __new__(cls, newest: Callable[[], ssl.SSLContext]) -> _Newest:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, newest: Callable[[], ssl.SSLContext]) -> None:
        self._newest = newest

    def wrap_bio(self, *args: Any, **more: Any) -> ssl.SSLObject:
        return self._newest().wrap_bio(*args, **more)


def listening_options(context: ssl.SSLContext, handshake_s: float) -> dict[str, Any]:
    """What `loop.create_server` is told besides.

    Args:
        context: `Certificates.context`.
        handshake_s: How long a client may take to say who it is.
    """
    return {
        "ssl": context,
        "ssl_handshake_timeout": handshake_s,
        "ssl_shutdown_timeout": _CLOSE_S,
    }


def context_of(settings: TlsSettings) -> ssl.SSLContext:
    """What the files ask for.

    Raises:
        ConfigError: One of them is missing or holds something else.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, settings)
    if settings.client_ca is not None:
        _load_authorities(context, settings.client_ca)
    return context


def _load_pair(context: ssl.SSLContext, settings: TlsSettings) -> None:
    cert = settings.cert or ""
    key = settings.key if settings.key is not None else cert
    flag = "--tls-key" if settings.key is not None else "--tls-cert"
    _check_readable("--tls-cert", cert)
    _check_readable(flag, key)

    def password() -> str:
        # Without this OpenSSL would ask whoever sits at the terminal.
        problem = "is encrypted: keys with a password are not supported"
        raise _unusable(flag, key, problem)

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _unusable(flag, key, "is not the key of the certificate") from None
        problem = "and its key cannot be used: no PEM, or too weak"
        raise _unusable("--tls-cert", cert, f"{problem} ({_reason(error)})") from None
    except OSError as error:  # gone since: OpenSSL opens the files again, and does not say which
        raise _unusable("--tls-cert", cert, f"or its key {_unread(error)}") from None


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    _check_readable("--tls-client-ca", file)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        problem = f"holds no certificates in PEM ({_reason(error)})"
        raise _unusable("--tls-client-ca", file, problem) from None
    except OSError as error:  # as above
        raise _unusable("--tls-client-ca", file, _unread(error)) from None
    context.verify_mode = ssl.CERT_REQUIRED
    # A ticket would let in a client whose authority is no longer among them.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _check_readable(flag: str, file: str) -> None:
    # The errors of OpenSSL do not say which file they mean.
    try:
        with open(file, "rb") as opened:
            opened.read(1)
    except OSError as error:
        raise _unusable(flag, file, _unread(error)) from None


def _unread(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def _unusable(flag: str, file: str, problem: str) -> ConfigError:
    return ConfigError(flag, "", f"{file!r} {problem}")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "no reason given").lower().replace("_", " ")


def _signs(settings: TlsSettings) -> tuple[tuple[int, int, int] | None, ...]:
    """What tells a changed file from an unchanged one."""
    found: list[tuple[int, int, int] | None] = []
    for file in (settings.cert, settings.key, settings.client_ca):
        try:
            seen = os.stat(file) if file is not None else None
        except OSError:
            seen = None
        found.append(None if seen is None else (seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return tuple(found)
