"""`mcpbridge health`: asks a running bridge for its health, for images without curl.

It uses the standard library's client: a container runtime runs this every few seconds, and
importing a richer one would cost more than the request.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from mcpbridge.wire.socket_address import SCHEMES, TcpAddress, UnixAddress, address_of

TIMEOUT_S = 3.0

_HTTP_UNIX = "http+unix:"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Proof(NamedTuple):
    """Files for TLS: trusted authorities, and a client certificate."""

    ca: str | None = None
    """Trusted authorities; by default the system's, and on loopback any certificate."""
    cert: str | None = None
    key: str | None = None
    """Key of `cert`; may be in the same file."""


_NOTHING = Proof()


def ask(url: str, proof: Proof = _NOTHING, path: str = "/health") -> tuple[bool, str]:
    """Return whether the bridge at a URL is healthy, and its answer or the problem.

    `http+unix:PATH` is a bridge on a unix socket. `unix:PATH` and `tcp:HOST:PORT` may be a shim's,
    which is healthy if it accepts connections. `path` applies to a URL without one.
    """
    if url.startswith(SCHEMES):
        return _connects(url)
    if url.startswith(_HTTP_UNIX):
        return _answer(_OverUnix(url.removeprefix(_HTTP_UNIX)), path, url)
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https"):
        return False, f"{url} is not an http URL"
    try:
        connection = _connection(parts, host, port, proof)
    except OSError as error:
        return False, f"--ca, --cert or --key cannot be used: {error}"
    return _answer(connection, parts.path if parts.path not in ("", "/") else path, parts.netloc)


def _connection(
    parts: SplitResult, host: str, port: int | None, proof: Proof
) -> http.client.HTTPConnection:
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    context = _tls(host, proof)
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


def _tls(host: str, proof: Proof) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=proof.ca)
    if proof.ca is None and host in _LOOPBACK:
        # The certificate has the bridge's public name. No other machine is between this one and
        # itself, and nothing secret is sent.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if proof.cert is not None:
        context.load_cert_chain(proof.cert, proof.key)
    return context


def _answer(connection: http.client.HTTPConnection, path: str, shown: str) -> tuple[bool, str]:
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(65536).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"no answer from {shown}: {error}"
    return response.status == 200, body


class _OverUnix(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = UnixAddress(path).raw

    def connect(self) -> None:
        """Connect to the socket; overrides the base class."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _connects(text: str) -> tuple[bool, str]:
    """Return whether the address accepts connections; send nothing, which would start a server."""
    try:
        address = address_of(text)
    except ValueError as error:
        return False, f"{text} {error}"
    try:
        if isinstance(address, TcpAddress):
            socket.create_connection((address.host, address.port), TIMEOUT_S).close()
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connecting:
                connecting.settimeout(TIMEOUT_S)
                connecting.connect(address.raw)
    except (OSError, UnicodeError) as error:
        return False, f"no answer from {address}: {error}"
    return True, f"{address} listens"
