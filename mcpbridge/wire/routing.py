"""The values of the routing headers of 2026-07-28: `Mcp-Name` and `Mcp-Param-*`.

Source: MCP 2026-07-28, Transports, Streamable HTTP, Request Headers: plain visible ASCII, or
base64 of UTF-8 between the markers `=?base64?` and `?=`.
"""

from __future__ import annotations

import base64
import binascii
import re

_PLAIN = re.compile(r"[\x20-\x7e\t]*\Z")
_MARKED = re.compile(r"=\?base64\?(?P<text>[A-Za-z0-9+/=]*)\?=\Z")
MAX_VALUE_BYTES = 8192


def decoded_value(raw: str) -> str | None:
    """The text that a header value stands for; None where it stands for none."""
    value = raw.strip(" \t")
    if value.isascii() and value.isprintable() and not value.startswith("=?"):
        return value if len(value) <= MAX_VALUE_BYTES else None
    if len(value) > MAX_VALUE_BYTES or _PLAIN.match(value) is None:
        return None
    marked = _MARKED.match(value)
    if marked is None:
        # What has both markers and is not well formed must not pass as plain text.
        return None if value.startswith("=?base64?") and value.endswith("?=") else value
    try:
        text = base64.b64decode(marked["text"], validate=True)
        canonical = base64.b64encode(text).decode() == marked["text"]
        return text.decode("utf-8") if canonical else None
    except (binascii.Error, UnicodeDecodeError):
        return None
