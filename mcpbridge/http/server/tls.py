"""TLS: the server's certificate, and the authorities of client certificates.

The files are checked when a client connects, at most once a second, and at SIGHUP, so that renewed
certificates need no restart. New connections use the changed files, open ones go on unchanged. A
certificate and key that do not match, as between the writing of the two files, change nothing.

Source: RFC 9325, 3.1.1 (TLS 1.2 and later), 3.4 (no resumption across a change of authorities).
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from mcpbridge.errors import ConfigError
from mcpbridge.settings import SettingsSection, setting

log = logging.getLogger("mcpbridge.http")

_GROUP = "TLS"
_LOOK_EVERY_S = 1.0
_CLOSE_S = 2.0
"""Seconds that a client has to confirm the end of TLS; most never do."""


class TlsSettings(SettingsSection, frozen=True):
    """Settings of the files for TLS on the MCP port; without a certificate it serves plain HTTP."""

    cert: str | None = setting(
        None,
        "--tls-cert",
        "Serve HTTPS with this certificate chain (PEM), TLS 1.2 or later; read again when it"
        " changes, and at SIGHUP. --admin-port stays plain HTTP.",
        group=_GROUP,
        metavar="FILE",
    )
    key: str | None = setting(
        None,
        "--tls-key",
        "Private key of --tls-cert (PEM, without a password); not needed if that file holds it"
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
    """Check the files at start.

    Args:
        settings: The settings.
        origins: Where each field's value came from, by field.

    Raises:
        ConfigError: A flag is given without --tls-cert, or a file is missing or invalid.
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
    """A TLS context of the present files, for all listeners; lives as long as the process."""

    def __init__(self, settings: TlsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files.

        Args:
            settings: The settings, with at least a certificate.
            clock: Returns monotonic seconds.

        Raises:
            ConfigError: A file is missing or invalid.
        """
        self._settings = settings
        self._clock = clock
        self._seen = _signs(settings)
        self._newest = context_of(settings)
        self._look_at = clock() + _LOOK_EVERY_S
        self.context: ssl.SSLContext = _Newest(self.newest)
        """The context for listeners; each connection gets the newest."""

    def newest(self) -> ssl.SSLContext:
        """Return the newest context; read the files again if they have changed."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            if _signs(self._settings) != self._seen:
                self.reread()
        return self._newest

    def reread(self) -> None:
        """Read the files again and log the result; go on with the old ones if it is a failure."""
        # Before the files are read: a change during the reading shows at the next look.
        self._seen = _signs(self._settings)
        try:
            self._newest = context_of(self._settings)
        except ConfigError as error:
            log.warning("tls.reload_failed", extra={"problem": str(error)})
        else:
            log.info("tls.reloaded", extra={"cert": self._settings.cert})


class _Newest(ssl.SSLContext):
    """A context that begins each connection with the newest context.

    Both event loops keep the context of a listener and call only its `wrap_bio`, once for each
    connection. Loading changed files into the same context would leave it half changed if they do
    not match, and would never remove an authority.
    """

    def __new__(cls, newest: Callable[[], ssl.SSLContext]) -> _Newest:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, newest: Callable[[], ssl.SSLContext]) -> None:
        self._newest = newest

    def wrap_bio(self, *args: Any, **more: Any) -> ssl.SSLObject:
        return self._newest().wrap_bio(*args, **more)


def listening_options(context: ssl.SSLContext, handshake_s: float) -> dict[str, Any]:
    """Return the arguments of `loop.create_server` for TLS.

    Args:
        context: `Certificates.context`.
        handshake_s: Seconds that a TLS handshake may take.
    """
    return {
        "ssl": context,
        "ssl_handshake_timeout": handshake_s,
        "ssl_shutdown_timeout": _CLOSE_S,
    }


def context_of(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context of the files.

    Raises:
        ConfigError: A file is missing or invalid.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make the bridge compute without an end (CVE-2011-1473).
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
        # Without this OpenSSL would ask for the password on the terminal.
        problem = "is encrypted: keys with a password are not supported"
        raise _unusable(flag, key, problem)

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _unusable(flag, key, "is not the key of the certificate") from None
        problem = "and its key cannot be used: not PEM, or too weak"
        raise _unusable("--tls-cert", cert, f"{problem} ({_reason(error)})") from None
    except OSError as error:  # removed in between: OpenSSL opens both again, does not say which
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
    # With a ticket a client could resume whose authority has been removed.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _check_readable(flag: str, file: str) -> None:
    # Errors of OpenSSL do not say which file they concern.
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
    """Return inode, size and time of each file, None if it cannot be read: they show a change."""
    found: list[tuple[int, int, int] | None] = []
    for file in (settings.cert, settings.key, settings.client_ca):
        try:
            seen = os.stat(file) if file is not None else None
        except OSError:
            seen = None
        found.append(None if seen is None else (seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return tuple(found)
