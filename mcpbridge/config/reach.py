"""How a program on the same machine reaches the bridge that this environment configures.

It imports nothing of the bridge: `mcpbridge health` runs every few seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress

DEFAULT_PORT = 8000

_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_ADDRESS = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]{1,5})\Z")
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `:PORT` or `[IPV6]:PORT` as host and port; no host means all of IPv4.

    Raises:
        ValueError: It is none of these; the text completes a sentence that begins with the value.
    """
    match = _ADDRESS.match(text.strip())
    if match is None:
        raise ValueError("is not of the form HOST:PORT or [IPV6]:PORT")
    return (match[1] if match[1] is not None else match[2]) or "0.0.0.0", int(match[3])


def is_service_link(text: str) -> bool:
    """Whether a value comes from Kubernetes and not from a person.

    Beside a Service named `mcpbridge` every container of the namespace is given
    `MCPBRIDGE_PORT=tcp://10.0.0.1:8000`, whoever asked for it.

    Source: Kubernetes, Connecting Applications with Services, Environment Variables.
    """
    return _SERVICE_LINK.match(text) is not None


def own_url(env: Mapping[str, str] | None = None) -> str:
    """The address of the bridge that was started with the same environment, without a path."""
    env = os.environ if env is None else env
    ports = (env.get("MCPBRIDGE_PORT", ""), env.get("PORT", ""))
    port = next((int(text) for text in ports if text.isdecimal()), DEFAULT_PORT)
    host = env.get("MCPBRIDGE_HOST", "")
    with suppress(ValueError):  # Absent; a wrong one has kept the bridge from starting.
        host, port = split_address(env.get("MCPBRIDGE_LISTEN", ""))
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
