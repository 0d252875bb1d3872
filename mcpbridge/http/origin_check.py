"""The checks before all others: Host, Origin, and the size of a body.

They start no child, and take no memory in proportion to what a client announces.
"""

from __future__ import annotations

from mcpbridge.http.request import HttpRequest, RequestHead
from mcpbridge.rules.access.hosts import (
    HostRules,
    fetch_allowed,
    host_allowed,
    host_name,
    host_pattern,
    origin_allowed,
    origin_pattern,
    shown,
)
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Reason, Refusal, refuse
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.wire.buffer import Gathered


class OriginSettings(SettingsSection, frozen=True):
    """Settings of which hosts and origins are served, and how large a body may be."""

    allowed_hosts: tuple[str, ...] = setting(
        (),
        "--allowed-host",
        "A further Host name to serve (`mcp.example.org`, `*.example.org`); may be repeated.",
        group="Listening",
        metavar="HOST",
        repeatable=True,
        parse=host_pattern,
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "--allow-origin",
        "A further Origin to serve (`https://app.example.org`), whose pages may read the answers"
        " (CORS); may be repeated. `*` stands for all.",
        group="Listening",
        metavar="ORIGIN",
        repeatable=True,
        parse=origin_pattern,
    )
    max_request_bytes: int = setting(
        4 << 20,
        "--max-request-bytes",
        "Largest body of a request; a larger one is refused before it is read completely.",
        group="Limits",
        unit=Unit.BYTES,
        minimum=1 << 10,
    )


class ClientGone(Exception):
    """The client disconnected before it had sent its request."""


def check_source(head: RequestHead, rules: HostRules) -> Refusal | None:
    """Apply the rules on Host and Origin, the same for each path and method; None: it may pass."""
    host = head.get(b"host")
    if host is not None and not host_allowed(host, rules):
        # What is not a host is not repeated: a reader of the answer could take it for one.
        named = f"Host {shown(host)!r}" if host_name(host) is not None else "Host"
        problem = f"{named} is not served here (--allowed-host)"
        return refuse(421, INVALID_REQUEST, problem, reason=Reason.HOST)
    origin = head.get(b"origin")
    # The specification demands 403; the text avoids the number, since some clients take it anywhere
    # in a body for a request to log in.
    if origin is not None:
        if not origin_allowed(origin, rules):
            problem = "Origin is not allowed (--allow-origin)"
            return refuse(403, INVALID_REQUEST, problem, reason=Reason.ORIGIN)
    elif not fetch_allowed(head.get(b"sec-fetch-site"), head.get(b"sec-fetch-dest")):
        problem = "another site may not embed this server's responses"
        return refuse(403, INVALID_REQUEST, problem, reason=Reason.CROSS_SITE)
    return None


async def read_body(http_request: HttpRequest, limit: int) -> bytes | Refusal:
    """Read the whole body; return it, or the refusal of one over the limit.

    Raises:
        ClientGone: The connection ended before the body did.
    """
    announced = http_request.head.get(b"content-length")
    if announced is not None and announced.isdecimal() and int(announced) > limit:
        return _too_large(limit)
    message = await http_request.receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise ClientGone
        return body if len(body) <= limit else _too_large(limit)
    gathered = Gathered()
    gathered.add(body)
    while message.get("more_body", False):
        if gathered.size > limit:
            return _too_large(limit)
        message = await http_request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        gathered.add(message.get("body", b""))
    return gathered.take() if gathered.size <= limit else _too_large(limit)


def _too_large(limit: int) -> Refusal:
    return refuse(413, INVALID_REQUEST, f"the body exceeds --max-request-bytes {limit}")
