"""A client made with the Python SDK 2.x that logs in: `login_mcp2.py URL MODE`; see `consent`."""

from __future__ import annotations

import sys

import anyio
import consent
import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata


async def main(url: str, mode: str) -> None:
    """Discover, register, log in, list and call."""
    browser = consent.Browser()

    async def come_back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**browser.brought)

    login = OAuthClientProvider(
        url,
        OAuthClientMetadata(**consent.METADATA),
        consent.Kept(),
        browser.visit,
        come_back,
    )
    async with httpx2.AsyncClient(auth=login, timeout=30) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode) as client:
            tools = await client.list_tools()
            answer = await client.call_tool("echo", {"text": "logged in"})
            consent.report(browser, [tool.name for tool in tools.tools], answer.content[0].text)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
