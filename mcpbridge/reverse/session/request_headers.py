"""The routing headers of 2026-07-28, which repeat what the body of a request says.

Source: MCP 2026-07-28, Transports, Streamable HTTP, Request Headers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.modern_checks import NAME_SOURCE, Annotations, is_modern
from mcpbridge.rules.mcp.request_meta import claimed_version
from mcpbridge.wire.json_object import member
from mcpbridge.wire.messages import Message, Notification, Request, text_of


def speaks_modern(message: Message) -> bool:
    """Return whether a message of the client carries the envelope of 2026-07-28."""
    claim = claimed_version(message)
    return claim is not None and is_modern(message, claim, None)


def routing_headers(message: Request | Notification, annotations: Annotations) -> Mapping[str, str]:
    """Return the routing headers of a message with an envelope.

    Args:
        message: A message that `speaks_modern`.
        annotations: The arguments that each tool wants in headers.
    """
    headers = {"mcp-method": header_value(message.method)}
    version = text_of(claimed_version(message))
    if version is not None:
        headers["mcp-protocol-version"] = header_value(version)
    source = NAME_SOURCE.get(message.method)
    params = message.params or b"{}"
    try:
        name = text_of(member(params, source)) if source is not None else None
        if name is not None:
            headers["mcp-name"] = header_value(name)
        if message.method == "tools/call":
            for path, header in annotations.get(name or "", {}).items():
                raw = member(params, "arguments", *path)
                if raw is not None and raw != b"null":
                    text = text_of(raw)
                    value = raw.decode() if text is None else text
                    headers[f"mcp-param-{header}"] = header_value(value)
    except WireError:
        # The server says what is wrong with such a message.
        return headers
    return headers


def header_value(text: str) -> str:
    """Return a text as a header value, encoded if a header cannot hold it as it is."""
    plain = text.isascii() and text.isprintable() and text == text.strip()
    if plain and not text.startswith("=?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="
