"""A client made with the Python SDK 1.x that logs in: `login_mcp1.py URL`; see `consent`."""

from __future__ import annotations

import sys

import anyio
import consent
import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata


async def main(url: str) -> None:
    """Discover, register, log in, list and call."""
    browser = consent.Browser()

    async def come_back() -> tuple[str, str | None]:
        return browser.brought["code"], browser.brought.get("state")

    login = OAuthClientProvider(
        url,
        OAuthClientMetadata(**consent.METADATA),
        consent.Kept(),
        browser.visit,
        come_back,
    )
    async with (
        httpx.AsyncClient(auth=login, timeout=30) as client,
        streamable_http_client(url, http_client=client) as (received, sent, *_),
        ClientSession(received, sent) as session,
    ):
        await session.initialize()
        tools = await session.list_tools()
        answer = await session.call_tool("echo", {"text": "logged in"})
        consent.report(browser, [tool.name for tool in tools.tools], answer.content[0].text)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
