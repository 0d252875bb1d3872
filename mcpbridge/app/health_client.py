"""`mcpbridge health`: asks a running bridge for its health, for images without curl.

A container runtime runs this every half minute, so it imports `socket` alone; TLS and the addresses
of sockets are imported when they are asked for. Requests are of HTTP/1.0: the end of the answer is
the end of the connection, and an answer in chunks is not allowed.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import NamedTuple

from mcpbridge.config.self_url import own_url

TIMEOUT_S = 3.0
_MAX_ANSWER_BYTES = 128 << 10

_SOCKETS = ("unix:", "tcp:")
_HTTP_UNIX = "http+unix:"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[^\[\]/]+\]|[^\[\]:/?#@\s]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#\s]*)?\Z",
    re.IGNORECASE,
)
_ANSWER = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n")


class Proof(NamedTuple):
    """Files for TLS: trusted authorities, and a client certificate."""

    ca: str | None = None
    """Trusted authorities; by default the system's, and on loopback any certificate."""
    cert: str | None = None
    key: str | None = None
    """Key of `cert`; may be in the same file."""


_NOTHING = Proof()
Connect = Callable[[], socket.socket]


def ask_for(words: str | None, proof: Proof = _NOTHING) -> tuple[bool, str]:
    """Ask what the argument of `mcpbridge health` names; returns as `ask` does.

    Args:
        words: A URL; a path of this machine's bridge; None: its `/health`.
        proof: Files for TLS.
    """
    if words is not None and not words.startswith("/"):
        return ask(words, proof)
    return ask(own_url(), proof, words or "/health")


def ask(url: str, proof: Proof = _NOTHING, path: str = "/health") -> tuple[bool, str]:
    """Return whether the bridge at a URL is healthy, and its answer or the problem.

    `http+unix:PATH` is a bridge on a unix socket. `unix:PATH` and `tcp:HOST:PORT` may be a shim's,
    which is healthy if it accepts connections. `path` applies to a URL without one.
    """
    if url.startswith(_SOCKETS):
        return _listens(url)
    if url.startswith(_HTTP_UNIX):
        file = url.removeprefix(_HTTP_UNIX)
        return _answer(lambda: _to_unix(file), "localhost", path, url)
    found = _URL.match(url)
    if found is None or int(found["port"] or 0) > 0xFFFF:
        return False, f"{url} is not an http URL"
    scheme = (found["scheme"] or "http").lower()
    host = found["host"].strip("[]")
    port = int(found["port"] or _PORTS[scheme])
    connect: Connect = lambda: socket.create_connection((host, port), TIMEOUT_S)  # noqa: E731
    if scheme == "https":
        try:
            connect = _with_tls(connect, host, proof)
        except OSError as error:
            return False, f"--ca, --cert or --key cannot be used: {error}"
    own_path = found["path"] if found["path"] not in (None, "/") else path
    shown = found["host"] + (f":{found['port']}" if found["port"] else "")
    return _answer(connect, shown, own_path, shown)


def _with_tls(connect: Connect, host: str, proof: Proof) -> Connect:
    """Return what connects with TLS.

    Raises:
        OSError: A file cannot be read, or holds no key or certificate that fits.
    """
    import ssl  # 8 ms that only https needs

    context = ssl.create_default_context(cafile=proof.ca)
    if proof.ca is None and host in _LOOPBACK:
        # The certificate has the bridge's public name. No other machine is between this one and
        # itself, and nothing secret is sent.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if proof.cert is not None:
        context.load_cert_chain(proof.cert, proof.key)
    return lambda: context.wrap_socket(connect(), server_hostname=host)


def _to_unix(path: str) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connecting.settimeout(TIMEOUT_S)
    try:
        # A name that begins with @ is in Linux's abstract namespace.
        connecting.connect("\0" + path[1:] if path.startswith("@") else os.fsencode(path))
    except BaseException:
        connecting.close()
        raise
    return connecting


def _answer(connect: Connect, host: str, path: str, shown: str) -> tuple[bool, str]:
    lines = (f"GET {path} HTTP/1.0", f"Host: {host}", "Accept: application/json", "", "")
    try:
        with connect() as connection:
            connection.sendall("\r\n".join(lines).encode())
            answer = b""
            while (piece := connection.recv(1 << 16)) and len(answer) < _MAX_ANSWER_BYTES:
                answer += piece
    except (OSError, UnicodeError) as error:
        return False, f"no answer from {shown}: {error}"
    head = _ANSWER.match(answer)
    if head is None:
        return False, f"no answer from {shown}: it is not HTTP"
    return head[1] == b"200", answer[head.end() :].decode("utf-8", "replace")


def _listens(text: str) -> tuple[bool, str]:
    """Return whether the address accepts connections; send nothing, which would start a server."""
    from mcpbridge.wire.socket_address import TcpAddress, address_of  # 20 ms that others save

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
