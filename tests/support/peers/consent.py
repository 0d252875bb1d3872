"""What the clients that log in have in common: a person at a browser, and what is kept."""

from __future__ import annotations

import http.client
import json
from urllib.parse import parse_qs, urlsplit

CALLBACK = "http://127.0.0.1:3030/callback"
METADATA = {
    "client_name": "peer",
    "redirect_uris": [CALLBACK],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
}


class Browser:
    """Goes where it is sent to and agrees; the address that it is sent back to has no listener."""

    def __init__(self) -> None:
        self.visited: list[dict[str, str]] = []
        """What each authorization asked for."""
        self.brought: dict[str, str] = {}
        """What the last redirect brings back: `code`, `state`."""

    async def visit(self, url: str) -> None:
        """Follow the client to its authorization server."""
        parts = urlsplit(url)
        self.visited.append(_single(parts.query))
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        location = answer.headers.get("location", "")
        assert location.startswith(CALLBACK), (answer.status, answer.read())
        self.brought = _single(urlsplit(location).query)

    def asked(self) -> list[dict[str, str]]:
        """Of each visit: scope and resource, and how the code is protected."""
        names = ("scope", "resource", "code_challenge_method")
        return [{name: each.get(name, "") for name in names} for each in self.visited]


class Kept:
    """A store of tokens that begins empty."""

    def __init__(self) -> None:
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


def report(browser: Browser, tools: list[str], text: str) -> None:
    """The one line that a client prints."""
    print(json.dumps({"asked": browser.asked(), "tools": tools, "text": text}), flush=True)


def _single(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
