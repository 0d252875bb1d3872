"""How a program on the same machine reaches the bridge that this environment configures.

It imports nothing of the bridge: `mcpbridge health` runs every few seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress

DEFAULT_PORT = 8000

_EVERYWHERE = "0.0.0.0"  # nosec B104 # what an operator may have written; nothing is bound here
_WILDCARDS = {"": "127.0.0.1", _EVERYWHERE: "127.0.0.1", "::": "::1"}
_ADDRESS = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]{1,5})\Z")
_SOCKET = re.compile(r"unix:([^\0]+?)(?:,mode=([^,]*))?\Z")
_MODE = re.compile(r"0?[0-7]{3}\Z")
_OWNER_ONLY = "0600"
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `:PORT` or `[IPV6]:PORT` as host and port; no host means all of IPv4.

    Raises:
        ValueError: It is none of these; the text completes a sentence that begins with the value.
    """
    match = _ADDRESS.match(text.strip())
    if match is None:
        raise ValueError("is not of the form HOST:PORT or [IPV6]:PORT")
    return (match[1] if match[1] is not None else match[2]) or _EVERYWHERE, int(match[3])


def split_socket(text: str) -> tuple[str, int] | None:
    """`unix:PATH` or `unix:PATH,mode=0660` as path and permissions; None for another address.

    Without a mode only the user that the bridge runs as may connect, and root: the file takes the
    place of a lock on the door.

    Raises:
        ValueError: It is none; the text completes a sentence that begins with the value.
    """
    if not text.startswith("unix:"):
        return None
    match = _SOCKET.match(text)
    if match is None or match[1] == "@":
        raise ValueError("names no socket; write unix:PATH or unix:PATH,mode=0660")
    mode = match[2] if match[2] is not None else _OWNER_ONLY
    if _MODE.match(mode) is None:
        raise ValueError("has no permissions after mode=; write octal digits such as 0660")
    return match[1], int(mode, 8)


def is_service_link(text: str) -> bool:
    """Whether a value comes from Kubernetes and not from a person.

    Beside a Service named `mcpbridge` every container of the namespace is given
    `MCPBRIDGE_PORT=tcp://10.0.0.1:8000`, whoever asked for it.

    Source: Kubernetes, Connecting Applications with Services, Environment Variables.
    """
    return _SERVICE_LINK.match(text) is not None


def own_url(env: Mapping[str, str] | None = None) -> str:
    """The address of the bridge that was started with the same environment, without a path.

    `http+unix:PATH` for one that listens on a unix socket. Where clients must show a certificate,
    its admin port, if it has one.
    """
    env = os.environ if env is None else env
    scheme = "https" if env.get("MCPBRIDGE_TLS_CERT") else "http"
    admin = env.get("MCPBRIDGE_ADMIN_PORT", "")
    if env.get("MCPBRIDGE_TLS_CLIENT_CA") and admin.isdecimal():
        host = _WILDCARDS.get(env.get("MCPBRIDGE_ADMIN_HOST", ""), env.get("MCPBRIDGE_ADMIN_HOST"))
        return f"http://[{host}]:{admin}" if ":" in (host or "") else f"http://{host}:{admin}"
    with suppress(ValueError):
        if (found := split_socket(env.get("MCPBRIDGE_LISTEN", ""))) is not None:
            return f"http+unix:{found[0]}"
    ports = (env.get("MCPBRIDGE_PORT", ""), env.get("PORT", ""))
    port = next((int(text) for text in ports if text.isdecimal()), DEFAULT_PORT)
    host = env.get("MCPBRIDGE_HOST", "")
    with suppress(ValueError):  # Absent; a wrong one has kept the bridge from starting.
        host, port = split_address(env.get("MCPBRIDGE_LISTEN", ""))
    host = _WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
