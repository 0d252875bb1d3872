"""Requests of OAuth: JSON in bounded size and time, without redirects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import httpx

from mcpbridge import __version__
from mcpbridge.client.http_client import cause_of
from mcpbridge.errors import BridgeError

_WITHIN_S = 15.0
_MOST_BYTES = 256 << 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class LoginFailed(BridgeError):
    """A login that cannot be done; the text says why and contains no secret."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


def oauth_client() -> httpx.AsyncClient:
    """Return an HTTP client for servers of OAuth."""
    headers = {"user-agent": f"mcpbridge/{__version__}", "accept": "application/json"}
    return httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(_WITHIN_S))


def safe_url(text: object, what: str) -> httpx.URL:
    """Return a URL that secrets may be sent to: https, or http on this machine.

    Raises:
        LoginFailed: Another one; `what` names it.
    """
    try:
        url = httpx.URL(text if isinstance(text, str) else "")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.host and url.scheme == "https":
        return url
    if url.scheme == "http" and url.host in _LOOPBACK:
        return url
    raise LoginFailed(f"{what} is not an https URL: {str(text)[:200]!r}")


async def ask_json(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL,
    form: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Send a request; return the status and the object in the response, which may be empty.

    Raises:
        LoginFailed: No response in time, or one that is too large.
    """
    place = f"{url.host}{url.path}"
    try:
        with anyio.fail_after(_WITHIN_S):
            async with client.stream(method, url, data=form, json=body) as response:
                text = b""
                async for chunk in response.aiter_bytes():
                    text += chunk
                    if len(text) > _MOST_BYTES:
                        raise LoginFailed(f"{place} answers more than {_MOST_BYTES} bytes")
    except TimeoutError:
        raise LoginFailed(f"{place} does not answer within {_WITHIN_S:g} s") from None
    except httpx.HTTPError as error:
        raise LoginFailed(f"{place} cannot be asked: {cause_of(error)}") from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = {}
    return response.status_code, found if isinstance(found, dict) else {}
