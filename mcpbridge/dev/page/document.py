"""`GET /ui`: the page itself, one file without secrets, which asks for the frames with its token.

Its policy admits its own script and style by their hashes and requests to its own origin, so that
nothing a server or a client says can become a script. Text is set as text alone; the policy on
trusted types makes the browser hold that.

Source: W3C, Content Security Policy Level 3; Trusted Types, 4.3.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.types import Receive, Scope, Send

from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import refusing
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.mcp.admission import refuse

_FILE = Path(__file__).with_name("page.html")


class Document:
    """An ASGI application that answers with the page."""

    def __init__(self) -> None:
        """Read the page."""
        self._text = _FILE.read_bytes()
        self._headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % len(self._text)),
            (b"content-security-policy", policy_of(self._text).encode()),
            (b"cache-control", b"no-store"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        http_request = HttpRequest.of(scope, receive, send)
        if http_request.head.method not in ("GET", "HEAD"):
            refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow="GET, HEAD")
            await refusing(refusal).finish(http_request)
            return
        body = self._text if http_request.head.method == "GET" else b""
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": body})


def policy_of(text: bytes) -> str:
    """Return the Content-Security-Policy of a page with inline scripts and styles."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(text, b'script')}",
            f"style-src {_hashes(text, b'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hashes(text: bytes, tag: bytes) -> str:
    found = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(each).digest()).decode() for each in found)
    return " ".join(f"'sha256-{each}'" for each in digests)
