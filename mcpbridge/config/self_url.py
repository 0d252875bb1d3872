"""Finds the URL of the bridge that this environment configures, for programs on this machine.

It imports no other module of the bridge, since `mcpbridge health` runs every few seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress

DEFAULT_PORT = 8000

_EVERYWHERE = "0.0.0.0"  # nosec B104 # compared with settings; nothing is bound here
_WILDCARDS = {"": "127.0.0.1", _EVERYWHERE: "127.0.0.1", "::": "::1"}
_ADDRESS = r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]{1,5})\Z"
_SOCKET = r"unix:([^\0]+?)(?:,mode=([^,]*))?\Z"
_MODE = r"0?[0-7]{3}\Z"
_OWNER_ONLY = "0600"
_SERVICE_LINK = r"(?:tcp|udp|sctp)://"


def split_address(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT`, `:PORT` or `[IPV6]:PORT`; no host means all IPv4 addresses.

    Raises:
        ValueError: Another form; the text completes a sentence that begins with the value.
    """
    match = re.match(_ADDRESS, text.strip())
    if match is None:
        raise ValueError("is not of the form HOST:PORT or [IPV6]:PORT")
    return (match[1] if match[1] is not None else match[2]) or _EVERYWHERE, int(match[3])


def split_socket(text: str) -> tuple[str, int] | None:
    """Parse `unix:PATH` or `unix:PATH,mode=0660`; None for another kind of address.

    Without a mode only root and the bridge's own user may connect: the file's permissions take the
    place of authentication.

    Raises:
        ValueError: An invalid socket; the text completes a sentence that begins with the value.
    """
    if not text.startswith("unix:"):
        return None
    match = re.match(_SOCKET, text)
    if match is None or match[1] == "@":
        raise ValueError("names no socket; write unix:PATH or unix:PATH,mode=0660")
    mode = match[2] if match[2] is not None else _OWNER_ONLY
    if re.match(_MODE, mode) is None:
        raise ValueError("has invalid permissions after mode=; write octal digits such as 0660")
    return match[1], int(mode, 8)


def is_service_link(text: str) -> bool:
    """Return whether a value was set by Kubernetes and not by an operator.

    For a Service named `mcpbridge` every container of the namespace gets
    `MCPBRIDGE_PORT=tcp://10.0.0.1:8000`.

    Source: Kubernetes, Connecting Applications with Services, Environment Variables.
    """
    return re.match(_SERVICE_LINK, text) is not None


def own_url(env: Mapping[str, str] | None = None) -> str:
    """Return the URL of the bridge started with this environment, without a path.

    `http+unix:PATH` if it listens on a unix socket. If clients must show a certificate, the URL of
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
    with suppress(ValueError):  # Absent; with an invalid one the bridge does not start.
        host, port = split_address(env.get("MCPBRIDGE_LISTEN", ""))
    host = _WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
