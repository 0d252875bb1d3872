"""`mcpbridge health`: asks a running bridge how it is, for images without curl.

The standard library's client: a container runtime runs this every few seconds, and the import of
a richer one would cost more than the question.
"""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from mcpbridge.wire.address import SCHEMES, TcpAddress, address_of

TIMEOUT_S = 3.0


def ask(url: str) -> tuple[bool, str]:
    """Whether the bridge at a URL is healthy, and its answer or the reason there is none.

    `unix:PATH` and `tcp:HOST:PORT` are a shim's address: it is healthy when it takes connections.
    """
    if url.startswith(SCHEMES):
        return _connects(url)
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme != "http":
        return False, f"{url} is no http URL"
    try:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        connection.request("GET", parts.path if parts.path not in ("", "/") else "/health")
        response = connection.getresponse()
        body = response.read(65536).decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"no answer from {parts.netloc}: {error}"
    return response.status == 200, body


def _connects(text: str) -> tuple[bool, str]:
    """Whether somebody listens; says nothing, since the first byte starts a server process."""
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
