"""A client made with FastMCP: `client_fastmcp.py http|sse URL` prints its tools' names as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from fastmcp import Client
from fastmcp.client.transports import SSETransport, StreamableHttpTransport

TRANSPORTS = {"http": StreamableHttpTransport, "sse": SSETransport}


async def main(kind: str, url: str) -> None:
    async with Client(TRANSPORTS[kind](url)) as client:
        print(json.dumps([tool.name for tool in await client.list_tools()]))


asyncio.run(main(*sys.argv[1:]))
